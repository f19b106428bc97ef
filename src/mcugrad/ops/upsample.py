"""Upsampling by repetition of the nearest element."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Struct, TensorType
from mcugrad.ops.backprop import grad_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.spatial import nhwc
from mcugrad.quant.affine import BIAS_LIMIT

Array = NDArray[Any]


@dataclass(frozen=True)
class Upsample(Op):
    """y[r, x] = x[r // factor_h, x // factor_w], type kept.  A piece: `rows` rows from row `first` on."""

    factor: tuple[int, int]
    first: int = 0
    rows: int | None = None
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        height, width, channels = nhwc(types[0])
        if min(self.factor) < 1:
            raise GraphError(f"upsampling by {self.factor} makes no sense")
        return (replace(types[0], shape=(1, height * self.factor[0], width * self.factor[1], channels)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        y = arrays[0].repeat(self.factor[0], 1).repeat(self.factor[1], 2)
        return (y if self.rows is None else y[:, self.first : self.first + self.rows],)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            build.contribute(x, UpsampleGrad(self.factor), build.stored(node.outputs[0], wide=False))

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        return Kernel("mcg_upsample", (upsample_fields(x.type, self.factor), RowRange(), Operand(x), Operand(y, const=False)))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first // self.factor[0], -(-last // self.factor[0])),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, first=first % self.factor[0], rows=last - first)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((2, 2)), x=activation(3, 4, 5))
        yield single(cls((3, 1)), x=activation(2, 3, 8))
        yield single(cls((1, 4)), x=activation(1, 7, 4))


def upsample_fields(x: TensorType, factor: tuple[int, int]) -> Struct:
    names = ("in_h", "in_w", "channels", "factor_h", "factor_w")
    return Struct("mcg_upsample_t", tuple(zip(names, (*x.shape[1:], *factor), strict=True)))


@dataclass(frozen=True)
class UpsampleGrad(Op):
    """a = sum of g over the copies of each element."""

    factor: tuple[int, int]
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        if 127 * self.factor[0] * self.factor[1] >= BIAS_LIMIT:
            raise GraphError(f"upsampling by {self.factor} could overflow the int32 input gradient")
        _, height, width, channels = types[0].shape
        shape = (1, height // self.factor[0], width // self.factor[1], channels)
        return (TensorType(shape, "s32", Quant(quant.scale, exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        _, height, width, channels = node.outputs[0].type.shape
        copies = arrays[0].astype(np.float64).reshape(height, self.factor[0], width, self.factor[1], channels)
        return (copies.sum(axis=(1, 3))[None],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        x = node.outputs[0].type
        return Kernel(
            "mcg_upsample_grad", (upsample_fields(x, self.factor), Operand(node.inputs[0])), scratch=4 * x.shape[2] * x.shape[3]
        )
