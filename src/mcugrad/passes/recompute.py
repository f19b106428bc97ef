"""Trades instructions for memory in a finished training graph: forward values computed again for the backward pass, and
parts of the backward pass in rounds of a few rows or in chunks of channels, so that neither has to stand in memory whole.

Both are plain graphs again: every check, interpreter and planner sees ordinary nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from mcugrad.ir import Builder, Graph, GraphError, Node, Op, TensorType, Value
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.piece import Piece, Placed, Slide, needed, piece_of, with_rows
from mcugrad.ops.update import Update
from mcugrad.passes.chunk import bottleneck, chunked


@dataclass(frozen=True)
class Rerun:
    """nodes[start:stop) of the backward pass, for which the forward values in `again` are computed once more.

    rows: of the last input gradient per round; None: every node runs whole.  channels: of an inverted bottleneck's
    expansion per chunk; None: all.
    """

    start: int
    stop: int
    again: frozenset[Value]
    rows: int | None = None
    channels: int | None = None


def recompute(graph: Graph, parts: Sequence[Rerun]) -> Graph:
    """The graph with its disjoint `parts` rerun.  Raises GraphError where a part cannot run in rows or chunks."""
    names = taken_names(graph)
    nodes = list(graph.nodes)
    for number, part in reversed(list(enumerate(sorted(parts, key=lambda p: p.start)))):
        nodes[part.start : part.stop] = rerun(graph, part, names, f"rounds {number}")
    return replace(graph, nodes=tuple(nodes))


def taken_names(graph: Graph) -> Builder:
    """A builder that gives names which the graph does not have yet."""
    names = Builder()
    names.reserve([v.name for n in graph.nodes for v in n.outputs])
    names.reserve([v.name for v in (*graph.inputs, *(p.value for p in graph.params))])
    return names


def rerun(graph: Graph, part: Rerun, names: Builder, group: str) -> list[Node]:
    """The nodes that take the place of the part's.  group: names the scratch memory that they share."""
    body = with_clones(graph, part, names)
    if part.rows is None and part.channels is None:
        return body
    results = read_outside(graph, part.start, part.stop)
    if part.channels is not None:
        found = bottleneck(body, results)
        if found is None:
            raise GraphError(f"{body[0].where}: no inverted bottleneck whose gradients only these nodes read")
        return chunked(body, found, part.channels, names)
    assert part.rows is not None
    return list(_Rounds(body, part.rows, results, names, group).nodes())


def read_outside(graph: Graph, start: int, stop: int) -> set[Value]:
    """What other nodes than [start, stop), or the caller, read."""
    outside = {v for n in (*graph.nodes[:start], *graph.nodes[stop:]) for v in n.inputs}
    return outside | set(graph.outputs) | {new for _, new in graph.updates}


def with_clones(graph: Graph, part: Rerun, names: Builder) -> list[Node]:
    """The part's nodes behind those that compute `again` once more, which they read instead."""
    body = graph.nodes[part.start : part.stop]
    twin: dict[Value, Value] = {}
    clones: list[Node] = []
    for node in (n for n in graph.nodes[: part.start] if set(n.outputs) & part.again):
        outputs = tuple(Value(names.unique(f"{v.name}.again"), v.type, v.origin) for v in node.outputs)
        inputs = tuple(twin.get(v, v) for v in node.inputs)
        clones.append(Node(node.op, inputs, outputs))
        twin |= dict(zip(node.outputs, outputs, strict=True))
    if part.rows is None:
        clones = [replace(n, op=_whole(n)) for n in clones]
    return [*clones, *(replace(n, inputs=tuple(twin.get(v, v) for v in n.inputs)) for n in body)]


def _whole(node: Node) -> Op:
    return Piece(node.op, (None,) * len(node.inputs), (None,) * len(node.outputs))


@dataclass(frozen=True)
class _Window:
    """A value of which a buffer of `height` rows is kept; bases: the row with which it begins, by round."""

    height: int
    bases: dict[int, int]


