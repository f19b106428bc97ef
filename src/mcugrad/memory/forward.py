"""Which parts of the forward pass run row by row: the cheapest cut into blocks under a cap of bytes alive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import groupby

from mcugrad.costs import Costs
from mcugrad.ir import Graph, Node, Value
from mcugrad.memory.certificate import live
from mcugrad.memory.live import Lives
from mcugrad.memory.problem import Home, build, storage
from mcugrad.memory.schedule import Schedule, ScheduleError, Segment, Step, arrange, layerwise, node_rows, stream_block
from mcugrad.passes.chunk import chunk_widths
from mcugrad.passes.chunk_forward import Expansion, expansions, in_chunks
from mcugrad.passes.recompute import taken_names

ROUNDS = (1, 2, 4, 8)
"""Rows of a row-streamed block's output that are computed at a time, where not each row as late as possible."""

WORTH = 0.03
"""Share of the forward pass's instructions that less memory may cost when the cap does not ask for it."""


class Mode(Enum):
    """How a block of nodes runs.  A mode is a schedule over the same kernels; it never changes bits."""

    LAYERWISE = "layerwise"  # one node after the other, every value whole
    ROWS = "rows"  # row by row, only the rows that are still needed in memory, nothing computed twice
    RECOMPUTE = "recompute"  # backward: forward values are computed again instead of kept
    RECOMPUTE_ROWS = "recompute, rows"  # both
    NARROW = "narrow"  # a layer in less scratch memory
    CHANNELS = "channels"  # an inverted bottleneck in chunks of its expanded channels


@dataclass(frozen=True)
class Block:
    """nodes[start:stop) in one mode; peak: live bytes while they run, steps: calls beyond one per node, extra:
    estimated instructions of these calls.  channels: expanded ones per chunk of `expansion`.  rounds: see Segment."""

    start: int
    stop: int
    mode: Mode
    peak: int
    steps: int = 0
    extra: int = 0
    channels: int | None = None
    expansion: Expansion | None = None
    rounds: int = 0

    @property
    def segment(self) -> Segment:
        return Segment(self.start, self.stop, self.rounds)


