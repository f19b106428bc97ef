"""Addresses for the buffers of a problem: first fit in a few orders, and CP-SAT when that is above the live peak."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ortools.sat.python import cp_model

from mcugrad.ir import Node, Value
from mcugrad.memory.certificate import Certificate, certify, live_peak
from mcugrad.memory.problem import Buffer, MemoryProblemError, Problem

EFFORT = 8.0  # CP-SAT's deterministic time units, about seconds; not wall time, so that plans do not depend on the machine

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
    buffers = problem.buffers
    pins = _pins(buffers, fixed or {})
    goal = live_peak(problem)
    offsets, method = _first_fits(buffers, pins, goal)
    if peak(buffers, offsets) > goal and effort > 0:
        exact = cp_sat(buffers, pins, offsets, goal, seed, effort)
        if peak(buffers, exact) < peak(buffers, offsets):
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


def _first_fits(buffers: Sequence[Buffer], pins: Mapping[int, int], goal: int) -> tuple[list[int], str]:
    """The best of the orders, tried until one reaches the goal."""
    best: tuple[list[int], str] | None = None
    for name, key in ORDERS:
        offsets = first_fit(buffers, sorted(range(len(buffers)), key=lambda i: key(buffers[i])), pins)
        if best is None or peak(buffers, offsets) < peak(buffers, best[0]):
            best = offsets, f"first fit by {name}"
        if peak(buffers, best[0]) == goal:
            break
    assert best is not None
    return best


def first_fit(buffers: Sequence[Buffer], order: Sequence[int], pins: Mapping[int, int]) -> list[int]:
    """Offset of each buffer: in `order`, the lowest gap among those placed before that are alive at the same time."""
    offsets = dict(pins)
    for i in order:
        if i not in offsets:
            taken = sorted((at, at + buffers[j].size) for j, at in offsets.items() if overlap_in_time(buffers[i], buffers[j]))
            offsets[i] = _lowest_gap(taken, buffers[i])
    return [offsets[i] for i in range(len(buffers))]


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
