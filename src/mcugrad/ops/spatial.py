"""What all sliding-window ops share: geometry, numpy windows and row ranges."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import GraphError, Node, Op, RowNeed, TensorType

Array = NDArray[Any]


@dataclass(frozen=True)
class Window:
    """Kernel (h, w), stride (h, w), zero padding (top, left, bottom, right) and dilation (h, w) of a sliding window."""

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def extent(self) -> tuple[int, int]:
        """Height and width from the first to the last tap."""
        (kh, kw), (dh, dw) = self.kernel, self.dilation
        return (kh - 1) * dh + 1, (kw - 1) * dw + 1

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output height and width; raises GraphError when the window does not fit."""
        top, left, bottom, right = self.padding
        if min(*self.stride, *self.kernel, *self.dilation) < 1 or min(self.padding) < 0:
            said = f"stride {self.stride}, padding {self.padding} or dilation {self.dilation}"
            raise GraphError(f"kernel {self.kernel}, {said} makes no sense")
        h = (height + top + bottom - self.extent[0]) // self.stride[0] + 1
        w = (width + left + right - self.extent[1]) // self.stride[1] + 1
        if h < 1 or w < 1:
            raise GraphError(f"a {self.extent} window with padding {self.padding} does not fit a {height}x{width} map")
        return h, w

    def pad(self, x: Array, value: float = 0) -> Array:
        """x [1,H,W,C] with its padding."""
        top, left, bottom, right = self.padding
        return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=value)

    def taps(self, height: int, width: int) -> Iterator[tuple[int, int, slice, slice]]:
        """(ky, kx, rows, columns) of the padded input that meet each output position at that tap."""
        h, w = self.output(height, width)
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y, x = ky * self.dilation[0], kx * self.dilation[1]
                rows = slice(y, y + (h - 1) * self.stride[0] + 1, self.stride[0])
                yield ky, kx, rows, slice(x, x + (w - 1) * self.stride[1] + 1, self.stride[1])

    def need(self, first: int, last: int, height: int) -> RowNeed:
        """Input rows that output rows [first, last) read."""
        low = first * self.stride[0] - self.padding[0]
        high = (last - 1) * self.stride[0] - self.padding[0] + self.extent[0]
        return RowNeed(0, min(max(low, 0), height), max(min(high, height), 0))

    def crop(self, first: int, last: int, height: int) -> Window:
        """The window that computes output rows [first, last) from the rows of `need` alone."""
        low = first * self.stride[0] - self.padding[0]
        high = (last - 1) * self.stride[0] - self.padding[0] + self.extent[0]
        need = self.need(first, last, height)
        _, left, _, right = self.padding
        return replace(self, padding=(need.first - low, left, high - need.last, right))

    def reaches_all(self, height: int, outputs: int) -> bool:
        """Is every input row read by some output row?"""
        return self.extent[0] >= self.stride[0] and (outputs - 1) * self.stride[0] - self.padding[0] + self.extent[0] >= height

    def reached(self, first: int, last: int, outputs: int) -> tuple[int, int]:
        """Output rows [low, high) that read input rows [first, last)."""
        low = -(-(first + self.padding[0] - self.extent[0] + 1) // self.stride[0])
        return max(low, 0), min((last - 1 + self.padding[0]) // self.stride[0] + 1, outputs)

    def crop_back(self, first: int, last: int, outputs: int) -> Window:
        """The window through which input rows [first, last) meet the output rows of `reached` alone, where it reaches all."""
        low, high = self.reached(first, last, outputs)
        _, left, _, right = self.padding
        top = first + self.padding[0] - low * self.stride[0]
        bottom = max((high - low - 1) * self.stride[0] + self.extent[0] - (last - first) - top, 0)
        return replace(self, padding=(top, left, bottom, right))

    def walk(self, x: TensorType, y: TensorType, strip: int) -> Array:
        """Pieces of an `ir.Walk`: a kernel reads up to `strip` pixels' windows before it writes these pixels of y, all
        channels; its last strip may begin `strip` pixels before the end.  A 1x1 window reads its pixel, others whole rows."""
        pixel = np.arange(y.shape[1] * y.shape[2])
        first, last = np.minimum(pixel, max(len(pixel) - strip, 0)), pixel
        if self.kernel == self.stride == (1, 1) and self.padding == (0, 0, 0, 0):
            reads = [first * x.shape[3], (last + 1) * x.shape[3]]
        else:
            tops = [p // y.shape[2] * self.stride[0] - self.padding[0] for p in (first, last)]
            reads = [np.clip(row, 0, x.shape[1]) * x.row_bytes for row in (tops[0], tops[1] + self.kernel[0])]
        return np.stack([*reads, pixel * y.shape[3], (pixel + 1) * y.shape[3]], axis=1)


class InputGradRows(Op):
    """An input gradient of `shape` (inputs: h first) whose rows can be computed apart."""

    window: Window
    shape: tuple[int, ...]

    def cut_rows(self, node: Node) -> int:
        return self.shape[1] if self.window.reaches_all(self.shape[1], node.inputs[0].type.shape[1]) else 0

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        outputs = node.inputs[0].type.shape[1]
        window, shape = self.window.crop_back(first, last, outputs), (1, last - first, *self.shape[2:])
        return _changed(self, window=window, shape=shape), (RowNeed(0, *self.window.reached(first, last, outputs)),)


class WeightGradRows(Op):
    """A weight gradient (inputs: x, h) to which rows of h contribute apart."""

    window: Window

    def cut_rows(self, node: Node) -> int:
        return node.inputs[1].type.shape[1]

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        height = node.inputs[0].type.shape[1]
        window = self.window.crop(first, last, height)
        return _changed(self, window=window), (self.window.need(first, last, height), RowNeed(1, first, last))


def _changed(op: Op, **fields: Any) -> Op:
    """The op, which is a dataclass, with other fields."""
    changed: Op = replace(cast(Any, op), **fields)
    return changed


def nhwc(type_: TensorType, what: str = "input") -> tuple[int, int, int]:
    """(H, W, C) of an activation; raises GraphError for another rank or batch."""
    if len(type_.shape) != 4 or type_.shape[0] != 1:
        raise GraphError(f"the {what} must be [1, H, W, C], got {list(type_.shape)}")
    return type_.shape[1], type_.shape[2], type_.shape[3]


def rows_of(type_: TensorType) -> tuple[int, int]:
    """(rows, elements of a row) of any value."""
    return (type_.shape[1], math.prod(type_.shape[2:])) if len(type_.shape) == 4 else (1, type_.elements)
