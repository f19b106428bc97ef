"""Integer weights of a foreign layer as symmetric int8 per output channel, within what the accumulators can take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mcugrad.ir import Array
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.quant.assign import DEAD_RATIO, TINY
from mcugrad.quant.repair import DEAD_SCALE, live_scales

LARGEST = 127  # magnitude of a symmetric int8 weight


@dataclass(frozen=True)
class IntegerLayer:
    """weight int8 OHWI, bias int64 [O] at s_x * scale[o], scale float64 [O]; and what was lost on the way.

    rescaled: channels that needed a larger scale; dead: channels whose weights do not matter; error: relative RMS."""

    name: str
    weight: Array
    bias: Array
    scale: Array
    rescaled: int
    dead: int
    error: float


def symmetric(name: str, weight: Array, bias: Array, scale: Array) -> IntegerLayer:
    """The layer of integers weight [O,...] without zero point (up to +-255) at `scale` [O], and bias [O].

    A channel within +-127 stays as it is.  Any other gets the smallest scale that holds it, and so does one whose bias
    leaves +-2**30.  Dead channels (vanishing scale) keep their bias alone, at the median scale of the live ones."""
    rows = weight.reshape(len(weight), -1)
    factor = np.maximum(np.maximum(np.abs(rows).max(axis=1) / LARGEST, np.abs(bias) / BIAS_LIMIT), 1.0)
    wide = scale * factor
    live, dead = live_scales(wide, min(DEAD_SCALE, max(DEAD_RATIO * float(wide.max()), TINY)))
    changed = (factor > 1) & ~dead
    fitted, error = np.where(dead[:, None], 0, np.clip(rows, -LARGEST, LARGEST)).astype(np.int8), 0.0
    if changed.any():
        exact = rows[changed] / factor[changed, None]
        fitted[changed] = np.rint(exact)
        lost = (((fitted[changed] - exact) * wide[changed, None]) ** 2).sum()
        error = float(np.sqrt(lost / ((rows[~dead] * scale[~dead, None]) ** 2).sum()))
    moved = np.clip(np.rint(bias * (scale / live)), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int64)
    return IntegerLayer(name, fitted.reshape(weight.shape), moved, live, int(changed.sum()), int(dead.sum()), error)


def loss_notes(layers: Sequence[IntegerLayer]) -> list[str]:
    """What re-expressing the weights changed, for the report."""
    notes = []
    if dead := sum(layer.dead for layer in layers):
        notes.append(f"{dead} dead channels repaired (their weight scale vanishes beside the layer's others)")
    changed = [layer for layer in layers if layer.rescaled]
    if changed:
        channels, every = sum(layer.rescaled for layer in changed), sum(len(layer.scale) for layer in layers)
        worst = max(changed, key=lambda layer: layer.error)
        notes.append(
            f"{channels} of {every} output channels do not fit symmetric int8 weights and were re-expressed: relative "
            f"error at most {worst.error:.2%} (RMS, in {worst.name})"
        )
    return notes
