"""Addresses for the buffers of a problem: first fit, its order repaired, and CP-SAT when that is above the live peak."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mcugrad.ir import Node, Value
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.certificate import Certificate, certify, live_bytes, live_peak
from mcugrad.memory.overlap import Overlap
from mcugrad.memory.problem import Problem

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel

REPAIRS = 200  # per order: how often what sticks out is moved to an earlier place
EFFORT = 0.1  # of CP-SAT's deterministic time, seconds at best; not wall time: plans must not depend on the machine

Key = Callable[[Buffer, int], tuple[int, ...]]
"""Sort key of a buffer; the number is how far the live bytes of its heaviest step lie below the live peak."""

ORDERS: tuple[tuple[str, Key], ...] = (
    ("size", lambda b, below: (-b.size, b.first)),
    ("size x time", lambda b, below: (-b.size * (b.last - b.first + 1), b.first)),
    ("time at the peak, then size", lambda b, below: (int(below > 0), 0 if below else b.first - b.last, -b.size)),
    ("heaviest step, then time", lambda b, below: (below, b.first - b.last, -b.size)),
)


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets in the arena.

    offsets: of every value that lives in the arena.  scratch: of every node that needs scratch memory.  ring_rows: rows
    kept of each row-streamed value; row r lies at offset + (r % ring_rows) * row_bytes.  arena: bytes.
    placed: the buffers with their offsets, and overlaps: pairs of them that may share bytes, for pictures and reports.
    """

    offsets: Mapping[Value, int]
    scratch: Mapping[Node, int]
    ring_rows: Mapping[Value, int]
    arena: int
    placed: tuple[tuple[Buffer, int], ...]
    overlaps: tuple[Overlap, ...]
    certificate: Certificate


def solve(problem: Problem, *, seed: int = 0, effort: float = EFFORT) -> MemoryPlan:
    """A plan at the live peak, or the smallest found; the same for the same arguments on every machine.

    effort: limit of the exact search in CP-SAT's deterministic time units.
    """
    offsets, method = place(problem.buffers, live_peak(problem), seed, effort, problem.overlaps)
    return _plan(problem, offsets, method)


def place(
    buffers: Sequence[Buffer], goal: int, seed: int = 0, effort: float = EFFORT, overlaps: Sequence[Overlap] = ()
) -> tuple[list[int], str]:
    """Offsets in bytes with the smallest peak found, and the method; `goal` is a known lower bound."""
    boxes = _Boxes(buffers, overlaps)
    starts = sorted(_first_fits(boxes, goal), key=lambda f: peak(buffers, f.offsets))
    best = starts[0]
    for start in starts:
        if peak(buffers, best.offsets) > goal:
            best = min(best, _repair(boxes, start, goal, seed), key=lambda f: peak(buffers, f.offsets))
    if peak(buffers, best.offsets) > goal and effort > 0:
        exact = cp_sat(buffers, best.offsets, goal, seed, effort, overlaps)
        if peak(buffers, exact) < peak(buffers, best.offsets):
            return exact, "CP-SAT"
    return best.offsets, best.method


