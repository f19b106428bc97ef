"""A 1x1 convolution some input channels at a time: int32 sums over calls, and their requantization."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Quant, Scratch, Struct, Table, TensorType, Walk, Work
from mcugrad.ops.bias import summed
from mcugrad.ops.conv2d import need_quant, shift_table
from mcugrad.ops.example import activation, filled, single, vector, weights
from mcugrad.ops.spatial import nhwc
from mcugrad.quant.affine import BIAS_LIMIT, clamp8, mbqm, multipliers

Array = NDArray[Any]

PIXELS = 4  # that the kernel widens together
WIDTH = 4  # channels that a share is a multiple of


@dataclass(frozen=True)
class Conv2dSum(Op):
    """sum + sum (x - z_x) * w over input channels [first, first + n) of a 1x1 convolution: int32 [1,H,W,O].

    Inputs: x [1,H,W,n], the whole weight [O,1,1,C]; unless first is 0, the sum of the channels before, in whose bytes the
    result is.  The scale of a sum is s_x * s_w[o]."""

    first: int

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return ((2, 0),) if self.first else ()

    @property
    def overwrites(self) -> bool:
        return True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, weight, *before = types
        height, width, channels = nhwc(x)
        if weight.shape[1:3] != (1, 1) or self.first + channels > weight.shape[3] or channels % WIDTH:
            raise GraphError(f"{channels} channels from {self.first} on do not fit a 1x1 weight {list(weight.shape)}")
        if 255 * 127 * weight.shape[3] >= BIAS_LIMIT:
            raise GraphError(f"{weight.shape[3]} inputs per output could overflow an int32 accumulator; split the layer")
        xq, wq = need_quant(x, weight)
        scale = tuple(xq.scale[0] * s for s in wq.scale)
        total = TensorType((1, height, width, weight.shape[0]), "s32", Quant(scale, 0, 3 if len(scale) > 1 else None))
        if before != ([total] if self.first else []):
            raise GraphError(f"a sum {total} cannot go on from {before}")
        return (total,)

    def _run(self, node: Node, *arrays: Array) -> Array:
        x, weight, *before = arrays
        (quant,) = need_quant(node.inputs[0].type)
        taken = weight[:, 0, 0, self.first : self.first + x.shape[3]].astype(np.float64)
        return (x.astype(np.float64) - quant.zero) @ taken.T + (before[0] if before else 0)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self._run(node, *arrays).astype(np.int64),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (self._run(node, *arrays),)

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=node.outputs[0].type.elements * node.inputs[0].type.shape[3])

    def kernel(self, node: Node) -> Kernel:
        (x, weight), (y,) = node.inputs[:2], node.outputs
        (xq,) = need_quant(x.type)
        fields = (
            ("positions", x.type.shape[1] * x.type.shape[2]),
            ("inputs", x.type.shape[3]),
            ("outputs", y.type.shape[3]),
            ("pitch", weight.type.shape[3]),
            ("x_zero", xq.zero),
            ("more", int(self.first > 0)),
        )
        operands = Operand(x), Operand(weight, offset=self.first), Operand(y, "int32_t", const=False)
        args = (Struct("mcg_conv2d_sum_t", fields), *operands, Scratch())
        return Kernel("mcg_conv2d_sum", args, scratch=2 * PIXELS * x.type.shape[3])

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        for i, (height, width, n, channels, outputs) in enumerate(
            ((3, 3, 8, 8, 5), (2, 4, 4, 20, 7), (1, 1, 16, 40, 3), (5, 3, 12, 12, 1), (1, 5, 8, 33, 2))
        ):
            x, weight = (
                activation(height, width, n, (-128, 127, 4)[i % 3]),
                weights(outputs, 1, 1, channels, axis=(0, None)[i % 2]),
            )
            for first in {0, channels - n}:
                before = cls(0).infer(x, weight)
                yield single(cls(first), x=x, weight=weight, **({"sum": before[0]} if first else {}))


@dataclass(frozen=True)
class RequantizeSum(Op):
    """y = clamp8(MBQM(sum + b) + z_y).  Inputs: sum int32 [1,H,W,O] with the scales of its channels, bias [O]; with `delta` an
    int16 [O] to be added to it."""

    out: Quant
    delta: bool = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        total, bias, *delta = types
        channels = total.shape[3]
        if bias.shape != (channels,) or [d.shape for d in delta] != [(channels,)] * self.delta:
            raise GraphError(f"a bias of shape {list(bias.shape)} does not fit {channels} channels")
        self._multipliers(total)
        return (TensorType(total.shape, "s8", self.out),)

    def _multipliers(self, total: TensorType) -> tuple[Array, Array]:
        (quant,) = need_quant(total)
        scales = quant.scale if len(quant.scale) > 1 else quant.scale * total.shape[3]
        return multipliers(tuple(s / self.out.scale[0] for s in scales))

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        total, bias, *delta = arrays
        acc = (total.astype(np.int64) + (summed(bias, delta[0]) if delta else bias)).astype(np.int64)
        m, sh = self._multipliers(node.inputs[0].type)
        return (clamp8(mbqm(acc, m, sh) + self.out.zero),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        total, bias, *delta = arrays
        (quant,) = need_quant(node.inputs[0].type)
        acc = total + (summed(bias, delta[0]) if delta else bias)
        return (clamp8(acc * (np.array(quant.scale) / self.out.scale[0]) + self.out.zero),)

    def kernel(self, node: Node) -> Kernel:
        total, bias, *delta = node.inputs
        m, sh = self._multipliers(total.type)
        fields = (
            ("positions", total.type.shape[1] * total.type.shape[2]),
            ("channels", total.type.shape[3]),
            ("y_zero", self.out.zero),
            ("multiplier", Table("int32_t", tuple(int(v) for v in m))),
            ("shift", shift_table(sh)),
        )
        biases = Operand(bias, "int32_t"), Operand(delta[0] if delta else None, "int16_t")
        y = Operand(node.outputs[0], const=False)
        return Kernel("mcg_requantize_sum", (Struct("mcg_requantize_t", fields), Operand(total, "int32_t"), *biases, y))

    def walks(self, node: Node) -> tuple[Walk, ...]:
        at = np.arange(node.outputs[0].type.elements)
        return (Walk(0, 0, np.stack([4 * at, 4 * at + 4, at, at + 1], axis=1)),)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        for i, (height, width, channels) in enumerate(((3, 4, 5), (2, 2, 1), (1, 7, 9))):
            scale = tuple(0.0005 * 1.25 ** (c % 7) for c in range(channels if i % 2 == 0 else 1))
            total = TensorType((1, height, width, channels), "s32", Quant(scale, 0, 3 if len(scale) > 1 else None))
            for delta in (False, True):
                moved = {"delta": vector(channels, "s16")} if delta else {}
                yield single(cls(filled(9, 4 - 60 * i), delta), sum=total, bias=vector(channels), **moved)
