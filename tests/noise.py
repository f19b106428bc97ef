"""The digits network calibrated on noise: what it learns does not matter."""

from __future__ import annotations

import numpy as np

from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.importers import load
from mcugrad.prepare import Prepared, prepare


def digits_on_noise(classes: int = 10, labels: int = 10) -> Prepared:
    """So many outputs, of which the 64 samples have the first `labels`."""
    imported, rng = load(ASSET), np.random.default_rng(1)
    images = rng.integers(0, 256, (64, *imported.graph.inputs[0].type.shape[1:])).astype(np.uint8)
    return prepare(imported, classes=classes, calibration=Calibration(images, rng.integers(0, labels, 64), "noise"))
