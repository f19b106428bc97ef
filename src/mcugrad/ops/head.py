"""The classifier: int16 Q12 weights on the features, its gradient and its update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Context, Graph, GraphError, Kernel, Node, Op, Operand, Struct, TensorType, Work
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.hold import BIAS_BITS, HEAD_BITS, Hold
from mcugrad.ops.update import Control
from mcugrad.quant.affine import BIAS_LIMIT, log2_shift, rsh

Array = NDArray[Any]

HEAD_ONE = 4096  # 1.0 in the head's Q12
UNSEEN = -BIAS_LIMIT
"""Bias of an output that no sample has reached: its weights are zero, so this is its logit too.  It has probability 0 and no
gradient until a sample carries its label; then it starts from 0."""


def met(bias: Array, step: Array) -> Array:
    """The biases from which a step starts: 0 for an unseen output that has one."""
    return np.where((bias == UNSEEN) & (step != 0), 0, bias)


def weight_limit(features: TensorType) -> int:
    """Largest |weight| that keeps |sum f * W| below 2**30 for these features."""
    zero = need_quant(features)[0].zero
    return min(32767, (BIAS_LIMIT - 1) // (features.elements * max(127 - zero, zero + 128)))


def centred_features(node: Node, x: Array) -> Array:
    """f = x - z, flat."""
    return x.reshape(-1).astype(np.int64 if x.dtype.kind == "i" else np.float64) - need_quant(node.inputs[0].type)[0].zero


@dataclass(frozen=True)
class Head(Op):
    """a_k = sum_c f_c * W[c,k] + b_k in accumulator units (scale s_f * 2**-12).  Inputs: x int8, W int16 [F,K], b int32 [K]."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias = types
        if weight.shape != (x.elements, bias.shape[0]):
            raise GraphError(f"a head {list(weight.shape)} does not fit {x.elements} features and {bias.shape[0]} classes")
        if weight_limit(x) < 256:
            raise GraphError(f"{x.elements} features leave the head less than 9 bits; pool or project them first")
        return (TensorType(bias.shape, "s32"),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, weight, bias = arrays
        return (centred_features(node, x) @ weight + bias,)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, weight, bias = arrays
        return (centred_features(node, x) @ weight.astype(np.int64) + bias,)

    def gradient(self, node: Node, build: Any) -> None:
        build.update_head(*node.inputs, node.outputs[0])

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=node.inputs[1].type.elements)

    def kernel(self, node: Node) -> Kernel:
        x, weight, bias = node.inputs
        fields = head_fields(x.type, weight.type)
        args = (
            Struct("mcg_head_t", fields),
            Operand(x),
            Operand(weight, "int16_t"),
            Operand(bias, "int32_t"),
            Operand(node.outputs[0], "int32_t", const=False),
        )
        return Kernel("mcg_head", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import heads

        return heads()


def head_fields(x: TensorType, weight: TensorType) -> tuple[tuple[str, Any], ...]:
    zero = need_quant(x)[0].zero
    return (("features", weight.shape[0]), ("classes", weight.shape[1]), ("zero", zero), ("limit", weight_limit(x)))


@dataclass(frozen=True)
class HeadInputGrad(Op):
    """gf_c = sum_k W[c,k] * g_k with the old weights.  Inputs: W, g."""

    phase = "backward"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType((types[0].shape[0],), "s32"),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0] @ arrays[1],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].astype(np.int64) @ arrays[1].astype(np.int64),)

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=node.inputs[0].type.elements)

    def kernel(self, node: Node) -> Kernel:
        weight, g = node.inputs
        args = (
            weight.type.shape[0],
            weight.type.shape[1],
            Operand(weight, "int16_t"),
            Operand(g, "int32_t"),
            Operand(node.outputs[0], "int32_t", const=False),
        )
        return Kernel("mcg_head_input_grad", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import head_input_grads

        return head_input_grads()


@dataclass(frozen=True)
class HeadUpdate(Op):
    """W -= RSH(f_c * g_k, kw), b -= RSH(g_k, kb), both to nearest.

    kw = -round(log2(lr * s_f * 2**12)) + bits + halvings, kb = -round(log2(lr * 2**12 / s_f)) + bits + halvings.
    bits: fraction bits of g.  Inputs: x, g, W, b, control (, held W, held b, count).  Outputs: W', b' (, held W', held b').
    samples: of one step, whose shares are held until the last one; lr is divided by their number.  An UNSEEN output that
    has a gradient starts from 0.
    """

    rate: float
    bits: int = 15
    samples: int = 1
    phase = "update"

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return ((2, 0), (3, 1)) if self.samples == 1 else ((2, 0), (3, 1), (5, 2), (6, 3))

    @property
    def holds(self) -> tuple[Hold, Hold]:
        """What is held for weights and biases."""
        return Hold(self.samples, HEAD_BITS), Hold(self.samples, BIAS_BITS["s32"], "s32")

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise GraphError(f"the learning rate must be positive, got {self.rate}")
        if self.samples == 1:
            return types[2], types[3]
        for hold, parameter, held in zip(self.holds, types[2:4], types[5:7], strict=True):
            hold.check(parameter, held, types[7])
        return types[2], types[3], types[5], types[6]

    def shifts(self, node: Node) -> tuple[int, int]:
        scale, rate = need_quant(node.inputs[0].type)[0].scale[0], self.rate / self.samples
        return log2_shift(rate * scale * HEAD_ONE) + self.bits, log2_shift(rate * HEAD_ONE / scale) + self.bits

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, g, weight, bias, control, *held = arrays
        (kw, kb), halvings, limit = self.shifts(node), Control.of(control).halvings, weight_limit(node.inputs[0].type)
        product, kept = np.outer(centred_features(node, x), g.astype(np.int64)), ()
        if held:
            shares = zip(self.holds, (product, g), (kw, kb), held[:2], strict=False)
            steps = [h.take(rsh(v, k + halvings - h.fraction), old, held[2]) for h, v, k, old in shares]
            (step, moved), kept = zip(*steps, strict=True)
        else:
            step, moved = rsh(product, kw + halvings), rsh(g, kb + halvings)
        bias = met(bias.astype(np.int64), moved if held else g)
        new = np.clip(weight - step, -limit, limit), np.clip(bias - moved, -BIAS_LIMIT, BIAS_LIMIT)
        return (*new, *kept)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, g, weight, bias, control, *held = arrays
        (kw, kb), halvings = self.shifts(node), Control.of(control).halvings
        steps = np.outer(centred_features(node, x), g) * 2.0 ** -(kw + halvings), g * 2.0 ** -(kb + halvings)
        if not held:
            return weight - steps[0], met(bias, g) - steps[1]
        taken = [h.take_real(v * 2.0**h.fraction, old, held[2]) for h, v, old in zip(self.holds, steps, held[:2], strict=True)]
        return weight - taken[0][0], met(bias, taken[1][0]) - taken[1][0], taken[0][1], taken[1][1]

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=node.inputs[2].type.elements)

    def kernel(self, node: Node) -> Kernel:
        x, g = node.inputs[:2]
        kw, kb = self.shifts(node)
        fields = (*head_fields(x.type, node.inputs[2].type), ("weight_shift", kw), ("bias_shift", kb))
        args = (
            Struct("mcg_head_t", fields),
            Context(),
            Operand(x),
            Operand(g, "int32_t"),
            Operand(node.outputs[0], "int16_t", const=False),
            Operand(node.outputs[1], "int32_t", const=False),
        )
        if self.samples == 1:
            return Kernel("mcg_head_update", args)
        held = [h.struct(v, node.inputs[7]) for h, v in zip(self.holds, node.outputs[2:], strict=True)]
        return Kernel("mcg_head_hold", (*args, *held))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import head_updates

        return head_updates()
