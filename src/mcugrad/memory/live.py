"""Bytes alive while some of a graph's nodes run, without building the whole problem: what the choice of modes looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
        for index, step in enumerate(steps):
            spans.add(index, step)
        buffers = spans.buffers(start, stop, len(steps))
        return int(live_bytes(buffers, len(steps), find_overlaps(tuple(steps), buffers))[:-1].max(initial=0))


class _Spans:
    """The values and scratch memories that steps use, from which to which."""

    def __init__(self, lives: Lives, scratch: Mapping[Node, int], rings: Mapping[Value, int]) -> None:
        self.lives, self.scratch, self.rings = lives, scratch, rings
        self.span: dict[object, tuple[int, int]] = {}
        self.size: dict[object, int] = {}
        self.names: dict[object, dict[Value, None]] = {}
        self.own: dict[Value, Value] = {}  # of values that the graph does not have, those whose bytes they name

    def add(self, index: int, step: Step | LoadRows) -> None:
        if isinstance(step, Step):
            self.own |= {step.outputs[o]: self.own.get(step.inputs[i], step.inputs[i]) for i, o in step.node.op.aliased}
            if step.node in self.scratch:
                key = (step.node.op.scratch_group or step.node) if step.segment is None else step.segment
                self._take(key, index, self.scratch[step.node])
        for value in (*step.inputs, *step.outputs):
            root = self.lives.root.get(value, self.own.get(value, value))
            if self.lives.home.get(root, Home.ARENA) is Home.ARENA:
                ring = self.rings.get(value)
                self._take(root, index, value.type.nbytes if ring is None else ring * value.type.row_bytes)
                self.names.setdefault(root, {})[value] = None

    def _take(self, owner: object, index: int, size: int) -> None:
        self.size[owner] = max(self.size.get(owner, 0), _up(size))
        self.span[owner] = (self.span.get(owner, (index, index))[0], index)

    def buffers(self, start: int, stop: int, steps: int) -> list[Buffer]:
        """One for each; from the first step where nodes before `start` use it, to the end where nodes from `stop` on do."""
        found = []
        for owner, (first, last) in self.span.items():
            before = isinstance(owner, Value) and self.lives.first.get(owner, start) < start
            after = isinstance(owner, Value) and self.lives.last.get(owner, -1) >= stop
            names = tuple(self.names.get(owner, ()))
            ring = next((self.rings[v] for v in names if v in self.rings), None)
            found.append(Buffer(names, 0 if before else first, steps if after else last, self.size[owner], ring_rows=ring))
        return found


def _up(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN
