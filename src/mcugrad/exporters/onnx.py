"""A learned network as ONNX with quantize/dequantize pairs, for onnxruntime and for Netron."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.exporters.learned import Learned, parameter, quant_of
from mcugrad.exporters.onnx_build import Pieces, float_info, image
from mcugrad.importers.onnx import PREPROCESS_KEY
from mcugrad.ir import Node, Op, Value
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import HEAD_ONE, Head
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.spatial import Window
from mcugrad.preprocess import Input, Preprocess

CLASSES_KEY = "mcugrad.classes"
OUTPUT = "logits"

Handler = Callable[[Pieces, Node], None]


def onnx_model(learned: Learned) -> bytes:
    """The serialized model: float [1,C,H,W] in, float logits [1,K] out, int8 in between.

    Raises McugradError for an operation that has no counterpart."""
    graph = learned.graph
    pieces, (x,) = Pieces(graph), graph.inputs
    name = input_name(learned)
    pieces.quantized(name, x)
    for node in graph.nodes:
        handler = HANDLERS.get(type(node.op))
        if handler is None:
            raise McugradError(f"{node.where}: {node.op.name} cannot be written as ONNX yet: use --to graph to look at it")
        handler(pieces, node)
    (last,) = graph.outputs
    output = OUTPUT if last not in pieces.stored else pieces.real(last)
    shape = [1, last.type.elements] if isinstance(graph.nodes[-1].op, Head) else image(last)
    metadata = {PREPROCESS_KEY: json.dumps(float_preprocess(learned).to_dict())}
    if learned.classes:
        metadata[CLASSES_KEY] = json.dumps(list(learned.classes))
    model = pieces.model([float_info(name, image(x))], [float_info(output, shape)], metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def input_name(learned: Learned) -> str:
    """The name of the input in the user's model, as far as it is known and free."""
    (x,) = learned.graph.inputs
    own = x.origin.removeprefix(f"{learned.file}:")
    taken = {v.name for n in learned.graph.nodes for v in n.outputs} | {x.name}
    return own if own and own not in taken else f"{x.name}_float"


def float_preprocess(learned: Learned) -> Preprocess:
    """How raw samples become the float input: for int8 models, what their int8 input stands for in real numbers."""
    own, quant = learned.preprocess, learned.input_quant
    if own.kind is Input.FLOAT:
        return own
    offset = 128 if learned.raw == "uint8" else 0
    return replace(own, kind=Input.FLOAT, scale=1.0, mean=(float(offset + quant.zero),), std=(1 / quant.scale[0],))


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
    pieces.quantized(pieces.node("Conv", inputs, f"{y.name}_float", y.origin, group=groups, **_window(op.window)), y)


def _window(window: Window) -> dict[str, Any]:
    top, left, bottom, right = window.padding
    found = {"kernel_shape": list(window.kernel), "strides": list(window.stride), "pads": [top, left, bottom, right]}
    dilation = getattr(window, "dilation", (1, 1))
    return found if tuple(dilation) == (1, 1) else {**found, "dilations": list(dilation)}


def _pool(kind: str, **attributes: Any) -> Handler:
    def write(pieces: Pieces, node: Node) -> None:
        (x,), (y,), op = node.inputs, node.outputs, node.op
        assert isinstance(op, AvgPool | MaxPool)
        fields = {**_window(op.window), **attributes}
        pieces.quantized(pieces.node(kind, [pieces.real(x)], f"{y.name}_float", y.origin, **fields), y)

    return write


def _add(pieces: Pieces, node: Node) -> None:
    (y,) = node.outputs
    pieces.quantized(pieces.node("Add", [pieces.real(v) for v in node.inputs], f"{y.name}_float", y.origin), y)


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
    q12 = parameter(pieces.graph, weight).data.astype(np.float64) / HEAD_ONE
    if len(x.type.shape) == 4:
        _, h, w, c = x.type.shape
        q12 = q12.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
    shift = parameter(pieces.graph, bias).data * (quant_of(x).scale[0] / HEAD_ONE)
    constants = [pieces.constant(v.name, d.astype(np.float32)) for v, d in ((weight, q12.T), (bias, shift))]
    pieces.node("Gemm", [flat, *constants], OUTPUT, transB=1)


HANDLERS: dict[type[Op], Handler] = {
    Add: _add,
    AvgPool: _pool("AveragePool", count_include_pad=0),
    Clamp: _clamp,
    Conv2d: _conv,
    DepthwiseConv2d: _conv,
    Head: _head,
    MaxPool: _pool("MaxPool"),
    Reshape: _reshape,
}
