"""Transposition: the same bytes in another order, and the way back for gradients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Struct, TensorType
from mcugrad.ops.example import activation, single
from mcugrad.ops.reshape import GradLoad

Array = NDArray[Any]

MOST_AXES = 4


@dataclass(frozen=True)
class Transpose(Op):
    """Axis i of the output is axis perm[i] of x, as in numpy; the batch stays first."""

    perm: tuple[int, ...]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x = types[0]
        if sorted(self.perm) != list(range(len(x.shape))) or self.perm[0] != 0 or len(self.perm) > MOST_AXES:
            raise GraphError(f"axes {list(x.shape)} cannot be permuted by {self.perm}: at most {MOST_AXES}, the batch first")
        if x.quant is not None and x.quant.axis is not None:
            raise GraphError("cannot transpose a per-channel quantized value")
        return (replace(x, shape=tuple(x.shape[i] for i in self.perm)),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].transpose(self.perm),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            inverse = tuple(int(i) for i in np.argsort(self.perm))
            g = build.add(GradTranspose(inverse), build.stored(node.outputs[0], wide=False))
            build.contribute(x, GradLoad(), g)

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        strides = np.cumprod((1, *x.type.shape[:0:-1]))[::-1]
        axes = [(n, int(strides[i])) for n, i in zip(y.type.shape[1:], self.perm[1:], strict=True)]
        axes = [(1, 0)] * (MOST_AXES - 1 - len(axes)) + axes
        fields = [(f"size{i}", n) for i, (n, _) in enumerate(axes)] + [(f"step{i}", s) for i, (_, s) in enumerate(axes)]
        return Kernel("mcg_transpose", (Struct("mcg_transpose_t", tuple(fields)), Operand(x), Operand(y, const=False)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((0, 3, 1, 2)), x=activation(3, 5, 7))
        yield single(cls((0, 2, 1, 3)), x=activation(2, 5, 4))
        yield single(cls((0, 2, 1)), x=TensorType((1, 4, 9), "s8", activation(1, 1, 1).quant))


@dataclass(frozen=True)
class GradTranspose(Transpose):
    """A stored gradient in the order of the value before."""

    phase = "backward"
