"""How the backward pass runs when memory is short: what is computed again, what runs in rows or in chunks of channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from mcugrad.costs import Costs
from mcugrad.ir import Graph, Node, Op, TensorType, Value
from mcugrad.memory.forward import Mode, narrow_places
from mcugrad.memory.live import Lives
from mcugrad.memory.schedule import Step, node_rows
from mcugrad.ops.backprop import Chain
from mcugrad.ops.update import Update
from mcugrad.passes.chunk import bottleneck, chunk_widths
from mcugrad.passes.recompute import Rerun, cuttable, read_outside, rerun, taken_names

ROWS = (8, 4, 2, 1)
JOINED = 3  # most blocks whose inner values are not kept either
WEIGHTY = 0.04  # of the cap that these values must take for that to be tried


@dataclass(frozen=True)
class Way:
    """One way to run blocks [first, last) of the backward pass, nodes [start, stop).

    own: most bytes alive meanwhile, without what the forward pass left for the blocks that follow (earlier layers).
    saved: bytes that it leaves for these blocks.  instructions: beyond those of the plain way.
    """

    first: int
    last: int
    start: int
    stop: int
    mode: Mode
    reruns: tuple[Rerun, ...]
    own: int
    saved: int
    instructions: int

    @property
    def rows(self) -> int | None:
        """Rows per round."""
        return next((r.rows for r in self.reruns), None)

    @property
    def channels(self) -> int | None:
        """Expanded channels per chunk."""
        return next((r.channels for r in self.reruns), None)


@dataclass(frozen=True)
class Ways:
    """A way for every block; saved, instructions: sums over them."""

    saved: int
    instructions: int
    chosen: tuple[Way, ...]

    @property
    def reruns(self) -> tuple[Rerun, ...]:
        return tuple(r for way in self.chosen for r in way.reruns)


class Backward:
    """The blocks of a training graph's backward pass, cut where little of it is alive, and the ways to run them."""

    def __init__(self, graph: Graph, input_rows: bool, costs: Costs) -> None:
        """input_rows: the input is pulled for the forward pass, and not there for the backward pass.  costs: of the core."""
        self.graph, self.lives, self.costs = graph, Lives(graph), costs
        self.made = {v: i for i, n in enumerate(graph.nodes) if n.op.phase == "forward" for v in n.outputs}
        self.narrow = {v for values in narrow_places(graph).values() for v in values}
        if input_rows:
            self.narrow |= {v for n in graph.nodes if graph.inputs[0] in n.inputs for v in n.outputs}
        self.known: dict[tuple[Op, tuple[TensorType, ...]], int] = {}
        self.edges = self._edges()
        self.rows: dict[tuple[int, int], tuple[list[Way], Iterator[Way]]] = {}

    def ways(self, cap: int) -> list[Ways]:
        """The ways under a cap of live bytes that are not beaten in both saved bytes and instructions, fewest first.

        Rows are tried where whole nodes do not fit, joined blocks where nothing else does."""
        if not self.edges:
            return []
        options = [list(ways) for ways in self.whole]
        behind = plain = 0
        for block in reversed(range(len(options))):
            layerwise = options[block][0]
            if layerwise.own + plain > cap:
                options[block] += self.chunks[block]
            if min(w.own for w in options[block]) + behind > cap:
                options[block] += self._rows_under(block, block + 1, cap - behind)
            behind, plain = behind + min(w.saved for w in options[block]), plain + layerwise.saved
        return self._best(options, cap) or self._best(self._joined(options, cap), cap)

    def _best(self, options: Sequence[Sequence[Way]], cap: int) -> list[Ways]:
        """Dynamic programming from the last block, the network's earliest layers, whose saved bytes all others carry."""
        best: dict[int, list[Ways]] = {len(options): [Ways(0, 0, ())]}
        for first in reversed(range(len(options))):
            found: list[Ways] = []
            for way in options[first]:
                for rest in best[way.last]:
                    if way.own + rest.saved <= cap:
                        total = rest.instructions + way.instructions
                        found.append(Ways(rest.saved + way.saved, total, (way, *rest.chosen)))
            best[first] = _undominated(found)
        return sorted(best[0], key=lambda w: w.instructions)

    @cached_property
    def floor(self) -> int:
        """The lowest cap that some way meets, to one part in a hundred."""
        low, high = 0, max((w.own for ways in self.whole for w in ways), default=0) + sum(self.lives.size.values())
        while high - low > high // 100:
            middle = (low + high) // 2
            low, high = (low, middle) if self.ways(middle) else (middle, high)
        return high

    @cached_property
    def whole(self) -> list[list[Way]]:
        """Per block, the ways that run every node whole."""
        return [list(self._whole_ways(i)) for i in range(len(self.edges) - 1)]

    def _joined(self, options: Sequence[Sequence[Way]], cap: int) -> list[list[Way]]:
        """The options and those of neighbours together, where the values between them that are not kept weigh something."""
        found = [list(ways) for ways in options]
        for first in range(len(options)):
            for last in range(first + 2, min(first + JOINED, len(options)) + 1):
                nodes = self.graph.nodes[self.edges[first] : self.edges[last]]
                dropped = sum(self.lives.size[v] for v in self._inside(self._forward_reads(nodes)))
                if WEIGHTY * cap <= dropped and _sums(nodes) < cap // 2:
                    found[first] += self._rows_under(first, last, cap)
        return found

    def _rows_under(self, first: int, last: int, cap: int) -> list[Way]:
        """The ways in rows, the fewest rounds first, up to the first that fits the cap."""
        if (first, last) not in self.rows:
            self.rows[first, last] = [], self._row_ways(first, last)
        known, more = self.rows[first, last]
        while not any(w.own <= cap for w in known) and (way := next(more, None)) is not None:
            known.append(way)
        return known

    def _edges(self) -> list[int]:
        """Nodes at which a block of the backward pass begins: chains before which no more of it is alive than beside, and
        those after a chain that cannot run in rows."""
        chains = [i for i, n in enumerate(self.graph.nodes) if isinstance(n.op, Chain)]
        alive = [self._gradients(i, i) for i in chains]
        inner = [
            c
            for i, c in enumerate(chains)
            if i == 0
            or not cuttable(self.graph.nodes[chains[i - 1]])
            or (i + 1 < len(chains) and alive[i] <= min(alive[i - 1], alive[i + 1]))
        ]
        last = max((i for i, n in enumerate(self.graph.nodes) if isinstance(n.op, Chain | Update)), default=0)
        return [*inner, last + 1] if chains else []

    def _gradients(self, start: int, stop: int, touched: Iterable[Value] = ()) -> int:
        """Bytes across nodes [start, stop) that neither the forward pass nor the caller wrote."""
        across = self.lives.across(start, stop)
        return sum(self.lives.size[v] for v in across if v not in self.made and v not in self.graph.inputs and v not in touched)

    def _whole_ways(self, block: int) -> Iterator[Way]:
        """Nothing computed again, or everything but narrow values, masks of these kept or not."""
        start, stop = self.edges[block], self.edges[block + 1]
        reads = self._forward_reads(self.graph.nodes[start:stop])
        yield self._way(block, block + 1, Mode.LAYERWISE, ())
        for again in dict.fromkeys(self._again(reads, masks) for masks in (False, True)):
            if again:
                yield self._way(block, block + 1, Mode.RECOMPUTE, (Rerun(start, stop, again),))

    @cached_property
    def chunks(self) -> list[list[Way]]:
        """Per block, the ways that run its inverted bottleneck in chunks of channels."""
        return [list(self._chunk_ways(i)) for i in range(len(self.edges) - 1)]

    def _chunk_ways(self, block: int) -> Iterator[Way]:
        """Few chunks first."""
        start, stop = self.edges[block], self.edges[block + 1]
        found = bottleneck(self.graph.nodes[start:stop], read_outside(self.graph, start, stop))
        for width in () if found is None else chunk_widths(found.channels):
            yield self._way(block, block + 1, Mode.CHANNELS, (Rerun(start, stop, frozenset(), channels=width),))

    def _row_ways(self, first: int, last: int) -> Iterator[Way]:
        """In rounds of rows, many rows first."""
        start, stop = self.edges[first], self.edges[last]
        nodes = self.graph.nodes[start:stop]
        reads = self._forward_reads(nodes)
        dropped = frozenset() if last == first + 1 else self._inside(reads)
        if not all(map(cuttable, nodes)):
            return
        height = max(n.op.cut_rows(n) for n in nodes if isinstance(n.op, Chain))
        variants = dict.fromkeys(self._again(reads, masks, dropped) for masks in (False, True))
        for rows in (r for r in ROWS if 2 * r <= height):
            for again in variants:
                if all(cuttable(self.graph.nodes[self.made[v]]) for v in again):
                    yield self._way(first, last, Mode.RECOMPUTE_ROWS, (Rerun(start, stop, again, rows),))

    def _forward_reads(self, nodes: Sequence[Node]) -> set[Value]:
        return {v for n in nodes for v in n.inputs if v in self.made or v is self.graph.inputs[0]}

    def _inside(self, reads: set[Value]) -> frozenset[Value]:
        """Narrow values that only these blocks read backward, but for the input of their earliest layer."""
        narrow = sorted((v for v in reads if v in self.narrow and v in self.made), key=self.made.__getitem__)
        return frozenset(narrow if self.graph.inputs[0] in reads else narrow[1:])

    def _again(self, reads: set[Value], masks: bool, dropped: frozenset[Value] = frozenset()) -> frozenset[Value]:
        """What is computed again for these reads, from the narrow values that are kept.

        masks: also what is read for its clamp mask alone; otherwise only masks of what is computed again anyway."""
        kept = (self.narrow - dropped) | set(self.graph.inputs)
        found: set[Value] = set()
        waiting = [v for v in reads if masks or v.type.dtype != "u1"]
        while waiting:
            value = waiting.pop()
            if value not in kept and value not in found and value in self.made:
                found.add(value)
                waiting += self.graph.nodes[self.made[value]].inputs
        return frozenset(found | {v for v in reads if v in self.made and set(self.graph.nodes[self.made[v]].inputs) & found})

    def _way(self, first: int, last: int, mode: Mode, reruns: tuple[Rerun, ...]) -> Way:
        start, stop = self.edges[first], self.edges[last]
        plain = self.graph.nodes[start:stop]
        names = taken_names(self.graph)
        nodes = [n for r in reruns for n in rerun(self.graph, r, names, "rounds")] if reruns else list(plain)
        steps = [Step(n, 0, node_rows(n)) for n in nodes]
        touched = self.lives.touched(nodes)
        peak = self.lives.peak(start, stop, steps, {}, {n: size for n in nodes if (size := self._scratch(n))})
        later = self._forward_reads(self.graph.nodes[stop:])
        saved = sum(self.lives.size[v] for v in self._forward_reads(nodes) - later if v in self.lives.size)
        cost = round(sum(map(self.costs, nodes)) - sum(map(self.costs, plain)))
        return Way(first, last, start, stop, mode, reruns, peak + self._gradients(start, stop, touched), saved, cost)

    def _scratch(self, node: Node) -> int:
        """Bytes of scratch memory; the same for nodes that differ only in their values."""
        key = (node.op, tuple(v.type for v in node.inputs))
        if key not in self.known:
            kernel = node.op.kernel(node)
            self.known[key] = kernel.scratch if kernel else 0
        return self.known[key]


def _sums(nodes: Sequence[Node]) -> int:
    """Bytes of the partial sums of all parameter gradients."""
    grads = [(n.op.grad, n.inputs[: n.op.grad_inputs]) for n in nodes if isinstance(n.op, Update)]
    return sum(t.nbytes for grad, inputs in grads for t in grad.infer(*(v.type for v in inputs)))


def _undominated(found: Sequence[Ways]) -> list[Ways]:
    """Those that no other beats in both saved bytes and instructions."""
    kept: list[Ways] = []
    for ways in sorted(found, key=lambda w: (w.saved, w.instructions)):
        if not kept or ways.instructions < kept[-1].instructions:
            kept.append(ways)
    return kept
