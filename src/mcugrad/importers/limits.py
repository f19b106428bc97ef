"""A clamp of an int8 value as saturation: the zero point moves, every number stays exact."""

from __future__ import annotations

import math
from dataclasses import replace

from mcugrad.ir import Quant

Limits = tuple[float, float]

NO_LIMITS = (-math.inf, math.inf)


def grids(quant: Quant, limits: Limits) -> tuple[Quant, ...]:
    """The quantizations to pass through so that saturation is the clamp, on the grid of `quant`: one or two.

    Moving the zero point by whole steps keeps every value exact and moves the ends of the int8 range: first the upper
    end onto the upper limit, then the lower end onto the lower one."""
    (scale,), zero = quant.scale, quant.zero
    low = max(zero + round(max(limits[0] / scale, -256.0)), -128)
    high = min(zero + round(min(limits[1] / scale, 256.0)), 127)
    return tuple(replace(quant, zero=z) for z in dict.fromkeys((zero + 127 - high, zero - 128 - low)))


def span(quant: Quant) -> Limits:
    """The real numbers that int8 holds at this quantization."""
    return quant.scale[0] * (-128 - quant.zero), quant.scale[0] * (127 - quant.zero)
