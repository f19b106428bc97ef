"""The learning rate of a row of the zoo, chosen on a part of its training samples that it does not learn from."""

from __future__ import annotations

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

FASTEST = 16.0  # times the default rate of the scheme
HALVINGS = (0, 2, 4, 6, 8)  # of the fastest: 16 to 1/16 times the default
VALIDATION = 0.2  # share of the training samples
SEED = 11  # of the validation split


def chosen_rate(prepared: Prepared, scheme: UpdateScheme, data: Dataset, course: Course, folder: Path) -> dict[str, Any]:
    """The rate with the best validation score, and what each scored: accuracy, or minus the squared error of an
    autoencoder.  The test split is never seen."""
    part = without_test(data)
    default = default_rate(resolve(scheme, prepared.graph), prepared.graph)
    graph = training_graph(prepared, scheme, rate=FASTEST * default)
    _, library = host_program(graph, prepared.name, folder)
    scores = {FASTEST * default / 2**h: _score(library, h, prepared, part, course) for h in HALVINGS}
    return {"rate": max(scores, key=lambda rate: scores[rate]), "default": default, "tried": scores}


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
