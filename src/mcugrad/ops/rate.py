"""The constant part of an update's shifts in flash: made of the forward pass's multipliers where these tell it."""

from __future__ import annotations

from typing import Any

import numpy as np

from mcugrad.ir import Struct, Table
from mcugrad.quant.affine import INT32_MAX, multipliers


def rate(base: tuple[int, ...], exponent: int | None, forward: tuple[float, ...]) -> Struct:
    """The C struct of the shifts base[o], less the gradient's exponent.

    forward: the scales by which the layer's forward pass requantizes, () where unknown."""
    return Struct("mcg_rate_t", (("slot", -1 if exponent is None else exponent), *_shifts(base, forward)))


def _shifts(base: tuple[int, ...], forward: tuple[float, ...]) -> tuple[tuple[str, Any], ...]:
    found = thresholds(base, forward) if len(forward) == len(base) > 1 else None
    if found is None:
        return (("base", Table("int8_t", base)),)
    m, sh = multipliers(forward)
    tables = Table("int32_t", tuple(int(v) for v in m)), Table("uint8_t", tuple(int(v) for v in sh))
    return (*zip(("most", "first", "second"), found, strict=True), ("multiplier", tables[0]), ("shift", tables[1]))


def thresholds(base: tuple[int, ...], forward: tuple[float, ...]) -> tuple[int, int, int] | None:
    """(most, first, second) with base = most - 2 * sh - (M < first) - (M < second) for all (M, sh) of `forward`; None where
    there are none.

    Both follow from the weight scale s: sh and M are the exponent and the mantissa of a multiple of s, base is the rounded
    log2 of a multiple of s**2, so that it rises at most twice from one octave of s to the next.  int16, int32, int32."""
    m, sh = multipliers(forward)
    level = np.array(base) + 2 * sh
    most = int(level.min()) + 2
    first, second = (min((int(v) for v in m[level >= most - i]), default=INT32_MAX) for i in (1, 0))
    exact = np.array_equal(level, most - (m < first).astype(int) - (m < second))
    return (most, first, second) if exact and abs(most) < 1 << 15 else None
