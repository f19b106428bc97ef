"""How good a memory plan is: the bytes alive at each step, and a bound that no order of the nodes goes below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Node, Value
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.overlap import Overlap, common_bytes, least_distance
from mcugrad.memory.problem import Problem, storage


@dataclass(frozen=True)
class Certificate:
    """Proof of a plan's arena.

    live_peak: the most bytes alive at one step, a lower bound of the arena for this schedule.  step, alive: where that is
    and the names and bytes of the buffers alive there, largest first.  lower_bound: bytes that must coexist at some node
    in whatever order the nodes run (with this schedule's rings and the overlaps of its segments).  method: what placed the
    buffers.
    """

    arena: int
    live_peak: int
    step: int
    where: str
    alive: tuple[tuple[str, int], ...]
    lower_bound: int
    method: str

    @property
    def optimal(self) -> bool:
        """No plan for this schedule is smaller."""
        return self.arena == self.live_peak


def live_bytes(buffers: Sequence[Buffer], steps: int, overlaps: Sequence[Overlap] = ()) -> NDArray[np.int64]:
    """Bytes alive at each of the times 0 .. steps (the last one: after all steps).

    What two buffers may have in common counts once; so no plan is smaller."""
    change = np.zeros(steps + 2, np.int64)
    for buffer in buffers:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    for overlap in overlaps:
        x, y = buffers[overlap.before], buffers[overlap.after]
        saving = overlap.saving(buffers)
        change[max(x.first, y.first)] -= saving
        change[min(x.last, y.last) + 1] += saving
    return np.cumsum(change)[:-1]


def live(problem: Problem) -> NDArray[np.int64]:
    """Bytes alive at each step of a problem's schedule, and after the last."""
    return live_bytes(problem.buffers, len(problem.schedule), problem.overlaps)


def live_peak(problem: Problem) -> int:
    """The most bytes alive at one step."""
    return int(live(problem).max())


def certify(problem: Problem, arena: int, method: str) -> Certificate:
    """The certificate of a plan of `arena` bytes found by `method`."""
    steps = len(problem.schedule)
    alive_at = live(problem)
    step = int(alive_at.argmax())
    alive = sorted((b for b in problem.buffers if b.first <= step <= b.last), key=lambda b: -b.size)
    where = str(problem.schedule[step]) if step < steps else "after the last step"
    names = tuple((b.name, b.size) for b in alive)
    return Certificate(arena, int(alive_at[step]), step, where, names, lower_bound(problem), method)


def lower_bound(problem: Problem) -> int:
    """Bytes that must coexist at some node, in whatever order that respects the data the nodes run.

    At a node: its inputs, its outputs and its scratch, and every value between a node before it and a node after it on some
    path; what an output may have in common with an input counts once.
    """
    bound = _Bound(problem)
    return max((bound.at(i) for i in range(len(problem.graph.nodes))), default=0)


class _Bound:
    """Order-independent facts of a graph: which nodes must run before which, and sizes by root value."""

    def __init__(self, problem: Problem) -> None:
        self.nodes, store = problem.graph.nodes, storage(problem.graph)
        self.root = store.root
        self.met = {
            (store.root[x], store.root[y]): o.saving(problem.buffers)
            for o in problem.overlaps
            for x in problem.buffers[o.before].values
            for y in problem.buffers[o.after].values
        }
        self.size = {store.root[v]: b.size for b in problem.buffers for v in b.values}
        self.scratch = {n: b.size for b in problem.buffers for n in b.scratch[:1] if len(b.scratch) == 1}
        self.outputs = {store.root[v] for v in problem.graph.outputs}
        self.producer: dict[Value, int] = {}
        self.readers: dict[Value, int] = {}
        for i, node in enumerate(self.nodes):
            for value in self._roots(node.outputs):
                self.producer.setdefault(value, i)
            for value in self._roots(node.inputs):
                self.readers[value] = self.readers.get(value, 0) | 1 << i
        self.before = self._before()
        self.after = [sum(1 << j for j, b in enumerate(self.before) if b >> i & 1) for i in range(len(self.nodes))]

    def _roots(self, values: Sequence[Value]) -> list[Value]:
        return [r for r in dict.fromkeys(self.root[v] for v in values) if r in self.size]

    def _before(self) -> list[int]:
        """Bit sets of the nodes that must run before each node: producers, and readers of what an update overwrites."""
        producer = {v: i for i, n in enumerate(self.nodes) for v in n.outputs}
        seen: dict[Value, int] = {}
        sets: list[int] = []
        for i, node in enumerate(self.nodes):
            direct = sum(1 << j for j in {producer[v] for v in node.inputs if v in producer})
            if node.op.phase == "update":
                direct |= reduce(int.__or__, (seen.get(node.inputs[s], 0) for s, _ in node.op.aliased), 0)
            sets.append(reduce(int.__or__, (sets[j] for j in range(i) if direct >> j & 1), direct))
            for value in node.inputs:
                seen[value] = seen.get(value, 0) | 1 << i
        return sets

    def at(self, index: int) -> int:
        """Bytes that coexist when node `index` runs."""
        node = self.nodes[index]
        touched = self._roots((*node.inputs, *node.outputs))
        across = [v for v in self.size if v not in touched and self._crosses(v, index)]
        counted = {*touched, *across}
        met = {pair: n for pair, n in self.met.items() if counted.issuperset(pair)} | self._met(node, index)
        total = sum(self.size[v] for v in counted) + self.scratch.get(node, 0)
        return total - self._saved(node, index) - sum(met.values())

    def _crosses(self, value: Value, index: int) -> bool:
        made = value not in self.producer or bool(self.before[index] >> self.producer[value] & 1)
        return made and (value in self.outputs or bool(self.readers.get(value, 0) & self.after[index]))

    def _saved(self, node: Node, index: int) -> int:
        """Bytes of the outputs that may take the place of an input whose other readers need not come later."""
        saved: dict[int, int] = {}
        for source, target in node.op.replaces(node):
            x, y = self.root[node.inputs[source]], self.root[node.outputs[target]]
            if self._dies(x, index) and y in self.size:
                saved[target] = max(saved.get(target, 0), min(self.size[x], self.size[y]))
        return sum(saved.values())

    def _met(self, node: Node, index: int) -> dict[tuple[Value, Value], int]:
        """Bytes that an output may have in common with an input whose other readers need not come later."""
        met: dict[tuple[Value, Value], int] = {}
        for walk in node.op.walks(node):
            x, y = self.root[node.inputs[walk.source]], self.root[node.outputs[walk.target]]
            if self._dies(x, index) and y in self.size:
                met[x, y] = common_bytes(self.size[x], self.size[y], least_distance(walk))
        return met

    def _dies(self, x: Value, index: int) -> bool:
        """Need nothing but node `index` read x at last?"""
        return x in self.size and not self.readers[x] & self.after[index] and x not in self.outputs
