"""The best scheme by evolutionary search, as Lin et al. (arXiv 2206.15472) find theirs: the rival of the exact knapsack."""

from __future__ import annotations

import random

from mcugrad.search.solve import Choice, Limits
from mcugrad.search.space import Option, Space

POPULATION = 64
GENERATIONS = 120
ELITE = 16  # survive, and are the parents of the others
MUTATION = 0.05  # probability for each layer


def evolve(space: Space, limits: Limits, seed: int = 0) -> Choice | None:
    """The fittest choice of the last generation; fitness is the predicted gain.  None where nothing keeps the limits.

    A choice above the limits is repaired: it gives up what gains least per byte, then depth."""
    rng = random.Random(seed)
    search = _Evolution(space, limits, rng)
    people = [p for _ in range(POPULATION) if (p := search.repaired(search.draw())) is not None]
    if not people:
        return None
    for _ in range(GENERATIONS):
        parents = sorted(people, key=lambda c: -c.gain)[:ELITE]
        children = (search.repaired(search.child(rng.choice(parents), rng.choice(parents))) for _ in range(POPULATION - ELITE))
        people = [*parents, *(c for c in children if c is not None)]
    return max(people, key=lambda c: c.gain)


class _Evolution:
    """Drawing, crossing and repairing choices."""

    def __init__(self, space: Space, limits: Limits, rng: random.Random) -> None:
        self.space, self.limits, self.rng = space, limits, rng
        self.own: list[list[Option]] = [[] for _ in space.names]
        for option in space.options:
            self.own[option.layer].append(option)

    def draw(self) -> Choice:
        """A random depth; each layer within it is updated with probability 1/4."""
        depth = self.rng.choice(self.space.depths)
        reached = self.own[len(self.own) - depth.biases :]
        return Choice(self.space, depth, tuple(self.rng.choice(o) for o in reached if o and self.rng.random() < 0.25))

    def child(self, a: Choice, b: Choice) -> Choice:
        """Each layer from either parent, some drawn anew; the depth from either, sometimes one layer more or less."""
        at = self.rng.choice((a, b)).depth.biases + self.rng.choice((-1, 0, 0, 1))
        depth = self.space.depths[min(max(at, 0), len(self.space.depths) - 1)]
        genes = [{o.layer: o for o in parent.options} for parent in (a, b)]
        chosen = []
        for layer in range(len(self.own) - depth.biases, len(self.own)):
            option = self.rng.choice(genes).get(layer)
            if self.rng.random() < MUTATION:
                option = self.rng.choice([None, *self.own[layer]])
            if option is not None:
                chosen.append(option)
        return Choice(self.space, depth, tuple(chosen))

    def repaired(self, choice: Choice) -> Choice | None:
        """The choice without what keeps it above the limits."""
        while not choice.within(self.limits):
            if choice.options:
                worst = min(choice.options, key=lambda o: o.gain / o.state)
                choice = Choice(self.space, choice.depth, tuple(o for o in choice.options if o is not worst))
            elif choice.depth.biases:
                choice = Choice(self.space, self.space.depths[choice.depth.biases - 1], ())
            else:
                return None
        return choice
