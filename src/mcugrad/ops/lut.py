"""Any function of one int8 element by a table of 256 entries, and its gradient by a table of slopes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, RowNeed, RowRange, Table, TensorType
from mcugrad.ops.backprop import grad_quant, passes
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.example import activation, single
from mcugrad.ops.functions import Elu, Function, HardSwish, LeakyRelu, Sigmoid, Tanh
from mcugrad.ops.spatial import rows_of
from mcugrad.quant.affine import clamp8

Array = NDArray[Any]

CODES = np.arange(-128, 128)
SLOPE_LIMIT = 32767


@dataclass(frozen=True)
class Lut(Op):
    """y = clamp8(floor(f(s_x * (x - z_x)) / s_y + 1/2) + z_y), tabulated at compile time; `out` None: float."""

    function: Function
    out: Quant | None = None
    in_place = ((0, 0),)
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if self.out is None:
            return (TensorType(types[0].shape, "f32"),)
        need_quant(types[0])
        return (TensorType(types[0].shape, "s8", self.out),)

    def _real(self, x: TensorType, codes: Array) -> Array:
        """Outputs in units of y, before rounding, for inputs in units of x."""
        (quant,), out = need_quant(x), self.out or Quant((1.0,))
        y = self.function.value(quant.scale[0] * (codes.astype(np.float64) - quant.zero))
        return np.asarray(clamp8(y / out.scale[0] + out.zero))

    def table(self, x: TensorType) -> Array:
        """int64 [256]: y of x = -128 ... 127."""
        return clamp8(np.floor(self._real(x, CODES) + 0.5).astype(np.int64))

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self.table(node.inputs[0].type)[arrays[0].astype(np.int64) + 128],)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if self.out is None:
            return (self.function.value(np.asarray(arrays[0], np.float64)),)
        return (self._real(node.inputs[0].type, arrays[0]),)

    def gradient(self, node: Node, build: Any) -> None:
        (x,) = node.inputs
        if build.wants(x):
            build.contribute(x, LutGrad(self.function, self.out), build.stored(node.outputs[0], wide=False), x)

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        table = Table("int8_t", tuple(int(v) for v in np.roll(self.table(x.type), 128)))
        return Kernel("mcg_lut", (rows_of(y.type)[1], table, RowRange(), Operand(x), Operand(y, const=False)))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first, last),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls(Sigmoid(), Sigmoid.quant), x=activation(3, 5, 7, zero=11))
        yield single(cls(Tanh(), Tanh.quant), x=activation(2, 3, 8, zero=-128))
        yield single(cls(HardSwish(), Quant((0.02,), -110)), x=activation(1, 4, 5, zero=3))
        yield single(cls(LeakyRelu(0.2), Quant((0.01,), 127)), x=activation(2, 1, 3, zero=127))
        yield single(cls(Elu(), Quant((0.04,), -100)), x=TensorType((1, 21), "s8", Quant((0.05,), 0)))


@dataclass(frozen=True)
class LutGrad(Op):
    """a = g * D[x], D = rint(f'(s_x * (x - z_x)) * 2**S), 0 where y is at an end of its range; a has scale 2**-S.

    S <= 15 is the largest that keeps |D| within int16.  Inputs: g int8 (stored), x int8.  D differs from f' by at most
    2**-(S + 1): 3e-5 of the largest slope, where that is 1/2 or more.
    """

    function: Function
    out: Quant | None
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        g, x = types
        quant = grad_quant(g)
        if g.dtype != "s8" or g.shape != x.shape:
            raise GraphError(f"a stored gradient for {x} is needed, got {g}")
        scale = quant.scale[0] * 2.0 ** -self.shift(x)
        return (TensorType(x.shape, "s32", Quant((scale,), exponent=quant.exponent)),)

    def _slopes(self, x: TensorType, codes: Array, y: Array) -> Array:
        (quant,) = need_quant(x)
        slope = self.function.slope(quant.scale[0] * (codes.astype(np.float64) - quant.zero))
        return np.where(passes(y), slope, 0.0)

    def _exact(self, x: TensorType) -> Array:
        """f' at x = -128 ... 127, float64 [256]."""
        return self._slopes(x, CODES, Lut(self.function, self.out).table(x))

    def shift(self, x: TensorType) -> int:
        """S."""
        most = float(np.abs(self._exact(x)).max())
        return max(-16, min(15, math.floor(math.log2(SLOPE_LIMIT / most)))) if most > 0 else 0

    def table(self, x: TensorType) -> Array:
        """int64 [256]: D of x = -128 ... 127."""
        steps = np.rint(self._exact(x) * 2.0 ** self.shift(x)).astype(np.int64)
        return np.clip(steps, -SLOPE_LIMIT, SLOPE_LIMIT)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        g, x = (a.astype(np.int64) for a in arrays)
        return (g * self.table(node.inputs[1].type)[x + 128],)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        g, x = arrays
        type_ = node.inputs[1].type
        slope = self._slopes(type_, x, Lut(self.function, self.out)._real(type_, x))
        return (g * slope * 2.0 ** self.shift(type_),)

    def kernel(self, node: Node) -> Kernel:
        g, x = node.inputs
        rows, row = rows_of(x.type)
        table = Table("int16_t", tuple(int(v) for v in np.roll(self.table(x.type), 128)))
        return Kernel("mcg_lut_grad", (rows, row, table, Operand(g), Operand(x)), scratch=4 * row)
