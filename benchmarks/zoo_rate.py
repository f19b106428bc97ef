"""The learning rate of a row of the zoo, chosen on a part of its training samples that it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from benchmarks.learning_device import Slowed
from mcugrad.compiler import host_program
from mcugrad.data import TRAIN, Dataset, held_out
from mcugrad.errors import McugradError
from mcugrad.metrics import measure
from mcugrad.prepare import Prepared, default_rate, training_graph
from mcugrad.trainer import Course, learn
from mcugrad.training.scheme import UpdateScheme, resolve

FASTEST = 256.0  # times the default rate of the scheme
HALVINGS = (4, 6, 8, 10, 12)  # of the fastest: 16 to 1/16 times the default
SLOWEST, APART = 16, 2  # while the best is at an edge of what was tried, one more beyond it
VALIDATION = 0.2  # share of the training samples
SEED = 11  # of the validation split


def chosen_rate(prepared: Prepared, scheme: UpdateScheme, data: Dataset, course: Course, folder: Path) -> dict[str, Any]:
    """The rate with the best validation score (the slowest of equals), and what each scored: accuracy, or minus the squared
    error of an autoencoder.  The test split is never seen."""
    part = without_test(data)
    default = default_rate(resolve(scheme, prepared.graph), prepared.graph)
    graph = training_graph(prepared, scheme, rate=FASTEST * default)
    _, library = host_program(graph, prepared.name, folder)
    scores = explored(lambda h: _score(library, h, prepared, part, course))
    rates = {FASTEST * default / 2**h: scores[h] for h in sorted(scores)}
    return {"rate": FASTEST * default / 2 ** best(scores), "default": default, "tried": rates}


def explored(score: Callable[[int], float]) -> dict[int, float]:
    """Scores by halvings, from the first grid outwards until the best is not at an edge."""
    scores = {h: score(h) for h in HALVINGS}
    while (beyond := _beyond(scores)) is not None:
        scores[beyond] = score(beyond)
    return scores


def _beyond(scores: Mapping[int, float]) -> int | None:
    """What to try next to the best where that is at an edge; None inside, and at the end of what a twin can do."""
    at = best(scores)
    found = at - APART if at == min(scores) else at + APART if at == max(scores) else None
    return found if found is not None and 0 <= found <= SLOWEST else None


def best(scores: Mapping[int, float]) -> int:
    """Halvings of the best score, the most of equals."""
    return max(scores, key=lambda h: (scores[h], h))


def without_test(data: Dataset) -> Dataset:
    """The training samples alone, a seeded share of each class (or of the groups) as their test split."""
    (x, y), group = data.train, None if data.group is None else data.group[data.split == TRAIN]
    return Dataset(x, y, held_out(y, group, SEED, VALIDATION), data.classes, data.origin, group=group)


def _score(library: Path, halvings: int, prepared: Prepared, part: Dataset, course: Course) -> float:
    """Of one rate; a run that diverges scores as it stood when that was seen."""
    (x, y), (held, labels) = part.train, part.test
    targets = prepared.targets
    with Slowed(library, halvings) as device:
        try:
            encoded: NDArray[Any] = targets.encode(y, len(x))
            learn(device, prepared.quantize(x), encoded, course, score=targets.loss_of(prepared.graph), chance=targets.chance)
        except McugradError:
            pass
        found = measure(device, prepared, prepared.quantize(held), labels, part.test_group)
    return round(found["accuracy"], 5) if "accuracy" in found else -found["mse"]
