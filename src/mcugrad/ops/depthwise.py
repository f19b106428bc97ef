"""Depthwise convolution: one filter per channel, weight [1,kh,kw,C]."""

from __future__ import annotations

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
    Staged,
    Struct,
    Table,
    TensorType,
    Value,
    Work,
)
from mcugrad.ops.apart import Apart
from mcugrad.ops.bias import moving_bias, whole_bias, with_bias, without_delta
from mcugrad.ops.conv2d import (
    block_positions,
    ceil_div,
    conv_fields,
    merge,
    need_quant,
    others,
    output_multipliers,
    round_up,
    shift_table,
)
from mcugrad.ops.example import COARSE, depthwise_cases, filled, single, vector, weights
from mcugrad.ops.spatial import InputGradRows, WeightGradRows, Window, nhwc
from mcugrad.quant.affine import BIAS_LIMIT, clamp8, mbqm

Array = NDArray[Any]


def slide(x: Array, weight: Array, window: Window) -> Array:
    """float64 [1,OH,OW,C] of x [1,H,W,C] (zero point removed) and weight [1,kh,kw,C]."""
    out = np.zeros((1, *window.output(*x.shape[1:3]), x.shape[3]))
    padded = window.pad(x.astype(np.float64))
    for ky, kx, rows, columns in window.taps(*x.shape[1:3]):
        out += padded[:, rows, columns] * weight[0, ky, kx].astype(np.float64)
    return out


