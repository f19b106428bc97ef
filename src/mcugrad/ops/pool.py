"""Average pooling (windowed and global) and max pooling, with their input gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Struct, TensorType
from mcugrad.ops.backprop import grad_quant
from mcugrad.ops.conv2d import conv_fields
from mcugrad.ops.example import pool_cases, single
from mcugrad.ops.spatial import Window, nhwc

Array = NDArray[Any]


class Ties(IntEnum):
    """Where an average that lies halfway between two numbers goes: up, away from 0 (TFLite's pool), to the even one (its
    mean), or to the odd one (an even number of steps from an odd zero point, as of onnxruntime).  Also in csrc/kernels.h."""

    UP = 0
    AWAY = 1
    EVEN = 2
    ODD = 3


def pooled(x: TensorType, window: Window) -> tuple[int, ...]:
    height, width, channels = nhwc(x)
    return (1, *window.output(height, width), channels)


def counts(x: tuple[int, ...], window: Window) -> Array:
    """Elements under the window at each output position, padding not counted: int64 [1,OH,OW,1]."""
    ones = window.pad(np.ones((1, *x[1:3], 1), np.int64))
    return np.asarray(sum(ones[:, rows, columns] for _, _, rows, columns in window.taps(*x[1:3])))


def never_empty(window: Window) -> None:
    """Raises GraphError when padding alone could fill the window, or when it has gaps."""
    top, left, bottom, right = window.padding
    if window.dilation != (1, 1):
        raise GraphError(f"pooling with dilation {window.dilation} is not supported: pool without, or stride a convolution")
    if max(top, bottom) >= window.kernel[0] or max(left, right) >= window.kernel[1]:
        raise GraphError(f"padding {window.padding} leaves a pooling window of {window.kernel} empty")


def pool_fields(x: TensorType, y: TensorType, window: Window) -> tuple[tuple[str, Any], ...]:
    return conv_fields(x, y, window, x.shape[3])


@dataclass(frozen=True)
class AvgPool(Op):
    """y = floor((2 S + P) / (2 P)) of the P elements under the window (padding not counted), type kept; `ties` is where
    the source of the model rounds halves, if not up."""

    window: Window
    ties: Ties = Ties.UP
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if self.window.kernel[0] * self.window.kernel[1] > 1 << 22:
            raise GraphError(f"a {self.window.kernel} pooling window could overflow its int32 sum")
        never_empty(self.window)
        return (replace(types[0], shape=pooled(types[0], self.window)),)

    def _sum(self, x: Array) -> Array:
        padded = self.window.pad(x.astype(np.float64))
        taps = self.window.taps(*x.shape[1:3])
        return np.asarray(sum(padded[:, rows, columns] for _, _, rows, columns in taps))

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        p = counts(arrays[0].shape, self.window)
        twice = 2 * self._sum(arrays[0]).astype(np.int64) + p
        y, tie = twice // (2 * p), twice % (2 * p) == 0
        lower = {Ties.UP: np.zeros_like(tie), Ties.AWAY: y <= 0, Ties.EVEN: y % 2 == 1, Ties.ODD: y % 2 == 0}
        return (y - (tie & lower[self.ties]),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self._sum(arrays[0]) / counts(arrays[0].shape, self.window),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        p = np.unique(counts(x.type.shape, self.window))
        if len(p) > 1:
            raise GraphError(
                f"average pooling at {node.where} has padding that it does not count, and no gradient for that: "
                "update only layers after it"
            )
        if build.wants(x):
            g = build.stored(node.outputs[0])
            build.contribute(x, AvgPoolGrad(self.window, x.type.shape), g)

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        fields, args = pool_fields(x.type, y.type, self.window), (RowRange(), Operand(x), Operand(y, const=False))
        if self.ties == Ties.UP:
            return Kernel("mcg_avg_pool", (Struct("mcg_conv2d_t", fields), *args))
        return Kernel("mcg_avg_pool_ties", (Struct("mcg_conv2d_t", fields), int(self.ties), *args))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (self.window.need(first, last, node.inputs[0].type.shape[1]),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, window=self.window.crop(first, last, node.inputs[0].type.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        cases = list(pool_cases())
        yield from (single(cls(window), x=x) for x, window in cases)
        yield from (single(cls(window, ties), x=x) for x, window in cases[1:6:2] for ties in list(Ties)[1:])


@dataclass(frozen=True)
class AvgPoolGrad(Op):
    """a = sum of g over the windows that hold the element, at scale 1/P.  Inputs: g (int8, or the int32 of the head)."""

    window: Window
    shape: tuple[int, ...]
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        if quant.axis is not None:
            raise GraphError(f"the pooled gradient needs one scale, got {types[0]}")
        p = self.window.kernel[0] * self.window.kernel[1]
        return (TensorType(self.shape, "s32", Quant((quant.scale[0] / p,), exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        padded = self.window.pad(np.zeros(self.shape))
        for _, _, rows, columns in self.window.taps(*self.shape[1:3]):
            padded[:, rows, columns] += arrays[0]
        top, left = self.window.padding[:2]
        return (padded[:, top : top + self.shape[1], left : left + self.shape[2]],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        g = node.inputs[0]
        wide = g.type.dtype == "s32"
        fields = pool_fields(TensorType(self.shape, "s8"), g.type, self.window)
        operand = Operand(g, "int32_t" if wide else "int8_t")
        name = "mcg_avg_pool_grad_s32" if wide else "mcg_avg_pool_grad_s8"
        return Kernel(name, (Struct("mcg_conv2d_t", fields), operand), scratch=4 * self.shape[2] * self.shape[3])


@dataclass(frozen=True)
class MaxPool(Op):
    """y = the largest element under the window (padding not counted), type kept."""

    window: Window
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        never_empty(self.window)
        return (replace(types[0], shape=pooled(types[0], self.window)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        padded = self.window.pad(arrays[0].astype(np.float64), -np.inf)
        taps = self.window.taps(*arrays[0].shape[1:3])
        return (np.max([padded[:, rows, columns] for _, _, rows, columns in taps], axis=0),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            build.contribute(x, MaxPoolGrad(self.window), build.stored(node.outputs[0], wide=False), x)

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        fields = pool_fields(x.type, y.type, self.window)
        return Kernel("mcg_max_pool", (Struct("mcg_conv2d_t", fields), RowRange(), Operand(x), Operand(y, const=False)))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (self.window.need(first, last, node.inputs[0].type.shape[1]),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, window=self.window.crop(first, last, node.inputs[0].type.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield from (single(cls(window), x=x) for x, window in pool_cases())


@dataclass(frozen=True)
class MaxPoolGrad(Op):
    """a = sum of g over the windows whose maximum (the first in row-major order) is the element.  Inputs: g, x."""

    window: Window
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        return (TensorType(types[1].shape, "s32", Quant(quant.scale, exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        g, x = arrays
        padded = self.window.pad(x.astype(np.float64), -np.inf)
        taps = list(self.window.taps(*x.shape[1:3]))
        winner = np.argmax([padded[:, rows, columns] for _, _, rows, columns in taps], axis=0)
        out = self.window.pad(np.zeros(x.shape))
        for i, (_, _, rows, columns) in enumerate(taps):
            out[:, rows, columns] += np.where(winner == i, g, 0)
        top, left = self.window.padding[:2]
        return (out[:, top : top + x.shape[1], left : left + x.shape[2]],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        g, x = node.inputs
        fields = pool_fields(x.type, g.type, self.window)
        args = (Struct("mcg_conv2d_t", fields), Operand(g), Operand(x))
        return Kernel("mcg_max_pool_grad", args, scratch=4 * x.type.shape[2] * x.type.shape[3])


def global_average(x: TensorType) -> AvgPool:
    """The pooling that leaves one position."""
    return AvgPool(Window((x.shape[1], x.shape[2]), (1, 1)))
