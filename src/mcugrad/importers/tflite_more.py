"""TFLite operators on single elements, on several branches, and those that move elements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

import numpy as np

from mcugrad.importers.limits import NO_LIMITS, Limits
from mcugrad.importers.onnx_state import Blocked
from mcugrad.importers.source import AGAIN
from mcugrad.importers.tflite_read import TfliteNode
from mcugrad.importers.tflite_state import Act, State
from mcugrad.ir import Value
from mcugrad.ops.add import Add, Sub, precise_bits
from mcugrad.ops.concat import Concat
from mcugrad.ops.functions import Elementary, Elu, Function, Gelu, HardSwish, LeakyRelu, Sigmoid, Tanh
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.place import Slice
from mcugrad.ops.pool import MaxPool
from mcugrad.ops.softmax import PROBABILITY, Softmax
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample

ACTIVATIONS: dict[int, Limits] = {0: NO_LIMITS, 1: (0.0, math.inf), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
FUNCTIONS: dict[str, Callable[[TfliteNode], Function]] = {
    "ELU": lambda n: Elu(),
    "GELU": lambda n: Gelu(bool(n.attributes.get("Approximate", 0))),
    "HARD_SWISH": lambda n: HardSwish(),
    "LEAKY_RELU": lambda n: LeakyRelu(n.attributes["Alpha"]),
    "TANH": lambda n: Tanh(),
    **dict.fromkeys(("ABS", "COS", "EXP", "LOG", "RSQRT", "SIN", "SQRT", "SQUARE"), lambda n: Elementary(n.op.lower())),
}


def limits_of(node: TfliteNode) -> Limits:
    """The fused activation."""
    kind = node.attributes.get("FusedActivationFunction", 0)
    if kind not in ACTIVATIONS:
        raise Blocked("its fused activation is TANH or SIGN_BIT", "use ReLU or ReLU6")
    return ACTIVATIONS[kind]


def table(state: State, node: TfliteNode) -> None:
    """A function of each element."""
    act = state.act(node.inputs[0])
    function = Sigmoid() if node.op == "LOGISTIC" else FUNCTIONS[node.op](node)
    state.require_alike(node, act.value)
    value = state.activated(node, Lut(function), act.value, name=node.op.lower(), limits=NO_LIMITS)
    state.acts[node.outputs[0]] = Act(value, act.shape)


def prelu(state: State, node: TfliteNode) -> None:
    act, slope = state.act(node.inputs[0]), state.real(node.inputs[1]).reshape(-1)
    if (slope != slope[0]).any():
        raise Blocked("one slope per channel", "use one slope for all channels (LeakyReLU)")
    state.require_alike(node, act.value)
    value = state.activated(node, Lut(LeakyRelu(float(slope[0]))), act.value, name="prelu", limits=NO_LIMITS)
    state.acts[node.outputs[0]] = Act(value, act.shape)


def softmax(state: State, node: TfliteNode) -> None:
    """Over the last axis."""
    x, quant = state.operand(node.inputs[0]), state.quant(node.outputs[0])
    if quant not in {None, PROBABILITY}:
        raise Blocked(f"a softmax with output {quant}", f"its scale must be 1/256 and its zero point -128: {AGAIN}")
    value = state.emit(Softmax(quant), x, name="softmax", origin=state.origin(node))
    state.acts[node.outputs[0]] = Act(value, state.tensor(node.outputs[0]).shape)


def arithmetic(state: State, node: TfliteNode) -> None:
    """ADD, SUB, MUL of two activations or one and a constant; the smaller side is repeated where its op cannot broadcast."""
    a, b = (state.operand(i) for i in node.inputs)
    state.require_alike(node, a, b)
    shapes = [state.acts[i].shape if i in state.acts else state.tensor(i).shape for i in node.inputs]
    shape = tuple(int(n) for n in np.broadcast_shapes(*shapes))
    op: Add | Mul = Mul() if node.op == "MUL" else Add() if node.op == "ADD" else Sub()
    if node.op == "MUL":
        a, b = (b, a) if b.type.elements > a.type.elements else (a, b)
    else:
        a, b = _repeated(state, node, a, b), _repeated(state, node, b, a)
    quants, out = (a.type.quant, b.type.quant), state.quant(node.outputs[0])
    if isinstance(op, Add) and quants[0] and quants[1] and out:
        op = replace(op, bits=precise_bits(quants[0], quants[1], out))
    value = state.activated(node, op, a, b, name=node.op.lower(), limits=limits_of(node))
    state.acts[node.outputs[0]] = Act(value, shape)


def _repeated(state: State, node: TfliteNode, x: Value, other: Value) -> Value:
    """x as high and wide as the other side, if it is one row or column."""
    (_, h, w, c), (_, high, wide, deep) = x.type.shape, other.type.shape
    if c == deep and (h, w) != (high, wide) and h in {1, high} and w in {1, wide}:
        return state.emit(Upsample((high // h, wide // w)), x, name="repeated", origin=state.origin(node))
    return x


def concat(state: State, node: TfliteNode) -> None:
    shape = state.tensor(node.outputs[0]).shape
    axis = int(node.attributes["Axis"])
    axis += len(shape) if axis < 0 else 0
    values = [state.operand(i) for i in node.inputs]
    state.require_alike(node, *values)
    value = state.activated(node, Concat(axis + 4 - len(shape)), *values, name="concat", limits=limits_of(node))
    first = state.acts.get(node.inputs[0]) or state.acts[next(i for i in node.inputs if i in state.acts)]
    state.acts[node.outputs[0]] = Act(value, value.type.shape[4 - len(first.shape) :])


def split(state: State, node: TfliteNode) -> None:
    """SPLIT (axis, x) into equal pieces, SPLIT_V (x, sizes, axis)."""
    equal = node.op == "SPLIT"
    act = state.act(node.inputs[1 if equal else 0])
    axis = int(state.numbers(node.inputs[0 if equal else 2]).reshape(-1)[0]) % len(act.shape)
    count, total = len(node.outputs), act.shape[axis]
    given = [total // count] * count if equal else [int(n) for n in state.numbers(node.inputs[1]).reshape(-1)]
    sizes = [total - sum(n for n in given if n >= 0) if n < 0 else n for n in given]
    if len(sizes) != count or sum(sizes) != total or min(sizes) < 1:
        raise Blocked(f"a split of {total} into {sizes}", AGAIN)
    for index, start, size in zip(node.outputs, accumulate(sizes, initial=0), sizes, strict=False):
        pieces = [range(n) for n in act.shape]
        pieces[axis] = range(start, start + size)
        state.acts[index] = _piece(state, node, act, pieces)


def cut(state: State, node: TfliteNode) -> None:
    """SLICE (x, begin, size): -1 is everything from there on."""
    act = state.act(node.inputs[0])
    begin, size = (state.numbers(i).reshape(-1).tolist() for i in node.inputs[1:3])
    ends = [n if s < 0 else b + s for b, s, n in zip(begin, size, act.shape, strict=True)]
    pieces = [range(n)[b:e] for n, b, e in zip(act.shape, begin, ends, strict=True)]
    state.acts[node.outputs[0]] = _piece(state, node, act, pieces)


def strided(state: State, node: TfliteNode) -> None:
    """STRIDED_SLICE (x, begin, end, strides) with its masks, bit i for axis i."""
    act, masks = state.act(node.inputs[0]), node.attributes
    if masks.get("EllipsisMask", 0) or masks.get("NewAxisMask", 0):
        raise Blocked("a slice with an ellipsis or a new axis", "write the slice with one range per axis")
    begin, end, steps = (state.numbers(i).reshape(-1).tolist() for i in node.inputs[1:4])
    shrink, pieces = masks.get("ShrinkAxisMask", 0), [range(n) for n in act.shape]
    for i, (b, e, step) in enumerate(zip(begin, end, steps, strict=True)):
        first = None if masks.get("BeginMask", 0) >> i & 1 else b
        last = None if masks.get("EndMask", 0) >> i & 1 else e
        if shrink >> i & 1:
            first, last = b % act.shape[i], b % act.shape[i] + 1
        pieces[i] = pieces[i][first:last:step]
    found = _piece(state, node, act, pieces)
    shape = tuple(n for i, n in enumerate(found.shape) if not shrink >> i & 1)
    state.acts[node.outputs[0]] = Act(found.value, shape)


def _piece(state: State, node: TfliteNode, act: Act, pieces: list[range]) -> Act:
    """The elements at these places of each axis; steps in height and width only."""
    rank = len(act.shape)
    places = [range(1)] * (4 - rank) + pieces
    if any(p.step < 1 or not p for p in places) or len(places[0]) != 1 or places[3].step > 1:
        raise Blocked(f"a slice of {list(act.shape)} with steps {[p.step for p in pieces]}", "step in height and width only")
    x = state.reshaped(act.value, (1,) * (4 - rank) + act.shape)
    begin, size = [p.start for p in places[1:]], [p[-1] - p.start + 1 for p in places[1:]]
    origin = state.origin(node)
    if (1, *size) != x.type.shape:
        op = Slice((begin[0], begin[1], begin[2]), (size[0], size[1], size[2]))
        x = state.emit(op, x, name="slice", origin=origin)
    if (steps := (places[1].step, places[2].step)) != (1, 1):
        x = state.emit(MaxPool(Window((1, 1), steps)), x, name="slice", origin=origin)
    return Act(x, x.type.shape[4 - rank :])


def transpose(state: State, node: TfliteNode) -> None:
    act = state.act(node.inputs[0])
    perm, lead = state.numbers(node.inputs[1]).reshape(-1).tolist(), 4 - len(act.shape)
    axes = (*range(lead), *(p % len(act.shape) + lead for p in perm))
    x = state.reshaped(act.value, (1,) * lead + act.shape)
    value = x if axes == (0, 1, 2, 3) else state.emit(Transpose(axes), x, name="transpose", origin=state.origin(node))
    state.acts[node.outputs[0]] = Act(value, tuple(act.shape[p] for p in perm))


def resize(state: State, node: TfliteNode) -> None:
    """Nearest neighbour by whole factors."""
    x, (high, wide) = state.map(state.act(node.inputs[0])), state.numbers(node.inputs[1]).reshape(-1).tolist()
    _, h, w, _ = x.type.shape
    if node.attributes.get("AlignCorners", 0) or high % h or wide % w:
        raise Blocked(f"resizing {h}x{w} to {high}x{wide}", "upsample by whole factors, corners not aligned")
    value = state.emit(Upsample((high // h, wide // w)), x, name="upsample", origin=state.origin(node))
    state.acts[node.outputs[0]] = Act(value, value.type.shape)
