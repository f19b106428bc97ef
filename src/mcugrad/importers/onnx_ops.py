"""How each supported ONNX operator becomes nodes of the float graph."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from mcugrad.importers.onnx_fold import axes_of, reshaped
from mcugrad.importers.onnx_read import Array, OnnxNode
from mcugrad.importers.onnx_state import Act, Blocked, State, Stored, plain_map, vector
from mcugrad.importers.onnx_window import pair, window_of
from mcugrad.ir import Value
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.spatial import Window

Handler = Callable[[State, OnnxNode], None]

FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16}


def _optional(node: OnnxNode, i: int) -> str:
    return node.inputs[i] if i < len(node.inputs) else ""


def conv(state: State, node: OnnxNode) -> None:
    """Conv: weight [O,C/g,kh,kw] becomes OHWI, or [1,kh,kw,C] of a depthwise convolution."""
    act = state.act(node.inputs[0], padded=True)
    x, stored = state.map(act), state.stored(node.inputs[1])
    rank = stored.real.ndim
    if rank not in {3, 4} or rank != len(act.shape):
        raise Blocked(f"a {rank - 2}-d convolution of {list(act.shape)}", "only 1-d and 2-d convolutions are supported")
    stored = stored.map(lambda w: w.reshape(*w.shape[:2], 1, -1)) if rank == 3 else stored
    weight = stored.real
    bias = state.weight(node.inputs[2]) if _optional(node, 2) else np.zeros(weight.shape[0])
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
    bias = state.weight(node.inputs[2]) if _optional(node, 2) else np.zeros(1)
    bias = np.broadcast_to(bias * node.attributes.get("beta", 1.0), (1, weight.real.shape[-1])).reshape(-1)
    fully_connected(state, node, act, weight, bias)


def matmul(state: State, node: OnnxNode) -> None:
    act, weight = state.act(node.inputs[0]), state.stored(node.inputs[1])
    fully_connected(state, node, act, weight, np.zeros(weight.real.shape[-1]))


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


def _clamped(state: State, node: OnnxNode, low: float, high: float) -> None:
    if math.isnan(low) or math.isnan(high) or not low <= 0 <= high or low == high:
        raise Blocked(f"a clamp to [{low:g}, {high:g}]", "its range must hold zero: use ReLU, ReLU6 or a symmetric clip")
    act = state.act(node.inputs[0])
    value = state.emit(Clamp(low, high), act.value, name=f"{act.value.name.removesuffix('_norm')}_clamp", node=node)
    state.acts[node.outputs[0]] = Act(value, act.shape, act.index)


def relu(state: State, node: OnnxNode) -> None:
    _clamped(state, node, 0.0, math.inf)


def clip(state: State, node: OnnxNode) -> None:
    """Limits are attributes before opset 11, optional constant inputs since."""

    def limit(key: str, i: int, default: float) -> float:
        if name := _optional(node, i):
            return float(state.constant(name).reshape(-1)[0])
        return float(node.attributes.get(key, default))

    low, high = limit("min", 1, -math.inf), limit("max", 2, math.inf)
    _clamped(state, node, -math.inf if low <= -3e38 else low, math.inf if high >= 3e38 else high)


def arithmetic(state: State, node: OnnxNode) -> None:
    """Add, Sub, Mul, Div with one constant: a scale and shift per channel; Add of two activations: a residual."""
    first, second = node.inputs
    if first in state.acts and second in state.acts:
        _residual(state, node)
        return
    reverse = second in state.acts
    act, constant = state.act(second if reverse else first), state.weight(first if reverse else second).astype(np.float64)
    if node.op == "Div" and (reverse or not constant.all()):
        raise Blocked("division by an activation or by zero", "multiply by a nonzero constant instead")
    one, zero = np.ones(()), np.zeros(())
    scale, shift = {
        "Add": (one, constant),
        "Sub": (-one, constant) if reverse else (one, -constant),
        "Mul": (constant, zero),
        "Div": (1 / np.where(constant == 0, 1, constant), zero),
    }[node.op]
    state.acts[node.outputs[0]] = state.affine(act, scale, shift, node)


def _residual(state: State, node: OnnxNode) -> None:
    if node.op != "Add":
        raise Blocked(f"{node.op} of two activations", "only residual additions combine branches; remove attention or gating")
    a, b = (state.act(name) for name in node.inputs)
    if a.shape != b.shape:
        raise Blocked(f"an addition that broadcasts {list(a.shape)} and {list(b.shape)}", "bring both sides to one shape")
    same = a.value.type.shape == b.value.type.shape
    if not same or (a.index is not b.index and not np.array_equal(state.index(a), state.index(b))):
        raise Blocked("the two sides hold their elements in different orders", "reshape both sides alike, after the addition")
    value = state.emit(Add(), a.value, b.value, name="add", node=node)
    state.acts[node.outputs[0]] = Act(value, a.shape, a.index)


def global_pool(state: State, node: OnnxNode) -> None:
    act = state.act(node.inputs[0])
    x = state.map(act)
    window = Window((x.type.shape[1], x.type.shape[2]))
    op = AvgPool(window) if node.op == "GlobalAveragePool" else MaxPool(window)
    state.acts[node.outputs[0]] = plain_map(state.emit(op, x, name="pool", node=node), len(act.shape))


def pool(state: State, node: OnnxNode) -> None:
    act = state.act(node.inputs[0])
    x = state.map(act)
    if len(node.outputs) > 1 and node.outputs[1] in state.readers:
        raise Blocked("the indices of the maxima are used", "use pooling without return_indices")
    window = window_of(node, (x.type.shape[1], x.type.shape[2]), pair(node, "kernel_shape", (1, 0)))
    if node.op == "AveragePool" and node.attributes.get("count_include_pad", 0) and any(window.padding):
        raise Blocked("average pooling that counts its padding", "set count_include_pad=False")
    op = AvgPool(window) if node.op == "AveragePool" else MaxPool(window)
    state.acts[node.outputs[0]] = plain_map(state.emit(op, x, name="pool", node=node), len(act.shape))


def reduce_mean(state: State, node: OnnxNode) -> None:
    """The mean over all positions: a global average pool."""
    act = state.act(node.inputs[0])
    ins = tuple(state.constant(name) if name and i else None for i, name in enumerate(node.inputs))
    rank = len(act.shape)
    axes = axes_of(ins, node.attributes, rank)
    if axes is None or not axes:
        axes = () if node.attributes.get("noop_with_empty_axes", 0) else tuple(range(rank))
    kept = [i for i in range(rank) if i not in axes]
    _, height, width, channels = act.value.type.shape
    rows = state.index(act).transpose(*kept, *axes).reshape(-1, math.prod(act.shape[a] for a in axes)) % channels
    if rows.shape != (channels, height * width) or (rows != rows[:, :1]).any():
        raise Blocked(f"a mean over axes {list(axes)} of {list(act.shape)}", "only the mean over height and width is supported")
    value = state.emit(AvgPool(Window((height, width))), act.value, name="pool", node=node)
    keep = bool(node.attributes.get("keepdims", 1))
    shape = tuple(1 if i in axes else n for i, n in enumerate(act.shape) if keep or i not in axes)
    state.acts[node.outputs[0]] = Act(value, shape, rows[:, 0].reshape(shape))


def view(state: State, node: OnnxNode) -> None:
    """Operators that only rename elements: nothing is emitted, the index map changes."""
    act = state.act(node.inputs[0], padded=node.op in {"Identity", "Dropout"})
    if node.op in {"Identity", "Dropout", "Cast"}:
        if len(node.outputs) > 1 and node.outputs[1] in state.readers:
            raise Blocked("the mask of a dropout is used", "export in evaluation mode: model.eval()")
        if node.op == "Cast" and int(node.attributes["to"]) not in FLOATS:
            raise Blocked("an activation is cast to integers", "export the float model, up to its logits")
        state.acts[node.outputs[0]] = act
        return
    index = state.index(act)
    index = index.transpose(node.attributes.get("perm")) if node.op == "Transpose" else index.reshape(_viewed(state, node, act))
    state.acts[node.outputs[0]] = Act(act.value, index.shape, state.spend(index))


def _viewed(state: State, node: OnnxNode, act: Act) -> tuple[int, ...]:
    """The shape that Flatten, Reshape, Squeeze or Unsqueeze gives."""
    rank, shape = len(act.shape), act.shape
    if node.op == "Flatten":
        axis = int(node.attributes.get("axis", 1))
        axis += rank if axis < 0 else 0
        return math.prod(shape[:axis]), math.prod(shape[axis:])
    if node.op == "Reshape":
        target = state.constant(node.inputs[1]) if _optional(node, 1) else np.array(node.attributes["shape"])
        return reshaped(shape, target, bool(node.attributes.get("allowzero", 0)))
    ins = tuple(state.constant(name) if name and i else None for i, name in enumerate(node.inputs))
    if node.op == "Squeeze":
        axes = axes_of(ins, node.attributes, rank)
        drop = [i for i, n in enumerate(shape) if n == 1] if axes is None else axes
        return tuple(n for i, n in enumerate(shape) if i not in drop)
    count = len(node.attributes["axes"]) if "axes" in node.attributes else state.constant(node.inputs[1]).size
    axes = axes_of(ins, node.attributes, rank + count) or ()
    rest = iter(shape)
    return tuple(1 if i in axes else next(rest) for i in range(rank + count))


def pad(state: State, node: OnnxNode) -> None:
    """Zero padding: of height and width, kept until a convolution takes it; of channels, a 1x1 layer that copies."""
    act = state.act(node.inputs[0])
    x = state.map(act)
    pads = state.constant(node.inputs[1]).reshape(-1).tolist() if _optional(node, 1) else list(node.attributes["pads"])
    value = float(state.constant(node.inputs[2]).reshape(-1)[0]) if _optional(node, 2) else node.attributes.get("value", 0.0)
    mode = node.attributes.get("mode", b"constant").decode()
    rank = len(act.shape)
    fits = mode == "constant" and value == 0 and not _optional(node, 3) and len(pads) == 2 * rank and min(pads) >= 0
    if not fits or pads[0] or pads[rank]:
        raise Blocked(f"{mode} padding by {pads} with {value:g}", "only zero padding of channels, height and width")
    _, front, *first = (int(p) for p in pads[:rank])
    _, back, *last = (int(p) for p in pads[rank:])
    top, left, bottom, right = (0, *first)[-2:] + (0, *last)[-2:]
    if front or back:
        x = _padded_channels(state, node, x, front, back)
    _, h, w, c = x.type.shape
    shape = (1, c, h + top + bottom, w + left + right) if rank == 4 else (1, c, w + left + right)
    state.acts[node.outputs[0]] = Act(x, shape, None, (top, left, bottom, right))


def _padded_channels(state: State, node: OnnxNode, x: Value, front: int, back: int) -> Value:
    """x with zero channels around its own: a 1x1 convolution of ones and zeros."""
    channels = x.type.shape[3]
    weight = np.eye(front + channels + back, channels, -front, np.float32).reshape(-1, 1, 1, channels)
    state.notes.append(f"padding of channels at {node.name} becomes a 1x1 convolution that copies {channels} channels")
    value = layer(state, node, Conv2d(Window((1, 1))), x, Stored(weight), np.zeros(len(weight)))
    if x in state.quants:
        state.quants[value] = state.quants[x]
    return value


def strided(state: State, node: OnnxNode) -> None:
    """Slice that takes every n-th row or column from the first on: a pool of single elements."""
    act = state.act(node.inputs[0])
    x, rank = state.map(act), len(act.shape)
    starts, ends = (state.constant(node.inputs[i]).reshape(-1).tolist() for i in (1, 2))
    axes = state.constant(node.inputs[3]).reshape(-1).tolist() if _optional(node, 3) else list(range(len(starts)))
    steps = state.constant(node.inputs[4]).reshape(-1).tolist() if _optional(node, 4) else [1] * len(starts)
    stride = [1] * rank
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if start != 0 or end < act.shape[axis] or step < 1 or (step > 1 and axis % rank < 2):
            raise Blocked(f"a slice [{start}:{end}:{step}] of axis {axis}", "only slices of every n-th row or column")
        stride[axis] = int(step)
    steps_hw = (1, *stride[2:])[-2:]
    value = state.emit(MaxPool(Window((1, 1), (steps_hw[0], steps_hw[1]))), x, name="slice", node=node)
    state.acts[node.outputs[0]] = plain_map(value, rank)


def softmax(state: State, node: OnnxNode) -> None:
    """Dropped at the end of the model: the head works on logits."""
    if node.outputs[0] not in state.tail:
        raise Blocked(f"{node.op} inside the model", "attention is not supported; a softmax may only be the last node")
    state.acts[node.outputs[0]] = state.act(node.inputs[0])
    state.dropped.add(node.outputs[0])
    state.notes.append(f"the {node.op} at the end ({node.name}) is dropped: the head works on logits")


HANDLERS: dict[str, Handler] = {
    "Add": arithmetic,
    "AveragePool": pool,
    "BatchNormalization": batch_norm,
    "Cast": view,
    "Clip": clip,
    "Conv": conv,
    "Div": arithmetic,
    "Dropout": view,
    "Flatten": view,
    "Gemm": gemm,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "Identity": view,
    "LogSoftmax": softmax,
    "MatMul": matmul,
    "MaxPool": pool,
    "Mul": arithmetic,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "Relu": relu,
    "Reshape": view,
    "Slice": strided,
    "Softmax": softmax,
    "Squeeze": view,
    "Sub": arithmetic,
    "Transpose": view,
    "Unsqueeze": view,
}
