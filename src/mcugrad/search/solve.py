"""The best scheme under memory and time: an exact multiple-choice knapsack."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ortools.sat.python import cp_model

from mcugrad.search.space import Depth, Option, Space

UNITS = 10_000_000  # of the objective: the gain of everything
EFFORT = 5.0  # of CP-SAT's deterministic time, seconds at best; not wall time: results must not depend on the machine
ROUGH = 0.002  # relative gap to the optimum that will do for pictures and reasons


@dataclass(frozen=True)
class Cost:
    """Bytes of SRAM and flash, estimated instructions of a training step."""

    sram: int
    flash: int
    instructions: int

    def minus(self, other: Cost) -> Cost:
        return Cost(self.sram - other.sram, self.flash - other.flash, self.instructions - other.instructions)

    def plus(self, other: Cost) -> Cost:
        return Cost(self.sram + other.sram, self.flash + other.flash, self.instructions + other.instructions)

    def middle(self, other: Cost) -> Cost:
        """Half way to another."""
        total = self.plus(other)
        return Cost(total.sram // 2, total.flash // 2, total.instructions // 2)

    def most(self, other: Cost) -> Cost:
        """The larger of each."""
        return Cost(max(self.sram, other.sram), max(self.flash, other.flash), max(self.instructions, other.instructions))


@dataclass(frozen=True)
class Limits:
    """What a scheme may cost.  sram: bytes of arena and parameters; flash: bytes of constants; None: no limit."""

    sram: int | None = None
    flash: int | None = None
    instructions: int | None = None

    def less(self, taken: Cost) -> Limits:
        """What is left of the limits."""
        pairs = ((self.sram, taken.sram), (self.flash, taken.flash), (self.instructions, taken.instructions))
        return Limits(*(None if limit is None else limit - cost for limit, cost in pairs))

    def allow(self, cost: Cost) -> bool:
        """Does a cost keep all limits?"""
        pairs = ((cost.sram, self.sram), (cost.flash, self.flash), (cost.instructions, self.instructions))
        return all(limit is None or paid <= limit for paid, limit in pairs)


@dataclass(frozen=True)
class Choice:
    """A bias depth and at most one option for each layer within it, with their predicted cost."""

    space: Space
    depth: Depth
    options: tuple[Option, ...]

    @property
    def gain(self) -> float:
        """Share of the gain of updating everything."""
        return (self.depth.gain + sum(o.gain for o in self.options)) / self.space.total

    @property
    def state(self) -> int:
        """Bytes of the mutable parameters."""
        return (self.depth.state + sum(o.state for o in self.options) + 3) // 4 * 4

    @cached_property
    def arena(self) -> int:
        """Bytes of the smallest arena."""
        return self.space.arena(self.depth, self.options)

    @property
    def sram(self) -> int:
        """Bytes of arena and parameters."""
        return self.arena + self.state

    @property
    def flash(self) -> int:
        """Bytes of constants."""
        return self.depth.flash + sum(o.flash for o in self.options)

    @property
    def instructions(self) -> int:
        """Instructions of a training step, every node run whole."""
        return self.depth.instructions + sum(o.instructions for o in self.options)

    def within(self, limits: Limits) -> bool:
        """Does it keep all limits?"""
        return limits.allow(Cost(self.sram, self.flash, self.instructions))

    def same(self, other: Choice) -> bool:
        """Is it the same scheme?"""
        return (self.depth.biases, self.options) == (other.depth.biases, other.options)


def solve(
    space: Space,
    limits: Limits,
    seed: int = 0,
    *,
    without: Collection[int] = (),
    having: Collection[int] = (),
    gap: float = 0.0,
) -> Choice | None:
    """The choice of largest gain; None where nothing keeps the limits.

    without, having: indices of layers whose weight must stay frozen, or must be updated.  gap: relative distance from the
    optimum that will do."""
    model = _Model(space, limits)
    for layer in without:
        model.cp.add(model.updated[layer] == 0)
    for layer in having:
        model.cp.add(model.updated[layer] == 1)
    return model.best(seed, gap)


class _Model:
    """The knapsack as CP-SAT sees it: a literal per depth and per option."""

    def __init__(self, space: Space, limits: Limits) -> None:
        self.space, self.cp = space, cp_model.CpModel()
        self.depths = [self.cp.new_bool_var(f"last{d.biases}") for d in space.depths]
        self.options = [self.cp.new_bool_var(f"{o.name}_{o.ratio}_{o.bits}") for o in space.options]
        self.updated = [self.cp.new_bool_var(f"updates_{name}") for name in space.names]
        self.cp.add_exactly_one(self.depths)
        self._one_option_within_the_depth()
        self._memory(limits.sram)
        for limit, cost in ((limits.flash, "flash"), (limits.instructions, "instructions")):
            if limit is not None:
                self.cp.add(self._sum(cost) <= limit)
        gain = UNITS / space.total
        self.cp.maximize(
            sum(round(d.gain * gain) * v for d, v in zip(space.depths, self.depths, strict=True))
            + sum(round(o.gain * gain) * v for o, v in zip(space.options, self.options, strict=True))
        )

    def _one_option_within_the_depth(self) -> None:
        count = len(self.space.names)
        for layer, updated in enumerate(self.updated):
            own = [v for o, v in zip(self.space.options, self.options, strict=True) if o.layer == layer]
            self.cp.add(sum(own) == updated)
            reached = [v for d, v in zip(self.space.depths, self.depths, strict=True) if layer >= count - d.biases]
            self.cp.add(updated <= sum(reached))

    def _sum(self, cost: str) -> Any:
        parts = zip((*self.space.depths, *self.space.options), (*self.depths, *self.options), strict=True)
        return sum(getattr(part, cost) * v for part, v in parts)

    def _memory(self, limit: int | None) -> None:
        """At each layer: the parameters, the inputs kept for layers up to it, and what else is alive, or its update needs."""
        if limit is None:
            return
        count = len(self.space.names)
        state: Any = self._sum("state")
        kept: Any = 0
        floor = sum(d.arena * v for d, v in zip(self.space.depths, self.depths, strict=True))
        self.cp.add(state + floor <= limit // 4 * 4)
        for at, updated in enumerate(self.updated):
            kept += self.space.kept[at] * updated
            peak = sum(d.peaks[at] * v for d, v in zip(self.space.depths, self.depths, strict=True) if at >= count - d.biases)
            self.cp.add(state + peak + kept <= limit // 4 * 4)
            self.cp.add(state + kept + self.space.update[at] * updated <= limit // 4 * 4)

    def best(self, seed: int, gap: float) -> Choice | None:
        solver = cp_model.CpSolver()
        solver.parameters.relative_gap_limit = gap
        solver.parameters.linearization_level = 2  # the linear bound of all constraints: a hundred times faster here
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed
        solver.parameters.max_deterministic_time = EFFORT
        if solver.solve(self.cp) not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            return None
        depth = next(d for d, v in zip(self.space.depths, self.depths, strict=True) if solver.value(v))
        chosen = tuple(o for o, v in zip(self.space.options, self.options, strict=True) if solver.value(v))
        return Choice(self.space, depth, chosen)


def front(space: Space, caps: Iterable[int], limits: Limits, seed: int = 0) -> list[tuple[int, Choice]]:
    """The best choice under each SRAM cap (bytes of arena and parameters) that allows one, the other limits as given."""
    found = []
    for cap in caps:
        choice = solve(space, Limits(cap, limits.flash, limits.instructions), seed, gap=ROUGH)
        if choice is not None:
            found.append((cap, choice))
    return found
