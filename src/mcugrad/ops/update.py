"""Weight and bias updates at the rate that quantization-aware scaling gives: powers of two, at once, in place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import (
    Context,
    Graph,
    GraphError,
    Kernel,
    Node,
    Op,
    Operand,
    RowNeed,
    Scratch,
    Struct,
    Table,
    TensorType,
    Value,
    Work,
)
from mcugrad.ops.hold import WEIGHT_BITS, Hold
from mcugrad.ops.rate import rate
from mcugrad.quant.affine import BIAS_LIMIT, random_bits, rsh, shift_down

Array = NDArray[Any]

RESIDUAL = {4: "s4", 8: "s8"}


@dataclass(frozen=True)
class Control:
    """Fields of the graph's `control` input int32[4]."""

    seed: int
    step: int
    halvings: int
    skip: int

    @staticmethod
    def of(array: Array) -> Control:
        return Control(int(array[0]) & 0xFFFFFFFF, int(array[1]) & 0xFFFFFFFF, int(array[2]), int(array[3]))


@dataclass(frozen=True)
class BiasGrad(Op):
    """db[o] = sum over positions of h[o]: int32."""

    phase = "update"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(types[0].shape[-1:], "s32"),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape(-1, arrays[0].shape[-1]).sum(axis=0, dtype=np.int64),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (arrays[0].reshape(-1, arrays[0].shape[-1]).sum(axis=0),)

    def cut_rows(self, node: Node) -> int:
        shape = node.inputs[0].type.shape
        return shape[1] if len(shape) == 4 else 0

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        return self, (RowNeed(0, first, last),)

    def kernel(self, node: Node) -> Kernel:
        h = node.inputs[0]
        channels = h.type.shape[-1]
        args = (Operand(h), h.type.elements // channels, channels)
        return Kernel("mcg_bias_update", args, scratch=4 * channels)


@dataclass(frozen=True)
class BiasStep(Op):
    """b' = b - RSH(db, base[o] - E - e_s + halvings), kept within +-2**30; an int16 delta of the bias within +-32767.

    base[o] = -round(log2(lr / (s_x * s_w[o]**2))).  Inputs: db, bias, e_s, exponents, control (, held, count).
    Outputs: b' (, held').  hold: the step is that of several samples, lr divided by their number.  forward: see `rate`.
    """

    base: tuple[int, ...]
    exponent: int | None
    hold: Hold | None = None
    forward: tuple[float, ...] = ()
    phase = "update"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if types[0].shape != types[1].shape or len(self.base) != types[1].shape[0]:
            raise GraphError(f"a bias gradient {types[0]} does not fit {types[1]}")
        if self.hold is None:
            return (types[1],)
        self.hold.check(types[1], *types[5:])
        return types[1], types[5]

    def shifts(self, e_s: Array, exponents: Array, control: Array) -> Array:
        e = 0 if self.exponent is None else int(exponents[self.exponent])
        return np.array(self.base) - e - int(e_s[0]) + Control.of(control).halvings

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        db, bias, e_s, exponents, control, *held = arrays
        k, limit = self.shifts(e_s, exponents, control), bias_limit(node.inputs[1].type)
        steps = (rsh(db, k),) if self.hold is None else self.hold.take(rsh(db, k - self.hold.fraction), held[0], held[1])
        return (np.clip(bias.astype(np.int64) - steps[0], -limit, limit), *steps[1:])

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        db, bias, e_s, exponents, control, *held = arrays
        step = db * 2.0 ** -self.shifts(e_s, exponents, control)
        if self.hold is None:
            return (bias - step,)
        step, kept = self.hold.take_real(step * 2.0**self.hold.fraction, *held)
        return bias - step, kept

    def constants(self, shape: tuple[int, ...]) -> tuple[str, Struct]:
        """The field of the C step that is constant, for a bias of `shape`."""
        return "rate", rate(self.base, self.exponent, self.forward)

    def struct(self, operands: tuple[Value, ...], outputs: tuple[Value, ...]) -> Struct:
        _bias, e_s, exponents, _, *held = operands
        return Struct(
            "mcg_bias_step_t",
            (
                self.constants(outputs[0].type.shape),
                bias_field(outputs[0]),
                ("sample_exponent", Operand(e_s, "int32_t")),
                ("exponents", Operand(exponents)),
                ("c", Context()),
                *hold_field(self.hold, outputs, held),
            ),
        )


def bias_limit(type_: TensorType) -> int:
    """Largest magnitude of a bias, or of its int16 delta."""
    return BIAS_LIMIT if type_.dtype == "s32" else 32767


def bias_field(bias: Value | None) -> tuple[str, Operand]:
    """The field of the C steps for a bias, or for its delta."""
    if bias is not None and bias.type.dtype == "s16":
        return "delta", Operand(bias, "int16_t", const=False)
    return "bias", Operand(bias, "int32_t", const=False)


def hold_field(hold: Hold | None, outputs: Sequence[Value], held: Sequence[Value]) -> tuple[tuple[str, Struct], ...]:
    """The field of the C steps for what is held; none where every sample moves the parameter."""
    return () if hold is None else (("hold", hold.struct(outputs[-1], held[-1])),)


@dataclass(frozen=True)
class WeightStep(Op):
    """One SGD step of an int8 weight with F residual bits.

    u = (dW + r) >> k, k = base[o] - E - e_s - F + halvings; W = (w << F) + res - u, kept within +-(127 << F);
    w' = RSH(W, F), res' = W - (w' << F).  r rounds to nearest for F = 8, at random below.
    base[o] = -round(log2(lr * s_x / s_w[o]**2)); `axis` is the output channel's axis in the weight.
    Inputs: dW, w (, res when F > 0), e_s, exponents, control (, mu, bias when centred: b_o -= sum mu_i * dw) (, held, count).
    Outputs: w' (, res') (, bias') (, held').  hold: the step is that of several samples, lr divided by their number; their
    shares are rounded at random.  `total` is the full number of input channels; `channels` those in this weight.
    first: the element of the full weight with which this one begins.  forward: see `rate`.
    """

    base: tuple[int, ...]
    exponent: int | None
    residual_bits: int
    tensor: int
    axis: int = 0
    channels: tuple[int, ...] | None = None
    total: int = 0
    centred: bool = False
    hold: Hold | None = None
    first: int = 0
    forward: tuple[float, ...] = ()
    phase = "update"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if self.residual_bits not in (0, 4, 8):
            raise GraphError(f"residual bits must be 0, 4 or 8, not {self.residual_bits}")
        if types[0].shape != types[1].shape or len(self.base) != types[1].shape[self.axis]:
            raise GraphError(f"a weight gradient {types[0]} does not fit {types[1]}")
        outs = types[1:3] if self.residual_bits else types[1:2]
        outs = (*outs, types[-3 if self.hold else -1]) if self.centred else outs
        if self.hold is None:
            return outs
        self.hold.check(types[1], *types[-2:])
        return (*outs, types[-2])

    def shifts(self, e_s: Array, exponents: Array, control: Array) -> Array:
        """k per output channel, shaped to broadcast against the weight."""
        e = 0 if self.exponent is None else int(exponents[self.exponent])
        k = np.array(self.base) - e - int(e_s[0]) - self.residual_bits + Control.of(control).halvings
        return k.reshape([-1 if i == self.axis else 1 for i in range(4)])

    def rounding(self, shape: tuple[int, ...], k: Array, control: Array) -> Array:
        if self.residual_bits == 8 and self.hold is None:
            return np.where(k > 0, np.int64(1) << np.clip(k - 1, 0, 62), 0)
        c = Control.of(control)
        bits = random_bits(c.seed, c.step, self.tensor, self.index(shape)).astype(np.int64)
        masked: Array = bits & ((np.int64(1) << np.clip(k, 0, 32)) - 1)
        return masked

    def index(self, shape: tuple[int, ...]) -> Array:
        """Output-major index of each element in the full weight, frozen channels counted."""
        o, kh, kw, kept = shape
        where = np.array(self.channels if self.channels is not None else range(kept))
        if self.axis == 3:
            return np.asarray(where * (kh * kw) + np.arange(kh * kw).reshape(1, kh, kw, 1))
        rows = np.arange(o * kh * kw).reshape(o, kh, kw, 1)
        return np.asarray(self.first + rows * (self.total or kept) + where)

    def _split(self, arrays: tuple[Array, ...]) -> tuple[Array, Array, Array, Array, Array, Array, tuple[Array, ...]]:
        grad, w = arrays[:2]
        res = arrays[2] if self.residual_bits else np.zeros_like(w)
        e_s, exponents, control, *rest = arrays[2 + bool(self.residual_bits) :]
        return grad, w, res, e_s, exponents, control, tuple(rest)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        grad, w, res, e_s, exponents, control, rest = self._split(arrays)
        k, f = self.shifts(e_s, exponents, control), self.residual_bits
        if self.hold is not None:
            return self._eval_held(node, arrays, k + f - WEIGHT_BITS)
        u = shift_down(grad, k, self.rounding(w.shape, k, control))
        return self._moved(node, w, res, u, rest)

    def _eval_held(self, node: Node, arrays: tuple[Array, ...], k: Array) -> tuple[Array, ...]:
        """The share (dW + r) >> k of a sample, and the step when it is the last one."""
        grad, w, res, _, _, control, (*rest, held, count) = self._split(arrays)
        assert self.hold is not None, "something is held"
        u, kept = self.hold.take(shift_down(grad, k, self.rounding(w.shape, k, control)), held, count)
        if not self.hold.complete(count):
            return (w, *((res,) if self.residual_bits else ()), *rest[1:], kept)
        return (*self._moved(node, w, res, u, tuple(rest)), kept)

    def _moved(self, node: Node, w: Array, res: Array, u: Array, rest: tuple[Array, ...]) -> tuple[Array, ...]:
        """Weight, residual and bias after the step u."""
        f = self.residual_bits
        moved = np.clip((w.astype(np.int64) << f) + res - u, -(127 << f), 127 << f)
        new = rsh(moved, f)
        outs = (new, moved - (new << f)) if f else (new,)
        return (*outs, self.centre(node, new - w, *rest)) if self.centred else outs

    def centre(self, node: Node, dw: Array, mu: Array, bias: Array) -> Array:
        """b_o - sum mu_i * dw: the output mean stays where it was."""
        axes = tuple(i for i in range(4) if i != self.axis)
        groups = 1 if self.axis == 3 or mu.shape[0] == dw.shape[3] else mu.shape[0] // dw.shape[3]
        per = mu if groups == 1 else np.repeat(mu.reshape(groups, 1, 1, -1), dw.shape[0] // groups, axis=0)
        limit = bias_limit(node.outputs[1 + bool(self.residual_bits)].type)
        by = np.zeros(bias.shape, np.result_type(dw, per))
        by[list(self.channels) if self.axis == 3 and self.channels is not None else slice(None)] = (dw * per).sum(axis=axes)
        moved: Array = np.clip(bias - by, -limit, limit)
        return moved

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        grad, w, res, e_s, exponents, control, rest = self._split(arrays)
        unit, kept = 2.0**self.residual_bits, tuple[Array, ...]()
        step = grad * 2.0 ** -self.shifts(e_s, exponents, control).astype(np.float64) / unit
        if self.hold is not None:
            let_out, held = self.hold.take_real(step * 2.0**WEIGHT_BITS, rest[-2], rest[-1])
            step, kept, rest = let_out / unit, (held,), rest[:-2]
        new = w + res / unit - step
        outs = (new, np.zeros_like(new)) if self.residual_bits else (new,)
        return (*outs, self.centre(node, new - w, *rest), *kept) if self.centred else (*outs, *kept)

    def constants(self, shape: tuple[int, ...]) -> tuple[str, Struct]:
        """The field of the C step that is constant, for a weight of `shape`."""
        channels = self.channels
        fixed = (
            ("rate", rate(self.base, self.exponent, self.forward)),
            ("residual_bits", self.residual_bits),
            ("tensor", self.tensor),
            ("taps", shape[1] * shape[2]),
            ("live", shape[3]),
            ("total", self.total or shape[3]),
            ("order", Table("uint16_t", channels) if channels is not None else 0),
        )
        return "p", Struct("mcg_weight_params_t", fixed if not self.first else (*fixed, ("first", self.first)))

    def struct(self, operands: tuple[Value, ...], outputs: tuple[Value, ...]) -> Struct:
        e_s, exponents, _control, *rest = operands[1 + bool(self.residual_bits) :]
        residual = outputs[1] if self.residual_bits else None
        centred = (rest[0], outputs[1 + bool(self.residual_bits)]) if self.centred else (None, None)
        return Struct(
            "mcg_weight_step_t",
            (
                self.constants(outputs[0].type.shape),
                ("weight", Operand(outputs[0], const=False)),
                ("residual", Operand(residual, "void", const=False)),
                ("sample_exponent", Operand(e_s, "int32_t")),
                ("exponents", Operand(exponents)),
                ("mu", Operand(centred[0], "int16_t")),
                bias_field(centred[1]),
                ("c", Context()),
                *hold_field(self.hold, outputs, rest),
            ),
        )


@dataclass(frozen=True)
class Update(Op):
    """A gradient and its step in one node, so that the gradient is never stored.

    Inputs: those of `grad`, then those of `step` without the gradient.  Outputs: those of `step`, in the bytes of the
    old parameters.
    """

    grad: Op
    grad_inputs: int
    step: BiasStep | WeightStep
    phase = "update"

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        first, held = self.grad_inputs, self.step.hold is not None
        if isinstance(self.step, BiasStep):
            return ((first, 0), (first + 4, 1)) if held else ((first, 0),)
        pairs = [(first + i, i) for i in range(2 if self.step.residual_bits else 1)]
        extra = first + len(pairs) + 4
        pairs += [(extra, len(pairs))] if self.step.centred else []
        return (*pairs, (extra - 1 + 2 * self.step.centred, len(pairs))) if held else tuple(pairs)

    def cut_rows(self, node: Node) -> int:
        return self.grad.cut_rows(self._parts(node)[0])

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        """The same step by the share of rows [first, last) in the gradient."""
        grad, needs = self.grad.cut(self._parts(node)[0], first, last)
        return replace(self, grad=grad), needs

    def _parts(self, node: Node) -> tuple[Node, Node]:
        ins, rest = node.inputs[: self.grad_inputs], node.inputs[self.grad_inputs :]
        (type_,) = self.grad.infer(*(v.type for v in ins))
        gradient = Value("gradient", type_)
        return Node(self.grad, ins, (gradient,)), Node(self.step, (gradient, *rest), node.outputs)

    def roomier(self, node: Node, room: int) -> Op | None:
        grad = self.grad.roomier(self._parts(node)[0], room)
        return None if grad is None else replace(self, grad=grad)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (gradient,) = self.grad.infer(*types[: self.grad_inputs])
        return self.step.infer(gradient, *types[self.grad_inputs :])

    def _run(self, node: Node, how: str, *arrays: Array) -> tuple[Array, ...]:
        grad, step = self._parts(node)
        (gradient,) = getattr(self.grad, how)(grad, *arrays[: self.grad_inputs])
        outputs: tuple[Array, ...] = getattr(self.step, how)(step, gradient, *arrays[self.grad_inputs :])
        return outputs

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "eval", *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "real", *arrays)

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=self.grad.work(self._parts(node)[0]).macs)

    def kernel(self, node: Node) -> Kernel:
        kernel = self.grad.kernel(self._parts(node)[0])
        if kernel is None:
            raise GraphError(f"{self.grad.name} has no kernel to update with")
        struct = self.step.struct(node.inputs[self.grad_inputs :], node.outputs)
        return replace(kernel, args=(*kernel.args, struct, Scratch()))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_grad import updates
        from mcugrad.ops.example_room import roomy_updates

        return itertools.chain(updates(), roomy_updates())
