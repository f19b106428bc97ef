"""Convolution and its two gradients in float64, exact for integers below 2**53."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ops.spatial import Window

Array = NDArray[Any]


def correlate(x: Array, weight: Array, window: Window, groups: int) -> Array:
    """float64 [1,OH,OW,O] of x [1,H,W,C] (zero point removed) and weight [O,kh,kw,C/groups]."""
    height, width = x.shape[1:3]
    out = np.zeros((1, *window.output(height, width), weight.shape[0]))
    padded, per_out, per_in = window.pad(x.astype(np.float64)), weight.shape[0] // groups, weight.shape[3]
    for ky, kx, rows, columns in window.taps(height, width):
        taps = padded[:, rows, columns]
        for g in range(groups):
            o, i = slice(g * per_out, (g + 1) * per_out), slice(g * per_in, (g + 1) * per_in)
            out[..., o] += taps[..., i] @ weight[o, ky, kx].astype(np.float64).T
    return out


def correlate_back(h: Array, weight: Array, window: Window, groups: int, height: int, width: int) -> Array:
    """float64 input gradient [1,H,W,C] of `correlate` for output gradient h [1,OH,OW,O]."""
    per_out, per_in = weight.shape[0] // groups, weight.shape[3]
    padded = window.pad(np.zeros((1, height, width, per_in * groups)))
    for ky, kx, rows, columns in window.taps(height, width):
        for g in range(groups):
            o, i = slice(g * per_out, (g + 1) * per_out), slice(g * per_in, (g + 1) * per_in)
            padded[:, rows, columns, i] += h[..., o].astype(np.float64) @ weight[o, ky, kx].astype(np.float64)
    top, left = window.padding[:2]
    return padded[:, top : top + height, left : left + width]


def correlate_weight(x: Array, h: Array, window: Window, groups: int) -> Array:
    """float64 weight gradient [O,kh,kw,C/groups] of `correlate`."""
    out_c, per_in = h.shape[3], x.shape[3] // groups
    per_out = out_c // groups
    grad = np.zeros((out_c, *window.kernel, per_in))
    padded, flat = window.pad(x.astype(np.float64)), h.reshape(-1, out_c).astype(np.float64)
    for ky, kx, rows, columns in window.taps(*x.shape[1:3]):
        taps = padded[:, rows, columns].reshape(-1, x.shape[3])
        for g in range(groups):
            o, i = slice(g * per_out, (g + 1) * per_out), slice(g * per_in, (g + 1) * per_in)
            grad[o, ky, kx] += flat[:, o].T @ taps[:, i]
    return grad
