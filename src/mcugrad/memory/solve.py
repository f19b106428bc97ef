"""Addresses for the buffers of a problem: first fit, its order repaired, and CP-SAT when that is above the live peak."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from mcugrad.ir import Node, Value
from mcugrad.memory.certificate import Certificate, certify, live_peak
from mcugrad.memory.problem import Buffer, MemoryProblemError, Problem

REPAIRS = 200  # orders tried by moving what sticks out to the front
EFFORT = 0.25  # of CP-SAT's deterministic time, seconds at best; not wall time: plans must not depend on the machine

ORDERS: tuple[tuple[str, Callable[[Buffer], tuple[int, ...]]], ...] = (
    ("size", lambda b: (-b.size, b.first)),
    ("size x time", lambda b: (-b.size * (b.last - b.first + 1), b.first)),
    ("time, longest first", lambda b: (b.first - b.last, -b.size)),
    ("birth", lambda b: (b.first, -b.size)),
    ("death", lambda b: (-b.last, -b.size)),
)


@dataclass(frozen=True)
class MemoryPlan:
    """Byte offsets in the arena.

    offsets: of every value that lives in the arena.  scratch: of every node that needs scratch memory.  ring_rows: rows
    kept of each row-streamed value; row r lies at offset + (r % ring_rows) * row_bytes.  arena: bytes.
    placed: the buffers with their offsets, for pictures and reports.
    """

    offsets: Mapping[Value, int]
    scratch: Mapping[Node, int]
    ring_rows: Mapping[Value, int]
    arena: int
    placed: tuple[tuple[Buffer, int], ...]
    certificate: Certificate


def solve(problem: Problem, *, fixed: Mapping[Value, int] | None = None, seed: int = 0, effort: float = EFFORT) -> MemoryPlan:
    """A plan at the live peak, or the smallest found; the same for the same arguments on every machine.

    fixed: offsets in bytes that some values must have.  effort: limit of the exact search in CP-SAT's deterministic
    time units.  Raises MemoryProblemError when the fixed values themselves overlap.
    """
    boxes = _Boxes(problem.buffers, _pins(problem.buffers, fixed or {}))
    goal = live_peak(problem)
    order, method = _best_order(boxes, goal)
    offsets = boxes.first_fit(order)
    if peak(boxes.buffers, offsets) > goal:
        repaired = _repair(boxes, order, goal, seed)
        if peak(boxes.buffers, repaired) < peak(boxes.buffers, offsets):
            offsets, method = repaired, "first fit, order repaired"
    if peak(boxes.buffers, offsets) > goal and effort > 0:
        exact = cp_sat(boxes.buffers, boxes.pins, offsets, goal, seed, effort)
        if peak(boxes.buffers, exact) < peak(boxes.buffers, offsets):
            offsets, method = exact, "CP-SAT"
    return _plan(problem, offsets, method)


def peak(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    """Bytes of arena that the offsets need."""
    return max((o + b.size for b, o in zip(buffers, offsets, strict=True)), default=0)


def overlap_in_time(a: Buffer, b: Buffer) -> bool:
    """Some step needs both."""
    return a.first <= b.last and b.first <= a.last


def _pins(buffers: Sequence[Buffer], fixed: Mapping[Value, int]) -> dict[int, int]:
    """Offsets by buffer index."""
    pins = {i: fixed[v] for i, b in enumerate(buffers) for v in b.values if v in fixed}
    for i, at in pins.items():
        for j, other in pins.items():
            clash = at < other + buffers[j].size and other < at + buffers[i].size
            if i < j and clash and overlap_in_time(buffers[i], buffers[j]):
                raise MemoryProblemError(f"{buffers[i].name} and {buffers[j].name} are fixed to overlapping addresses")
    return pins


class _Boxes:
    """Buffers, some pinned to an offset, and for each the indices of those alive at the same time."""

    def __init__(self, buffers: Sequence[Buffer], pins: Mapping[int, int]) -> None:
        self.buffers, self.pins = buffers, pins
        self.beside = [[j for j, b in enumerate(buffers) if j != i and overlap_in_time(a, b)] for i, a in enumerate(buffers)]

    def first_fit(self, order: Sequence[int]) -> list[int]:
        """Offset of each buffer: in `order`, the lowest gap among those placed before that are alive at the same time."""
        offsets = dict(self.pins)
        for i in order:
            if i not in offsets:
                taken = sorted((offsets[j], offsets[j] + self.buffers[j].size) for j in self.beside[i] if j in offsets)
                offsets[i] = _lowest_gap(taken, self.buffers[i])
        return [offsets[i] for i in range(len(self.buffers))]


def _best_order(boxes: _Boxes, goal: int) -> tuple[list[int], str]:
    """The order with the smallest arena, tried until one reaches the goal, and the method's name."""
    found: list[tuple[int, list[int], str]] = []
    for name, key in ORDERS:
        keys = [key(b) for b in boxes.buffers]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        found.append((peak(boxes.buffers, boxes.first_fit(order)), order, f"first fit by {name}"))
        if found[-1][0] == goal:
            break
    return min(found, key=lambda f: f[0])[1:]


