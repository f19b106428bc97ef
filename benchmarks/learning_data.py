"""The transfer sets of the learning benchmark: the sets' own splits, at the size the networks read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mcugrad.data import Calibration, load_data
from mcugrad.images import resize
from mcugrad.prepare import CALIBRATION_SAMPLES

SIZE = (128, 128, 3)


@dataclass(frozen=True)
class TransferSet:
    """How much of a set is used (None: all of it) and how long a run is."""

    epochs: int
    train: int | None = None
    test: int | None = None


SETS = {
    "flowers12": TransferSet(epochs=10),
    "cifar10": TransferSet(epochs=2, train=2000, test=1000),
    "trashnet128": TransferSet(epochs=2),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 [N,H,W,C] and labels int64 [N]."""

    x: NDArray[np.uint8]
    y: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Images:
    """Both splits of a set."""

    name: str
    classes: int
    train: Split
    test: Split

    def calibration(self) -> Calibration:
        """Evenly spaced training images, as the commands choose them."""
        at = np.linspace(0, len(self.train.x) - 1, CALIBRATION_SAMPLES).round().astype(int)
        return Calibration(self.train.x[at], self.train.y[at], self.name)


def read(name: str, folder: Path) -> Images:
    """The set in folder/name; a subset is the same seeded choice in every run."""
    data = load_data(folder / name)
    use = SETS[name]
    train, test = (_subset(*part, size) for part, size in ((data.train, use.train), (data.test, use.test)))
    return Images(name, len(data.classes), train, test)


def _subset(x: NDArray[np.uint8], y: NDArray[np.int64], size: int | None) -> Split:
    if size is not None:
        chosen = np.sort(np.random.default_rng(0).permutation(len(x))[:size])
        x, y = x[chosen], y[chosen]
    return Split(resize(x, *SIZE), y)
