"""How each supported TFLite operator becomes nodes of the graph, float or int8."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mcugrad.importers.limits import NO_LIMITS, Limits
from mcugrad.importers.model import Classifier
from mcugrad.importers.onnx_fold import reshaped
from mcugrad.importers.onnx_state import NO_PADDING, Blocked, bounded_activation
from mcugrad.importers.source import AGAIN
from mcugrad.importers.tflite_more import (
    ACTIVATIONS,
    FUNCTIONS,
    arithmetic,
    concat,
    cut,
    limits_of,
    prelu,
    resize,
    softmax,
    split,
    strided,
    table,
    transpose,
)
from mcugrad.importers.tflite_read import TfliteNode
from mcugrad.importers.tflite_state import Act, Padding, State
from mcugrad.ir import Value
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.place import Pad
from mcugrad.ops.pool import AvgPool, MaxPool, Ties
from mcugrad.ops.spatial import Window

Handler = Callable[[State, TfliteNode], None]
Pair = tuple[int, int]

SAME = 0
LIMITS = {"RELU": ACTIVATIONS[1], "RELU_N1_TO_1": ACTIVATIONS[2], "RELU6": ACTIVATIONS[3], "RELU_0_TO_1": (0.0, 1.0)}


def _window(node: TfliteNode, size: Pair, kernel: Pair, before: Padding = NO_PADDING) -> Window:
    """The window for an input of `size`, padding `before` included in the result."""
    if "StrideH" not in node.attributes:
        raise Blocked("the operator has no options", AGAIN)
    a = node.attributes
    stride, dilation = (a["StrideH"], a["StrideW"]), (a.get("DilationHFactor", 1), a.get("DilationWFactor", 1))
    padded = (size[0] + before[0] + before[2], size[1] + before[1] + before[3])
    if min(*stride, *kernel, *dilation) < 1:
        raise Blocked(f"kernel {list(kernel)}, stride {list(stride)} or dilation {list(dilation)} makes no sense", AGAIN)
    extent = Window(kernel, dilation=dilation).extent
    total = [0, 0]
    if a["Padding"] == SAME:
        total = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(padded, extent, stride, strict=True)]
    top, left = (t // 2 for t in total)
    own = (top, left, total[0] - top, total[1] - left)
    padding = tuple(x + y for x, y in zip(before, own, strict=True))
    return Window(kernel, stride, (padding[0], padding[1], padding[2], padding[3]), dilation)


def conv(state: State, node: TfliteNode) -> None:
    """CONV_2D: weight OHWI; fewer input channels than the map has mean groups."""
    act = state.act(node.inputs[0], padded=True)
    x, shape = state.map(act), state.tensor(node.inputs[1]).shape
    _, height, width, channels = x.type.shape
    if len(shape) != 4 or min(shape) < 1 or channels % shape[3]:
        raise Blocked(f"a weight {list(shape)} does not fit {channels} channels", AGAIN)
    window = _window(node, (height, width), (shape[1], shape[2]), act.padding)
    groups = channels // shape[3]
    op: Conv2d | DepthwiseConv2d = Conv2d(window, groups=groups)
    if groups == channels == shape[0] > 1:
        op = DepthwiseConv2d(window)
    value = state.layer(node, op, x, lambda weight: weight, limits_of(node))
    state.acts[node.outputs[0]] = Act(value, value.type.shape)


def depthwise(state: State, node: TfliteNode) -> None:
    """DEPTHWISE_CONV_2D: weight [1,kh,kw,C*m]; output channel c*m + j reads input channel c."""
    act = state.act(node.inputs[0], padded=True)
    x, shape = state.map(act), state.tensor(node.inputs[1]).shape
    _, height, width, channels = x.type.shape
    if len(shape) != 4 or shape[0] != 1 or min(shape) < 1 or shape[3] % channels:
        raise Blocked(f"a depthwise weight {list(shape)} does not fit {channels} channels", AGAIN)
    window = _window(node, (height, width), (shape[1], shape[2]), act.padding)
    single = shape[3] == channels > 1
    op = DepthwiseConv2d(window) if single else Conv2d(window, groups=channels)
    value = state.layer(node, op, x, lambda weight: weight.transpose(3, 1, 2, 0), limits_of(node))
    state.acts[node.outputs[0]] = Act(value, value.type.shape)


def fully_connected(state: State, node: TfliteNode) -> None:
    """FULLY_CONNECTED: a convolution that covers the whole map, or 1x1 where the input has several rows."""
    act, shape = state.act(node.inputs[0]), state.tensor(node.inputs[1]).shape
    if node.attributes.get("WeightsFormat", 0):
        raise Blocked("its weights are shuffled for one processor", "convert the model without that optimization")
    elements = act.value.type.elements
    if len(shape) != 2 or min(shape) < 1 or elements % shape[1]:
        raise Blocked(f"a weight {list(shape)} does not fit an input {list(act.shape)}", AGAIN)
    rows = elements // shape[1]
    if act.value.type.quant is not None and state.tensor(node.inputs[1]).dtype == "FLOAT32":
        _float_head(state, node, act, rows)
        return
    x = act.value if rows == 1 else state.reshaped(act.value, (1, 1, rows, shape[1]))
    kernel = (x.type.shape[1], x.type.shape[2]) if rows == 1 else (1, 1)
    whole = (shape[0], *kernel, x.type.shape[3])
    value = state.layer(node, Conv2d(Window(kernel)), x, lambda weight: weight.reshape(whole), limits_of(node))
    keep = node.attributes.get("KeepNumDims", 0) and act.shape[-1:] == shape[1:]
    state.acts[node.outputs[0]] = Act(value, (*act.shape[:-1], shape[0]) if keep else (rows, shape[0]))


def _float_head(state: State, node: TfliteNode, act: Act, rows: int) -> None:
    """A float classifier on dequantized features, the last layer of the model: the features are the graph's output."""
    if rows != 1 or node.outputs[0] not in state.tail or state.float_head is not None or limits_of(node) != NO_LIMITS:
        raise Blocked("float operators follow inside the model", "convert the model to full integer, or keep it float")
    state.spend(math.prod(state.tensor(node.inputs[1]).shape))
    weight, bias = (state.real(i).astype(np.float64) for i in node.inputs[1:3])
    state.float_head = Classifier(weight.T, bias, state.origin(node))
    state.acts[node.outputs[0]] = act