def _repair(boxes: _Boxes, order: Sequence[int], goal: int, seed: int) -> list[int]:
    """First fit in orders where the buffers that reach the top come earlier; the best offsets found."""
    rng = random.Random(seed)
    current = list(order)
    best = boxes.first_fit(current)
    for _ in range(REPAIRS):
        top = peak(boxes.buffers, best)
        if top == goal:
            break
        sticking = [i for i in current if best[i] + boxes.buffers[i].size == top]
        moved = rng.choice(sticking)
        rest = [i for i in current if i != moved]
        rest.insert(rng.randrange(current.index(moved) + 1), moved)
        offsets = boxes.first_fit(rest)
        if peak(boxes.buffers, offsets) <= top:
            current, best = rest, offsets
    return best


def _lowest_gap(taken: Sequence[tuple[int, int]], buffer: Buffer) -> int:
    at = 0
    for start, end in taken:
        if at + buffer.size <= start:
            break
        at = max(at, (end + buffer.align - 1) // buffer.align * buffer.align)
    return at


def cp_sat(
    buffers: Sequence[Buffer], pins: Mapping[int, int], hint: Sequence[int], goal: int, seed: int, effort: float
) -> list[int]:
    """The smallest arena that CP-SAT finds between `goal` and the peak of `hint`; `hint` itself when it finds none."""
    model = cp_model.CpModel()
    top = peak(buffers, hint)
    height = model.new_int_var(goal, top, "arena")
    starts, times, spaces = [], [], []
    for i, buffer in enumerate(buffers):
        units = model.new_int_var(0, (top - buffer.size) // buffer.align, f"unit{i}")
        start = units * buffer.align
        model.add_hint(units, hint[i] // buffer.align)
        model.add(start + buffer.size <= height)
        if i in pins:
            model.add(start == pins[i])
        times.append(model.new_fixed_size_interval_var(buffer.first, buffer.last + 1 - buffer.first, f"time{i}"))
        spaces.append(model.new_fixed_size_interval_var(start, buffer.size, f"space{i}"))
        starts.append(start)
    model.add_no_overlap_2d(times, spaces)
    model.minimize(height)
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = seed
    solver.parameters.max_deterministic_time = effort
    status = solver.solve(model)
    return [solver.value(s) for s in starts] if status in (cp_model.OPTIMAL, cp_model.FEASIBLE) else list(hint)


def _plan(problem: Problem, offsets: Sequence[int], method: str) -> MemoryPlan:
    placed = tuple(zip(problem.buffers, offsets, strict=True))
    where = {v: o for b, o in placed for v in b.values}
    scratch = {n: o for b, o in placed for n in b.scratch}
    rings = {v: b.ring_rows for b, _ in placed for v in b.values if b.ring_rows is not None}
    arena = peak(problem.buffers, offsets)
    return MemoryPlan(where, scratch, rings, arena, placed, certify(problem, arena, method))
