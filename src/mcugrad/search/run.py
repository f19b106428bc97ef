"""From a prepared network and a budget to a scheme: the knapsack proposes, the real plan and the linked firmware decide."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from mcugrad.build import Firmware
from mcugrad.errors import BudgetError
from mcugrad.fit import INPUT_MODES, Line, Shortage
from mcugrad.ir import Graph
from mcugrad.memory.problem import state_layout
from mcugrad.prepare import Prepared
from mcugrad.program import Program
from mcugrad.search.cost import constants, instructions, scheduled_instructions
from mcugrad.search.solve import Choice, Limits, solve
from mcugrad.search.space import Gains, Progress, Space, scheme_of, smallest_arena, space, training
from mcugrad.training.scheme import HEAD_ONLY

ROUNDS = 5  # of solving and confirming


@dataclass(frozen=True)
class Cost:
    """What a scheme needs on the target: bytes of SRAM and flash of the linked firmware, estimated instructions."""

    sram: int
    flash: int
    instructions: int


@dataclass(frozen=True)
class Fixed:
    """What the firmware needs besides: bytes of SRAM beyond arena and parameters, bytes of flash beyond constants."""

    sram: int
    flash: int


@dataclass(frozen=True)
class Found:
    """The best choice that was confirmed, its cost, and what was tried.

    head: cost of learning the head alone.  fixed: what predictions leave out, from that firmware.  rounds: gain and cost
    of every proposal, and whether it kept the budget.
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
    """Cost of learning the head alone.  Raises BudgetError, saying by how much, where even that does not fit."""
    graph = training(job.prepared, HEAD_ONLY)
    try:
        program, firmware = _fit(graph, job)
    except Shortage as shortage:
        option = f"--{shortage.memory.lower()} {-(-(shortage.needed or 0) // 1024)}K"
        raise BudgetError(f"even the head alone does not fit. {shortage}. Give it {option}", shortage.needed) from None
    cost = _measured(program, firmware, job)
    if job.instructions is not None and cost.instructions > job.instructions:
        raise BudgetError(
            f"even the head alone does not fit: a step that trains it takes about {cost.instructions} instructions, "
            f"{cost.instructions - job.instructions} more than the {job.instructions} allowed. Give it --instructions "
            f"{-(-cost.instructions // 1_000_000)}M, or take a smaller model or input",
            cost.instructions,
        )
    arena_and_state = program.plan.arena + program.state.total
    return cost, Fixed(cost.sram - arena_and_state, cost.flash - constants(graph))


def choices(job: Budgeted, gains: Gains, progress: Progress) -> Space:
    """What may be updated under the job's residual bits and input mode."""
    return space(job.prepared, gains, job.line.target, INPUT_MODES[job.line.input_mode], job.bits, progress)


def search(job: Budgeted, where: Space, head: Cost, fixed: Fixed, progress: Progress) -> Found:
    """The choice of largest predicted gain whose firmware fits.

    Each round solves the knapsack and confirms its choice; what the plan needs beyond (or below) the prediction is taken
    from (or given to) the next round's limits.
    """
    limits = Limits(
        _less(job.limits.sram, fixed.sram), _less(job.limits.flash, fixed.flash), job.limits.instructions
    )
    best, cost = Choice(where, where.depths[0], ()), head
    wrong, rounds = Cost(0, 0, 0), []
    for n in range(ROUNDS):
        progress("confirming", n, ROUNDS)
        choice = solve(where, _tightened(limits, wrong), seed=job.seed)
        if choice is None or any(choice.same(other) for other, _, _ in rounds):
            break
        needed, fits = confirm(choice, job, fixed)
        rounds.append((choice, needed, fits))
        if fits and choice.gain > best.gain:
            best, cost = choice, needed
        missed = _difference(needed, choice, fixed)
        if fits and missed == wrong:
            break
        wrong = missed
    progress("confirming", ROUNDS, ROUNDS)
    return Found(best, cost, head, fixed, limits, tuple(rounds))


def confirm(choice: Choice, job: Budgeted, fixed: Fixed) -> tuple[Cost, bool]:
    """What a choice needs at least, by the real plan, and whether its firmware keeps the budget."""
    graph = training(job.prepared, scheme_of(choice.depth, choice.options))
    arena = smallest_arena(graph, INPUT_MODES[job.line.input_mode])
    least = Cost(
        arena + state_layout(graph).total + fixed.sram,
        constants(graph) + fixed.flash,
        instructions(graph, job.line.target),
    )
    try:
        program, firmware = _fit(graph, job)
    except Shortage as shortage:
        needed = shortage.needed or 0
        if shortage.memory == "SRAM":
            return replace(least, sram=max(least.sram, needed)), False
        return replace(least, flash=max(least.flash, needed)), False
    built = _measured(program, firmware, job)
    rest = built.sram - program.plan.arena - program.state.total
    least = Cost(arena + program.state.total + rest, built.flash, built.instructions)
    return least, job.instructions is None or built.instructions <= job.instructions


def _fit(graph: Graph, job: Budgeted) -> tuple[Program, Firmware]:
    with tempfile.TemporaryDirectory() as folder:
        return job.line.fit(graph, job.prepared.name, Path(folder))


def _measured(program: Program, firmware: Firmware, job: Budgeted) -> Cost:
    facts = firmware.facts
    steps = scheduled_instructions(program, job.line.target)
    return Cost(facts.sram_static + facts.stack_reserved, facts.flash_total, steps)


def _difference(needed: Cost, choice: Choice, fixed: Fixed) -> Cost:
    """What the prediction left out."""
    return Cost(
        needed.sram - fixed.sram - choice.sram,
        needed.flash - fixed.flash - choice.flash,
        needed.instructions - choice.instructions,
    )


def _less(limit: int | None, taken: int) -> int | None:
    return None if limit is None else limit - taken


def _tightened(limits: Limits, wrong: Cost) -> Limits:
    return Limits(
        _less(limits.sram, wrong.sram), _less(limits.flash, wrong.flash), _less(limits.instructions, wrong.instructions)
    )
