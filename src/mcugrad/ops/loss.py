"""Softmax cross-entropy in integers, the two early ends of a step, and the sample's own exponent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Context, Graph, GraphError, Kernel, Node, Op, Operand, Quant, StopStep, Struct, TensorType
from mcugrad.ops.head import UNSEEN
from mcugrad.ops.update import Control
from mcugrad.quant.affine import rsh, softmax, softmax_multiplier

Array = NDArray[Any]

ONE = 32768  # probability 1 in Q15
HEAD_UNIT = 2.0**-27  # of a head's input gradient: weights in Q12, probabilities in Q15


@dataclass(frozen=True)
class SoftmaxCrossEntropy(Op):
    """p_label (Q15) and g_k = p_k - [k = label] (Q15) of logits at scale feature_scale * 2**-12.  Inputs: logits, label.

    Outputs whose logit is UNSEEN are left out of the softmax: their p is 0."""

    feature_scale: float
    phase = "loss"

    @staticmethod
    def loss_of(score: float) -> float:
        """-ln((p + 1/2) / 32768) of a probability in Q15."""
        return -math.log((score + 0.5) / ONE)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if types[0].dtype != "s32" or len(types[0].shape) != 1:
            raise GraphError(f"the loss needs int32 logits [K], got {types[0]}")
        return TensorType((1,), "s32"), TensorType(types[0].shape, "s32")

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        seen = arrays[0] != UNSEEN
        p = np.zeros(len(seen), np.int64)
        if seen.any():
            p[seen] = softmax(arrays[0][seen], *softmax_multiplier(self.feature_scale))
        return self._split(p, int(arrays[1][0]))

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        seen = arrays[0] != UNSEEN
        a = arrays[0].astype(np.float64) * (self.feature_scale * 2.0**-12)
        e = np.where(seen, np.exp(a - a.max(initial=-np.inf, where=seen)), 0.0) if seen.any() else np.zeros(len(a))
        return self._split(e / max(e.sum(), 1.0) * ONE, int(arrays[1][0]))

    @staticmethod
    def _split(p: Array, label: int) -> tuple[Array, Array]:
        g = p.copy()
        g[label] -= ONE
        return p[label : label + 1], g

    def kernel(self, node: Node) -> Kernel:
        logits, label = node.inputs
        m, sh = softmax_multiplier(self.feature_scale)
        fields = (("classes", logits.type.shape[0]), ("multiplier", m), ("shift", sh))
        args = (
            Struct("mcg_softmax_t", fields),
            Operand(logits, "int32_t"),
            Operand(label, "int32_t"),
            Operand(node.outputs[0], "int32_t", const=False),
            Operand(node.outputs[1], "int32_t", const=False),
        )
        return Kernel("mcg_softmax_cross_entropy", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import losses

        return losses()


@dataclass(frozen=True)
class StopIfEasy(Op):
    """Ends the step when p_label reached the caller's threshold.  Inputs: p_label, control."""

    phase = "loss"
    progress = 1

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return ()

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if int(arrays[0][0]) >= Control.of(arrays[1]).skip:
            raise StopStep(self.progress)
        return ()

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return ()

    def kernel(self, node: Node) -> Kernel:
        return Kernel("mcg_stop_if_easy", (Context(), Operand(node.inputs[0], "int32_t")))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import stops_if_easy

        return stops_if_easy()


@dataclass(frozen=True)
class StopIfZero(Op):
    """Ends the step when no gradient reaches the features.  Inputs: gf."""

    phase = "loss"
    progress = 2

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return ()

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        if not arrays[0].any():
            raise StopStep(self.progress)
        return ()

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return ()

    def kernel(self, node: Node) -> Kernel:
        gf = node.inputs[0]
        return Kernel("mcg_stop_if_zero", (Operand(gf, "int32_t"), gf.type.elements))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import stops_if_zero

        return stops_if_zero()


@dataclass(frozen=True)
class SampleScale(Op):
    """gf <- RSH(gf, -k) with k = 14 - bitlength(max |gf|), and e_s = floor(log2(unit)) - k: the sample's exponent.

    unit: real gradient of one gf; what it has beyond a power of two becomes the scale of the result."""

    shape: tuple[int, ...]
    unit: float = HEAD_UNIT
    phase = "backward"
    in_place = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if types[0].elements != math.prod(self.shape):
            raise GraphError(f"{types[0]} does not fit the shape {self.shape}")
        return TensorType(self.shape, "s32", Quant((self.unit * 2.0**-self.base,))), TensorType((1,), "s32")

    @property
    def base(self) -> int:
        return math.frexp(self.unit)[1] - 1

    def _shift(self, gf: Array) -> int:
        return 14 - int(np.abs(gf).max()).bit_length()

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        k = self._shift(arrays[0])
        return rsh(arrays[0], -k).reshape(self.shape), np.array([self.base - k])

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        k = self._shift(arrays[0])
        return (arrays[0] * 2.0**k).reshape(self.shape), np.array([self.base - k])

    def kernel(self, node: Node) -> Kernel:
        gf, scale = node.outputs
        args = (
            gf.type.elements,
            self.base,
            Operand(node.inputs[0], "int32_t"),
            Operand(gf, "int32_t", const=False),
            Operand(scale, "int32_t", const=False),
        )
        return Kernel("mcg_sample_scale", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_head import sample_scales

        return sample_scales()
