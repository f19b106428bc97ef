"""Product of two int8 activations, one of which may be a gate that is broadcast; and its two gradients."""

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
from mcugrad.quant.affine import clamp8, mbqm, multiplier

Array = NDArray[Any]


@dataclass(frozen=True)
class Mul(Op):
    """y = clamp8(MBQM((x1 - z1) * (x2 - z2)) + z_y), multiplier s1 * s2 / s_y; `out` None: float.

    Inputs: x1 [1,H,W,C], and x2 of the same shape or with 1 for any of H, W and C."""

    out: Quant | None = None
    in_place = ((0, 0), (1, 0))
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        a, b = types
        if any(m not in (1, n) for n, m in zip(nhwc(a), nhwc(b), strict=True)):
            raise GraphError(f"cannot multiply {list(a.shape)} by {list(b.shape)}: sizes of the second must be equal or 1")
        if self.out is None:
            return (TensorType(a.shape, "f32"),)
        self.requantization(a, b)
        return (TensorType(a.shape, "s8", self.out),)

    def requantization(self, a: TensorType, b: TensorType) -> tuple[int, int]:
        """(M, sh) from products of integers to the output's scale."""
        qa, qb = need_quant(a, b)
        try:
            return multiplier(qa.scale[0] * qb.scale[0] / (self.out or Quant((1.0,))).scale[0])
        except ValueError as error:
            raise GraphError(f"requantization: {error}") from None

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        types = [v.type for v in node.inputs]
        a, b = (x.astype(np.int64) - q.zero for x, q in zip(arrays, need_quant(*types), strict=True))
        return (clamp8(mbqm(a * b, *self.requantization(*types)) + (self.out or Quant((1.0,))).zero),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if self.out is None:
            return (np.asarray(arrays[0] * arrays[1]),)
        a, b = (
            (np.float64(x) - q.zero) * q.scale[0]
            for x, q in zip(arrays, need_quant(*(v.type for v in node.inputs)), strict=True)
        )
        return (clamp8(np.asarray(a * b / self.out.scale[0] + self.out.zero)),)

    def gradient(self, node: Node, build: Any) -> None:
        """Each side gets the masked gradient times the other side, summed over what was broadcast."""
        (y,) = node.outputs
        if not any(build.wants(x) for x in node.inputs):
            return
        g = build.quantize(build.mask(build.incoming(y), y), (1.0,), f"{y.name}.grad")
        for x, other in (node.inputs, node.inputs[::-1]):
            if build.wants(x):
                build.contribute(x, MulGrad(x.type.shape), g, other)

    def kernel(self, node: Node) -> Kernel:
        a, b = node.inputs
        m, sh = self.requantization(a.type, b.type)
        (qa, qb), (_, width, channels) = need_quant(a.type, b.type), nhwc(a.type)
        high, wide, deep = nhwc(b.type)
        same = (wide, deep) == (width, channels)
        fields = (
            ("width", 1 if same else width),  # a row of equal shapes is one run
            ("channels", width * channels if same else channels),
            ("x2_row", wide * deep if high > 1 else 0),
            ("x2_pixel", deep if wide > 1 else 0),
            ("x2_step", int(deep > 1 or same)),
            ("multiplier", m),
            ("shift", sh),
            ("zero1", qa.zero),
            ("zero2", qb.zero),
            ("y_zero", (self.out or Quant((1.0,))).zero),
        )
        operands = Operand(a), Operand(b), Operand(node.outputs[0], const=False)
        return Kernel("mcg_mul", (Struct("mcg_mul_t", fields), RowRange(), *operands))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        """A gate of one row is read whole."""
        rows = tuple(v.type.shape[1] for v in node.inputs)
        return (RowNeed(0, first, last), *([RowNeed(1, first, last)] if rows[1] == rows[0] else []))

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        x, out = activation(3, 5, 7, zero=-128), Quant((0.02,), -9)
        yield single(cls(out), a=x, b=activation(3, 5, 7, zero=127, scale=0.01))
        yield single(cls(Quant((0.001,), 100)), a=x, b=activation(1, 1, 7, scale=1 / 256, zero=-128))
        yield single(cls(out), a=x, b=activation(3, 5, 1, zero=3))
        yield single(cls(out), a=activation(4, 1, 9), b=activation(4, 1, 9, scale=0.03))
        yield single(cls(out), a=activation(2, 3, 8), b=activation(1, 1, 1, scale=0.004))
        yield single(cls(out), a=activation(1, 1, 6), b=activation(1, 1, 6, scale=0.02))
        yield single(cls(out), a=activation(3, 4, 2), b=activation(1, 4, 2, scale=0.02))
        yield single(cls(Quant((1e-9,), 0)), a=activation(1, 2, 9), b=activation(1, 2, 9))


@dataclass(frozen=True)
class MulGrad(Op):
    """a = g * (other - z), summed over the axes where `shape` has 1: the gradient of a factor, at the other's scale.

    Inputs: g int8 (stored), other int8."""

    shape: tuple[int, ...]
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        g, other = types
        quant, (factor,) = grad_quant(g), need_quant(other)
        terms = g.elements // int(np.prod(self.shape))
        if g.dtype != "s8" or 127 * 255 * terms >= 2**31:
            raise GraphError(f"the gradient of a gate over {terms} elements could overflow int32; freeze its layers")
        return (TensorType(self.shape, "s32", Quant((quant.scale[0] * factor.scale[0],), exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        g, other = (a.astype(np.float64) for a in arrays)
        product = g * (other - need_quant(node.inputs[1].type)[0].zero)
        axes = tuple(i for i, (n, m) in enumerate(zip(product.shape, self.shape, strict=True)) if n != m)
        return (product.sum(axis=axes, keepdims=True),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        g, other = node.inputs
        _, height, width, channels = g.type.shape
        fields = [("height", height), ("width", width), ("channels", channels)]
        for prefix, (_, _, wide, deep) in (("a", self.shape), ("x", other.type.shape)):
            fields += [(f"{prefix}_pixel", deep if wide > 1 else 0), (f"{prefix}_step", int(deep > 1))]
        fields += [("x_row", other.type.shape[2] * other.type.shape[3] if other.type.shape[1] > 1 else 0)]
        fields += [("zero", need_quant(other.type)[0].zero), ("rows", self.shape[1]), ("row", self.shape[2] * self.shape[3])]
        args = Struct("mcg_mul_grad_t", tuple(fields)), Operand(g), Operand(other)
        return Kernel("mcg_mul_grad", args, scratch=4 * self.shape[2] * self.shape[3])