class Forward:
    """The blocks that a cut of the forward nodes may use.  `rows`: the first one pulls the input row by row.

    costs: of the core that runs them."""

    def __init__(self, graph: Graph, rows: bool, costs: Costs) -> None:
        self.graph, self.rows, self.costs = graph, rows, costs
        self.lives = Lives(graph)
        self.live = live(build(graph, layerwise(graph), scratch=self.lives.scratch))
        self.runs = row_runs(graph)
        self.stop = self.runs[-1][-1] if self.runs else 0

    @cached_property
    def blocks(self) -> list[Block]:
        """In order of their end."""
        blocks = [Block(i, i + 1, Mode.LAYERWISE, int(self.live[i])) for i in range(int(self.rows), self.stop)]
        return sorted([*blocks, *(b for cut in self.row_cuts() for b in self._row_blocks(*cut))], key=lambda b: b.stop)

    def row_cuts(self) -> Iterator[tuple[int, int, bool]]:
        """(start, stop, is the input pulled) of what may run row by row."""
        for cuts in self.runs:
            for i, start in enumerate(cuts):
                pull = self.rows and start == 0
                yield from ((start, c, pull) for c in cuts[i + 1 :] if pull or c - start > 1)

    @cached_property
    def leaner(self) -> list[Block]:
        """The same, and where layers need more than what follows the forward nodes, those in less scratch memory and their
        bottlenecks in chunks."""
        narrow = [b for i in self.high_layers() if (b := self._narrow_block(i)) is not None]
        chunks = [self._chunk_block(e, width, nodes) for e, width, nodes in self.chunked()]
        return sorted([*self.blocks, *narrow, *chunks], key=lambda b: b.stop)

    def high_layers(self) -> list[int]:
        """Forward nodes that run whole and need more than what follows them all."""
        floor, first = self.rest(), int(self.rows)  # rows are pulled by a segment of rows
        return [i for i in range(first, self.stop) if self.live[i] > floor]

    def chunked(self) -> Iterator[tuple[Expansion, int, list[Node]]]:
        """The bottlenecks around such nodes, with a width of chunks and the nodes of these."""
        names, high = taken_names(self.graph), set(self.high_layers())
        for found in expansions(self.graph):
            if found.start >= int(self.rows) and not high.isdisjoint(range(found.start, found.stop)):
                for width in chunk_widths(found.channels):
                    yield found, width, in_chunks(self.graph, found, width, names)

    def candidates(self, cap: int | None) -> Iterator[tuple[Block, ...]]:
        """Cuts worth placing, best first: frugal where nearly free, the fewest extra instructions under the cap, the least."""
        if cap is None and not self.rows:
            yield ()
            return
        floor = self._floor(self.blocks)
        top = max((b.peak for b in self.blocks), default=0) if cap is None else cap
        frugal = self._frugal_peak(floor)
        caps = [min(frugal, top), top, floor] if cap is not None else [top, floor]
        found = [self._path(c, self.blocks) for c in caps if c >= floor]
        if cap is not None and cap < floor:
            found = [self._path(c, self.leaner) for c in (max(cap, self.floor()), self.floor())]
        yield from dict.fromkeys(f for f in found if f is not None)

    def cuts(self, cap: int) -> list[tuple[Block, ...]]:
        """The best candidate, and the cheapest cuts in rounds of fewer and fewer rows: these leave more room beside what is
        kept meanwhile."""
        best = next(iter(self.candidates(cap)))
        blocks = self.blocks if cap >= self._floor(self.blocks) else self.leaner
        smaller = (self._path(cap, [b for b in blocks if b.rounds <= rounds]) for rounds in (1, 0))
        return list(dict.fromkeys([best, *(path for path in smaller if path is not None)]))

    def floor(self) -> int:
        """Bytes alive at most under the leanest cut; what follows the forward nodes counts too."""
        floor = self._floor(self.blocks)
        return floor if floor == self.rest() else self._floor(self.leaner)

    def fits(self, cap: int) -> bool:
        """Is there a cut under which no more bytes are alive?"""
        return self.rest() <= cap and (self._floor(self.blocks) <= cap or self.floor() <= cap)

    def _floor(self, blocks: Sequence[Block]) -> int:
        best = {0: 0}
        for block in blocks:
            if block.start in best:
                best[block.stop] = min(best.get(block.stop, 1 << 62), max(best[block.start], block.peak))
        return max(best.get(self.stop, 0), self.rest())

    def rest(self) -> int:
        """Live bytes of what follows the forward nodes: no cut of them goes below it."""
        return int(self.live[self.stop :].max())

    def _frugal_peak(self, floor: int) -> int:
        """The smallest peak, not below `floor`, whose extra calls are nearly free; without end where there is none."""
        nearly = WORTH * sum(self.costs(n) for n in self.graph.nodes if n.op.phase == "forward")
        for peak in sorted({max(b.peak, floor) for b in self.blocks}):
            path = self._path(peak, self.blocks)
            if path is not None and sum(b.extra for b in path) <= nearly:
                return peak
        return 1 << 62

    def _path(self, cap: int, blocks: Sequence[Block]) -> tuple[Block, ...] | None:
        """The blocks that do not run layerwise, under the cap with the fewest extra instructions; None where no cut is."""
        best: dict[int, tuple[int, tuple[Block, ...]]] = {0: (0, ())}
        for block in blocks:
            if block.peak <= cap and block.start in best:
                extra, before = best[block.start]
                if block.stop not in best or extra + block.extra < best[block.stop][0]:
                    best[block.stop] = extra + block.extra, (*before, block)
        return tuple(b for b in best[self.stop][1] if b.mode is not Mode.LAYERWISE) if self.stop in best else None

    def _row_blocks(self, start: int, stop: int, pull: bool) -> Iterator[Block]:
        """Row by row, then in rounds of more and more rows as long as that saves calls."""
        least: int | None = None
        for rounds in (0, *(r for r in ROUNDS if 2 * r <= node_rows(self.graph.nodes[stop - 1]))):
            block = self._row_block(Segment(start, stop, rounds), pull)
            if least is not None and block.extra >= least:
                continue
            yield block
            least = block.extra

    def _row_block(self, segment: Segment, pull: bool) -> Block:
        peak, steps = self.row_peak(segment, pull)
        calls = Counter(s.node for s in steps if isinstance(s, Step))
        extra = sum(self.costs(node, n) - self.costs(node) for node, n in calls.items())
        start, stop, rounds = segment
        return Block(start, stop, Mode.ROWS, peak, len(steps) - (stop - start), round(extra), rounds=rounds)

    def row_peak(self, segment: Segment, pull: bool) -> tuple[int, Schedule]:
        """Bytes alive at most while a segment runs in rows, and its steps."""
        start, stop, _ = segment
        nodes = self.graph.nodes[start:stop]
        kept = {v for n in nodes for v in n.outputs if self.lives.last.get(v, -1) >= stop}
        steps, rings = stream_block(self.graph, segment, kept, input_rows=pull)
        return self.lives.peak(start, stop, steps, rings) + self.lives.passing(start, stop, self.lives.touched(nodes)), steps

    def _narrow_block(self, index: int) -> Block | None:
        node = self.graph.nodes[index]
        peak, op = self.narrow_peak(index), node.op.leaner()
        if peak is None or op is None:
            return None
        return Block(index, index + 1, Mode.NARROW, peak, 0, round(self.costs(replace(node, op=op)) - self.costs(node)))

    def narrow_peak(self, index: int) -> int | None:
        """Bytes alive while a node runs in less scratch memory; None where it cannot."""
        node = self.graph.nodes[index]
        op = node.op.leaner()
        kernel = None if op is None else op.kernel(replace(node, op=op))
        return None if kernel is None else int(self.live[index]) - self.lives.scratch.get(node, 0) + kernel.scratch

    def _chunk_block(self, found: Expansion, width: int, nodes: list[Node]) -> Block:
        start, stop = found.start, found.stop
        plain = self.graph.nodes[start:stop]
        extra = round(sum(map(self.costs, nodes)) - sum(map(self.costs, plain)))
        peak = self.chunk_peak(found, nodes)
        return Block(start, stop, Mode.CHANNELS, peak, len(nodes) - len(plain), extra, width, found)

    def chunk_peak(self, found: Expansion, nodes: list[Node]) -> int:
        """Bytes alive at most while the nodes run in the place of a bottleneck."""
        kernels = {n: n.op.kernel(n) for n in nodes}
        scratch = {n: k.scratch for n, k in kernels.items() if k is not None and k.scratch}
        peak = self.lives.peak(found.start, found.stop, [Step(n, 0, node_rows(n)) for n in nodes], {}, scratch)
        return peak + self.lives.passing(found.start, found.stop, self.lives.touched(nodes))


