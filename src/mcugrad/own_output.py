"""A model with its last layer back in place: what keeps its own output trains that layer in int8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.importers import Imported
from mcugrad.ir import Array, Builder, Graph, Quant, TensorType, Value, interpret
from mcugrad.ops.conv2d import Conv2d, need_quant
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.spatial import Window
from mcugrad.preprocess import quantize
from mcugrad.quant.assign import activation_quant, quantize_layer
from mcugrad.quant.observe import feed


def own_output(imported: Imported, samples: Array | None) -> Imported:
    """The model whose graph ends in its own output, and no longer in the features of its classifier.

    samples: float [N,H,W,C] as `Preprocess.apply` gives them; an int8 model's last layer gets the range that its output
    takes on them.  Raises McugradError where an int8 model needs samples and has none."""
    own = imported.classifier
    if own is None:
        return imported
    graph = imported.graph
    (features,) = graph.outputs
    weight = np.ascontiguousarray(own.weight.T).reshape(-1, 1, 1, features.type.elements)
    build = Builder()
    build.inputs, build.params, build.nodes = list(graph.inputs), list(graph.params), list(graph.nodes)
    build.reserve([v.name for v in graph.inputs] + [p.value.name for p in graph.params])
    build.reserve([v.name for n in graph.nodes for v in n.outputs])
    flat = features
    if features.type.shape != (1, 1, 1, features.type.elements):
        flat = build.one(Reshape((1, 1, 1, features.type.elements)), features, name="flat", origin=own.origin)
    if features.type.dtype == "f32":
        w = build.param("output_weight", TensorType(weight.shape, "f32"), weight, own.origin)
        b = build.param("output_bias", TensorType(own.bias.shape, "f32"), own.bias, own.origin)
        y = build.one(Conv2d(Window((1, 1))), flat, w, b, name="output", origin=own.origin)
    else:
        y = _integer(build, flat, weight, own.bias, _range(graph, own.weight, own.bias, samples, imported.name), own.origin)
    return replace(imported, graph=build.graph((y,), (), graph.meta), classifier=None)


def _range(graph: Graph, weight: Array, bias: Array, samples: Array | None, name: str) -> Quant:
    """Quantization of the layer's outputs over the samples."""
    if samples is None:
        raise McugradError(f"{name} learns its own output: give calibration data (--calibrate) to find its range")
    (quant,), (features,) = need_quant(graph.inputs[0].type), graph.outputs
    (scale,) = need_quant(features.type)
    low = high = 0.0
    for number, sample in enumerate(samples):
        x = quantize(feed(graph, sample, number), quant.scale[0], quant.zero)
        f = interpret(graph, {graph.inputs[0].name: x})[features].reshape(-1).astype(np.float64)
        y = (f - scale.zero) * scale.scale[0] @ weight + bias
        low, high = min(low, float(y.min())), max(high, float(y.max()))
    return activation_quant(low, high)


def _integer(build: Builder, x: Value, weight: Array, bias: Array, out: Quant, origin: str) -> Value:
    (quant,) = need_quant(x.type)
    scale, q, b = quantize_layer(weight, bias, (quant.scale[0], out.scale[0]), 0)
    w = build.param("output_weight", TensorType(q.shape, "s8", Quant(tuple(map(float, scale)), 0, 0)), q, origin)
    shift = build.param("output_bias", TensorType(b.shape, "s32"), b, origin)
    return build.one(Conv2d(Window((1, 1)), out), x, w, shift, name="output", origin=origin)
