"""What is known while a TFLite model is translated: constants, activations, quantizations; and how layers are emitted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mcugrad.importers.integer_layers import IntegerLayer, symmetric
from mcugrad.importers.limits import NO_LIMITS, Limits, grids, span
from mcugrad.importers.model import Classifier
from mcugrad.importers.onnx_state import MAX_WEIGHTS, NO_PADDING, Blocked, bounded_activation
from mcugrad.importers.source import AGAIN
from mcugrad.importers.tflite_read import ABSENT, Array, Source, Tensor, TfliteNode, contents
from mcugrad.ir import Builder, Op, Quant, TensorType, Value
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.place import Pad
from mcugrad.ops.reshape import Reshape

Padding = tuple[int, int, int, int]
Order = Callable[[Array], Array]  # a stored weight, or its scales, in OHWI order
Layer = Conv2d | DepthwiseConv2d
Settled = Layer | Add | Concat | Lut | Mul  # ops whose output has a grid of its own

MAX_NUMBERS = 16
TAIL = {"SOFTMAX", "LOG_SOFTMAX", "LOGISTIC", "QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "EXPAND_DIMS"}
INTEGER = {"INT8": 0, "UINT8": 128}  # what is subtracted from a stored activation to give int8


@dataclass(frozen=True, eq=False)
class Act:
    """A TFLite activation of `shape`, held in the same order by the NHWC value.  `padding` is still to be applied."""

    value: Value
    shape: tuple[int, ...]
    padding: Padding = NO_PADDING


class State:
    """The graph so far.  Handlers read with `act`, `constant`, `real`, `quant` and write with `emit`, `layer` and `acts`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.builder = Builder()
        self.acts: dict[int, Act] = {}
        self.folded: dict[int, Array] = {}
        self.shapes: set[int] = set()  # tensors that hold run-time shapes
        self.notes: list[str] = list(source.notes)
        self.weights = 0
        self.layers: Counter[str] = Counter()
        self.integer_layers: list[IntegerLayer] = []
        self.hybrid = False
        self.clamped: set[Value] = set()
        self.ends: list[str] = []  # operators of the model's end that were dropped
        self.float_head: Classifier | None = None  # a float last layer on integer features
        self.tail = _tail(source)

    def origin(self, node: TfliteNode) -> str:
        return f"{self.source.name}:{node.name}"

    def tensor(self, index: int) -> Tensor:
        return self.source.tensors[index]

    def is_constant(self, index: int) -> bool:
        return index in self.folded or self.tensor(index).data is not None

    def known(self, index: int) -> bool:
        return index in self.acts or index in self.shapes or self.is_constant(index)

    def constant(self, index: int) -> Array:
        """A constant's stored numbers; raises Blocked when it is computed at run time or is malformed."""
        if index in self.folded:
            return self.folded[index]
        tensor = self.tensor(index)
        if tensor.data is None:
            raise Blocked(
                f"{tensor.name} is computed at run time, a constant is needed", "export with fixed parameters and shapes"
            )
        try:
            return contents(tensor)
        except ValueError as error:
            raise Blocked(
                f"the stored tensor {tensor.name} cannot be read ({error})", f"convert to int8 or float, {AGAIN}"
            ) from None

    def numbers(self, index: int) -> Array:
        """A short constant that is a setting: axes, a shape, padding."""
        if math.prod(self.tensor(index).shape) > MAX_NUMBERS:
            raise Blocked(
                f"{self.tensor(index).name} has shape {list(self.tensor(index).shape)} where a few numbers are read", AGAIN
            )
        return self.constant(index)

    def spend(self, elements: int) -> None:
        """Charges weights against the limit of all layers together, before they are made."""
        self.weights += elements
        if self.weights > MAX_WEIGHTS:
            raise Blocked(f"the layers hold more than {MAX_WEIGHTS:,} weights", "use a network made for microcontrollers")

    def real(self, index: int) -> Array:
        """A constant in real numbers, float32; NaN and infinities are refused."""
        data, tensor = self.constant(index), self.tensor(index)
        if data.dtype.kind != "f":
            scale, zero = self.grid(index)
            self.hybrid = True
            data = (data.astype(np.float32) - zero) * scale
        if not np.isfinite(data).all():
            bad = int((~np.isfinite(data)).sum())
            raise Blocked(
                f"{tensor.name} holds {bad} NaN or infinite values", "the training diverged: use an earlier checkpoint"
            )
        return data.astype(np.float32)

    def grid(self, index: int) -> tuple[Array, Array]:
        """(scale float64, zero int64) of a quantized constant, shaped to broadcast against it."""
        t = self.tensor(index)
        count, zero = t.scale.size, t.zero if t.zero.size else np.zeros(t.scale.size, np.int64)
        per_channel = 0 <= t.axis < len(t.shape) and count == t.shape[t.axis]
        if not (count == 1 or per_channel) or zero.size not in {1, count}:
            raise Blocked(f"{t.name} has {count} scales and {zero.size} zero points for shape {list(t.shape)}", AGAIN)
        scale = t.scale.astype(np.float64)
        if not (np.isfinite(scale).all() and (scale > 0).all()) or (np.abs(zero) > 255).any():
            raise Blocked(f"{t.name} has a scale or zero point that makes no sense", AGAIN)
        shape = [-1 if per_channel and i == t.axis else 1 for i in range(len(t.shape))]
        return scale.reshape(shape), np.broadcast_to(zero, count).reshape(shape)

    def quant(self, index: int) -> Quant | None:
        """The quantization of an activation as int8; None for float.  Raises Blocked for every other kind."""
        t = self.tensor(index)
        if t.dtype == "FLOAT32":
            return None
        if t.dtype not in INTEGER:
            raise Blocked(f"{t.name} holds {t.dtype} activations", "convert the model with int8 or float activations")
        zero = (int(t.zero[0]) if t.zero.size else 0) - INTEGER[t.dtype]
        if t.scale.size != 1 or t.zero.size > 1 or not -128 <= zero <= 127 or not 0 < float(t.scale[0]) < math.inf:
            raise Blocked(f"{t.name} has {t.scale.size} scales and zero point {zero}", f"one of each is needed: {AGAIN}")
        return Quant((float(t.scale[0]),), zero)

    def act(self, index: int, padded: bool = False) -> Act:
        """An activation; padding that waits for a convolution is applied first unless `padded`."""
        if index not in self.acts:
            raise Blocked(
                f"{self.tensor(index).name} is a constant where an activation is expected", "remove the constant branch"
            )
        act = self.acts[index]
        if act.padding != NO_PADDING and not padded:
            top, left, bottom, right = act.padding
            op = Pad((top, left, 0), (bottom, right, 0))
            act = self.acts[index] = Act(self.emit(op, act.value, name="pad", origin=act.value.origin), act.shape)
        return act

    def map(self, act: Act) -> Value:
        """The NHWC value of a [1,H,W,C] activation."""
        if act.padding != NO_PADDING or act.value.type.shape == act.shape:
            return act.value
        if len(act.shape) != 4 or act.shape[0] != 1:
            raise Blocked(
                f"the input has shape {list(act.shape)}, not [1, H, W, C]", "only 2-d networks at batch 1 are supported"
            )
        return self.reshaped(act.value, act.shape)

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        return value if value.type.shape == shape else self.builder.one(Reshape(shape), value, origin=value.origin)

    def next_layer(self, kind: str = "conv") -> str:
        """The name of the next layer of a kind, in forward order."""
        self.layers[kind] += 1
        return f"{kind}{self.layers[kind] - 1}"

    def emit(self, op: Op, *inputs: Value, name: str, origin: str) -> Value:
        """A node of the graph; its output is bounded."""
        (type_,) = op.infer(*(v.type for v in inputs))
        bounded_activation(type_.shape)
        return self.builder.one(op, *inputs, name=name, origin=origin)

    def operand(self, index: int) -> Value:
        """An activation or a constant as [1,H,W,C], missing leading axes of length 1."""
        shape = self.tensor(index).shape if index not in self.acts else self.acts[index].shape
        if len(shape) > 4 or (len(shape) == 4 and shape[0] != 1):
            raise Blocked(f"an operand of shape {list(shape)}", "only [1, H, W, C] at batch 1 is supported")
        whole = (1,) * (4 - len(shape)) + shape
        if index in self.acts:
            return self.reshaped(self.act(index).value, whole)
        tensor, quant = self.tensor(index), self.quant(index)
        self.spend(math.prod(shape))
        origin = f"{self.source.name}:{tensor.name}"
        if quant is None:
            return self.builder.param("constant", TensorType(whole, "f32"), self.real(index).reshape(whole), origin)
        data = self.constant(index).astype(np.int64) - INTEGER[tensor.dtype]
        return self.builder.param("constant", TensorType(whole, "s8", quant), data.reshape(whole), origin)

    def require_alike(self, node: TfliteNode, *values: Value) -> None:
        """All float, or all integer: raises Blocked for a mixture."""
        kinds = {v.type.quant is None for v in values} | {self.quant(node.outputs[0]) is None}
        if len(kinds) > 1:
            raise Blocked("it mixes float and integer activations", "convert the model to full integer, or keep it float")

    def activated(self, node: TfliteNode, op: Settled, *inputs: Value, name: str, limits: Limits) -> Value:
        """The node at the file's output quantization, and its fused activation."""
        quant = self.quant(node.outputs[0])
        first = None if quant is None else grids(quant, limits)[0]
        value = self.emit(replace(op, out=first), *inputs, name=name, origin=self.origin(node))
        return self.limited(node, value, quant, limits)

    def limited(self, node: TfliteNode, value: Value, quant: Quant | None, limits: Limits) -> Value:
        """The value requantized to `quant` and clamped to `limits` (real numbers), as far as it is not already."""
        name, origin = f"{value.name}_clamp", self.origin(node)
        if quant is None:
            value = value if limits == NO_LIMITS else self.emit(Clamp(*limits), value, name=name, origin=origin)
        else:
            steps = grids(quant, limits)
            for step in steps[1:] if value.type.quant == steps[0] else steps:
                value = self.emit(Clamp(*span(step), step), value, name=name, origin=origin)
        if limits != NO_LIMITS:
            self.clamped.add(value)
        return value

    def layer(self, node: TfliteNode, op: Layer, x: Value, order: Order, limits: Limits) -> Value:
        """A layer with parameters conv{i}_weight and conv{i}_bias, and its fused activation."""
        self.require_alike(node, x)
        name, origin = self.next_layer(), self.origin(node)
        bias = node.inputs[2] if len(node.inputs) > 2 else ABSENT
        self.spend(math.prod(self.tensor(node.inputs[1]).shape))
        if x.type.quant is None:
            weight = order(self.real(node.inputs[1]))
            shift = np.zeros(len(weight)) if bias == ABSENT else self.real(bias)
            params = self.parameters(name, op, weight, shift, None, origin)
        else:
            fitted = symmetric(name, *self.integers(node.inputs[1], bias, order))
            self.integer_layers.append(fitted)
            scale = as_multiplied(x.type.quant, fitted.scale, self.quant(node.outputs[0]))
            params = self.parameters(name, op, fitted.weight, fitted.bias, scale, origin)
        return self.activated(node, op, x, *params, name=name, limits=limits)

    def integers(self, weight: int, bias: int, order: Order) -> tuple[Array, Array, Array]:
        """(weight OHWI without zero point, bias [O], scale [O]) of an integer layer as stored."""
        t, data = self.tensor(weight), self.constant(weight)
        if t.dtype not in INTEGER:
            raise Blocked(f"the weight {t.name} holds {t.dtype}", "convert the model with int8 weights")
        scale, zero = self.grid(weight)
        stored = order(data.astype(np.int32) - zero)
        scales = order(np.broadcast_to(scale, data.shape)).reshape(len(stored), -1)
        if (scales != scales[:, :1]).any():
            raise Blocked(f"{t.name} has scales along axis {t.axis}", f"they must be per output channel: {AGAIN}")
        shift = np.zeros(len(stored), np.int64) if bias == ABSENT else self.constant(bias).astype(np.int64)
        if shift.shape != (len(stored),) or (bias != ABSENT and self.tensor(bias).dtype != "INT32"):
            raise Blocked(f"the bias {self.tensor(bias).name} does not fit {len(stored)} channels as int32", AGAIN)
        return stored, shift, scales[:, 0]

    def parameters(
        self, name: str, op: Layer, weight: Array, bias: Array, scale: Array | None, origin: str
    ) -> tuple[Value, Value]:
        """The parameters of a layer; weight OHWI, scale [O] (None: float)."""
        data = weight.transpose(3, 1, 2, 0) if isinstance(op, DepthwiseConv2d) else weight
        kinds = ("f32", "f32") if scale is None else ("s8", "s32")
        quant = None if scale is None else Quant(tuple(map(float, scale)), 0, op.weight_axis)
        types = TensorType(data.shape, kinds[0], quant), TensorType(bias.shape, kinds[1])
        first = self.builder.param(f"{name}_weight", types[0], data, origin)
        return first, self.builder.param(f"{name}_bias", types[1], bias, origin)

    def unit_layer(
        self, kind: str, op: Layer, x: Value, channels: int, origin: str, *, skip: int = 0, scale: float = 1.0
    ) -> Value:
        """A layer without rounding of its own, all its taps `scale`: output channel c reads input channel c - skip alone."""
        name, inputs, (height, width) = self.next_layer(kind), x.type.shape[3], op.window.kernel
        each = 1 if isinstance(op, DepthwiseConv2d) else inputs
        self.spend(channels * height * width * each)
        taps = np.ones((channels, 1)) if each == 1 else np.eye(channels, inputs, -skip)
        weight = np.broadcast_to(taps[:, None, None], (channels, height, width, each))
        if x.type.quant is None:
            params = self.parameters(name, op, weight * scale, np.zeros(channels), None, origin)
        else:
            params = self.parameters(name, op, weight, np.zeros(channels), np.full(channels, scale), origin)
        return self.emit(op, x, *params, name=name, origin=origin)


