"""ONNX operators on single elements: clamps, functions by table, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from mcugrad.importers.onnx_move import constant_map
from mcugrad.importers.onnx_state import Act, Blocked, State
from mcugrad.importers.source import Array, OnnxNode, optional
from mcugrad.ir import Value
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.functions import (
    Elementary,
    Elu,
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.softmax import Softmax
from mcugrad.ops.upsample import Upsample

SELU_ALPHA, SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875  # ONNX's defaults


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
        if name := optional(node, i):
            return float(state.constant(name).reshape(-1)[0])
        return float(node.attributes.get(key, default))

    low, high = limit("min", 1, -math.inf), limit("max", 2, math.inf)
    _clamped(state, node, -math.inf if low <= -3e38 else low, math.inf if high >= 3e38 else high)


FUNCTIONS: dict[str, Callable[[OnnxNode], Function]] = {
    "Elu": lambda n: Elu(n.attributes.get("alpha", 1.0)),
    "Gelu": lambda n: Gelu(n.attributes.get("approximate", b"none") == b"tanh"),
    "HardSigmoid": lambda n: HardSigmoid(n.attributes.get("alpha", 0.2), n.attributes.get("beta", 0.5)),
    "HardSwish": lambda n: HardSwish(),
    "LeakyRelu": lambda n: LeakyRelu(n.attributes.get("alpha", 0.01)),
    "Selu": lambda n: Elu(n.attributes.get("alpha", SELU_ALPHA), n.attributes.get("gamma", SELU_GAMMA)),
    "Sigmoid": lambda n: Sigmoid(),
    "Softplus": lambda n: Softplus(),
    "Swish": lambda n: Silu(),
    "Tanh": lambda n: Tanh(),
    **dict.fromkeys(("Abs", "Cos", "Exp", "Log", "Reciprocal", "Sin", "Sqrt"), lambda n: Elementary(n.op.lower())),
}


def table(state: State, node: OnnxNode) -> None:
    """A function of each element."""
    if node.op == "Swish" and node.attributes.get("alpha", 1.0) != 1:
        raise Blocked(f"Swish with alpha {node.attributes['alpha']:g}", "use SiLU (alpha 1)")
    act = state.act(node.inputs[0])
    value = state.emit(Lut(FUNCTIONS[node.op](node)), act.value, name=node.op.lower(), node=node)
    state.acts[node.outputs[0]] = Act(value, act.shape, act.index)


def prelu(state: State, node: OnnxNode) -> None:
    """One slope: a leaky ReLU.  One per channel: max(x, 0) + slope * min(x, 0)."""
    act, slope = state.act(node.inputs[0]), state.weight(node.inputs[1])
    if (slope == slope.reshape(-1)[0]).all():
        value = state.emit(Lut(LeakyRelu(float(slope.reshape(-1)[0]))), act.value, name="prelu", node=node)
    else:
        above = state.emit(Clamp(0.0, math.inf), act.value, name="prelu_above", node=node)
        below = state.emit(Clamp(-math.inf, 0.0), act.value, name="prelu_below", node=node)
        scaled = state.affine(Act(below, act.shape, act.index), slope.astype(np.float64), np.zeros(()), node)
        value = state.emit(Add(), above, scaled.value, name="prelu", node=node)
    state.acts[node.outputs[0]] = Act(value, act.shape, act.index)


def arithmetic(state: State, node: OnnxNode) -> None:
    """Add, Sub, Mul, Div: with a constant per channel a scale and shift, with any other constant or two activations a node."""
    first, second = node.inputs
    if first in state.acts and second in state.acts:
        _combined(state, node)
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
    if node.op != "Div" and _varies(constant, act.shape):
        x, other = state.map(act), constant_map(state, node, first if reverse else second, act.shape)
        _emitted(state, node, act, *((other, x) if reverse and node.op == "Sub" else (x, other)))
        return
    state.acts[node.outputs[0]] = state.affine(act, scale, shift, node)


def _varies(constant: Array, shape: tuple[int, ...]) -> bool:
    """Whether a constant that broadcasts against [1,C,H,W] or [1,C,L] differs between positions."""
    if len(shape) < 3 or constant.size == 1 or np.broadcast_shapes(constant.shape, shape) != shape:
        return False
    rows = np.broadcast_to(constant, shape).reshape(shape[1], -1)
    return bool((rows != rows[:, :1]).any())


def _combined(state: State, node: OnnxNode) -> None:
    """Two activations of one shape and order, or one broadcast against the other."""
    if node.op == "Div":
        raise Blocked("division by an activation", "multiply by its reciprocal, or by a constant")
    a, b = (state.act(name) for name in node.inputs)
    alike = a.shape == b.shape and a.value.type.shape == b.value.type.shape
    if alike and (a.index is b.index or np.array_equal(state.index(a), state.index(b))):
        _emitted(state, node, a, a.value, b.value, index=True)
        return
    swap = math.prod(a.shape) < math.prod(b.shape)
    _emitted(state, node, b if swap else a, state.map(a), state.map(b))


def _emitted(state: State, node: OnnxNode, like: Act, first: Value, second: Value, index: bool = False) -> None:
    """The node, the smaller side repeated where its op cannot broadcast; `like` gives the shape."""
    values = [first, second]
    if node.op == "Mul":
        values.sort(key=lambda v: -v.type.elements)
    else:
        values = [_repeated(state, node, v, values[1 - i]) for i, v in enumerate(values)]
    op = {"Add": Add, "Sub": Sub, "Mul": Mul}[node.op]()
    value = state.emit(op, *values, name=node.op.lower(), node=node)
    state.acts[node.outputs[0]] = Act(value, like.shape, like.index if index else None)


def _repeated(state: State, node: OnnxNode, x: Value, other: Value) -> Value:
    """x [1,1,1,C] or [1,H,1,C] ... as large as the other side."""
    (_, h, w, c), (_, high, wide, deep) = x.type.shape, other.type.shape
    if c == deep and (h, w) != (high, wide) and h in {1, high} and w in {1, wide}:
        return state.emit(Upsample((high // h, wide // w)), x, name="repeated", node=node)
    return x


def softmax(state: State, node: OnnxNode) -> None:
    """Dropped at the end of the model: the head works on logits.  Inside, over the channels."""
    act = state.act(node.inputs[0])
    flat = math.prod(act.shape) == max(act.shape)
    if node.outputs[0] in state.tail and flat:
        state.end(node, act)
        return
    axis = int(node.attributes.get("axis", -1)) % len(act.shape)
    if node.op == "LogSoftmax" or not (axis == 1 or (flat and act.shape[axis] == max(act.shape))):
        raise Blocked(f"{node.op} over axis {axis} of {list(act.shape)}", "only a softmax over channels is supported")
    x = state.flat(act.value) if flat else state.map(act)
    value = state.emit(Softmax(), x, name="softmax", node=node)
    state.acts[node.outputs[0]] = Act(value, act.shape, act.index)


def sigmoid(state: State, node: OnnxNode) -> None:
    """Dropped at the end of a classifier: the head works on logits.  Else a table."""
    act = state.act(node.inputs[0])
    if node.outputs[0] in state.tail and math.prod(act.shape) == max(act.shape):
        state.end(node, act)
        return
    table(state, node)
