"""How each op of the int8 graph is written as ONNX: the float operator between dequantized inputs and a rounded output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mcugrad.exporters.learned import classifier, quant_of
from mcugrad.exporters.onnx_build import Pieces
from mcugrad.exporters.onnx_functions import function
from mcugrad.ir import Node, Op, Value
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import Head
from mcugrad.ops.losses import Logits
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.softmax import Softmax
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample

OUTPUT = "logits"
CHANNELS_FIRST = (0, 3, 1, 2)  # axis of [1,H,W,C] that each axis of [1,C,H,W] is

Handler = Callable[[Pieces, Node], None]


def _conv(pieces: Pieces, node: Node) -> None:
    """Conv of dequantized input, weight and bias; int32 biases have the scale s_x * s_w[o]."""
    op, (x, weight, bias), (y,) = node.op, node.inputs, node.outputs
    assert isinstance(op, Conv2d | DepthwiseConv2d)
    grid = quant_of(weight).scale
    scales = grid * bias.type.elements if len(grid) == 1 else grid
    depthwise = isinstance(op, DepthwiseConv2d)
    order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
    groups = weight.type.shape[3] if isinstance(op, DepthwiseConv2d) else op.groups
    step = quant_of(x).scale[0]
    inputs = [
        pieces.real(x),
        pieces.weight(weight, order, scales),
        pieces.bias(bias, tuple(step * s for s in scales)),
    ]
    pieces.quantized(pieces.node("Conv", inputs, f"{y.name}_float", y.origin, group=groups, **window_attributes(op.window)), y)


def window_attributes(window: Window) -> dict[str, Any]:
    """Attributes of Conv and of the pools."""
    top, left, bottom, right = window.padding
    found = {"kernel_shape": list(window.kernel), "strides": list(window.stride), "pads": [top, left, bottom, right]}
    return found if window.dilation == (1, 1) else {**found, "dilations": list(window.dilation)}


def _pool(kind: str, **attributes: Any) -> Handler:
    def write(pieces: Pieces, node: Node) -> None:
        (x,), (y,), op = node.inputs, node.outputs, node.op
        assert isinstance(op, AvgPool | MaxPool)
        fields = {**window_attributes(op.window), **attributes}
        pieces.quantized(pieces.node(kind, [pieces.real(x)], f"{y.name}_float", y.origin, **fields), y)

    return write


def _plain(kind: str) -> Handler:
    """An operator on the real inputs, without attributes."""

    def write(pieces: Pieces, node: Node) -> None:
        (y,) = node.outputs
        pieces.quantized(pieces.node(kind, [pieces.real(v) for v in node.inputs], f"{y.name}_float", y.origin), y)

    return write


def _clamp(pieces: Pieces, node: Node) -> None:
    """Clip to the ends of the output's int8 range, which are the clamp."""
    (x,), (y,) = node.inputs, node.outputs
    quant = quant_of(y)
    ends = [quant.scale[0] * (q - quant.zero) for q in (-128, 127)]
    limits = [pieces.constant(f"{y.name}_{n}", np.array(e, np.float32)) for n, e in zip(("low", "high"), ends, strict=True)]
    pieces.quantized(pieces.node("Clip", [pieces.real(x), *limits], f"{y.name}_float", y.origin), y)


def _reshape(pieces: Pieces, node: Node) -> None:
    """Elements keep their NHWC order: transposed there and back where a map is involved."""
    (x,), (y,) = node.inputs, node.outputs
    tensor = _channels_last(pieces, pieces.real(x), x, f"{y.name}_nhwc")
    shape = pieces.constant(f"{y.name}_shape", np.array(y.type.shape, np.int64))
    tensor = pieces.node("Reshape", [tensor, shape], f"{y.name}_reshaped", y.origin)
    if len(y.type.shape) == 4:
        tensor = pieces.node("Transpose", [tensor], f"{y.name}_float", perm=[0, 3, 1, 2])
    pieces.quantized(tensor, y)


def _channels_last(pieces: Pieces, tensor: str, value: Value, name: str) -> str:
    if len(value.type.shape) != 4:
        return tensor
    return pieces.node("Transpose", [tensor], name, perm=[0, 2, 3, 1])