def pool(state: State, node: TfliteNode) -> None:
    """Average and maximum; padding is counted by neither."""
    x = state.map(state.act(node.inputs[0]))
    size = (x.type.shape[1], x.type.shape[2])
    kernel = (node.attributes.get("FilterHeight", 0), node.attributes.get("FilterWidth", 0))
    if kernel[0] > size[0] or kernel[1] > size[1]:
        raise Blocked(f"a {kernel} window on a {size} map", "pool over the map's own size")
    window = _window(node, size, kernel)
    signed = state.tensor(node.inputs[0]).dtype == "INT8"  # unsigned sums have no negative halves
    average = node.op == "AVERAGE_POOL_2D"
    op = AvgPool(window, Ties.AWAY if signed else Ties.UP) if average else MaxPool(window)
    value = state.emit(op, x, name="pool", origin=state.origin(node))
    value = _kept(state, node, value, limits_of(node))
    state.acts[node.outputs[0]] = Act(value, value.type.shape)


def _kept(state: State, node: TfliteNode, value: Value, limits: Limits) -> Value:
    """The result of an operator that keeps its input's numbers, at the output's quantization and clamped."""
    state.require_alike(node, value)
    before, after = state.quant(node.inputs[0]), state.quant(node.outputs[0])
    return state.limited(node, value, value.type.quant if before == after else after, limits)


def mean(state: State, node: TfliteNode) -> None:
    """The mean over height, width or both: a pool, or where the quantization changes, a layer of equal weights."""
    act = state.act(node.inputs[0])
    x, rank = state.map(act), len(act.shape)
    axes = {int(a) % rank for a in state.numbers(node.inputs[1]).reshape(-1)}
    if not axes or not axes <= {1, 2}:
        raise Blocked(f"a mean over axes {sorted(axes)} of {list(act.shape)}", "pool over height and width only")
    state.require_alike(node, x)
    window = Window((x.type.shape[1] if 1 in axes else 1, x.type.shape[2] if 2 in axes else 1))
    out, origin = state.quant(node.outputs[0]), state.origin(node)
    if state.quant(node.inputs[0]) == out:
        value = state.emit(AvgPool(window, Ties.UP if out is None else Ties.EVEN), x, name="pool", origin=origin)
    else:
        share = 1 / math.prod(window.kernel)
        value = state.unit_layer("mean", DepthwiseConv2d(window, out), x, x.type.shape[3], origin, scale=share)
    keep = node.attributes.get("KeepDims", 0)
    shape = tuple(1 if i in axes else n for i, n in enumerate(act.shape) if keep or i not in axes)
    state.acts[node.outputs[0]] = Act(value, shape)


def clamp(state: State, node: TfliteNode) -> None:
    act = state.act(node.inputs[0])
    state.acts[node.outputs[0]] = Act(_kept(state, node, act.value, LIMITS[node.op]), act.shape)


def quantize(state: State, node: TfliteNode) -> None:
    """QUANTIZE: a change of scale inside the model, nothing at its ends."""
    act = state.act(node.inputs[0])
    if node.outputs[0] not in state.tail:
        state.require_alike(node, act.value)
        act = Act(state.limited(node, act.value, state.quant(node.outputs[0]), NO_LIMITS), act.shape)
    state.acts[node.outputs[0]] = act


