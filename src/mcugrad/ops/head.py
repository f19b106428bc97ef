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
from mcugrad.ops.update import Control
from mcugrad.quant.affine import BIAS_LIMIT, log2_shift, rsh

Array = NDArray[Any]

HEAD_ONE = 4096  # 1.0 in the head's Q12


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
    bits: fraction bits of g.  Inputs: x, g, W, b, control.  Outputs: W', b'.
    """

    rate: float
    bits: int = 15
    phase = "update"
    aliased = ((2, 0), (3, 1))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise GraphError(f"the learning rate must be positive, got {self.rate}")
        return types[2], types[3]

    def shifts(self, node: Node) -> tuple[int, int]:
        scale = need_quant(node.inputs[0].type)[0].scale[0]
        return log2_shift(self.rate * scale * HEAD_ONE) + self.bits, log2_shift(self.rate * HEAD_ONE / scale) + self.bits

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, g, weight, bias, control = arrays
        (kw, kb), halvings, limit = self.shifts(node), Control.of(control).halvings, weight_limit(node.inputs[0].type)
        step = rsh(np.outer(centred_features(node, x), g.astype(np.int64)), kw + halvings)
        moved = bias.astype(np.int64) - rsh(g, kb + halvings)
        return np.clip(weight - step, -limit, limit), np.clip(moved, -BIAS_LIMIT, BIAS_LIMIT)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, g, weight, bias, control = arrays
        (kw, kb), halvings = self.shifts(node), Control.of(control).halvings
        step = np.outer(centred_features(node, x), g) * 2.0 ** -(kw + halvings)
        return weight - step, bias - g * 2.0 ** -(kb + halvings)

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
        return Kernel("mcg_head_update", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import head_updates

        return head_updates()
