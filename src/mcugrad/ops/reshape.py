"""Reshape and flatten: the same bytes under another shape, and the way back for gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, TensorType
from mcugrad.ops.backprop import grad_quant
from mcugrad.ops.example import activation, single

Array = NDArray[Any]


@dataclass(frozen=True)
class Reshape(Op):
    """x under another shape, in NHWC order."""

    shape: tuple[int, ...]
    aliased = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if math.prod(self.shape) != types[0].elements:
            raise GraphError(f"cannot reshape {list(types[0].shape)} to {list(self.shape)}")
        quant = types[0].quant
        if quant is not None and quant.axis is not None:
            raise GraphError("cannot reshape a per-channel quantized value")
        return (replace(types[0], shape=self.shape),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape(self.shape),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            g = build.add(GradReshape(x.type.shape), build.stored(node.outputs[0], wide=False))
            build.contribute(x, GradLoad(), g)

    def kernel(self, node: Node) -> Kernel | None:
        return None

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((1, 30)), x=activation(2, 3, 5))


@dataclass(frozen=True)
class GradReshape(Reshape):
    """A stored gradient under the shape of the value before."""

    phase = "backward"


@dataclass(frozen=True)
class GradLoad(Op):
    """a = g: a stored gradient (int8, or the int32 of the head) as the start of a chain."""

    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        quant = grad_quant(types[0])
        return (TensorType(types[0].shape, "s32", Quant(quant.scale, axis=quant.axis, exponent=quant.exponent)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0],)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0],)

    def cut_rows(self, node: Node) -> int:
        shape = node.inputs[0].type.shape
        return shape[1] if len(shape) == 4 else 0

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        return self, (RowNeed(0, first, last),)

    def kernel(self, node: Node) -> Kernel:
        g = node.inputs[0]
        rows, row = (g.type.shape[1], g.type.shape[2] * g.type.shape[3]) if len(g.type.shape) == 4 else (1, g.type.elements)
        if g.type.dtype == "s32":
            return Kernel("mcg_grad_load_s32", (rows, row, Operand(g, "int32_t")), scratch=4 * row)
        return Kernel("mcg_grad_load_s8", (rows, row, Operand(g)), scratch=4 * row)
