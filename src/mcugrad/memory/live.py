"""Bytes alive while some of a graph's nodes run, without building the whole problem: what the choice of modes looks at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mcugrad.ir import Graph, Node, Value
from mcugrad.memory.buffer import ALIGN, Buffer
from mcugrad.memory.certificate import live_bytes
from mcugrad.memory.overlap import find_overlaps
from mcugrad.memory.problem import Home, scratch_sizes, storage
from mcugrad.memory.schedule import LoadRows, Step


class Lives:
    """First and last use of every value of a graph in the arena, in the default order.

    Times are node indices; what the graph gives out lives to the end.  Values that name the same bytes are one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        store = storage(graph)
        self.root, self.home = store.root, store.home
        self.size: dict[Value, int] = {}
        self.first: dict[Value, int] = {v: -1 for v in graph.inputs[:1]}
        self.last: dict[Value, int] = {}
        for index, node in enumerate(graph.nodes):
            for value in (*node.inputs, *node.outputs):
                if self.home[value] is Home.ARENA:
                    root = self.root[value]
                    self.first.setdefault(root, index)
                    self.last[root] = index
        for value in graph.outputs:
            if self.home[value] is Home.ARENA:
                self.last[self.root[value]] = len(graph.nodes)
        for value in self.first:
            self.size[value] = _up(value.type.nbytes)
        self.scratch = scratch_sizes(graph)

    def across(self, start: int, stop: int) -> list[Value]:
        """Values written before node `start` and read by node `stop` or later."""
        return [v for v, first in self.first.items() if first < start and self.last.get(v, -1) >= stop]

    def passing(self, start: int, stop: int, touched: set[Value]) -> int:
        """Bytes that outlive nodes [start, stop) and that these do not touch."""
        return sum(self.size[v] for v in self.across(start, stop) if v not in touched)

    def touched(self, nodes: Sequence[Node]) -> set[Value]:
        """Roots of the graph's own values that the nodes read or write."""
        values = (v for n in nodes for v in (*n.inputs, *n.outputs))
        return {self.root[v] for v in values if v in self.root and self.home[v] is Home.ARENA}

    def peak(
        self,
        start: int,
        stop: int,
        steps: Sequence[Step | LoadRows],
        rings: Mapping[Value, int],
        scratch: Mapping[Node, int] | None = None,
    ) -> int:
        """Most bytes alive among the values that the steps touch, which run in the place of nodes [start, stop).

        The steps may have values of their own.  rings: rows kept per value.  scratch: bytes of nodes that the graph does
        not have."""
        spans = _Spans(self, self.scratch if scratch is None else scratch, rings)
        for index, step in _ends(steps):
            spans.add(index, step)
        for index, step in enumerate(steps):
            if isinstance(step, Step) and step.segment is None:
                spans.merge_in_place(index, step.node, start, stop)
        buffers = spans.buffers(start, stop, len(steps))
        made = [o for o in find_overlaps(tuple(steps), buffers) if _is_made(buffers[o.after], steps)]
        return int(live_bytes(buffers, len(steps), made)[:-1].max(initial=0))


class _Spans:
    """The values and scratch memories that steps use, from which to which."""

    def __init__(self, lives: Lives, scratch: Mapping[Node, int], rings: Mapping[Value, int]) -> None:
        self.lives, self.scratch, self.rings = lives, scratch, rings
        self.span: dict[object, tuple[int, int]] = {}
        self.size: dict[object, int] = {}
        self.names: dict[object, dict[Value, None]] = {}
        self.own: dict[Value, Value] = {}  # those whose bytes they name, of values that the graph does not have or merged

    def add(self, index: int, step: Step | LoadRows) -> None:
        if isinstance(step, Step):
            aliases = {step.outputs[o]: self._root(step.inputs[i]) for i, o in step.node.op.aliased}
            self.own |= {v: root for v, root in aliases.items() if v not in self.lives.root}
            if step.node in self.scratch:
                key = (step.node.op.scratch_group or step.node) if step.segment is None else step.segment
                self._take(key, index, self.scratch[step.node])
        for value in (*step.inputs, *step.outputs):
            root = self._root(value)
            if self.lives.home.get(root, Home.ARENA) is Home.ARENA:
                ring = self.rings.get(value)
                self._take(root, index, value.type.nbytes if ring is None else ring * value.type.row_bytes)
                self.names.setdefault(root, {})[value] = None

    def merge_in_place(self, index: int, node: Node, start: int, stop: int) -> None:
        """Lets each output take the bytes of an input of its size that dies here, where the op allows or demands it; a group of
        merged values goes by the name of its first."""
        allowed, taken = (*node.op.aliased, *node.op.replaces(node)), set[int]()
        inputs = [self._root(v) for v in node.inputs]
        for source, target in allowed:
            x, y = inputs[source], self._root(node.outputs[target])
            sharing = all((i, target) in allowed for i, v in enumerate(inputs) if v is x)
            if target not in taken and sharing and self._fits(x, y, index, start, stop):
                self.own[y] = x
                self.span[x] = self.span[x][0], self.span.pop(y)[1]
                self.names[x] |= self.names.pop(y)
                taken.add(target)

    def _fits(self, x: Value, y: Value, index: int, start: int, stop: int) -> bool:
        """Does y begin where x ends, in as many bytes?"""
        here = x is not y and x in self.span and y in self.span and x.type.nbytes == y.type.nbytes
        whole = here and not any(v in self.rings for owner in (x, y) for v in self.names[owner])
        ends = whole and self.span[x][1] == index == self.span[y][0]
        return ends and not self._after(x, stop) and not self._before(y, start)

    def _root(self, value: Value) -> Value:
        """The value under whose name the bytes go."""
        root = self.lives.root.get(value, value)
        while root in self.own:
            root = self.own[root]
        return root

    def _before(self, owner: Value, start: int) -> bool:
        return any(self.lives.first.get(self.lives.root.get(v, v), start) < start for v in (owner, *self.names[owner]))

    def _after(self, owner: Value, stop: int) -> bool:
        return any(self.lives.last.get(self.lives.root.get(v, v), -1) >= stop for v in (owner, *self.names[owner]))

    def _take(self, owner: object, index: int, size: int) -> None:
        self.size[owner] = max(self.size.get(owner, 0), _up(size))
        self.span[owner] = (self.span.get(owner, (index, index))[0], index)

    def buffers(self, start: int, stop: int, steps: int) -> list[Buffer]:
        """One for each; from the first step where nodes before `start` use it, to the end where nodes from `stop` on do."""
        found = []
        for owner, (first, last) in self.span.items():
            before = isinstance(owner, Value) and self._before(owner, start)
            after = isinstance(owner, Value) and self._after(owner, stop)
            names = tuple(self.names.get(owner, ()))
            ring = next((self.rings[v] for v in names if v in self.rings), None)
            found.append(Buffer(names, 0 if before else first, steps if after else last, self.size[owner], ring_rows=ring))
        return found


def _ends(steps: Sequence[Step | LoadRows]) -> Iterator[tuple[int, Step | LoadRows]]:
    """The first and the last step of each node, in order: those between use nothing earlier or later."""
    keys = [s.node if isinstance(s, Step) else s.value for s in steps]
    first = {keys[i]: i for i in reversed(range(len(steps)))}
    for index in sorted({*first.values(), *{key: i for i, key in enumerate(keys)}.values()}):
        yield index, steps[index]


def _is_made(buffer: Buffer, steps: Sequence[Step | LoadRows]) -> bool:
    """Is it written where it begins, and not by a node before these steps?"""
    return not set(buffer.values).isdisjoint(steps[buffer.first].outputs)


def _up(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN
