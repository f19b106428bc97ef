"""ONNX layers with weights: convolutions, matrix products and batch norm."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from mcugrad.importers.onnx_state import Act, Blocked, State, Stored, plain_map, vector
from mcugrad.importers.onnx_window import window_of
from mcugrad.importers.source import Array, OnnxNode, optional
from mcugrad.ir import Value
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.spatial import Window


def conv(state: State, node: OnnxNode) -> None:
    """Conv: weight [O,C/g,kh,kw] becomes OHWI, or [1,kh,kw,C] of a depthwise convolution."""
    act = state.act(node.inputs[0], padded=True)
    x, stored = state.map(act), state.stored(node.inputs[1])
    rank = stored.real.ndim
    if rank not in {3, 4} or rank != len(act.shape):
        raise Blocked(f"a {rank - 2}-d convolution of {list(act.shape)}", "only 1-d and 2-d convolutions are supported")
    stored = stored.map(lambda w: w.reshape(*w.shape[:2], 1, -1)) if rank == 3 else stored
    weight = stored.real
    bias = state.weight(node.inputs[2]) if optional(node, 2) else np.zeros(weight.shape[0])
    _, height, width, channels = x.type.shape
    pt, pl, pb, pr = act.padding
    window = window_of(node, (height + pt + pb, width + pl + pr), (weight.shape[2], weight.shape[3]))
    top, left, bottom, right = window.padding
    window = replace(window, padding=(top + pt, left + pl, bottom + pb, right + pr))
    groups = int(node.attributes.get("group", 1))
    if groups == channels == weight.shape[0] > 1:
        value = layer(state, node, DepthwiseConv2d(window), x, stored.map(lambda w: w.transpose(1, 2, 3, 0)), bias)
    else:
        value = layer(state, node, Conv2d(window, groups=groups), x, stored.map(lambda w: w.transpose(0, 2, 3, 1)), bias)
    state.acts[node.outputs[0]] = plain_map(value, rank)


def layer(state: State, node: OnnxNode, op: Conv2d | DepthwiseConv2d, x: Value, weight: Stored, bias: Array) -> Value:
    """The node of a layer with parameters conv{i}_weight and conv{i}_bias."""
    name, origin = state.next_layer(), state.origin(node)
    first = state.weight_of(f"{name}_weight", weight, op.weight_axis or 0, origin)
    params = first, state.parameter(f"{name}_bias", bias, origin)
    return state.emit(op, x, *params, name=name, node=node)


def fully_connected(state: State, node: OnnxNode, act: Act, stored: Stored, bias: Array) -> None:
    """weight [F,K] in ONNX order of the features: a convolution whose kernel covers the whole map."""
    weight = stored.real
    if weight.ndim != 2 or math.prod(act.shape) != weight.shape[0] != 0 or bias.shape != weight.shape[1:]:
        raise Blocked(
            f"weight {list(weight.shape)} and bias {list(bias.shape)} do not fit an input {list(act.shape)} at batch 1",
            "flatten the whole map before the fully connected layer",
        )
    _, height, width, channels = act.value.type.shape
    order = state.index(act).reshape(-1)

    def kernel(data: Array) -> Array:
        ordered = np.empty(data.shape)
        ordered[order] = data
        return ordered.reshape(height, width, channels, -1).transpose(3, 0, 1, 2)

    value = layer(state, node, Conv2d(Window((height, width))), act.value, stored.map(kernel), bias)
    state.acts[node.outputs[0]] = vector(value, (*act.shape[:-1], weight.shape[1]))


def gemm(state: State, node: OnnxNode) -> None:
    act, weight = state.act(node.inputs[0]), state.stored(node.inputs[1])
    if len(act.shape) != 2 or act.shape[0] != 1 or node.attributes.get("transA", 0):
        raise Blocked(f"the input has shape {list(act.shape)}, not [1, F] untransposed", "flatten the input at batch 1")
    alpha, turned = node.attributes.get("alpha", 1.0), node.attributes.get("transB", 0)
    weight = weight.map(lambda w: (w.T if turned else w) * alpha)
    bias = state.weight(node.inputs[2]) if optional(node, 2) else np.zeros(1)
    bias = np.broadcast_to(bias * node.attributes.get("beta", 1.0), (1, weight.real.shape[-1])).reshape(-1)
    fully_connected(state, node, act, weight, bias)


def matmul(state: State, node: OnnxNode) -> None:
    """A product with a stored matrix [F,K]; of the rows of [1,T,F], a 1x1 convolution over T positions."""
    act, weight = state.act(node.inputs[0]), state.stored(node.inputs[1])
    bias = np.zeros(weight.real.shape[-1])
    rows = math.prod(act.shape[:-1])
    if rows == 1 or weight.real.ndim != 2 or act.shape[-1] != weight.real.shape[0]:
        fully_connected(state, node, act, weight, bias)
        return
    x = state.laid(act.value, state.index(act).reshape(1, rows, act.shape[-1]))
    kernel = weight.map(lambda w: w.T.reshape(w.shape[1], 1, 1, w.shape[0]))
    state.acts[node.outputs[0]] = vector(
        layer(state, node, Conv2d(Window((1, 1))), x, kernel, bias), (*act.shape[:-1], len(bias))
    )


def batch_norm(state: State, node: OnnxNode) -> None:
    if node.attributes.get("training_mode", 0):
        raise Blocked("batch norm in training mode", "export in evaluation mode: model.eval()")
    act = state.act(node.inputs[0])
    gamma, beta, mean, variance = (state.weight(name).astype(np.float64) for name in node.inputs[1:5])
    if (variance < 0).any():
        raise Blocked("a variance is negative", "the file is damaged: export the model again")
    gain = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    shape = (-1,) + (1,) * (len(act.shape) - 2)
    state.acts[node.outputs[0]] = state.affine(act, gain.reshape(shape), (beta - mean * gain).reshape(shape), node)