def row_runs(graph: Graph) -> list[list[int]]:
    """Places where a row-streamed segment may begin or end, per run of forward nodes that can be split into rows.

    Only the narrow places, and the first two, where the input may be pulled."""
    narrow = narrow_places(graph)
    runs: list[list[int]] = []
    for i, node in enumerate(graph.nodes):
        if node.op.phase == "forward" and node.op.splits_rows and len(node.outputs[0].type.shape) == 4:
            if not runs or runs[-1][-1] != i:
                runs.append([i])
            runs[-1].append(i + 1)
    return [[c for c in run if c in (run[0], run[1], run[-1]) or c in narrow] for run in runs]


def narrow_places(graph: Graph) -> dict[int, list[Value]]:
    """Places between two nodes where no more bytes cross than where something else crosses next, and the values that do."""
    crossing = crossing_values(graph)
    found: dict[int, list[Value]] = {}
    at = 0
    for same, places in groupby(range(len(crossing)), lambda c: frozenset(crossing[c])):
        stop = at + len(list(places))
        beside = [crossing[c] for c in (at - 1, stop) if 0 <= c < len(crossing)]
        if same and all(_bytes(crossing[at]) <= _bytes(values) for values in beside if values):
            found |= {c: crossing[c] for c in range(at, stop)}
        at = stop
    return found


def _bytes(values: list[Value]) -> int:
    return sum(v.type.nbytes for v in values)


def crossing_values(graph: Graph) -> list[list[Value]]:
    """Values of the arena that are written before and read by the forward pass after each place between two nodes."""
    home = storage(graph).home
    crossing: list[list[Value]] = [[] for _ in range(len(graph.nodes) + 1)]
    made = {v: 0 for v in graph.inputs} | {v: i + 1 for i, n in enumerate(graph.nodes) for v in n.outputs}
    last = {v: i for i, n in enumerate(graph.nodes) if n.op.phase == "forward" for v in n.inputs}
    for value, first in made.items():
        if home[value] is Home.ARENA:
            for cut in range(first, last.get(value, -1) + 1):
                crossing[cut].append(value)
    return crossing


def can_pull(graph: Graph) -> bool:
    """Can the input be pulled row by row?"""
    try:
        arrange(graph, [Segment(0, 1)], input_rows=True)
    except ScheduleError:
        return False
    return True