@dataclass(frozen=True)
class DepthwiseConv2d(Op):
    """y = clamp8(MBQM(sum (x - z_x) * w + b) + z_y) per channel; `out` None: float.

    Inputs: x, weight, bias.  With `channels`, weight holds only those (updated) channels and the next input the others;
    the quantization of both is that of all channels.  With `delta`, the last input is int16 [C] to be added to the bias."""

    window: Window
    out: Quant | None = None
    delta: bool = False
    channels: tuple[int, ...] | None = None
    splits_rows = True
    weight_axis = 3

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, weight, bias, *rest = without_delta(types, self.delta)
        height, width, channels = nhwc(x)
        if (self.channels is None) == bool(rest):
            raise GraphError("live channels need a second weight segment")
        kept = weight.shape[3] + sum(r.shape[3] for r in rest)
        if weight.shape[:3] != (1, *self.window.kernel) or kept != channels:
            raise GraphError(f"a depthwise weight {list(weight.shape)} does not fit {channels} channels")
        if bias.shape != (channels,):
            raise GraphError(f"a bias of shape {list(bias.shape)} does not fit {channels} channels")
        shape = (1, *self.window.output(height, width), channels)
        if self.out is None:
            return (TensorType(shape, "f32"),)
        if 255 * 127 * self.window.kernel[0] * self.window.kernel[1] >= BIAS_LIMIT:
            raise GraphError(f"a {self.window.kernel} kernel could overflow an int32 accumulator")
        self._multipliers(x, weight, self.out)
        return (TensorType(shape, "s8", self.out),)

    @staticmethod
    def _multipliers(x: TensorType, weight: TensorType, out: Quant) -> tuple[Array, Array]:
        xq, wq = need_quant(x, weight)
        return output_multipliers(xq, wq, out, x.shape[3])

    def _accumulate(self, node: Node, *arrays: Array) -> Array:
        quant = node.inputs[0].type.quant
        weight = merge(self.channels, arrays[1], arrays[3] if self.channels is not None else None)
        return slide(arrays[0] - np.float64(quant.zero if quant else 0), weight, self.window) + whole_bias(node, arrays)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        out, acc = self.out or Quant((1.0,)), self._accumulate(node, *arrays).astype(np.int64)
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
            build.contribute(x, DepthwiseInputGrad(self.window, x.type.shape, self.channels), h, weight, *rest)
        build.update_bias(bias, h, x, weight)
        build.update_weight(weight, DepthwiseWeightGrad(self.window, self.channels), x, h, bias)

    def partial(self, channels: tuple[int, ...]) -> Op:
        return replace(self, channels=channels)

    def work(self, node: Node) -> Work:
        return replace(super().work(node), macs=depthwise_macs(node.outputs[0].type, self.window))

    def kernel(self, node: Node) -> Kernel:
        x, weight = node.inputs[:2]
        (xq,) = need_quant(x.type)
        out = self.out or Quant((1.0,))
        m, sh = self._multipliers(x.type, weight.type, out)
        fields = (
            *conv_fields(x.type, node.outputs[0].type, self.window, x.type.shape[3]),
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
            Operand(node.inputs[2], "int32_t"),
            Operand(node.outputs[0], const=False),
            Scratch(),
        )
        if self.window.dilation != (1, 1):
            return with_bias(node, self._joined(node, Kernel("mcg_depthwise_plain", args)))
        scratch = self._scratch(x.type.shape, node.outputs[0].type.shape)
        return with_bias(node, self._joined(node, Kernel("mcg_depthwise", args, scratch)))

    def _joined(self, node: Node, kernel: Kernel) -> Kernel:
        return kernel if self.channels is None else joined_weight(kernel, self.channels, node.inputs[1], node.inputs[3])

    def with_delta(self) -> Op:
        return replace(self, delta=True)

    def _scratch(self, x: tuple[int, ...], y: tuple[int, ...]) -> int:
        """Of four channels: the input rows under the window and the weight, as int16 pairs (csrc/ops/depthwise_row.h); of a
        small map all rows (csrc/ops/depthwise_plane.h)."""
        (kh, kw), stride = self.window.kernel, self.window.stride[1]
        if x[3] < 4 or stride > 2:
            return 0
        steps = kw // 2 + 1
        width = round_up(y[2], 4) * stride + 2 * steps - 2
        ring = 2 * 4 * (min(kh, x[1]) * width + 2 * kh * steps * 4)
        small = x[1] <= kh or x[1] * x[2] <= 64
        return max(ring, plane_scratch(self.window, x[1], y[1], y[2])) if small else ring

    def replaces(self, node: Node) -> tuple[tuple[int, int], ...]:
        """The kernel copies the rows under its window, four channels at a time, before it writes over the first of them."""
        x, y = node.inputs[0].type, node.outputs[0].type
        same = self.window.stride == self.window.dilation == (1, 1) and x.shape == y.shape
        return ((0, 0),) if same and x.shape[3] % 4 == 0 else ()

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (self.window.need(first, last, node.inputs[0].type.shape[1]),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return replace(self, window=self.window.crop(first, last, node.inputs[0].type.shape[1]))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        for i, (x, window, weight, zero) in enumerate(depthwise_cases()):
            op = cls(window, COARSE if i in (8, 22) else filled(window.kernel[0] * window.kernel[1], zero))
            yield single(op, x=x, weight=weight, bias=vector(x.shape[3]))
            if i % 4 == 3 and x.shape[3] > 2:
                live, rest = (weights(1, *window.kernel, n) for n in (2, x.shape[3] - 2))
                yield single(op.partial((0, x.shape[3] - 1)), x=x, weight=live, bias=vector(x.shape[3]), rest=rest)
            if i % 5 == 2:
                delta = vector(x.shape[3], "s16")
                yield single(op.with_delta(), x=x, weight=weight, bias=vector(x.shape[3]), delta=delta)


def joined_weight(kernel: Kernel, channels: tuple[int, ...], live: Value, rest: Value) -> Kernel:
    """The kernel on the whole weight, which is joined behind the kernel's own scratch memory."""
    total, taps = live.type.shape[3] + rest.type.shape[3], live.type.shape[1] * live.type.shape[2]
    order = Table("uint16_t", (*channels, *others(channels, total)))
    offset = round_up(kernel.scratch, 4)
    whole = Staged("mcg_joined_weight", (Operand(live), Operand(rest), order, len(channels), total, taps), offset)
    args = tuple(whole if isinstance(a, Operand) and a.value is live else a for a in kernel.args)
    return replace(kernel, args=args, scratch=offset + round_up(taps * total, 4))


def plane_scratch(window: Window, in_rows: int, rows: int, width: int) -> int:
    """Of four channels: `in_rows` input rows under an output of rows x width, and the weight (csrc/ops/depthwise_plane.h)."""
    (kh, kw), stride = window.kernel, window.stride[1]
    steps = kw // 2 + 1
    columns = round_up(width, 4) * stride + 2 * steps - 2
    lines = 2 * 4 * (in_rows * columns + 4 * kh * steps)
    square = window.kernel == (3, 3) and window.stride == (1, 1) and width % 4 == 0
    return max(lines, 4 * (width // 4 * 12 * (rows + 2) + 24)) if square else lines


def depthwise_macs(y: TensorType, window: Window) -> int:
    return y.elements * window.kernel[0] * window.kernel[1]


@dataclass(frozen=True)
class DepthwiseInputGrad(InputGradRows):
    """a = sum over taps of w * h: int32 at the exponent of h.  Inputs: h, weight (, rest)."""

    window: Window
    shape: tuple[int, ...]
    channels: tuple[int, ...] | None = None
    phase = "backward"
    lowers = False

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """The kernel reads all positions of a few channels before it stores them, when its block holds the whole map."""
        height, width = self.shape[1:3]
        same = self.window.output(height, width) == (height, width)
        return ((0, 0),) if same and block_positions(height, width, 128) >= height * width else ()

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (quant,) = need_quant(types[0])
        return (TensorType(self.shape, "s32", Quant((1.0,), exponent=quant.exponent)),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        h, weight = arrays[0], merge(self.channels, arrays[1], arrays[2] if self.channels is not None else None)
        top, left = self.window.padding[:2]
        padded = self.window.pad(np.zeros(self.shape))
        for ky, kx, rows, columns in self.window.taps(*self.shape[1:3]):
            padded[:, rows, columns] += h.astype(np.float64) * weight[0, ky, kx].astype(np.float64)
        return (padded[:, top : top + self.shape[1], left : left + self.shape[2]],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def work(self, node: Node) -> Work:
        return Work(depthwise_macs(node.inputs[0].type, self.window))

    def kernel(self, node: Node) -> Kernel:
        h, weight = node.inputs[:2]
        fields = conv_fields(TensorType(self.shape, "s8"), h.type, self.window, self.shape[3])
        args = (Struct("mcg_conv2d_t", fields), Operand(h), Operand(weight))
        kernel = Kernel("mcg_depthwise_input_grad", args, scratch=self._scratch())
        return kernel if self.channels is None else joined_weight(kernel, self.channels, weight, node.inputs[2])

    def _scratch(self) -> int:
        """Of four channels: int32 gradients of a block, the weight as int16, and the part of h that a block depends on; or, of
        stride 1, int8 gradients and the others as a convolution keeps them (csrc/ops/depthwise_plane.h); of stride 2 these
        are always less: with w columns in r rows 7 r w + 12 w + 240 bytes, against at least 16 r w + 8 (9 + 18).  3x3 windows
        of stride 2 take as many rows at a time as there is room for (csrc/ops/depthwise_halves.h)."""
        height, width = self.shape[1:3]
        (kh, kw), (sh, sw) = self.window.kernel, self.window.stride
        positions = block_positions(height, width, 128)
        rows = ceil_div(positions // width - 1, sh) + ceil_div(kh, sh)
        columns = ceil_div(width - 1, sw) + ceil_div(kw, sw)
        spans = 4 * 4 * positions + 2 * 4 * (kh * kw + rows * columns)
        if (sh, sw) != (1, 1):
            return spans
        block = positions // width
        return max(spans, 4 * positions + plane_scratch(self.window, block + kh - 1, block, width))


@dataclass(frozen=True)
class DepthwiseWeightGrad(WeightGradRows):
    """dW[tap,c] = sum_p (x - z - mu_c) * h: int32.  Inputs: x, h (, mu int16 of the channels in this weight).

    With `channels`, those of x and h; narrow ones that hold no others have None, and only these have a kernel.
    rows: of h that the kernel takes apart at once, with those of x under them; 0: none, in little scratch memory."""

    window: Window
    channels: tuple[int, ...] | None = None
    rows: int = 0
    phase = "update"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, h = types[:2]
        if 511 * 127 * h.shape[1] * h.shape[2] >= 2**31:
            raise GraphError(f"a {h.shape[1]}x{h.shape[2]} map could overflow the int32 weight gradient; freeze the layer")
        kept = x.shape[3] if self.channels is None else len(self.channels)
        return (TensorType((1, *self.window.kernel, kept), "s32"),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        (quant,) = need_quant(node.inputs[0].type)
        x, h = arrays[0] - np.float64(quant.zero), arrays[1].astype(np.float64)
        if self.channels is not None:
            x, h = x[..., list(self.channels)], h[..., list(self.channels)]
        padded = self.window.pad(x - arrays[2] if len(arrays) == 3 else x)
        grad = np.zeros((1, *self.window.kernel, x.shape[3]))
        for ky, kx, rows, columns in self.window.taps(*x.shape[1:3]):
            grad[0, ky, kx] = (padded[:, rows, columns] * h).sum(axis=(0, 1, 2))
        return (grad,)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.real(node, *arrays)

    def work(self, node: Node) -> Work:
        return Work(depthwise_macs(node.inputs[1].type, self.window))

    def kernel(self, node: Node) -> Kernel:
        x, h = node.inputs[:2]
        if self.channels is not None:
            raise GraphError(f"{node.where}: a partial depthwise gradient has no kernel before its channels are copied")
        mu = node.inputs[2] if len(node.inputs) == 3 else None
        fields = (
            *conv_fields(x.type, h.type, self.window, x.type.shape[3]),
            ("x_zero", need_quant(x.type)[0].zero),
        )
        args = (Struct("mcg_conv2d_t", fields), Operand(x), Operand(h), Operand(mu, "int16_t"), self.rows)
        return Kernel("mcg_depthwise_update", args, scratch=self._apart(node).scratch)

    def roomier(self, node: Node, room: int) -> Op | None:
        more = self._apart(node).within(room)
        return replace(self, rows=more.rows) if more else None

    def _apart(self, node: Node) -> Apart:
        x, h = (v.type.shape for v in node.inputs[:2])
        return Apart(self.window, x, h, self.rows)