def dequantize(state: State, node: TfliteNode) -> None:
    """DEQUANTIZE: of a constant (half-precision weights), or at the end of the model."""
    if state.is_constant(node.inputs[0]):
        state.spend(math.prod(state.tensor(node.inputs[0]).shape))
        state.folded[node.outputs[0]] = state.real(node.inputs[0])
        return
    if node.outputs[0] not in state.tail:
        raise Blocked("float operators follow inside the model", "convert the model to full integer, or keep it float")
    state.acts[node.outputs[0]] = state.act(node.inputs[0])


def view(state: State, node: TfliteNode) -> None:
    """Operators that only give the elements another shape: nothing is emitted."""
    act = state.act(node.inputs[0])
    state.acts[node.outputs[0]] = Act(act.value, _viewed(state, node, act.shape))


def _viewed(state: State, node: TfliteNode, shape: tuple[int, ...]) -> tuple[int, ...]:
    if node.op == "SQUEEZE":
        drop = {d % len(shape) for d in node.attributes.get("SqueezeDims", ())} or {i for i, n in enumerate(shape) if n == 1}
        return reshaped(shape, np.array([n for i, n in enumerate(shape) if i not in drop]), True)
    if node.op == "EXPAND_DIMS":
        axis = int(state.numbers(node.inputs[1]).reshape(-1)[0]) % (len(shape) + 1)
        return (*shape[:axis], 1, *shape[axis:])
    if len(node.inputs) > 1 and node.inputs[1] in state.shapes:
        return reshaped(shape, np.array(state.tensor(node.outputs[0]).shape), True)
    target = state.numbers(node.inputs[1]) if len(node.inputs) > 1 else np.array(node.attributes["NewShape"])
    return reshaped(shape, target, True)


def pad(state: State, node: TfliteNode) -> None:
    """Padding with one number; zeros around height and width wait for a convolution that takes them."""
    x = state.map(state.act(node.inputs[0]))
    pads = state.numbers(node.inputs[1])
    if pads.shape != (4, 2) or pads.min() < 0 or pads[0].any():
        raise Blocked(f"padding by {pads.tolist()}", "only padding of height, width and channels is supported")
    (top, bottom), (left, right), (front, back) = pads[1:].tolist()
    _, h, w, c = x.type.shape
    shape, value = (1, h + top + bottom, w + left + right, front + c + back), _pad_value(state, node)
    bounded_activation(shape)
    if shape[3] == c and value == 0:
        state.acts[node.outputs[0]] = Act(x, shape, (top, left, bottom, right))
        return
    op = Pad((top, left, front), (bottom, right, back), value)
    state.acts[node.outputs[0]] = Act(state.emit(op, x, name="pad", origin=state.origin(node)), shape)


def _pad_value(state: State, node: TfliteNode) -> float:
    """The real number that PADV2 pads with; 0 for PAD."""
    if len(node.inputs) < 3:
        return 0.0
    value = state.numbers(node.inputs[2])
    if value.size != 1:
        raise Blocked(f"padding with {value.size} numbers", AGAIN)
    tensor, number = state.tensor(node.inputs[0]), float(value.reshape(-1)[0])
    return number if not tensor.scale.size else (number - float(tensor.zero[0])) * float(tensor.scale[0])


def end(state: State, node: TfliteNode) -> None:
    """SOFTMAX and LOGISTIC are dropped at the end of a classifier: the head works on logits.  Elsewhere they are computed."""
    act = state.act(node.inputs[0])
    flat = math.prod(act.shape) == max(act.shape)
    if node.outputs[0] in state.tail and flat:
        state.acts[node.outputs[0]] = act
        state.ends.append(node.op)
        state.notes.append(f"the {node.op} at the end ({node.name}) is dropped: the head works on logits")
    elif node.op == "LOGISTIC":
        table(state, node)
    else:
        softmax(state, node)


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("ADD", "MUL", "SUB"), arithmetic),
    "AVERAGE_POOL_2D": pool,
    "CONCATENATION": concat,
    "CONV_2D": conv,
    "DEPTHWISE_CONV_2D": depthwise,
    "DEQUANTIZE": dequantize,
    "EXPAND_DIMS": view,
    **dict.fromkeys(FUNCTIONS, table),
    "FULLY_CONNECTED": fully_connected,
    "LOGISTIC": end,
    "MAX_POOL_2D": pool,
    "MEAN": mean,
    "PAD": pad,
    "PADV2": pad,
    "QUANTIZE": quantize,
    **dict.fromkeys(LIMITS, clamp),
    "PRELU": prelu,
    "RESHAPE": view,
    "RESIZE_NEAREST_NEIGHBOR": resize,
    "SLICE": cut,
    "SOFTMAX": end,
    **dict.fromkeys(("SPLIT", "SPLIT_V"), split),
    "SQUEEZE": view,
    "STRIDED_SLICE": strided,
    "TRANSPOSE": transpose,
}