def as_multiplied(x: Quant, weight: Array, y: Quant | None) -> Array:
    """Weight scales [O], moved by less than 2e-7 of theirs: s_x * s_w / s_y is the float32 that LiteRT multiplies by."""
    if y is None:
        return weight
    product = np.float32(x.scale[0]) * weight.astype(np.float32) / np.float32(y.scale[0])
    moved = product.astype(np.float64) * y.scale[0] / x.scale[0]
    return np.where(product > np.finfo(np.float32).tiny, moved, weight)


def _tail(source: Source) -> set[int]:
    """Tensors from which only operators of a model's end lead to the output."""
    readers: dict[int, list[TfliteNode]] = {}
    for node in source.nodes:
        for i in node.inputs:
            readers.setdefault(i, []).append(node)
    tail: set[int] = set()
    for node in reversed(source.nodes):
        for i in node.outputs:
            if all(n.op == "SHAPE" or (_ends(n, source) and tail.issuperset(n.outputs)) for n in readers.get(i, [])):
                tail.add(i)
    return tail


def _ends(node: TfliteNode, source: Source) -> bool:
    """May the operator stand at the end of an integer model: without weights, or a float classifier that adds up features?"""
    dense = node.op == "FULLY_CONNECTED" and len(node.inputs) == 3 and ABSENT not in node.inputs
    return node.op in TAIL or (dense and source.tensors[node.inputs[1]].dtype == "FLOAT32")
