"""Bytes alive while some of a graph's nodes run, without building the whole problem: what the choice of modes looks at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mcugrad.ir import Graph, Node, Value
from mcugrad.memory.problem import ALIGN, Home, scratch_sizes, storage
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
        sizes = self.scratch if scratch is None else scratch
        span: dict[object, tuple[int, int]] = {}
        size: dict[object, int] = {}
        own: dict[Value, Value] = {}
        for index, step in enumerate(steps):
            if isinstance(step, Step):
                own |= {step.outputs[o]: own.get(step.inputs[i], step.inputs[i]) for i, o in step.node.op.aliased}
                if step.node in sizes:
                    key = (step.node.op.scratch_group or step.node) if step.segment is None else step.segment
                    size[key] = max(size.get(key, 0), _up(sizes[step.node]))
                    span[key] = (span.get(key, (index, index))[0], index)
            for value in (*step.inputs, *step.outputs):
                root = self.root.get(value, own.get(value, value))
                if self.home.get(root, Home.ARENA) is not Home.ARENA:
                    continue
                ring = rings.get(value)
                bytes_ = _up(value.type.nbytes if ring is None else ring * value.type.row_bytes)
                size[root] = max(size.get(root, 0), bytes_)
                span[root] = (span.get(root, (index, index))[0], index)
        change = np.zeros(len(steps) + 1, np.int64)
        for owner, (first, last) in span.items():
            before = isinstance(owner, Value) and self.first.get(owner, start) < start
            after = isinstance(owner, Value) and self.last.get(owner, -1) >= stop
            change[0 if before else first] += size[owner]
            change[len(steps) if after else last + 1] -= size[owner]
        return int(np.cumsum(change)[:-1].max(initial=0))


def _up(size: int) -> int:
    return (size + ALIGN - 1) // ALIGN * ALIGN
