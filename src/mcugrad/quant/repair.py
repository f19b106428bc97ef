"""Repair of dead channels: a vanishing weight scale becomes a sane one and the function stays the same."""

from __future__ import annotations

import numpy as np

from mcugrad.ir import Array

DEAD_SCALE = 1e-7


def live_scales(scales: Array, threshold: float = DEAD_SCALE) -> tuple[Array, Array]:
    """(scales with the dead ones, below `threshold`, at the median of the live ones, mask of the dead ones): both [O].

    A layer without live channels gets scale 1."""
    dead = scales < threshold
    median = float(np.median(scales[~dead])) if (~dead).any() else 1.0
    return np.where(dead, median, scales), dead


def repair_dead_channels(scales: Array, weight: Array, bias: Array) -> tuple[Array, Array, Array, int]:
    """(weight, scales, bias, count) with every channel (first axis) of scale < 1e-7 re-expressed.

    Its weights become 0, its scale the median of the layer's live channels, its bias rint(b * old / median)."""
    repaired, dead = live_scales(scales)
    if not dead.any():
        return weight, scales, bias, 0
    kept = weight.copy()
    kept[dead] = 0
    new_bias = np.where(dead, np.rint(bias * scales / repaired), bias).astype(np.int64)
    return kept, repaired, new_bias, int(dead.sum())
