"""Concatenation of int8 activations, each brought to the output's quantization."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, Struct, TensorType
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.place import GradPlace
from mcugrad.ops.spatial import nhwc
from mcugrad.quant.affine import clamp8, mbqm, multiplier

Array = NDArray[Any]


@dataclass(frozen=True)
class Concat(Op):
    """Inputs [1,H,W,C] one after the other along `axis` (1, 2 or 3), each clamp8(MBQM(x - z_x) + z), or as it is where its
    quantization is already `out`; `out` None: float."""

    axis: int = 3
    out: Quant | None = None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not types or self.axis not in (1, 2, 3):
            raise GraphError(
                f"a concatenation of {len(types)} values along axis {self.axis}: rows, columns or channels are 1 to 3"
            )
        first = types[0].shape
        for t in types:
            nhwc(t)
            if any(n != m for i, (n, m) in enumerate(zip(t.shape, first, strict=True)) if i != self.axis):
                raise GraphError(f"cannot concatenate {list(first)} and {list(t.shape)} along axis {self.axis}")
        total = sum(t.shape[self.axis] for t in types)
        shape = tuple(total if i == self.axis else n for i, n in enumerate(first))
        if self.out is None:
            return (TensorType(shape, "f32"),)
        for t in types:
            self.requantization(t)
        return (TensorType(shape, "s8", self.out),)

    def requantization(self, x: TensorType) -> tuple[int, int] | None:
        """(M, sh) that brings x to the output's scale; None where its bytes stay."""
        out, (quant,) = self.out or Quant((1.0,)), need_quant(x)
        if (quant.scale, quant.zero) == (out.scale, out.zero):
            return None
        try:
            return multiplier(quant.scale[0] / out.scale[0])
        except ValueError as error:
            raise GraphError(f"requantization: {error}") from None

    def _part(self, x: TensorType, array: Array) -> Array:
        pair = self.requantization(x)
        if pair is None or self.out is None:
            return array
        return clamp8(mbqm(array.astype(np.int64) - need_quant(x)[0].zero, *pair) + self.out.zero)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        parts = [self._part(v.type, a) for v, a in zip(node.inputs, arrays, strict=True)]
        return (np.concatenate(parts, self.axis),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if self.out is None:
            return (np.concatenate(arrays, self.axis),)
        quants = need_quant(*(v.type for v in node.inputs))
        pairs = zip(arrays, quants, strict=True)
        parts = [(a.astype(np.float64) - q.zero) * (q.scale[0] / self.out.scale[0]) for a, q in pairs]
        return (clamp8(np.concatenate(parts, self.axis) + self.out.zero),)

    def clamps(self, x: TensorType) -> bool:
        """Can a value of x leave the output's range?"""
        pair = self.requantization(x)
        if pair is None or self.out is None:
            return False
        ends = mbqm(np.array([-128, 127]) - need_quant(x)[0].zero, *pair) + self.out.zero
        return bool(ends[0] < -128 or ends[1] > 127)

    def gradient(self, node: Node, build: Any) -> None:
        """Slices of the stored gradient; masked where a requantization can clamp, for then the output's ends are clamps."""
        (y,) = node.outputs
        if any(self.clamps(x.type) for x in node.inputs):
            g = build.quantize(build.mask(build.incoming(y), y), (1.0,), f"{y.name}.grad")
        else:
            g = build.stored(y, wide=False)
        starts = itertools.accumulate((x.type.shape[self.axis] for x in node.inputs), initial=0)
        for x, start in zip(node.inputs, starts, strict=False):
            if build.wants(x):
                corner = tuple(start if i == self.axis else 0 for i in (1, 2, 3))
                build.contribute(x, GradPlace((corner[0], corner[1], corner[2]), x.type.shape), g)

    def kernel(self, node: Node) -> Kernel:
        (y,) = node.outputs
        outer = math.prod(y.type.shape[: self.axis])
        parts = tuple(self._struct(x, x.type.elements // outer) for x in node.inputs)
        zero = (self.out or Quant((1.0,))).zero
        fields = (("outer", outer), ("y_zero", zero), ("count", len(parts)), ("parts", parts))
        return Kernel("mcg_concat", (Struct("mcg_concat_t", fields), Operand(y, const=False)))

    def _struct(self, x: Any, run: int) -> Struct:
        m, sh = self.requantization(x.type) or (0, 0)
        fields = (("run", run), ("multiplier", m), ("shift", sh), ("zero", need_quant(x.type)[0].zero))
        return Struct("mcg_part_t", (("p", Struct("mcg_part_params_t", fields)), ("x", Operand(x))))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        same, wide = activation(3, 5, 7), activation(3, 5, 2, zero=127, scale=0.2)
        yield single(cls(3, same.quant), a=same, b=wide, c=activation(3, 5, 4))
        yield single(cls(3, Quant((0.06,), -128)), a=activation(2, 2, 1), b=activation(2, 2, 8, scale=0.06, zero=-100))
        yield single(cls(1, same.quant), a=same, b=activation(2, 5, 7, scale=0.01))
        yield single(cls(2, Quant((0.5,), 3)), a=activation(3, 1, 6), b=activation(3, 4, 6, zero=-128))
