"""How each part of a network runs so that the whole fits: the cheapest cut of the forward pass into modes, under a cap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, Node
from mcugrad.memory.certificate import live_bytes
from mcugrad.memory.problem import Home, build, scratch_sizes, state_layout, storage
from mcugrad.memory.schedule import Schedule, ScheduleError, arrange, layerwise, verify_schedule
from mcugrad.memory.solve import MemoryPlan, solve
from mcugrad.memory.validate import validate

WORTH = 0.03
"""Share of the forward pass's instructions that less memory may cost when the cap does not ask for it."""

INSTRUCTIONS_PER_MAC, INSTRUCTIONS_PER_CALL = 1.75, 4000
"""Measured on a Cortex-M7: the forward pass of MCUNet-5FPS, and what one more call of a row-streamed layer costs."""


class Mode(Enum):
    """How a block of nodes runs.  A mode is a schedule over the same kernels; it never changes bits."""

    LAYERWISE = "layerwise"  # one node after the other, every value whole
    ROWS = "rows"  # row by row through ring buffers, no recompute


@dataclass(frozen=True)
class Block:
    """nodes[start:stop) in one mode; peak: live bytes while they run, steps: calls beyond one per node."""

    start: int
    stop: int
    mode: Mode
    peak: int
    steps: int


@dataclass(frozen=True)
class Scheduled:
    """A graph with its schedule and addresses, validated."""

    graph: Graph
    schedule: Schedule
    plan: MemoryPlan


@dataclass(frozen=True)
class Planned:
    """A scheduled graph and how it came about.

    blocks: the modes of the forward nodes that do not run layerwise.  input_rows: the input is pulled through the row
    source, and is not resident.
    """

    scheduled: Scheduled
    blocks: tuple[Block, ...]
    input_rows: bool

    @property
    def arena(self) -> int:
        """Bytes."""
        return self.scheduled.plan.arena


def plan(graph: Graph, *, sram_for_arena: int | None = None, input_rows: bool | None = False, seed: int = 0) -> Planned:
    """Schedule and addresses of a graph; inference runs the first steps of the same schedule.

    Without a cap (`sram_for_arena`, bytes) layerwise.  Under one, the smallest arena that row streaming reaches while its
    extra calls stay within WORTH of the forward pass; where that does not fit, the fewest extra calls that do.
    input_rows: True pulls the input row by row, None does so only where nothing else fits.
    Raises BudgetError that says by how much the smallest plan misses the cap, and ScheduleError when the input cannot be
    pulled row by row.
    """
    if input_rows:
        arrange(graph, [(0, 1)], input_rows=True)
    tried: list[Planned] = []
    for rows in (False, True) if input_rows is None else (input_rows,):
        if input_rows is None and rows and not _can_pull(graph):
            continue
        for blocks in _candidates(graph, sram_for_arena, rows):
            planned = _place(graph, blocks, rows, seed)
            if sram_for_arena is None or planned.arena <= sram_for_arena:
                return planned
            tried.append(planned)
    best = min(tried, key=lambda p: p.arena)
    raise BudgetError(_too_big(best, sram_for_arena or 0, graph), best.arena)


def smallest_peak(graph: Graph, *, input_rows: bool | None = False) -> int:
    """Bytes alive at most under the leanest modes: what the smallest arena needs, but for gaps between buffers.

    input_rows: as for `plan`, None pulls the input where that is possible.  A fraction of the time of a plan."""
    pulled = _can_pull(graph) if input_rows is None else input_rows
    return _floor(graph, _blocks(graph, pulled))


def _floor(graph: Graph, blocks: Sequence[Block]) -> int:
    return max(_smallest_peak(blocks), _rest_peak(graph, blocks))


def _candidates(graph: Graph, cap: int | None, rows: bool) -> Iterator[tuple[Block, ...]]:
    """Plans worth placing, best first: frugal where that is nearly free, the fewest extra calls under the cap, the least."""
    if cap is None and not rows:
        yield ()
        return
    edges = _blocks(graph, rows)
    floor = _floor(graph, edges)
    top = _largest_peak(edges) if cap is None else cap
    frugal = _frugal_peak(edges, floor, _free_calls(graph))
    caps = [min(frugal, top), top, floor] if cap is not None else [top, floor]
    yield from dict.fromkeys(f for c in caps if (f := _path(edges, c)) is not None)


def _free_calls(graph: Graph) -> int:
    """Extra calls that cost no more than WORTH of the forward pass's instructions."""
    macs = sum(n.op.work(n).macs for n in graph.nodes if n.op.phase == "forward")
    return int(WORTH * macs * INSTRUCTIONS_PER_MAC / INSTRUCTIONS_PER_CALL)


def _frugal_peak(blocks: Sequence[Block], floor: int, calls: int) -> int:
    """The smallest peak, not below `floor`, that costs at most that many extra calls; without end where none does."""
    for peak in sorted({max(b.peak, floor) for b in blocks}):
        path = _path(blocks, peak)
        if path is not None and sum(b.steps for b in path) <= calls:
            return peak
    return 1 << 62