def _head(pieces: Pieces, node: Node) -> None:
    """The int16 Q12 classifier as a float Gemm, which holds its weights exactly; features in the order of [1,C,H,W]."""
    x, weight, bias = node.inputs
    flat = pieces.node("Flatten", [pieces.real(x)], "features_flat", axis=1)
    found = classifier(pieces.graph, node, pieces.units, channels_first=True)
    constants = [pieces.constant(v.name, d.astype(np.float32)) for v, d in ((weight, found[0].T), (bias, found[1]))]
    pieces.node("Gemm", [flat, *constants], OUTPUT, transB=1)


def _logits(pieces: Pieces, node: Node) -> None:
    """The model's own output, flat in the order of the device."""
    (x,) = node.inputs
    last = _channels_last(pieces, pieces.real(x), x, f"{x.name}_rows")
    pieces.node("Flatten", [last], OUTPUT, axis=1)


def _concat(pieces: Pieces, node: Node) -> None:
    (y,), op = node.outputs, node.op
    assert isinstance(op, Concat)
    inputs = [pieces.real(v) for v in node.inputs]
    pieces.quantized(pieces.node("Concat", inputs, f"{y.name}_float", y.origin, axis=CHANNELS_FIRST.index(op.axis)), y)


def _pad(pieces: Pieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Pad)
    pads = [side[i - 1] if i else 0 for side in (op.before, op.after) for i in CHANNELS_FIRST]
    constants = [
        pieces.constant(f"{y.name}_pads", np.array(pads, np.int64)),
        pieces.constant(f"{y.name}_value", np.array(op.value, np.float32)),
    ]
    pieces.quantized(pieces.node("Pad", [pieces.real(x), *constants], f"{y.name}_float", y.origin), y)


def _slice(pieces: Pieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Slice)
    ends = [b + n for b, n in zip(op.begin, op.size, strict=True)]
    rows = {"starts": op.begin, "ends": ends, "axes": [CHANNELS_FIRST.index(i) for i in (1, 2, 3)]}
    constants = [pieces.constant(f"{y.name}_{name}", np.array(row, np.int64)) for name, row in rows.items()]
    pieces.quantized(pieces.node("Slice", [pieces.real(x), *constants], f"{y.name}_float", y.origin), y)


def _upsample(pieces: Pieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Upsample)
    scales = pieces.constant(f"{y.name}_scales", np.array([1, 1, *op.factor], np.float32))
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    pieces.quantized(pieces.node("Resize", [pieces.real(x), "", scales], f"{y.name}_float", y.origin, **how), y)


def _transpose(pieces: Pieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Transpose)
    perm = list(op.perm)
    if len(perm) == 4:  # from channels first to channels last, as the op says, and back
        perm = [CHANNELS_FIRST.index(op.perm[i]) for i in CHANNELS_FIRST]
    pieces.quantized(pieces.node("Transpose", [pieces.real(x)], f"{y.name}_float", y.origin, perm=perm), y)


def _softmax(pieces: Pieces, node: Node) -> None:
    (x,), (y,) = node.inputs, node.outputs
    axis = 1 if len(x.type.shape) == 4 else -1
    pieces.quantized(pieces.node("Softmax", [pieces.real(x)], f"{y.name}_float", y.origin, axis=axis), y)


def _lut(pieces: Pieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Lut)
    pieces.quantized(function(pieces, op.function, pieces.real(x), y), y)


HANDLERS: dict[type[Op], Handler] = {
    Add: _plain("Add"),
    AvgPool: _pool("AveragePool", count_include_pad=0),
    Clamp: _clamp,
    Concat: _concat,
    Conv2d: _conv,
    DepthwiseConv2d: _conv,
    Head: _head,
    Logits: _logits,
    Lut: _lut,
    MaxPool: _pool("MaxPool"),
    Mul: _plain("Mul"),
    Pad: _pad,
    Reshape: _reshape,
    Slice: _slice,
    Softmax: _softmax,
    Sub: _plain("Sub"),
    Transpose: _transpose,
    Upsample: _upsample,
}
