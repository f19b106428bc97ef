"""How each part of a network runs so that the whole fits: the cheapest modes of the forward and backward pass under a cap."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

from mcugrad.costs import Costs
from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, verify
from mcugrad.memory.backward import Backward, Way, Ways
from mcugrad.memory.forward import Block, Forward, Mode, can_pull
from mcugrad.memory.gaps import use_gaps
from mcugrad.memory.problem import build, state_layout
from mcugrad.memory.schedule import Schedule, Segment, arrange, verify_schedule
from mcugrad.memory.solve import MemoryPlan, solve
from mcugrad.memory.validate import validate
from mcugrad.ops.backprop import Chain
from mcugrad.passes.chunk_forward import chunk_forward
from mcugrad.passes.recompute import recompute
from mcugrad.targets import Target

TRIES = 9
"""Plans that are placed under one cap."""

WAYS = 6
"""Ways of the backward pass that are looked at for them."""

LEAST = 3
"""Plans of which the smallest of all is taken."""

PROBES = 2
"""Plans that a probe tries as the backward pass stands, and with reruns; ways that it looks at for each of these."""

__all__ = ["Block", "Mode", "Planned", "Planner", "Scheduled", "Way", "plan"]


@dataclass(frozen=True)
class Scheduled:
    """A graph with its schedule and addresses, validated."""

    graph: Graph
    schedule: Schedule
    plan: MemoryPlan


@dataclass(frozen=True)
class Planned:
    """A scheduled graph and how it came about.

    scheduled.graph: the graph that was given, or one that computes the same bits with parts of its backward pass rerun.
    blocks: the modes of the forward nodes that do not run layerwise.  input_rows: the input is pulled through the row
    source, and is not resident.  ways: how the backward pass runs, from the head on; none where it runs plainly.
    """

    scheduled: Scheduled
    blocks: tuple[Block, ...]
    input_rows: bool
    ways: tuple[Way, ...] = ()

    @property
    def arena(self) -> int:
        """Bytes."""
        return self.scheduled.plan.arena


def plan(graph: Graph, *, sram_for_arena: int | None = None, input_rows: bool | None = False, seed: int = 0) -> Planned:
    """`Planner(graph, input_rows, seed).plan(sram_for_arena)`, for a Cortex-M7."""
    return Planner(graph, input_rows, seed).plan(sram_for_arena)


class Planner:
    """Plans of one graph under any number of caps, with the fewest instructions on the target's core (None: Cortex-M7).

    input_rows: True pulls the input row by row, None does so only where nothing else fits.  Raises ScheduleError when the
    input cannot be pulled row by row."""

    def __init__(self, graph: Graph, input_rows: bool | None = False, seed: int = 0, target: Target | None = None) -> None:
        if input_rows:
            arrange(graph, [Segment(0, 1)], input_rows=True)
        self.graph, self.seed, self.costs = graph, seed, Costs(target)
        self.choices = [False, True] if input_rows is None and can_pull(graph) else [bool(input_rows)]
        self.forward: dict[bool, Forward] = {}
        self.backward: dict[bool, Backward] = {}
        self.placed: dict[tuple[tuple[Way, ...], tuple[Block, ...], bool], Planned] = {}

    def plan(self, cap: int | None = None) -> Planned:
        """Modes, schedule and addresses; inference runs the first steps of the same schedule.

        Without a cap (bytes of arena) layerwise.  Under one, the smallest arena that row streaming reaches while its extra
        calls stay within WORTH of the forward pass; where that does not fit, the cheapest extra calls that do; where none
        do, the backward pass computes forward values again and runs in rows, with the fewest extra instructions.
        Raises BudgetError that says by how much the smallest plan misses the cap; asked for what it needs, there is one."""
        for attempt in (self._forward_only, self._with_reruns):
            for rows in self.choices:
                for planned in attempt(cap, rows):
                    if cap is None or planned.arena <= cap:
                        return planned
        if cap is not None and self.smallest.arena > cap:
            raise BudgetError(_too_big(self.smallest, cap, self.graph), self.smallest.arena)
        return self.smallest

    def probe(self, cap: int) -> Planned | None:
        """The first of a few plans that has at most `cap` bytes, or the smallest of them; None where nothing was to try.

        For a search that asks about many graphs: `plan` tries more, and looks for the smallest of all when none fits."""
        least: Planned | None = None
        for attempt in (self._forward_only, self._cheap_reruns):
            for rows in self.choices:
                for planned in islice(attempt(cap, rows), PROBES):
                    if planned.arena <= cap:
                        return planned
                    least = planned if least is None or planned.arena < least.arena else least
        return least

    def _cheap_reruns(self, cap: int, rows: bool) -> Iterator[Planned]:
        """The cheapest reruns under the cap, and again under a lower one where the plan was too large for its live peak."""
        goal = cap
        while (planned := next(self._under(goal, rows, PROBES), None)) is not None:
            yield planned
            goal -= max(planned.arena - cap, 4)

    @property
    def live(self) -> int:
        """Bytes alive at most under the leanest modes of the forward pass, nothing of the backward pass rerun."""
        return min(self._forward(rows).floor() for rows in self.choices)

    @cached_property
    def smallest(self) -> Planned:
        """The plan of the fewest bytes, whatever was asked for: what an error calls needed is found when it is asked for."""
        return min(map(self._smallest, self.choices), key=lambda p: p.arena)

    def _smallest(self, rows: bool) -> Planned:
        if not self._can_rerun():
            forward = self._forward(rows)
            return _place(self.graph, [*forward.candidates(forward.floor())][-1], rows, self.seed)
        low = high = self._backward(rows).floor
        while next(self._fitting(high, rows), None) is None:
            low, high = high, high + high // 8
        while high - low > high // 100:
            middle = (low + high) // 2
            low, high = (middle, high) if next(self._fitting(middle, rows), None) is None else (low, middle)
        return min(islice(self._under(high, rows), LEAST), key=lambda p: p.arena)

    def floor(self) -> int:
        """A cap below which no plan is likely to fit, bytes: the least that is alive at once."""
        if not self._can_rerun():
            return self.live
        return min(min(self._forward(rows).floor(), self._backward(rows).floor) for rows in self.choices)

    def _forward(self, rows: bool) -> Forward:
        if rows not in self.forward:
            self.forward[rows] = Forward(self.graph, rows, self.costs)
        return self.forward[rows]

    def _backward(self, rows: bool) -> Backward:
        if rows not in self.backward:
            self.backward[rows] = Backward(self.graph, rows, self.costs)
        return self.backward[rows]

    def _forward_only(self, cap: int | None, rows: bool) -> Iterator[Planned]:
        """The backward pass as it stands, the cheapest plans first."""
        forward = self._forward(rows)
        if cap is None or not self._can_rerun() or forward.fits(cap):
            yield from (_place(self.graph, blocks, rows, self.seed) for blocks in forward.candidates(cap))

    def _can_rerun(self) -> bool:
        return any(isinstance(n.op, Chain) for n in self.graph.nodes)

    def _with_reruns(self, cap: int | None, rows: bool) -> Iterator[Planned]:
        """Parts of the backward pass rerun; where the plans before were too large for their live peak, under a lower cap, the
        step down to which grows: what does not fit by a few bytes may take many."""
        if cap is None or not self._can_rerun():
            return
        goal, step = cap, 4
        while True:
            arenas: list[int] = []
            for planned in islice(self._under(goal, rows), TRIES):
                yield planned
                arenas.append(planned.arena)
            if not arenas:
                break
            step = max(min(arenas) - cap, 2 * step)
            goal -= step

    def _under(self, cap: int, rows: bool, most: int | None = None) -> Iterator[Planned]:
        """Plans that are alive in `cap` bytes, the fewest instructions first; of the `most` cheapest backward passes."""
        fitting = islice(self._fitting(cap, rows, most), WAYS)
        found = [(c, f, blocks) for c, f in fitting for blocks in f.cuts(cap)]
        for choice, forward, blocks in sorted(found, key=lambda x: x[0].instructions + sum(b.extra for b in x[2])):
            yield self._placed(choice, forward, blocks, rows)

    def _placed(self, choice: Ways, forward: Forward, blocks: tuple[Block, ...], rows: bool) -> Planned:
        """Once: under many caps the same is the cheapest."""
        key = (choice.chosen, blocks, rows)
        if key not in self.placed:
            verify(forward.graph)
            self.placed[key] = _place(forward.graph, blocks, rows, self.seed, choice.chosen)
        return self.placed[key]

    def _fitting(self, cap: int, rows: bool, most: int | None = None) -> Iterator[tuple[Ways, Forward]]:
        """Backward passes, of the `most` cheapest, that are alive in `cap` bytes and leave the forward pass enough."""
        for choice in self._backward(rows).ways(cap)[:most]:
            forward = Forward(recompute(self.graph, choice.reruns), rows, self.costs)
            if forward.fits(cap):
                yield choice, forward


def _place(graph: Graph, blocks: tuple[Block, ...], rows: bool, seed: int, ways: tuple[Way, ...] = ()) -> Planned:
    """Addresses under these modes, verified and validated."""
    graph, segments = _rewritten(graph, blocks)
    schedule = arrange(graph, segments, input_rows=rows)
    graph, schedule, plan = use_gaps(graph, schedule, solve(build(graph, schedule), seed=seed))
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
    return Planned(Scheduled(graph, schedule, plan), blocks, rows, ways)


def _rewritten(graph: Graph, blocks: tuple[Block, ...]) -> tuple[Graph, list[Segment]]:
    """The graph with its blocks of channels in chunks and its narrow layers, and where its row-streamed blocks are then."""
    nodes, segments, moved = list(graph.nodes), list[Segment](), 0
    for block in blocks:
        if block.mode is Mode.ROWS:
            segments.append(Segment(block.start + moved, block.stop + moved, block.rounds))
        elif block.mode is Mode.NARROW and (op := nodes[block.start].op.leaner()) is not None:
            nodes[block.start] = replace(nodes[block.start], op=op)
        else:
            moved += block.steps
    parts = [(b.expansion, b.channels) for b in blocks if b.expansion is not None and b.channels is not None]
    changed = chunk_forward(replace(graph, nodes=tuple(nodes)), parts)
    verify(changed)
    return changed, segments


def _too_big(best: Planned, cap: int, graph: Graph) -> str:
    peak = best.scheduled.plan.certificate
    largest = ", ".join(f"{name} {size}" for name, size in peak.alive[:3])
    advice = "give it that much"
    if not best.input_rows and can_pull(graph):
        advice += ", pull the input row by row (--input rows)"
    return (
        f"the arena needs {best.arena} bytes, {best.arena - cap} more than the {cap} bytes left for it. "
        f"Its peak is at {peak.where}: {largest} bytes. {advice[0].upper() + advice[1:]}, or choose a scheme that "
        f"updates fewer or later layers"
    )
