"""Buffers that may overlap though both are alive: one is written behind the point up to which the other has been read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mcugrad.ir import Value, Walk
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.schedule import LoadRows, Schedule, Step


@dataclass(frozen=True)
class Overlap:
    """Buffer `after` (an index, like `before`) may start anywhere up to base(before) - distance, in bytes."""

    before: int
    after: int
    distance: int

    def saving(self, buffers: Sequence[Buffer]) -> int:
        """Bytes that both have in common at most."""
        return common_bytes(buffers[self.before].size, buffers[self.after].size, self.distance)


def common_bytes(x: int, y: int, distance: int | None) -> int:
    """Most bytes that x and y bytes have in common when y starts at least so far below x (None: anywhere)."""
    return max(x + y - max(x + max(distance or 0, 0), y), 0)


def least_distance(walk: Walk) -> int | None:
    """How many bytes the output must start below the input: no piece may write what a later one reads.  None: any place."""
    if len(walk.pieces) < 2:
        return None
    later = np.minimum.accumulate(walk.pieces[:0:-1, 0])[::-1]
    return int((walk.pieces[:-1, 3] - later).max())


def find_overlaps(schedule: Schedule, buffers: Sequence[Buffer]) -> tuple[Overlap, ...]:
    """Every pair that may overlap at a distance below the size of the later one, the distance a multiple of its alignment.

    Two cases: the first buffer dies at the step that begins the second, whose op says how its kernel walks (`Op.walks`);
    or the same row-streamed segment reads the rows of one for the last time and writes the other, which is kept whole.
    """
    traffic = _Traffic(schedule, {v: i for i, b in enumerate(buffers) for v in b.values})
    whole = {i: b for i, b in enumerate(buffers) if b.values and b.ring_rows is None and b.first < len(schedule)}
    dying: dict[tuple[int | None, int], list[int]] = {}
    for i, x in whole.items():
        if x.last < len(schedule):
            dying.setdefault(_end(schedule, x.last), []).append(i)
    found = []
    for j, y in whole.items():
        for i in dying.get(_end(schedule, y.first), ()):
            if i != j and whole[i].first <= y.first <= whole[i].last:
                distance = traffic.distance(i, j, whole[i], y)
                if distance is not None and distance < y.size:
                    found.append(Overlap(i, j, -(-distance // y.align) * y.align))
    return tuple(o for o in found if o.saving(buffers) > 0)


def _end(schedule: Schedule, index: int) -> tuple[int | None, int]:
    """What a buffer that dies at this step has in common with those that may begin over it: the segment, or the step."""
    segment = schedule[index].segment
    return segment, index if segment is None else 0


@dataclass
class _Traffic:
    """Which bytes of which buffers the steps read and write."""

    schedule: Schedule
    buffer: Mapping[Value, int]
    known: dict[int, tuple[dict[int, int], dict[int, int]]] = field(default_factory=dict)

    def distance(self, i: int, j: int, x: Buffer, y: Buffer) -> int | None:
        """The least distance of y below x; None where x is still written when y begins."""
        distance, unread = -x.size, x.size
        for index in range(x.last, y.first - 1, -1):
            reads, writes = self.at(index)
            if i in writes:
                return None
            low = min(unread, reads.get(i, unread))
            if j in writes:
                walk = self._walk(index, i, j)
                if walk is not None:
                    least = least_distance(walk)
                    distance = distance if least is None else max(distance, least)
                free = low if walk is None else unread
                distance = max(distance, writes[j] - free) if free < x.size else distance
            unread = low
        return distance

    def at(self, index: int) -> tuple[dict[int, int], dict[int, int]]:
        """Of a step: the lowest byte that it reads of each buffer, and the end of what it writes."""
        if index not in self.known:
            self.known[index] = self._reads(self.schedule[index]), self._writes(self.schedule[index])
        return self.known[index]

    def _reads(self, step: Step | LoadRows) -> dict[int, int]:
        reads: dict[int, int] = {}
        if isinstance(step, LoadRows):
            return reads
        rows = {n.index: n for n in step.node.op.needs(step.node, step.first, step.last)} if step.segment is not None else {}
        for index, value in enumerate(step.inputs):
            if value in self.buffer:
                need = rows.get(index)
                low = 0 if need is None else need.first * value.type.row_bytes
                if need is None or need.first < need.last:
                    reads[self.buffer[value]] = min(reads.get(self.buffer[value], low), low)
        return reads

    def _writes(self, step: Step | LoadRows) -> dict[int, int]:
        whole = step.segment is None
        return {
            self.buffer[v]: v.type.nbytes if whole else step.last * v.type.row_bytes for v in step.outputs if v in self.buffer
        }

    def _walk(self, index: int, i: int, j: int) -> Walk | None:
        """How the step walks from buffer i to j, where one of its operands is in the one and one output in the other."""
        step = self.schedule[index]
        if isinstance(step, LoadRows) or step.segment is not None:
            return None
        sources = [k for k, v in enumerate(step.inputs) if self.buffer.get(v) == i]
        targets = [k for k, v in enumerate(step.outputs) if self.buffer.get(v) == j]
        walks = step.node.op.walks(step.node)
        return next((s for s in walks if [s.source] == sources and [s.target] == targets), None)
