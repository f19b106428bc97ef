"""Softmax over the channels of an int8 activation, and its gradient; a classifier trains on the logits before its own."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, Scratch, Struct, TensorType
from mcugrad.ops.backprop import grad_quant, passes
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.head import HEAD_ONE
from mcugrad.ops.spatial import rows_of
from mcugrad.quant.affine import SOFTMAX_FAR, SOFTMAX_LUT, clamp8, softmax_multiplier

Array = NDArray[Any]

PROBABILITY = Quant((1 / 256,), -128)


@dataclass(frozen=True)
class Softmax(Op):
    """y = clamp8((256 * e + sum / 2) / sum - 128), e = LUT as in the loss, over the last axis; `out` None: float."""

    out: Quant | None = None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x = types[0]
        if self.out is None:
            return (TensorType(x.shape, "f32"),)
        if self.out != PROBABILITY:
            raise GraphError(f"a softmax has output scale 1/256 and zero point -128, not {self.out}")
        if x.shape[-1] > 1 << 15:
            raise GraphError(f"a softmax over {x.shape[-1]} classes could overflow its int32 sum")
        need_quant(x)
        return (TensorType(x.shape, "s8", self.out),)

    @staticmethod
    def octaves(x: TensorType) -> tuple[int, int]:
        """(M, sh) from steps of x to 1/256 octaves."""
        return softmax_multiplier(need_quant(x)[0].scale[0] * HEAD_ONE)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        m, sh = self.octaves(node.inputs[0].type)
        x = arrays[0].astype(np.int64)
        d = (x.max(axis=-1, keepdims=True) - x) * m
        d = np.minimum(d >> sh if sh >= 0 else d << -sh, SOFTMAX_FAR)
        e = np.asarray(SOFTMAX_LUT, np.int64)[d & 255] >> (d >> 8)
        total = e.sum(axis=-1, keepdims=True)
        return (clamp8(((e << 8) + (total >> 1)) // total - 128),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        scale = 1.0 if self.out is None else need_quant(node.inputs[0].type)[0].scale[0]
        x = arrays[0].astype(np.float64) * scale
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        p = e / e.sum(axis=-1, keepdims=True)
        return (p if self.out is None else clamp8(256 * p - 128),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,), (y,) = node.inputs, node.outputs
        if build.wants(x):
            build.contribute(x, SoftmaxGrad(), build.stored(y, wide=False), y)

    def kernel(self, node: Node) -> Kernel:
        (x,) = node.inputs
        classes = x.type.shape[-1]
        m, sh = self.octaves(x.type)
        fields = Struct("mcg_softmax_t", (("classes", classes), ("multiplier", m), ("shift", sh)))
        operands = Operand(x), Operand(node.outputs[0], const=False), Scratch()
        return Kernel("mcg_softmax", (fields, math.prod(x.type.shape[:-1]), *operands), scratch=4 * classes)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls(PROBABILITY), x=activation(2, 3, 7, scale=0.02))
        yield single(cls(PROBABILITY), x=activation(1, 1, 12, scale=0.3, zero=50))
        yield single(cls(PROBABILITY), x=TensorType((1, 3), "s8", Quant((90.0,), 0)))
        yield single(cls(PROBABILITY), x=activation(1, 2, 1))


@dataclass(frozen=True)
class SoftmaxGrad(Op):
    """a_i = P_i * (256 * g_i - sum_j g_j * P_j), P = y + 128, over the last axis; a has scale 2**-16.

    g counts as 0 where y is at an end of its range.  Inputs: g int8 (stored), y int8."""

    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        g, y = types
        quant = grad_quant(g)
        if g.dtype != "s8" or g.shape != y.shape:
            raise GraphError(f"a stored gradient for {y} is needed, got {g}")
        return (TensorType(y.shape, "s32", Quant((quant.scale[0] * 2.0**-16,), exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        g, y = (np.asarray(a, np.float64) for a in arrays)
        g, p = np.where(passes(y), g, 0.0), y + 128
        return (p * (256 * g - (g * p).sum(axis=-1, keepdims=True)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self.real(node, *arrays)[0].astype(np.int64),)

    def kernel(self, node: Node) -> Kernel:
        g, y = node.inputs
        rows, row = rows_of(y.type)
        return Kernel("mcg_softmax_grad", (rows, row, y.type.shape[-1], Operand(g), Operand(y)), scratch=4 * row)
