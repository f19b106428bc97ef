"""Repair of dead channels: a vanishing weight scale becomes a sane one and the function stays the same."""

from __future__ import annotations

import numpy as np

from mcugrad.ir import Array

DEAD_SCALE = 1e-7


def repair_dead_channels(scales: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array, int]:
    """(weight, scales, bias, count) with every channel (first axis) of scale < 1e-7 re-expressed.

    Its weights become 0, its scale the median of the layer's live channels, its bias rint(b * old / median)."""
    dead = scales < DEAD_SCALE
    if not dead.any():
        return weight, scales, bias, 0
    median = float(np.median(scales[~dead])) if (~dead).any() else 1.0
    repaired = weight.copy()
    repaired[dead] = 0
    new_bias = np.where(dead, np.rint(bias * scales / median), bias).astype(np.int64)
    return repaired, np.where(dead, median, scales), new_bias, int(dead.sum())
