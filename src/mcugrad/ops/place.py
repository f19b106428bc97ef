"""Padding and slicing of NHWC values: y[r, x, c] = x[r + top, x + left, c + first] where that exists, else a constant."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Struct, TensorType
from mcugrad.ops.backprop import grad_quant
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.spatial import nhwc
from mcugrad.quant.affine import clamp8, round_half_up

Array = NDArray[Any]

Corner = tuple[int, int, int]
"""Rows, columns and channels."""


def moved(x: Array, corner: Corner, shape: tuple[int, ...], value: float) -> Array:
    """[1, *shape] whose element (r, x, c) is that of x at (r, x, c) + corner, or `value` outside x."""
    out = np.full((1, *shape), value, np.result_type(x, np.int64) if x.dtype.kind == "i" else x.dtype)
    to, of = [slice(None)], [slice(None)]
    for offset, size, given in zip(corner, shape, x.shape[1:], strict=True):
        first = min(max(0, -offset), size)
        last = max(min(size, given - offset), first)
        to.append(slice(first, last))
        of.append(slice(first + offset, last + offset))
    out[tuple(to)] = x[tuple(of)]
    return out


def place_fields(x: tuple[int, ...], y: tuple[int, ...], corner: Corner, value: int) -> Struct:
    names = ("in_h", "in_w", "in_c", "out_h", "out_w", "out_c", "top", "left", "first", "value")
    return Struct("mcg_place_t", tuple(zip(names, (*x[1:], *y[1:], *corner, value), strict=True)))


def place(node: Node, corner: Corner, value: int) -> Kernel:
    x, y = node.inputs[0], node.outputs[0]
    fields = place_fields(x.type.shape, y.type.shape, corner, value)
    return Kernel("mcg_place", (fields, RowRange(), Operand(x), Operand(y, const=False)))


@dataclass(frozen=True)
class Pad(Op):
    """`before` and `after` rows, columns and channels of a real number `value` around x, type kept."""

    before: Corner
    after: Corner
    value: float = 0.0
    splits_rows = True

    @property
    def corner(self) -> Corner:
        return -self.before[0], -self.before[1], -self.before[2]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if min(*self.before, *self.after) < 0:
            raise GraphError(f"padding of {self.before} and {self.after} is negative: use a slice")
        sizes = zip(nhwc(types[0]), self.before, self.after, strict=True)
        return (replace(types[0], shape=(1, *(n + b + a for n, b, a in sizes))),)

    def _value(self, x: TensorType) -> float:
        """In the units of x."""
        if x.dtype == "f32":
            return self.value
        (quant,) = need_quant(x)
        return float(np.clip(self.value / quant.scale[0] + quant.zero, -128, 127))

    def _integer(self, x: TensorType) -> int:
        return int(clamp8(np.array(round_half_up(self._value(x)))))

    def _run(self, x: Array, value: float) -> Array:
        shape = tuple(n + b + a for n, b, a in zip(x.shape[1:], self.before, self.after, strict=True))
        return moved(x, self.corner, shape, value)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self._run(arrays[0], self._integer(node.inputs[0].type)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self._run(arrays[0].astype(np.float64), self._value(node.inputs[0].type)),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            build.contribute(x, GradPlace(self.before, x.type.shape), build.stored(node.outputs[0], wide=False))

    def kernel(self, node: Node) -> Kernel:
        return place(node, self.corner, self._integer(node.inputs[0].type))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        height, top = node.inputs[0].type.shape[1], self.before[0]
        return (RowNeed(0, min(max(first - top, 0), height), max(min(last - top, height), 0)),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        (need,) = self.needs(node, first, last)
        before = min(max(self.before[0] - first, 0), last - first)
        after = last - first - before - max(need.last - need.first, 0)
        return replace(self, before=(before, *self.before[1:]), after=(after, *self.after[1:]))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((1, 2, 0), (2, 0, 0)), x=activation(3, 5, 6, zero=-128))
        yield single(cls((0, 0, 3), (1, 1, 2), -1.5), x=activation(2, 3, 5, zero=7))
        yield single(cls((0, 3, 0), (0, 0, 0), 1e9), x=activation(1, 4, 4))
        yield single(cls((2, 0, 0), (0, 0, 1)), x=activation(1, 1, 9, zero=127))


@dataclass(frozen=True)
class Slice(Op):
    """`size` rows, columns and channels of x from `begin` on, type kept."""

    begin: Corner
    size: Corner
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        for begin, size, given in zip(self.begin, self.size, nhwc(types[0]), strict=True):
            if begin < 0 or size < 1 or begin + size > given:
                raise GraphError(f"a slice of {self.size} from {self.begin} on leaves {list(types[0].shape[1:])}")
        return (replace(types[0], shape=(1, *self.size)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (moved(arrays[0], self.begin, self.size, 0),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            corner = (-self.begin[0], -self.begin[1], -self.begin[2])
            build.contribute(x, GradPlace(corner, x.type.shape), build.stored(node.outputs[0], wide=False))

    def kernel(self, node: Node) -> Kernel:
        return place(node, self.begin, 0)

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first + self.begin[0], last + self.begin[0]),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, begin=(0, *self.begin[1:]), size=(last - first, *self.size[1:]))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((1, 0, 0), (3, 5, 6)), x=activation(5, 5, 6))
        yield single(cls((0, 2, 1), (4, 3, 7)), x=activation(4, 6, 9))
        yield single(cls((0, 3, 0), (1, 9, 2)), x=activation(1, 12, 2))


@dataclass(frozen=True)
class GradPlace(Op):
    """a[r, x, c] = g at (r, x, c) + corner, 0 outside g: the gradient of padding, slicing and concatenation."""

    corner: Corner
    shape: tuple[int, ...]
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        if types[0].dtype != "s8" or quant.axis is not None:
            raise GraphError(f"a stored gradient of one scale is needed, got {types[0]}")
        return (TensorType(self.shape, "s32", Quant(quant.scale, exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (moved(arrays[0], self.corner, self.shape[1:], 0),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        g = node.inputs[0]
        fields = place_fields(g.type.shape, self.shape, self.corner, 0)
        return Kernel("mcg_grad_place", (fields, Operand(g)), scratch=4 * self.shape[2] * self.shape[3])
