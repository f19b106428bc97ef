"""The classifier that learns: a fresh zero head of any number of classes, or the model's own."""

from __future__ import annotations

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.ir import Array, Builder, Graph, TensorType
from mcugrad.loss import Loss
from mcugrad.ops.head import HEAD_ONE, UNSEEN, Head, weight_limit
from mcugrad.ops.losses import Logits
from mcugrad.quant.affine import BIAS_LIMIT

MAX_CLASSES = 4096


def attach_head(graph: Graph, classes: int, weight: Array | None = None, bias: Array | None = None, least: int = 2) -> Graph:
    """The quantized backbone plus a Head: zero-initialised, or with float `weight` [F,K] and `bias` [K] in Q12.

    least: the fewest classes that make sense.  Raises McugradError when there are fewer, or too many, or when the features
    have no quantization."""
    (features,) = graph.outputs
    if not least <= classes <= MAX_CLASSES:
        raise McugradError(f"a classifier needs between {least} and {MAX_CLASSES} classes, got {classes}")
    if features.type.quant is None:
        raise McugradError(f"{features.name} is not quantized: give calibration data")
    scale = features.type.quant.scale[0] / HEAD_ONE
    limit = weight_limit(features.type)
    w = np.zeros((features.type.elements, classes)) if weight is None else weight * HEAD_ONE
    b = np.zeros(classes) if bias is None else bias / scale
    build = Builder()
    build.inputs, build.params, build.nodes = list(graph.inputs), list(graph.params), list(graph.nodes)
    build.reserve([v.name for v in graph.inputs] + [p.value.name for p in graph.params])
    build.reserve([v.name for n in graph.nodes for v in n.outputs])
    head_w = build.param("head_weight", TensorType(w.shape, "s16"), np.clip(np.rint(w), -limit, limit))
    head_b = build.param("head_bias", TensorType(b.shape, "s32"), np.clip(np.rint(b), -BIAS_LIMIT, BIAS_LIMIT))
    logits = build.one(Head(), features, head_w, head_b, name="logits")
    return build.graph((logits,), (), graph.meta)


def masked(graph: Graph, loss: Loss) -> Graph:
    """The graph with a fresh head of which no output has been seen.  Raises McugradError for another end or loss."""
    last = graph.nodes[-1]
    fresh = isinstance(last.op, Head) and not any(p.data.any() for v in last.inputs[1:] if (p := graph.param(v)))
    if not fresh or loss not in (Loss.SOFTMAX, Loss.SIGMOID):
        raise McugradError("only the outputs of a new classifier can wait for their first sample: leave --mask-unseen out")
    bias = last.inputs[2]
    return graph.with_params({bias.name: np.full(bias.type.shape, UNSEEN, np.int32)})


def attach_logits(graph: Graph) -> Graph:
    """The quantized graph with its own output as logits.  Raises McugradError when the output has no quantization."""
    (output,) = graph.outputs
    if output.type.quant is None or output.type.dtype != "s8":
        raise McugradError(f"{output.name} is not quantized: give calibration data")
    build = Builder()
    build.inputs, build.params, build.nodes = list(graph.inputs), list(graph.params), list(graph.nodes)
    build.reserve([v.name for v in graph.inputs] + [p.value.name for p in graph.params])
    build.reserve([v.name for n in graph.nodes for v in n.outputs])
    return build.graph((build.one(Logits(), output, name="logits"),), (), graph.meta)
