"""The only fixed-point arithmetic in Python; csrc/fixed.h mirrors it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
BIAS_LIMIT = 1 << 30  # |bias| and |sum of products| stay at or below this, so that an accumulator fits int32
SOFTMAX_LUT = tuple(int(v) for v in np.rint(2.0 ** (-np.arange(256) / 256) * 32768))
SOFTMAX_FAR = 7680  # 30 octaves: beyond it a probability is 0


def multiplier(scale: float) -> tuple[int, int]:
    """(M, sh) with scale ~ M / 2**sh, 2**30 <= M < 2**31 (MULT).  Raises ValueError when 1 <= sh <= 62 fails."""
    mantissa, exponent = math.frexp(scale)
    m, sh = round(mantissa * 2**31), 31 - exponent
    if m == 2**31:
        m, sh = m // 2, sh - 1
    if not 1 <= sh <= 62:
        raise ValueError(f"a multiplier of {scale:g} is outside [2^-32, 2^29]")
    return m, sh


@lru_cache(maxsize=4096)
def multipliers(scales: tuple[float, ...]) -> tuple[Array, Array]:
    """`multiplier` of each scale: (M int64[n], sh int64[n])."""
    pairs = [multiplier(s) for s in scales]
    return np.array([p[0] for p in pairs], np.int64), np.array([p[1] for p in pairs], np.int64)


_COARSE = 64  # weight scales are float32: their multipliers have zeros in their last bits, which a product may disturb


def rescaled(m: Array, sh: Array, ratio: int) -> tuple[Array, Array]:
    """(M, sh) of multipliers times ratio / 2**31, to the nearest M that ends in six zeros; fixed.h does the same."""
    up = (m * ratio >> 32) << 1
    short = up < (1 << 30) - _COARSE // 2
    return (np.where(short, up << 1, up) + _COARSE // 2) & -_COARSE, sh + short


def ratio_between(scales: tuple[float, ...], others: tuple[float, ...]) -> tuple[int, int] | None:
    """(ratio, more) by which `rescaled` turns the multipliers of `others` into exactly those of `scales`, their shifts
    increased by `more` (int16); None where there are none."""
    if len(scales) != len(others):
        return None
    (m, sh), ratio = multipliers(scales), round(math.frexp(scales[0] / others[0])[0] * 2**31)
    near, shift = rescaled(*multipliers(others), min(ratio, INT32_MAX))
    more = sh - shift
    exact = np.array_equal(near, m) and np.all(more == more[0]) and abs(int(more[0])) < 1 << 15
    return (min(ratio, INT32_MAX), int(more[0])) if exact else None


def mbqm(v: Array, m: Array | int, sh: Array | int) -> Array:
    """(v * M + 2**(sh-1)) >> sh in int64 (multiply by a quantized multiplier, round half up)."""
    sh = np.asarray(sh, np.int64)
    return np.asarray((np.asarray(v, np.int64) * np.asarray(m, np.int64) + (np.int64(1) << (sh - 1))) >> sh)


def rsh(v: Array, k: Array | int) -> Array:
    """Rounding shift right of int64 v: 0 beyond 31, left and saturating to int32 below 0 (RSH)."""
    v, k = np.broadcast_arrays(np.asarray(v, np.int64), np.asarray(k, np.int64))
    right = np.clip(k, 1, 31)
    rounded = (v + (np.int64(1) << (right - 1))) >> right
    left = np.clip(v << np.clip(-k, 0, 31), INT32_MIN, INT32_MAX)
    left = np.where(k < -31, np.sign(v) * np.int64(INT32_MAX) - (v < 0), left)
    return np.where(k > 31, 0, np.where(k > 0, rounded, np.where(k == 0, v, left)))


def shift_down(v: Array, k: Array | int, r: Array | int) -> Array:
    """(v + r) >> k with the limits of `rsh`; r < 2**k is the rounding term (stochastic rounding)."""
    v, k, r = np.broadcast_arrays(np.asarray(v, np.int64), np.asarray(k, np.int64), np.asarray(r, np.int64))
    right = (v + r) >> np.clip(k, 0, 31)
    return np.where((k > 0) & (k <= 31), right, rsh(v, k))


def clamp8(v: Array) -> Array:
    return np.clip(v, -128, 127)


def clampg(v: Array) -> Array:
    """Gradients are symmetric: [-127, 127]."""
    return np.clip(v, -127, 127)


def round_half_up(x: float) -> int:
    return math.floor(x + 0.5)


def log2_shift(rate: float) -> int:
    """Shift that stands for multiplying by `rate` (> 0): -round(log2(rate))."""
    return -round_half_up(math.log2(rate))


def random_bits(seed: int, step: int, tensor: int, n: Array) -> Array:
    """uint32 per element index n: a function of the element alone, never of the order of evaluation."""
    mask = 0xFFFFFFFF
    x = (seed ^ (step * 0x9E3779B1) ^ (tensor * 0x85EBCA6B)) & mask
    v = (np.asarray(n, np.uint64) * np.uint64(0x9E3779B1) + np.uint64(x)) & np.uint64(mask)
    v ^= v >> np.uint64(15)
    v = (v * np.uint64(0x85EBCA6B)) & np.uint64(mask)
    v ^= v >> np.uint64(13)
    v = (v * np.uint64(0xC2B2AE35)) & np.uint64(mask)
    return v ^ (v >> np.uint64(16))


def softmax_multiplier(feature_scale: float) -> tuple[int, int]:
    """(M, sh) that turns a logit difference in accumulator units into 1/256 octaves."""
    mantissa, exponent = math.frexp(feature_scale * 2.0**-12 * math.log2(math.e) * 256)
    return round(mantissa * 2**15), 15 - exponent


def softmax(logits: Array, m: int, sh: int) -> Array:
    """Probabilities in Q15 (int64[n]) of logits int32[n] in accumulator units."""
    a = np.asarray(logits, np.int64)
    d = np.minimum(((a.max() - a) * m) >> sh if sh >= 0 else ((a.max() - a) * m) << -sh, SOFTMAX_FAR)
    e = np.asarray(SOFTMAX_LUT, np.int64)[d & 255] >> (d >> 8)
    p: Array = (e << 15) // e.sum()
    return p


def sigmoid(logits: Array, m: int, sh: int) -> Array:
    """1 / (1 + exp(-a)) in Q15 (int64[n]) of logits int32[n] in accumulator units, by the exponential of the softmax."""
    a = np.asarray(logits, np.int64)
    d = np.minimum((np.abs(a) * m) >> sh if sh >= 0 else (np.abs(a) * m) << -sh, SOFTMAX_FAR)
    high = (1 << 30) // (32768 + (np.asarray(SOFTMAX_LUT, np.int64)[d & 255] >> (d >> 8)))
    p: Array = np.where(a < 0, 32768 - high, high)
    return p
