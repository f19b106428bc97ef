"""A clamp that no producer could absorb: it requantizes into the range it keeps."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Struct, TensorType
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.quant.affine import clamp8, mbqm, multiplier

Array = NDArray[Any]


@dataclass(frozen=True)
class Clamp(Op):
    """float: min(max(x, low), high).  int8 (`out` given): y = clamp8(MBQM(x - z_x) + z_y), whose ends are the clamp."""

    low: float = -math.inf
    high: float = math.inf
    out: Quant | None = None
    in_place = ((0, 0),)
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not self.low < self.high:
            raise GraphError(f"a clamp to [{self.low}, {self.high}] is empty")
        if self.out is None:
            return (types[0],)
        self.requantization(types[0])
        return (TensorType(types[0].shape, "s8", self.out),)

    def requantization(self, x: TensorType) -> tuple[int, int]:
        """(M, sh) from the input's scale to the output's."""
        try:
            return multiplier(need_quant(x)[0].scale[0] / (self.out or Quant((1.0,))).scale[0])
        except ValueError as error:
            raise GraphError(str(error)) from None

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x = node.inputs[0].type
        out = self.out or Quant((1.0,))
        return (clamp8(mbqm(arrays[0].astype(np.int64) - need_quant(x)[0].zero, *self.requantization(x)) + out.zero),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if self.out is None:
            return (np.clip(arrays[0], self.low, self.high),)
        (quant,) = need_quant(node.inputs[0].type)
        return (clamp8((arrays[0] - quant.zero) * (quant.scale[0] / self.out.scale[0]) + self.out.zero),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            build.pass_on(x, build.mask(build.incoming(node.outputs[0]), node.outputs[0]))

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        m, sh = self.requantization(x.type)
        rows, row = (x.type.shape[1], math.prod(x.type.shape[2:])) if len(x.type.shape) == 4 else (1, x.type.elements)
        fields = (
            ("rows", rows),
            ("row", row),
            ("multiplier", m),
            ("shift", sh),
            ("x_zero", need_quant(x.type)[0].zero),
            ("y_zero", (self.out or Quant((1.0,))).zero),
        )
        return Kernel("mcg_clamp", (Struct("mcg_clamp_t", fields), RowRange(), Operand(x), Operand(y, const=False)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls(out=Quant((0.07,), -128)), x=activation(3, 5, 7, zero=127))
        yield single(cls(out=Quant((0.01,), 127)), x=activation(4, 1, 3, zero=-128))
        yield single(cls(out=Quant((0.6,), 5)), x=TensorType((1, 9), "s8", Quant((0.5,), 4)))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first, last),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self)
