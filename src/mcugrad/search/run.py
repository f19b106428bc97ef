"""From a prepared network and a budget to a scheme: the knapsack proposes, the real plan and the linked firmware decide."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mcugrad.build import Firmware
from mcugrad.errors import BudgetError
from mcugrad.fit import INPUT_MODES, Line, Shortage
from mcugrad.ir import Graph
from mcugrad.memory.floor import smallest_peak
from mcugrad.prepare import Prepared
from mcugrad.program import Program
from mcugrad.search.cost import constants, instructions, scheduled_instructions
from mcugrad.search.solve import Choice, Cost, Limits
from mcugrad.search.space import Progress, Space, least_depth, scheme_of, training
from mcugrad.training.scheme import HEAD_ONLY

ROUNDS = 4  # of solving and confirming
WORTH = 0.02  # share of the gain; less is not worth another round

NOTHING = Cost(0, 0, 0)

Solver = Callable[[Space, Limits, int], Choice | None]


@dataclass(frozen=True)
class Fixed:
    """What the firmware needs besides: bytes of SRAM beyond arena and parameters, bytes of flash beyond constants."""

    sram: int
    flash: int


@dataclass(frozen=True)
class Found:
    """The best choice that was confirmed, its cost, and what was tried.

    head: cost of learning the head alone.  fixed: what predictions leave out, from that firmware.  limits: those under
    which the knapsack gave the choice.  rounds: every proposal, its cost, and whether it kept the budget.
    """

    choice: Choice
    cost: Cost
    head: Cost
    fixed: Fixed
    limits: Limits
    rounds: tuple[tuple[Choice, Cost, bool], ...]


@dataclass(frozen=True)
class Budgeted:
    """A network and what it must fit.  instructions: of one training step, None: as many as it takes."""

    prepared: Prepared
    line: Line
    instructions: int | None
    bits: tuple[int, ...]
    seed: int

    @property
    def limits(self) -> Limits:
        return Limits(self.line.target.sram, self.line.target.flash, self.instructions)


def head_cost(job: Budgeted) -> tuple[Cost, Fixed]:
    """Least cost of learning at all: the head alone, or the last bias where the model keeps its output.  Raises BudgetError,
    saying by how much, where even that does not fit."""
    graph = training(job.prepared, replace(HEAD_ONLY, biases=least_depth(job.prepared)))
    what = "the last bias" if least_depth(job.prepared) else "the head"
    try:
        program, firmware = _fit(graph, job)
    except Shortage as shortage:
        option = f"--{shortage.memory.lower()} {-(-(shortage.needed or 0) // 1024)}K"
        raise BudgetError(f"even {what} alone does not fit. {shortage}. Give it {option}", shortage.needed) from None
    cost = _measured(program, firmware, job)
    if job.instructions is not None and cost.instructions > job.instructions:
        raise BudgetError(
            f"even {what} alone does not fit: a step that trains it takes about {cost.instructions} instructions, "
            f"{cost.instructions - job.instructions} more than the {job.instructions} allowed. Give it --instructions "
            f"{-(-cost.instructions // 1_000_000)}M, or take a smaller model or input",
            cost.instructions,
        )
    rest = cost.sram - program.plan.arena - program.state.total
    least = smallest_peak(graph, input_rows=INPUT_MODES[job.line.input_mode]) + program.state.total + rest
    return replace(cost, sram=least), Fixed(rest, cost.flash - constants(graph))


def search(job: Budgeted, where: Space, head: Cost, fixed: Fixed, solver: Solver, progress: Progress) -> Found:
    """The choice of largest predicted gain whose firmware fits; solver: `solve`, or what searches in its place.

    Each round solves the knapsack under the limits less a margin, and confirms its choice with a few plans.  It ends when a
    choice that does not fit would have gained little more than the best that does."""
    limits = job.limits.less(Cost(fixed.sram, fixed.flash, 0))
    least = Choice(where, where.depths[least_depth(job.prepared)], ())
    best, margin = Found(least, head, head, fixed, limits, ()), _Margin()
    rounds: list[tuple[Choice, Cost, bool]] = []
    for n in range(ROUNDS):
        progress("confirming", n, ROUNDS)
        left = limits.less(margin.taken)
        choice = solver(where, left, job.seed)
        if choice is None or any(choice.same(other) for other, _, _ in rounds):
            break
        needed, fits = confirm(choice, job, fixed)
        rounds.append((choice, needed, fits))
        if fits and choice.gain >= best.choice.gain:
            best = replace(best, choice=choice, cost=needed, limits=left)
        missed = needed.minus(Cost(fixed.sram + choice.sram, fixed.flash + choice.flash, choice.instructions))
        following = margin.after(missed, fits)
        refused = [c.gain for c, _, ok in rounds if not ok]
        if following is None or (refused and min(refused) < (1 + WORTH) * best.choice.gain):
            break
        margin = following
    progress("confirming", ROUNDS, ROUNDS)
    return replace(best, rounds=tuple(rounds))


@dataclass(frozen=True)
class _Margin:
    """What is taken from the limits, because a real plan needs more than the prediction.

    held, refused: the last margins under which a choice kept the budget, and did not."""

    taken: Cost = NOTHING
    held: Cost | None = None
    refused: Cost | None = None

    def after(self, missed: Cost, fits: bool) -> _Margin | None:
        """The margin of the next round, None where none is worth it; missed: what was needed beyond the prediction.

        It at least doubles until a choice fits, or shrinks as fast while all do; then it goes half way back."""
        held, refused = (self.taken, self.refused) if fits else (self.held, self.taken)
        if held is None:
            return _Margin(self.taken.plus(self.taken).most(missed), held, refused)
        if refused is not None:
            return _Margin(held.middle(refused), held, refused)
        less = missed.plus(missed.minus(self.taken))
        return _Margin(less, held, refused) if less.sram < self.taken.sram else None


def confirm(choice: Choice, job: Budgeted, fixed: Fixed) -> tuple[Cost, bool]:
    """What a choice needs at least, by the real plan, and whether its firmware keeps the budget.

    Where none does: what it needs as it was tried, for the next choice must leave that much more."""
    graph = training(job.prepared, scheme_of(choice.depth, choice.options))
    probe = job.line.probe(graph, job.prepared.name, fixed.sram)
    if probe.program is None or probe.flash is None:
        return Cost(probe.sram, constants(graph) + fixed.flash, instructions(graph, job.line.target)), False
    cost = Cost(probe.sram, probe.flash, scheduled_instructions(probe.program, job.line.target))
    fits = job.limits.allow(cost)
    return replace(cost, sram=probe.least) if fits else cost, fits


def _fit(graph: Graph, job: Budgeted) -> tuple[Program, Firmware]:
    with tempfile.TemporaryDirectory() as folder:
        return job.line.fit(graph, job.prepared.name, Path(folder))


def _measured(program: Program, firmware: Firmware, job: Budgeted) -> Cost:
    facts = firmware.facts
    steps = scheduled_instructions(program, job.line.target)
    return Cost(facts.sram_static + facts.stack_reserved, facts.flash_total, steps)
