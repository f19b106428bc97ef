"""Losses beside softmax: sigmoid cross-entropy and mean squared error, and the logits of a model that keeps its output."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Struct, TensorType
from mcugrad.ops.conv2d import need_quant
from mcugrad.ops.loss import ONE, SoftmaxCrossEntropy
from mcugrad.quant.affine import mbqm, multiplier, rsh, sigmoid, softmax_multiplier

Array = NDArray[Any]

HEAD_LIMIT = 16  # bits of sum |g|, so that a head's input gradient fits int32
HEAD_FRACTION = 13  # fraction bits of a head's squared-error gradient: errors of up to 4 fit HEAD_LIMIT
OUTPUT_FRACTION = 7  # fraction bits of an int8 output's error
TARGET_LIMIT = 1 << 16  # of a target in those units: four times what int8 can reach


@dataclass(frozen=True)
class Logits(Op):
    """a = x - z, flat int32: the output of a model that keeps it, at its own scale."""

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        need_quant(types[0])
        return (TensorType((types[0].elements,), "s32"),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape(-1).astype(np.int64) - need_quant(node.inputs[0].type)[0].zero,)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape(-1).astype(np.float64) - need_quant(node.inputs[0].type)[0].zero,)

    def gradient(self, node: Node, build: Any) -> None:
        build.begin(node.inputs[0], build.g)

    def kernel(self, node: Node) -> Kernel:
        (x,) = node.inputs
        operands = Operand(x), Operand(node.outputs[0], "int32_t", const=False)
        return Kernel("mcg_logits", (x.type.elements, need_quant(x.type)[0].zero, *operands))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_losses import logits

        return logits()


@dataclass(frozen=True)
class SigmoidCrossEntropy(Op):
    """Labels that are true or not, each on its own: the loss is the sum of their cross-entropies.

    p_k = sigmoid(a_k) in Q15, logits a at scale feature_scale * 2**-12.  Outputs: the smallest probability (Q15) given to
    the right answer of a label, and g_k = RSH(p_k - 32768 * t_k, 15 - bits).  Inputs: logits, target (0 or 1 each)."""

    feature_scale: float
    bits: int = 15
    phase = "loss"

    @staticmethod
    def loss_of(score: float) -> float:
        """The cross-entropy of the label that fares worst."""
        return SoftmaxCrossEntropy.loss_of(score)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        logits, target = types
        if logits.dtype != "s32" or len(logits.shape) != 1 or logits.shape != target.shape:
            raise GraphError(f"the loss needs int32 logits [K] and as many targets, got {logits} and {target}")
        if not 0 < self.bits <= 15:
            raise GraphError(f"{logits.elements} labels are too many for one head: their gradients would have {self.bits} bits")
        return TensorType((1,), "s32"), logits

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        p, true = sigmoid(arrays[0], *softmax_multiplier(self.feature_scale)), arrays[1] != 0
        return np.where(true, p, ONE - p).min(keepdims=True), rsh(np.where(true, p - ONE, p), 15 - self.bits)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a = arrays[0].astype(np.float64) * (self.feature_scale * 2.0**-12)
        p, true = ONE / (1 + np.exp(-a)), arrays[1] != 0
        return np.where(true, p, ONE - p).min(keepdims=True), np.where(true, p - ONE, p) * 2.0 ** (self.bits - 15)

    def kernel(self, node: Node) -> Kernel:
        logits, target = node.inputs
        m, sh = softmax_multiplier(self.feature_scale)
        fields = (("classes", logits.type.shape[0]), ("multiplier", m), ("shift", sh))
        args = (
            Struct("mcg_softmax_t", fields),
            15 - self.bits,
            Operand(logits, "int32_t"),
            Operand(target, "int32_t"),
            Operand(node.outputs[0], "int32_t", const=False),
            Operand(node.outputs[1], "int32_t", const=False),
        )
        return Kernel("mcg_sigmoid_cross_entropy", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_losses import sigmoid_losses

        return sigmoid_losses()


def label_bits(labels: int) -> int:
    """Fraction bits of the gradients of so many independent labels: sum |g| stays within 2**16."""
    return min(15, HEAD_LIMIT - math.ceil(math.log2(labels)))


@dataclass(frozen=True)
class MeanSquaredError(Op):
    """The mean over K outputs of (y - t)**2, y = scale * logit.  Inputs: logits s32 [K], and the target.

    The target is t in units of scale * 2**-f (s32 [K]), or the sample itself (s8 [1,H,W,C]), brought to those units by
    MBQM(x - z_x), multiplier s_x / scale * 2**f.  d_k = a_k * 2**f - t_k, and
      of a head (f = 0):    g_k = clamp(MBQM(d_k), +-floor(2**16 / K)), multiplier scale * 2**13 * 2 / K: dL/dy in Q13;
      of an output (f = 7): g_k = d_k, t kept within +-2**16: dL/dy in units of `unit`.
    Outputs: sum RSH(g_k**2, score_shift) within int32, and g.
    """

    scale: float
    outputs: int
    head: bool
    phase = "loss"

    @property
    def fraction(self) -> int:
        return 0 if self.head else OUTPUT_FRACTION

    @property
    def limit(self) -> int:
        """Largest |g|."""
        return (1 << HEAD_LIMIT) // self.outputs if self.head else TARGET_LIMIT + (256 << OUTPUT_FRACTION)

    @property
    def unit(self) -> float:
        """dL/dy of one g."""
        return 2.0**-HEAD_FRACTION if self.head else 2 * self.scale * 2.0**-self.fraction / self.outputs

    @property
    def score_shift(self) -> int:
        return max(0, (self.outputs * self.limit**2).bit_length() - 30)

    def loss_of(self, score: float) -> float:
        """The mean squared error, in real units, that a score stands for."""
        error = self.unit * self.outputs / 2  # y - t of one g
        return score * 2.0**self.score_shift * error**2 / self.outputs

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        logits, target = types
        if logits.dtype != "s32" or logits.shape != (self.outputs,) or target.elements != self.outputs:
            raise GraphError(f"the loss needs int32 logits [{self.outputs}] and as many targets, got {logits} and {target}")
        if self.head and target.dtype == "s8":
            raise GraphError("a new head cannot learn to reconstruct the sample: train the model's own output")
        if self.limit < 16:
            raise GraphError(f"a head of {self.outputs} outputs is too wide for a squared error: train the model's own output")
        self._multipliers(target)
        return TensorType((1,), "s32"), logits

    def _multipliers(self, target: TensorType) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of the target, and of the difference; (0, 0) where there is none."""
        of_target = of_error = 0, 0
        try:
            if self.head:
                of_error = multiplier(self.scale * 2.0 ** (HEAD_FRACTION + 1) / self.outputs)
            if target.dtype == "s8":
                of_target = multiplier(need_quant(target)[0].scale[0] / self.scale * 2.0**self.fraction)
        except ValueError as error:
            raise GraphError(f"squared error: {error}") from None
        return of_target, of_error

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        type_ = node.inputs[1].type
        of_target, of_error = self._multipliers(type_)
        t = arrays[1].reshape(-1).astype(np.int64)
        if type_.dtype == "s8":
            t = mbqm(t - need_quant(type_)[0].zero, *of_target)
        if not self.head:
            t = np.clip(t, -TARGET_LIMIT, TARGET_LIMIT)
        g = (arrays[0].astype(np.int64) << self.fraction) - t
        if self.head:
            g = np.clip(mbqm(np.clip(g, -(2**31), 2**31 - 1), *of_error), -self.limit, self.limit)
        return rsh(g * g, self.score_shift).sum(keepdims=True), g

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        type_, t = node.inputs[1].type, arrays[1].reshape(-1).astype(np.float64)
        if type_.dtype == "s8":
            (quant,) = need_quant(type_)
            t = (t - quant.zero) * quant.scale[0] / self.scale
        else:
            t = t * 2.0**-self.fraction
        g = (arrays[0] - t) * (2 * self.scale / self.outputs / self.unit)
        return (g * g).sum(keepdims=True) * 2.0**-self.score_shift, g

    def kernel(self, node: Node) -> Kernel:
        logits, target = node.inputs
        sample = target.type.dtype == "s8"
        (tm, tsh), (m, sh) = self._multipliers(target.type)
        fields = (
            ("outputs", self.outputs),
            ("fraction", self.fraction),
            ("limit", self.limit),
            ("score_shift", self.score_shift),
            ("multiplier", m),
            ("shift", sh),
            ("target_multiplier", tm),
            ("target_shift", tsh),
            ("target_zero", need_quant(target.type)[0].zero if sample else 0),
        )
        args = (
            Struct("mcg_squared_error_t", fields),
            Operand(logits, "int32_t"),
            Operand(None if sample else target, "int32_t"),
            Operand(target if sample else None),
            Operand(node.outputs[0], "int32_t", const=False),
            Operand(node.outputs[1], "int32_t", const=False),
        )
        return Kernel("mcg_mean_squared_error", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_losses import squared_errors

        return squared_errors()