def peak(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Bytes of arena that the offsets need."""
    return max((o + b.size for b, o in zip(buffers, offsets, strict=True)), default=0)


def overlap_in_time(a: Buffer, b: Buffer) -> bool:
    """Some step needs both."""
    return a.first <= b.last and b.first <= a.last


class _Boxes:
    """Buffers, for each the indices of those alive at the same time, and distances of those that may overlap."""

    def __init__(self, buffers: Sequence[Buffer], overlaps: Sequence[Overlap]) -> None:
        self.buffers, self.overlaps = buffers, overlaps
        self.distance = {(o.before, o.after): o.distance for o in overlaps}
        beside = ([j for j, b in enumerate(buffers) if j != i and overlap_in_time(a, b)] for i, a in enumerate(buffers))
        self.closed = [[(j, *self._closed(i, j)) for j in others] for i, others in enumerate(beside)]

    def first_fit(self, order: Sequence[int]) -> list[int]:
        """Offset of each buffer: in `order`, the lowest that those placed before allow that are alive at the same time."""
        offsets = [-1] * len(self.buffers)
        for i in order:
            closed = [(at + low, at + high) for j, low, high in self.closed[i] if (at := offsets[j]) >= 0]
            closed.sort()
            offsets[i] = _lowest_open(closed, self.buffers[i].align)
        return offsets

    def _closed(self, i: int, j: int) -> tuple[int, int]:
        """The open interval of offsets of buffer i that buffer j rules out, from where j lies."""
        low, high = self.distance.get((j, i), self.buffers[i].size), self.distance.get((i, j), self.buffers[j].size)
        return -low, high


@dataclass(frozen=True)
class _Fit:
    """First fit in one order."""

    order: list[int]
    offsets: list[int]
    method: str


def _first_fits(boxes: _Boxes, goal: int) -> list[_Fit]:
    """The orders one after the other, until one reaches the goal."""
    live = live_bytes(boxes.buffers, max((b.last for b in boxes.buffers), default=0), boxes.overlaps)
    below = [int(live.max() - live[b.first : b.last + 1].max()) for b in boxes.buffers]
    fits: list[_Fit] = []
    for name, key in ORDERS:
        keys = [key(b, low) for b, low in zip(boxes.buffers, below, strict=True)]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        fits.append(_Fit(order, boxes.first_fit(order), f"first fit by {name}"))
        if peak(boxes.buffers, fits[-1].offsets) == goal:
            break
    return fits


def _repair(boxes: _Boxes, fit: _Fit, goal: int, seed: int) -> _Fit:
    """First fit in orders where the buffers that reach the top come earlier; the best found."""
    rng = random.Random(seed)
    order, offsets = fit.order, fit.offsets
    for _ in range(REPAIRS):
        top = peak(boxes.buffers, offsets)
        if top == goal:
            break
        moved = rng.choice([i for i in order if offsets[i] + boxes.buffers[i].size == top])
        other = [i for i in order if i != moved]
        other.insert(rng.randrange(order.index(moved) + 1), moved)
        found = boxes.first_fit(other)
        if peak(boxes.buffers, found) <= top:
            order, offsets = other, found
    return _Fit(order, offsets, f"{fit.method}, repaired")


def _lowest_open(closed: Sequence[tuple[int, int]], align: int) -> int:
    """The lowest offset inside none of the open intervals, which ascend."""
    at = 0
    for low, high in closed:
        if at <= low:
            break
        if at < high:
            at = (high + align - 1) // align * align
    return at


def cp_sat(
    buffers: Sequence[Buffer],
    hint: Sequence[int],
    goal: int,
    seed: int,
    effort: float,
    overlaps: Sequence[Overlap] = (),
) -> list[int]:
    """The smallest arena that CP-SAT finds between `goal` and the peak of `hint`; `hint` itself when it finds none."""
    from ortools.sat.python import cp_model  # takes half a second to import, and most commands do without

    model = cp_model.CpModel()
    top = peak(buffers, hint)
    height = model.new_int_var(goal, top, "arena")
    starts, times, spaces = [], [], []
    alone = _alone(buffers, overlaps)
    for i, buffer in enumerate(buffers):
        units = model.new_int_var(0, (top - buffer.size) // buffer.align, f"unit{i}")
        start = units * buffer.align
        model.add_hint(units, hint[i] // buffer.align)
        model.add(start + buffer.size <= height)
        starts.append(start)
        if alone[i] <= buffer.last:
            times.append(model.new_fixed_size_interval_var(alone[i], buffer.last + 1 - alone[i], f"time{i}"))
            spaces.append(model.new_fixed_size_interval_var(start, buffer.size, f"space{i}"))
    model.add_no_overlap_2d(times, spaces)
    _part_pairs(model, buffers, starts, alone, overlaps)
    model.minimize(height)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = effort
    solver.parameters.catch_sigint_signal = False  # or Ctrl-C would end the search and nothing else
    status = solver.solve(model)
    return [solver.value(s) for s in starts] if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else list(hint)


def _alone(buffers: Sequence[Buffer], overlaps: Sequence[Overlap]) -> list[int]:
    """For each buffer the first step at which it meets none of those that it may overlap from above."""
    first = [b.first for b in buffers]
    for o in overlaps:
        first[o.after] = max(first[o.after], buffers[o.before].last + 1)
    return first


def _part_pairs(
    model: CpModel, buffers: Sequence[Buffer], starts: Sequence[Any], alone: Sequence[int], overlaps: Sequence[Overlap]
) -> None:
    """One below the other: a buffer before it is alone, and each that is alive by then."""
    distance = {(o.before, o.after): o.distance for o in overlaps}
    done: set[tuple[int, int]] = set()
    for i in sorted({o.after for o in overlaps}):
        for j, other in enumerate(buffers):
            if j != i and (j, i) not in done and other.first < alone[i] and buffers[i].first <= other.last:
                done.add((i, j))
                below = model.new_bool_var(f"below{i}.{j}")
                model.add(starts[i] + distance.get((j, i), buffers[i].size) <= starts[j]).only_enforce_if(below)
                model.add(starts[j] + distance.get((i, j), other.size) <= starts[i]).only_enforce_if(below.negated())


def _plan(problem: Problem, offsets: Sequence[int], method: str) -> MemoryPlan:
    placed = tuple(zip(problem.buffers, offsets, strict=True))
    where = {v: o for b, o in placed for v in b.values}
    scratch = {n: o for b, o in placed for n in b.scratch}
    rings = {v: b.ring_rows for b, _ in placed for v in b.values if b.ring_rows is not None}
    arena = peak(problem.buffers, offsets)
    return MemoryPlan(where, scratch, rings, arena, placed, problem.overlaps, certify(problem, arena, method))