@dataclass
class _Rounds:
    """Nodes in rounds: in each, the last input gradient advances by `rows` rows and everything else as far as it needs.

    What another part of the graph reads stands whole; any other value only in a window, from the lowest row that is
    still read, moved to its front before new rows come in.  Parameter gradients take the rows that are there and
    always leave one for the last round, where the parameters move: after the last reader of their old contents.
    """

    body: Sequence[Node]
    rows: int
    results: set[Value]
    names: Builder
    group: str
    current: dict[Value, Value] = field(default_factory=dict)
    base: dict[Value, int] = field(default_factory=dict)
    sums: dict[Node, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in self.body:
            if node.op.cut_rows(node) == 0:
                raise GraphError(f"{node.where} cannot run in rows: {node.op.name}")
        self.height = {n: n.op.cut_rows(n) for n in self.body}
        self.producer = {v: n for n in self.body if not isinstance(n.op, Update) for v in n.outputs if _has_rows(v)}
        self.plan = self._plan()
        self.windows = self._windows()

    # Which rows, when.

    def _plan(self) -> list[dict[Node, tuple[int, int]]]:
        """Per round, the rows [first, last) of each node that runs."""
        driver = next(n for n in reversed(self.body) if not isinstance(n.op, Update))
        rounds = -(-self.height[driver] // self.rows)
        done = dict.fromkeys(self.body, 0)
        plan: list[dict[Node, tuple[int, int]]] = []
        for number in range(rounds):
            want = dict(done)
            want[driver] = min(self.height[driver], (number + 1) * self.rows)
            self._demand(want, done, everything=number == rounds - 1)
            plan.append({n: (done[n], want[n]) for n in self.body if want[n] > done[n]})
            done = want
        return plan

    def _demand(self, want: dict[Node, int], done: dict[Node, int], everything: bool) -> None:
        """Adds what the wanted rows need; of parameter gradients and results, everything or what is there."""
        for node in reversed(self.body):
            if everything and (isinstance(node.op, Update) or self.results & set(node.outputs)):
                want[node] = self.height[node]
            for need in needed(node, done[node], want[node]) if want[node] > done[node] else ():
                source = self.producer.get(node.inputs[need.index])
                if source is not None:
                    want[source] = max(want[source], need.last)
        for node in self.body:
            while isinstance(node.op, Update) and want[node] < self.height[node] - 1:
                needs = needed(node, done[node], want[node] + 1)
                inside = [(self.producer[node.inputs[n.index]], n.last) for n in needs if node.inputs[n.index] in self.producer]
                if not inside or any(want[source] < last for source, last in inside):
                    break
                want[node] += 1

    def _windows(self) -> dict[Value, _Window]:
        """Windows of the values that only these nodes read."""
        lowest: dict[Value, int] = {}
        bases: dict[Value, dict[int, int]] = {v: {} for v in self.producer if v not in self.results}
        heights = dict.fromkeys(bases, 0)
        for number, ran in reversed(list(enumerate(self.plan))):
            for node, (first, last) in ran.items():
                for need in needed(node, first, last):
                    value = node.inputs[need.index]
                    lowest[value] = min(lowest.get(value, need.first), need.first)
            for value, lows in bases.items():
                first, last = ran.get(self.producer[value], (0, 0))
                if last > first:
                    lows[number] = min(lowest.get(value, first), first)
                    heights[value] = max(heights[value], last - lows[number])
        return {v: _Window(heights[v], b) for v, b in bases.items()}

    # The nodes.

    def nodes(self) -> Iterator[Node]:
        for number, ran in enumerate(self.plan):
            for node in self.body:
                if node in ran:
                    make = self._accumulated if isinstance(node.op, Update) else self._piece
                    yield from make(node, number, *ran[node])

    def _piece(self, node: Node, number: int, first: int, last: int) -> Iterator[Node]:
        more = node.outputs[0] in self.current
        places: list[Placed | None] = []
        for value in node.outputs:
            window = self.windows.get(value)
            if window is not None:
                yield from self._slide(value, window, number, first)
                places.append(Placed(first - self.base[value], window.height))
            else:
                places.append(Placed(first, self.height[node]) if _has_rows(value) else None)
        piece = piece_of(node, first, last, self._bases(node), places, more, self.group)
        before = [self.current[v] for v in node.outputs] if more else []
        inputs = (*self._inputs(node.inputs), *before)
        complete = last == self.height[node]
        outputs = [
            v if complete and v not in self.windows else Value(self.names.unique(f"{v.name}.to{last}"), t, v.origin)
            for v, t in zip(node.outputs, self._types(node), strict=True)
        ]
        yield Node(piece, inputs, tuple(outputs))
        self.current |= dict(zip(node.outputs, outputs, strict=True))

    def _types(self, node: Node) -> list[TensorType]:
        """Of the buffers that the node writes."""
        return [with_rows(v.type, self.windows[v].height) if v in self.windows else v.type for v in node.outputs]

    def _slide(self, value: Value, window: _Window, number: int, first: int) -> Iterator[Node]:
        """Moves the window of `value` to where this round begins."""
        old, new = self.base.get(value, 0), window.bases[number]
        self.base[value] = new
        if value in self.current and new > old and first > new:
            before = self.current[value]
            self.current[value] = Value(self.names.unique(f"{value.name}.from{new}"), before.type, value.origin)
            yield Node(Slide(new - old, first - new, self.group), (before,), (self.current[value],))

    def _accumulated(self, node: Node, number: int, first: int, last: int) -> Iterator[Node]:
        update = node.op
        assert isinstance(update, Update)
        n, final = update.grad_inputs, number == len(self.plan) - 1
        if first == 0 and final:
            whole = not any(v in self.windows for v in node.inputs)
            places = (None,) * len(node.outputs)
            op: Op = update if whole else piece_of(node, first, last, self._bases(node), places, False, self.group)
            yield Node(op, tuple(self._inputs(node.inputs)), node.outputs)
            return
        before = [self.sums[node]] if node in self.sums else []
        rest = node.inputs[n:] if final else ()
        (gradient,) = update.grad.infer(*(v.type for v in node.inputs[:n]))
        total = Value(self.names.unique(f"{node.outputs[0].name}.sum{last}"), gradient, node.outputs[0].origin)
        outputs = node.outputs if final else (total,)
        part = Node(Accumulate(update, not before, final), (*node.inputs[:n], *before, *rest), outputs)
        piece = piece_of(part, first, last, self._bases(part), (None,) * len(outputs), False, self.group)
        yield Node(piece, tuple(self._inputs(part.inputs)), outputs)
        self.sums[node] = total

    def _inputs(self, values: Iterable[Value]) -> list[Value]:
        return [self.current.get(v, v) for v in values]

    def _bases(self, node: Node) -> dict[int, int]:
        return {i: self.base[v] for i, v in enumerate(node.inputs) if v in self.windows}


def _has_rows(value: Value) -> bool:
    return len(value.type.shape) == 4


def cuttable(node: Node) -> bool:
    """Can the node run in rows?  Not where its first or its last row reads padding alone."""
    rows = node.op.cut_rows(node)
    return rows > 0 and all(n.first < n.last for row in (0, rows - 1) for n in needed(node, row, row + 1))
