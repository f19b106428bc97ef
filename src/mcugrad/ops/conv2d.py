"""Convolution with any kernel, stride, padding and groups; a fully connected layer is its 1x1 case."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import (
    Graph,
    GraphError,
    Kernel,
    Node,
    Op,
    Operand,
    Quant,
    RowNeed,
    RowRange,
    Scratch,
    Struct,
    Table,
    TensorType,
    Walk,
    Work,
)
from mcugrad.ops.bias import moving_bias, whole_bias, with_bias, without_delta
from mcugrad.ops.correlate import correlate, correlate_back, correlate_weight
from mcugrad.ops.example import COARSE, conv_cases, filled, single, vector
from mcugrad.ops.spatial import InputGradRows, WeightGradRows, Window, nhwc
from mcugrad.ops.turned import Turned
from mcugrad.quant.affine import BIAS_LIMIT, clamp8, mbqm, multipliers

Array = NDArray[Any]

PIXELS, PIXELS_OF_MANY, MANY_INPUTS = 6, 4, 384
"""Output pixels that the kernel computes together, and where they have more than MANY_INPUTS (csrc/ops/conv2d_strip.h)."""


def merge(channels: tuple[int, ...] | None, live: Array, rest: Array | None) -> Array:
    """The canonical weight [O,kh,kw,I] of its live (updated) and resting input channels."""
    if channels is None or rest is None:
        return live
    full = np.empty((*live.shape[:3], live.shape[3] + rest.shape[3]), live.dtype)
    full[..., list(channels)] = live
    full[..., others(channels, full.shape[3])] = rest
    return full


def others(channels: tuple[int, ...], total: int) -> list[int]:
    """Input channels that are not live, ascending."""
    return [c for c in range(total) if c not in set(channels)]


def output_multipliers(x: Quant, weight: Quant, y: Quant, channels: int) -> tuple[Array, Array]:
    """Requantization (M, sh) per output channel: s_x * s_w[o] / s_y."""
    scales = weight.scale * channels if len(weight.scale) == 1 else weight.scale
    try:
        return multipliers(tuple(x.scale[0] * s / y.scale[0] for s in scales))
    except ValueError as error:
        raise GraphError(f"requantization: {error}; repair the dead channels of this layer") from None


def shift_table(shifts: Array) -> Table:
    return Table("uint8_t", tuple(int(s) for s in shifts))


def need_quant(*types: TensorType) -> list[Quant]:
    """The quantization of each type; raises GraphError where one is missing."""
    quants = [t.quant for t in types]
    if any(q is None for q in quants):
        raise GraphError("integer operands need a quantization")
    return [q for q in quants if q is not None]


@dataclass(frozen=True)
class Conv2d(Op):
    """y = clamp8(MBQM(sum (x - z_x) * w + b) + z_y); with `out` None it is a float convolution.

    Inputs: x [1,H,W,C], weight [O,kh,kw,C/groups], bias [O].  With `channels`, weight holds only those (updated) input
    channels and a fourth input holds the others.  With `delta`, the last input is int16 [O] to be added to the bias.
    narrow: one pixel at a time, in less scratch memory.
    """

    window: Window
    out: Quant | None = None
    groups: int = 1
    channels: tuple[int, ...] | None = None
    delta: bool = False
    narrow: bool = False
    splits_rows = True
    weight_axis = 0

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        types = without_delta(types, self.delta)
        x, weight, bias = types[:3]
        height, width, channels = nhwc(x)
        kept = weight.shape[3] + (types[3].shape[3] if len(types) == 4 else 0)
        if len(weight.shape) != 4 or weight.shape[1:3] != self.window.kernel:
            raise GraphError(f"a weight {list(weight.shape)} does not fit a {self.window.kernel} kernel")
        if kept * self.groups != channels or weight.shape[0] % self.groups:
            raise GraphError(f"{channels} input channels in {self.groups} groups do not fit weight {list(weight.shape)}")
        if bias.shape != weight.shape[:1]:
            raise GraphError(f"a bias of shape {list(bias.shape)} does not fit {weight.shape[0]} output channels")
        if (self.channels is None) != (len(types) == 3) or (self.channels and self.groups != 1):
            raise GraphError("live channels need a second weight segment and one group")
        shape = (1, *self.window.output(height, width), weight.shape[0])
        if self.out is None:
            return (TensorType(shape, "f32"),)
        if 255 * 127 * kept * self.window.kernel[0] * self.window.kernel[1] >= BIAS_LIMIT:
            raise GraphError(f"{kept} inputs per output could overflow an int32 accumulator; split the layer")
        self._multipliers(x, weight, self.out)
        return (TensorType(shape, "s8", self.out),)

    @staticmethod
    def _multipliers(x: TensorType, weight: TensorType, out: Quant) -> tuple[Array, Array]:
        xq, wq = need_quant(x, weight)
        return output_multipliers(xq, wq, out, weight.shape[0])

    def _accumulate(self, node: Node, *arrays: Array) -> Array:
        x, weight = arrays[:2]
        quant = node.inputs[0].type.quant
        full = merge(self.channels, weight, arrays[3] if self.channels is not None else None)
        return correlate(x - np.float64(quant.zero if quant else 0), full, self.window, self.groups) + whole_bias(node, arrays)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        out = self.out or Quant((1.0,))
        acc = self._accumulate(node, *arrays).astype(np.int64)
        m, sh = self._multipliers(node.inputs[0].type, node.inputs[1].type, out)
        return (clamp8(mbqm(acc, m, sh) + out.zero),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        acc = self._accumulate(node, *arrays)
        if self.out is None:
            return (acc,)
        x, weight = need_quant(node.inputs[0].type, node.inputs[1].type)
        return (clamp8(acc * (x.scale[0] * np.array(weight.scale) / self.out.scale[0]) + self.out.zero),)

    def gradient(self, node: Node, build: Any) -> None:
        x, weight, bias = *node.inputs[:2], moving_bias(node)
        rest = node.inputs[3:4] if self.channels is not None else ()
        h = build.masked(node.outputs[0], x, weight)
        if build.wants(x):
            back = Conv2dInputGrad(self.window, self.groups, self.channels, x.type.shape)
            build.contribute(x, back, h, weight, *rest)
        build.update_bias(bias, h, x, weight)
        build.update_weight(weight, Conv2dWeightGrad(self.window, self.groups, self.channels), x, h, bias)

    def partial(self, channels: tuple[int, ...]) -> Op:
        if self.groups != 1:
            raise GraphError("a grouped convolution is updated whole or not at all: use ratio 1")
        return replace(self, channels=channels)

    def with_delta(self) -> Op:
        return replace(self, delta=True)

    def leaner(self) -> Op | None:
        return None if self.narrow or self.groups != 1 else replace(self, narrow=True)

    def work(self, node: Node) -> Work:
        macs = conv_macs(node.outputs[0].type, self.window, node.inputs[0].type.shape[3] // self.groups)
        return replace(super().work(node), macs=macs)

    def kernel(self, node: Node) -> Kernel:
        x, weight = node.inputs[:2]
        rest = node.inputs[3] if self.channels is not None else None
        (xq,) = need_quant(x.type)
        out = self.out or Quant((1.0,))
        m, sh = self._multipliers(x.type, weight.type, out)
        fields = (
            *conv_fields(x.type, node.outputs[0].type, self.window, self.groups),
            *segment_fields(self.channels, weight.type, rest.type if rest else None),
            ("x_zero", xq.zero),
            ("y_zero", out.zero),
            ("multiplier", Table("int32_t", tuple(int(v) for v in m))),
            ("shift", shift_table(sh)),
        )
        args = (
            Struct("mcg_conv2d_t", fields),
            RowRange(),
            Operand(x),
            Operand(weight),
            Operand(rest),
            Operand(node.inputs[2], "int32_t"),
            Operand(node.outputs[0], const=False),
            Scratch(),
        )
        if self.groups != 1:
            return with_bias(node, Kernel("mcg_conv2d_plain", args))
        segments = (w.type for w in (weight, rest) if w is not None)
        function = "mcg_conv2d_narrow" if self.narrow else "mcg_conv2d"
        return with_bias(node, Kernel(function, args, self._scratch(x.type, node.outputs[0].type, *segments)))

    def _scratch(self, x: TensorType, y: TensorType, *segments: TensorType) -> int:
        """Bytes of the int16 columns of a strip of pixels; of their inputs where they must be gathered first; and of the
        last outputs' weights, where rows of weights are not whole words."""
        inputs = [t.elements // t.shape[0] for t in segments]
        whole = sum(round_up(n, 4) for n in inputs)
        pixels = 1 if self.narrow else PIXELS if whole <= MANY_INPUTS else PIXELS_OF_MANY
        columns = 2 * pixels * whole
        in_place = is_pointwise(self.window, 1, x.shape, y.shape) and len(segments) == 1
        if not any(n % 4 for n in inputs):
            return columns + (0 if in_place else pixels * max(inputs))
        last = min(3 if 1 in inputs else 1, y.shape[3])
        return columns + pixels * round_up(max(inputs), 4) + sum(round_up(last * n + 3, 4) for n in inputs)

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (self.window.need(first, last, node.inputs[0].type.shape[1]),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, window=self.window.crop(first, last, node.inputs[0].type.shape[1]))

    def walks(self, node: Node) -> tuple[Walk, ...]:
        if self.groups != 1 or self.window.dilation != (1, 1):
            return ()
        return (Walk(0, 0, self.window.walk(node.inputs[0].type, node.outputs[0].type, PIXELS)),)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        for i, case in enumerate(conv_cases()):
            out = COARSE if i == 3 else filled(case.terms, case.y_zero)
            op = cls(case.window, out, case.groups, case.channels)
            rest = {"rest": case.rest} if case.rest else {}
            bias = vector(case.weight.shape[0])
            yield single(op, x=case.x, weight=case.weight, bias=bias, **rest)
            if i % 4 == 1:
                delta = vector(case.weight.shape[0], "s16")
                yield single(op.with_delta(), x=case.x, weight=case.weight, bias=bias, **rest, delta=delta)
            if i % 3 == 1 and (narrow := op.leaner()) is not None:
                yield single(narrow, x=case.x, weight=case.weight, bias=bias, **rest)


def ceil_div(n: int, step: int) -> int:
    return -(-n // step)


def round_up(n: int, step: int) -> int:
    return ceil_div(n, step) * step


def is_pointwise(window: Window, groups: int, x: tuple[int, ...], y: tuple[int, ...]) -> bool:
    """Whether a convolution is a product of two matrices (mcg_is_pointwise in csrc/ops/backward.h)."""
    return window.kernel == window.stride == (1, 1) and groups == 1 and x[1:3] == y[1:3]


def block_positions(height: int, width: int, aim: int) -> int:
    """Positions of the whole rows that a backward kernel computes together (mcg_block_rows in csrc/ops/backward.h)."""
    return min(max(aim // width, 1), height) * width


def conv_macs(y: TensorType, window: Window, inputs: int) -> int:
    return y.elements * window.kernel[0] * window.kernel[1] * inputs


def conv_fields(x: TensorType, y: TensorType, window: Window, groups: int) -> tuple[tuple[str, Any], ...]:
    """Geometry fields common to the convolution structs."""
    return (
        ("in_h", x.shape[1]),
        ("in_w", x.shape[2]),
        ("in_c", x.shape[3]),
        ("out_h", y.shape[1]),
        ("out_w", y.shape[2]),
        ("out_c", y.shape[3]),
        ("kernel_h", window.kernel[0]),
        ("kernel_w", window.kernel[1]),
        ("stride_h", window.stride[0]),
        ("stride_w", window.stride[1]),
        ("pad_top", window.padding[0]),
        ("pad_left", window.padding[1]),
        ("dilation_h", window.dilation[0]),
        ("dilation_w", window.dilation[1]),
        ("groups", groups),
    )


def segment_fields(channels: tuple[int, ...] | None, live: TensorType, rest: TensorType | None) -> tuple[tuple[str, Any], ...]:
    """`live` counts the input channels of the first segment; `order` lists live, then resting channels (0: identity)."""
    if channels is None or rest is None:
        return (("live", live.shape[3]), ("order", 0))
    order = (*channels, *others(channels, live.shape[3] + rest.shape[3]))
    return (("live", len(channels)), ("order", Table("uint16_t", order)))


@dataclass(frozen=True)
class Conv2dInputGrad(InputGradRows):
    """a[i] = sum over taps and outputs of w * h: int32 at the exponent of h.  Inputs: h, weight (, rest).

    first: of a 1x1 convolution's whole weight, the input channel with which `shape` begins."""

    window: Window
    groups: int
    channels: tuple[int, ...] | None
    shape: tuple[int, ...]
    first: int = 0
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        h, weight = types[:2]
        if 127 * 127 * weight.shape[0] * self.window.kernel[0] * self.window.kernel[1] >= BIAS_LIMIT:
            raise GraphError(f"{weight.shape[0]} outputs could overflow the int32 input gradient")
        (quant,) = need_quant(h)
        return (TensorType(self.shape, "s32", Quant((1.0,), exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        full = merge(self.channels, arrays[1], arrays[2] if len(arrays) == 3 else None)
        full = full[..., self.first : self.first + self.shape[3] // self.groups]
        return (correlate_back(arrays[0], full, self.window, self.groups, self.shape[1], self.shape[2]),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def work(self, node: Node) -> Work:
        return Work(conv_macs(node.inputs[0].type, self.window, self.shape[3] // self.groups))

    def kernel(self, node: Node) -> Kernel:
        h, weight = node.inputs[:2]
        rest = node.inputs[2] if len(node.inputs) == 3 else None
        x = TensorType(self.shape, "s8")
        fields = (
            *conv_fields(x, h.type, self.window, self.groups),
            *segment_fields(self.channels, weight.type, rest.type if rest else None),
        )
        args = (Struct("mcg_conv2d_t", fields), Operand(h), Operand(weight, offset=self.first), Operand(rest))
        return Kernel("mcg_conv2d_input_grad", args, scratch=self._scratch(h.type))

    def _scratch(self, h: TensorType) -> int:
        """Four int16 columns of up to 192 weights, int32 gradients of four channels of a block; or of a row and a position."""
        _, height, width, channels = self.shape
        if is_pointwise(self.window, self.groups, self.shape, h.shape):
            return 8 * min(round_up(h.shape[3], 4), 192) + 16 * block_positions(height, width, 64)
        return 4 * (width + (self.channels is not None)) * channels


@dataclass(frozen=True)
class Conv2dWeightGrad(WeightGradRows):
    """dW[o,tap,i] = sum_p (x - z - mu_i) * h over the live channels: int32.  Inputs: x, h (, mu).

    mu: int16 of the live channels.  With `channels`, those of x; a narrow x that holds no others has None.
    together: inputs whose x is turned at once; None: few, in little scratch memory."""

    window: Window
    groups: int
    channels: tuple[int, ...] | None
    together: int | None = None
    phase = "update"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, h = types[:2]
        if 511 * 127 * h.shape[1] * h.shape[2] >= 2**31:
            raise GraphError(f"a {h.shape[1]}x{h.shape[2]} map could overflow the int32 weight gradient; freeze the layer")
        kept = len(self.channels) if self.channels is not None else x.shape[3] // self.groups
        return (TensorType((h.shape[3], *self.window.kernel, kept), "s32"),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        (quant,) = need_quant(node.inputs[0].type)
        x = arrays[0] - np.float64(quant.zero)
        if self.channels is not None:
            x = x[..., list(self.channels)]
        if len(arrays) == 3:
            x = x - arrays[2]
        return (correlate_weight(x, arrays[1], self.window, self.groups),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def work(self, node: Node) -> Work:
        return Work(conv_macs(node.inputs[1].type, self.window, node.outputs[0].type.shape[3]))

    def kernel(self, node: Node) -> Kernel:
        x, h = node.inputs[:2]
        mu = node.inputs[2] if len(node.inputs) == 3 else None
        fields = (
            *conv_fields(x.type, h.type, self.window, self.groups),
            ("live", node.outputs[0].type.shape[3]),
            ("order", Table("uint16_t", self.channels) if self.channels is not None else 0),
            ("x_zero", need_quant(x.type)[0].zero),
        )
        turned = self._turned(node)
        together, scratch = (turned.inputs, turned.scratch) if turned else (0, 4 * (x.type.shape[3] // self.groups))
        args = (Struct("mcg_conv2d_t", fields), Operand(x), Operand(h), Operand(mu, "int16_t"), together)
        return Kernel("mcg_conv2d_update", args, scratch=scratch)

    def roomier(self, node: Node, room: int) -> Op | None:
        turned = self._turned(node)
        more = turned.within(room) if turned else None
        return replace(self, together=more.inputs) if more else None

    def _turned(self, node: Node) -> Turned | None:
        """How the kernel works as a product of matrices; None with groups, or for some channels of a larger window."""
        x, h = (v.type for v in node.inputs[:2])
        pointwise = is_pointwise(self.window, self.groups, x.shape, h.shape)
        if self.groups > 1 or (self.channels is not None and not pointwise):
            return None
        kept = len(self.channels) if self.channels is not None else x.shape[3] * math.prod(self.window.kernel)
        return Turned(kept, h.shape[1] * h.shape[2], h.shape[3] if len(node.inputs) == 3 else 0, self.together)
