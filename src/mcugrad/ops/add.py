"""Residual addition of two int8 activations, and their difference."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Struct, TensorType
from mcugrad.ops.backprop import grad_quant
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.spatial import rows_of
from mcugrad.quant.affine import clamp8, round_half_up, rsh

Array = NDArray[Any]

ADD_BITS = 15
FACTOR_BITS = 21  # factors up to 2**21: 2 * 255 * 2**21 and half a step of 2**30 leave room in int32
MOST_BITS = 30


def precise_bits(first: Quant, second: Quant, out: Quant) -> int:
    """Bits that put the larger factor between 2**20 and 2**21, as XNNPACK (and so LiteRT) chooses them."""
    ratio = max(first.scale[0], second.scale[0]) / out.scale[0]
    return min(max(FACTOR_BITS - math.frexp(ratio)[1], 1), MOST_BITS)


@dataclass(frozen=True)
class Add(Op):
    """y = clamp8(RSH((x1 - z1) * A1 + (x2 - z2) * A2, bits) + z), A = round(s / s_y * 2**bits); `out` None: float.

    15 bits let a core with a dual multiply-accumulate take both products at once; `precise_bits` are those of XNNPACK."""

    out: Quant | None = None
    bits: int = ADD_BITS
    in_place = ((0, 0), (1, 0))
    splits_rows = True
    signs: ClassVar[tuple[int, int]] = (1, 1)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        a, b = types
        if a.shape != b.shape:
            raise GraphError(f"cannot add {list(a.shape)} and {list(b.shape)}: shapes must be equal")
        if self.out is None:
            return (TensorType(a.shape, "f32"),)
        if any(self.factor(t) > 1 << FACTOR_BITS for t in types) or not 1 <= self.bits <= MOST_BITS:
            raise GraphError("the scales of the two sides differ too much for a 32-bit addition")
        return (TensorType(a.shape, "s8", self.out),)

    def factor(self, type_: TensorType) -> int:
        out = self.out or Quant((1.0,))
        return round_half_up(need_quant(type_)[0].scale[0] / out.scale[0] * (1 << self.bits))

    def _sides(self, node: Node) -> list[tuple[int, int]]:
        return [(n * self.factor(v.type), need_quant(v.type)[0].zero) for v, n in zip(node.inputs, self.signs, strict=True)]

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        acc = sum((x.astype(np.int64) - z) * a for x, (a, z) in zip(arrays, self._sides(node), strict=True))
        return (clamp8(rsh(np.asarray(acc), self.bits) + (self.out or Quant((1.0,))).zero),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if self.out is None:
            return (self.signs[0] * arrays[0] + self.signs[1] * arrays[1],)
        quants = need_quant(*(v.type for v in node.inputs))
        sides = zip(arrays, quants, self.signs, strict=True)
        total = sum((x.astype(np.float64) - q.zero) * (n * q.scale[0] / self.out.scale[0]) for x, q, n in sides)
        return (clamp8(np.asarray(total) + self.out.zero),)

    def gradient(self, node: Node, build: Any) -> None:
        (y,) = node.outputs
        a = build.mask(build.incoming(y), y)
        for x, sign in zip(node.inputs, self.signs, strict=True):
            if build.wants(x) and sign > 0:
                build.pass_on(x, a)
            elif build.wants(x):
                build.contribute(x, GradNegate(), build.quantize(a, (1.0,), f"{y.name}.grad"))

    def kernel(self, node: Node) -> Kernel:
        (a1, z1), (a2, z2) = self._sides(node)
        y = node.outputs[0]
        fields = (
            ("rows", y.type.shape[1]),
            ("row", y.type.shape[2] * y.type.shape[3]),
            ("factor1", a1),
            ("factor2", a2),
            ("zero1", z1),
            ("zero2", z2),
            ("y_zero", (self.out or Quant((1.0,))).zero),
            ("shift", self.bits),
        )
        args = (
            Struct("mcg_add_t", fields),
            RowRange(),
            Operand(node.inputs[0]),
            Operand(node.inputs[1]),
            Operand(y, const=False),
        )
        return Kernel("mcg_add", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls(Quant((0.08,), -7)), a=activation(3, 5, 7, zero=127), b=activation(3, 5, 7, zero=-128, scale=0.03))
        yield single(cls(Quant((0.08,), -128), 21), a=activation(3, 5, 7, zero=127), b=activation(3, 5, 7, scale=0.03))
        yield single(cls(Quant((0.02,), 127)), a=activation(4, 1, 3), b=activation(4, 1, 3, scale=0.001))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return RowNeed(0, first, last), RowNeed(1, first, last)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self)


@dataclass(frozen=True)
class Sub(Add):
    """y = clamp8(RSH((x1 - z1) * A1 - (x2 - z2) * A2, 15) + z), as in the sum."""

    signs: ClassVar[tuple[int, int]] = (1, -1)


@dataclass(frozen=True)
class GradNegate(Op):
    """a = -g of a stored gradient."""

    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        if types[0].dtype != "s8":
            raise GraphError(f"a stored gradient is needed, got {types[0]}")
        return (TensorType(types[0].shape, "s32", Quant(quant.scale, axis=quant.axis, exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (-arrays[0].astype(np.float64),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        g = node.inputs[0]
        rows, row = rows_of(g.type)
        return Kernel("mcg_grad_negate", (rows, row, Operand(g)), scratch=4 * row)