def _blocks(graph: Graph, rows: bool) -> list[Block]:
    """Every block that a cut of the forward nodes may use, in order of its end.  `rows`: the first one pulls the input."""
    runs = _runs(graph)
    scratch = scratch_sizes(graph)
    live = live_bytes(build(graph, layerwise(graph), scratch=scratch).buffers, len(graph.nodes))
    blocks = [Block(i, i + 1, Mode.LAYERWISE, int(live[i]), 0) for i in range(int(rows), runs[-1][-1] if runs else 0)]
    for cuts in runs:
        for i, start in enumerate(cuts):
            pull = rows and start == 0
            stops = [c for c in cuts[i + 1 :] if pull or c - start > 1]
            blocks += [_row_block(graph, start, stop, pull, scratch) for stop in stops]
    return sorted(blocks, key=lambda b: b.stop)


def _row_block(graph: Graph, start: int, stop: int, pull: bool, scratch: Mapping[Node, int]) -> Block:
    schedule = arrange(graph, [(start, stop)], input_rows=pull)
    live = live_bytes(build(graph, schedule, scratch=scratch).buffers, len(schedule))
    inside = [i for i, step in enumerate(schedule) if step.segment is not None]
    return Block(start, stop, Mode.ROWS, int(live[inside].max()), len(inside) - (stop - start))


def _runs(graph: Graph) -> list[list[int]]:
    """Places where a row-streamed segment may begin or end, per run of forward nodes that can be split into rows.

    Only the narrow places: where no more bytes cross from one node to the next than at the places beside it."""
    crossing = _crossing(graph)
    runs: list[list[int]] = []
    for i, node in enumerate(graph.nodes):
        if node.op.phase == "forward" and node.op.splits_rows and len(node.outputs[0].type.shape) == 4:
            if not runs or runs[-1][-1] != i:
                runs.append([i])
            runs[-1].append(i + 1)
    return [[c for c in run if c in (run[0], run[1], run[-1]) or _narrow(crossing, c)] for run in runs]


def _narrow(crossing: Sequence[int], cut: int) -> bool:
    return crossing[cut] <= min(crossing[cut - 1], crossing[cut + 1])


def _crossing(graph: Graph) -> list[int]:
    """Bytes of the arena values written before and read after each place between two nodes."""
    home = storage(graph).home
    bytes_at = [0] * (len(graph.nodes) + 1)
    made = {v: 0 for v in graph.inputs} | {v: i + 1 for i, n in enumerate(graph.nodes) for v in n.outputs}
    last = {v: i for i, n in enumerate(graph.nodes) for v in n.inputs}
    for value, first in made.items():
        if home[value] is Home.ARENA:
            for cut in range(first, last.get(value, -1) + 1):
                bytes_at[cut] += value.type.nbytes
    return bytes_at


def _path(blocks: Sequence[Block], cap: int) -> tuple[Block, ...] | None:
    """Row-streamed blocks of the chain of blocks under the cap with the fewest extra calls; None where there is none."""
    best: dict[int, tuple[int, tuple[Block, ...]]] = {0: (0, ())}
    for block in blocks:
        if block.peak <= cap and block.start in best:
            steps, before = best[block.start]
            if block.stop not in best or steps + block.steps < best[block.stop][0]:
                best[block.stop] = steps + block.steps, (*before, block)
    end = max((b.stop for b in blocks), default=0)
    return tuple(b for b in best[end][1] if b.mode is Mode.ROWS) if end in best else None


def _smallest_peak(blocks: Sequence[Block]) -> int:
    """The lowest cap under which some chain of blocks covers the forward nodes."""
    best = {0: 0}
    for block in blocks:
        if block.start in best:
            best[block.stop] = min(best.get(block.stop, 1 << 62), max(best[block.start], block.peak))
    return best.get(max((b.stop for b in blocks), default=0), 0)


def _largest_peak(blocks: Sequence[Block]) -> int:
    return max((b.peak for b in blocks), default=0)


def _rest_peak(graph: Graph, blocks: Sequence[Block]) -> int:
    """Live bytes of what follows the blocks: no cut of the forward nodes goes below them."""
    live = live_bytes(build(graph, layerwise(graph)).buffers, len(graph.nodes))
    return int(live[max((b.stop for b in blocks), default=0) :].max())


def _place(graph: Graph, blocks: tuple[Block, ...], rows: bool, seed: int) -> Planned:
    """Addresses under these modes, verified and validated."""
    schedule = arrange(graph, [(b.start, b.stop) for b in blocks], input_rows=rows)
    plan = solve(build(graph, schedule), seed=seed)
    verify_schedule(graph, schedule, plan.ring_rows)
    state = state_layout(graph)
    validate(
        graph,
        schedule,
        offsets=plan.offsets,
        scratch=plan.scratch,
        rings=plan.ring_rows,
        arena=plan.arena,
        state=state.offsets,
        state_bytes=state.total,
    )
    return Planned(Scheduled(graph, schedule, plan), blocks, rows)


def _can_pull(graph: Graph) -> bool:
    try:
        arrange(graph, [(0, 1)], input_rows=True)
    except ScheduleError:
        return False
    return True


def _too_big(best: Planned, cap: int, graph: Graph) -> str:
    peak = best.scheduled.plan.certificate
    largest = ", ".join(f"{name} {size}" for name, size in peak.alive[:3])
    advice = "give it that much"
    if not best.input_rows and _can_pull(graph):
        advice += ", pull the input row by row (--input rows)"
    return (
        f"the arena needs {best.arena} bytes, {best.arena - cap} more than the {cap} bytes left for it. "
        f"Its peak is at {peak.where}: {largest} bytes. {advice[0].upper() + advice[1:]}, or choose a scheme that "
        f"updates fewer or later layers"
    )
