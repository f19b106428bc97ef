"""What is known while an ONNX model is translated: constants, activations with their layout, blockers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from mcugrad.importers.source import Array, OnnxNode, Source, array
from mcugrad.ir import Builder, Op, Quant, TensorType, Value
from mcugrad.ops.batch_norm import BatchNorm
from mcugrad.ops.place import Pad
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.transpose import Transpose

MAX_ACTIVATION = 1 << 22  # elements; as int8 that is 4 MB, more than any target has
MAX_WEIGHTS = 1 << 25  # elements of all layers together
MAX_FOLDED = 1 << 25  # elements of all folded constants together
MAX_INDEX = 1 << 25  # elements of all index maps together
NO_PADDING = (0, 0, 0, 0)
TAIL = {"Softmax", "LogSoftmax", "Sigmoid", "QuantizeLinear", "DequantizeLinear", "Reshape", "Flatten", "Squeeze", "Identity",
        "QLinearSoftmax", "QLinearSigmoid"}  # fmt: skip


class Blocked(Exception):
    """A node that cannot be translated: why, and what the user can do."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.remedy = reason, remedy


@dataclass(frozen=True, eq=False)
class Act:
    """An ONNX activation of `shape`, held by the NHWC value `value`.

    `index` has that shape and says which element of the value (flat, NHWC) each ONNX element is; None means the plain
    [1,C,H,W] map.  So reshapes and transposes cost nothing.  `padding` (top, left, bottom, right) is still to be applied.
    """

    value: Value
    shape: tuple[int, ...]
    index: Array | None = None
    padding: tuple[int, int, int, int] = NO_PADDING


@dataclass(frozen=True, eq=False)
class Stored:
    """A weight in real numbers and, where it was stored as integers, the step of each of its elements."""

    real: Array
    step: Array | None = None

    def map(self, function: Callable[[Array], Array]) -> Stored:
        """Both, put into another order or scaled."""
        return Stored(function(self.real), None if self.step is None else function(self.step))


def plain_map(value: Value, rank: int = 4) -> Act:
    """The activation [1,C,H,W] held by an NHWC value; rank 3: the signal [1,C,W] held by a map of height 1."""
    _, h, w, c = value.type.shape
    return Act(value, (1, c, h, w) if rank == 4 else (1, c, w))


def vector(value: Value, shape: tuple[int, ...]) -> Act:
    """An activation whose elements lie in the value in the same order."""
    return Act(value, shape, np.arange(value.type.elements, dtype=np.int32).reshape(shape))


class State:
    """The graph so far.  Handlers read with `act`, `weight`, `constant` and write with `emit` and `acts`."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.builder = Builder()
        self.acts: dict[str, Act] = {}
        self.constants: dict[str, Array] = {}
        self.steps: dict[str, Array] = {}  # of constants that were dequantized, broadcast to their shape
        self.quants: dict[Value, Quant] = {}  # grids that the model gives its activations
        self.weight_steps: dict[Value, Array] = {}  # [O] of weights that were stored as integers
        self.dropped: set[str] = set()  # results of the operators at the end that are left out
        self.ends: list[str] = []  # operators of the model's end that were left out
        self.grids: dict[str, Quant] = {}  # of constants that were dequantized with one scale
        self.tail = _tail(source)
        self.notes: list[str] = list(source.notes)
        self.layers = 0
        self.weights = 0
        self.indexed = 0
        self.folded = 0
        self.readers: dict[str, list[OnnxNode]] = {}
        for node in source.nodes:
            for name in dict.fromkeys(node.inputs):
                self.readers.setdefault(name, []).append(node)

    def origin(self, node: OnnxNode) -> str:
        return f"{self.source.name}:{node.name}"

    def known(self, name: str) -> bool:
        return name in self.acts or self.is_constant(name)

    def is_constant(self, name: str) -> bool:
        return name in self.constants or name in self.source.tensors

    def constant(self, name: str) -> Array:
        """A constant's contents; raises Blocked when it is computed at run time or is malformed."""
        if name in self.constants:
            return self.constants[name]
        if name not in self.source.tensors:
            raise Blocked(f"{name} is computed at run time, a constant is needed", "export with fixed parameters and shapes")
        try:
            return array(self.source.tensors[name])
        except (ValueError, TypeError, KeyError) as error:
            raise Blocked(f"the stored tensor {name} is malformed ({error})", "export the model again") from None

    def store(self, name: str, data: Array) -> None:
        """A folded constant; the total is bounded."""
        self.folded += data.size
        if self.folded > MAX_FOLDED:
            raise Blocked("too many computed constants", "fold constants at export")
        self.constants[name] = data

    def weight(self, name: str) -> Array:
        """A float constant; NaN and infinities are refused."""
        data = self.constant(name)
        if data.dtype.kind != "f":
            raise Blocked(f"{name} holds {data.dtype}, not float", "export the float model, not a quantized one")
        if not np.isfinite(data).all():
            bad = int((~np.isfinite(data)).sum())
            raise Blocked(f"{name} holds {bad} NaN or infinite values", "the training diverged: use an earlier checkpoint")
        return data

    def stored(self, name: str) -> Stored:
        """A weight with its steps; errors as for `weight`."""
        return Stored(self.weight(name), self.steps.get(name))

    def act(self, name: str, padded: bool = False) -> Act:
        """An activation; padding that waits for a convolution is applied unless `padded`."""
        if name not in self.acts:
            raise Blocked(f"{name} is a constant where an activation is expected", "remove the constant branch from the model")
        act = self.acts[name]
        if act.padding != NO_PADDING and not padded:
            top, left, bottom, right = act.padding
            op = Pad((top, left, 0), (bottom, right, 0))
            value = self.builder.one(op, act.value, name="pad", origin=act.value.origin)
            act = self.acts[name] = Act(value, act.shape)
        return act

    def map(self, act: Act) -> Value:
        """The NHWC value of a [1,C,H,W] activation; raises Blocked when the elements lie in another order."""
        if act.index is None:
            return act.value
        if len(act.shape) not in {3, 4} or act.shape[0] != 1:
            raise Blocked(
                f"the input has shape {list(act.shape)}, not [1, C, H, W]", "only 1-d and 2-d networks at batch 1 are supported"
            )
        c, h, w = act.shape[1], 1 if len(act.shape) == 3 else act.shape[2], act.shape[-1]
        return self.laid(act.value, self.spend(act.index.reshape(c, h, w)).transpose(1, 2, 0))

    def laid(self, value: Value, order: Array) -> Value:
        """The value as [1,H,W,C], its elements in the given order [H,W,C]; Blocked when that is no transposition of it."""
        flat, shape = order.reshape(-1), order.shape
        plain = np.arange(flat.size)
        if np.array_equal(flat, plain):
            return self.reshaped(value, (1, *shape))
        if flat.size == value.type.elements:
            for perm in permutations(range(3)):
                before = tuple(shape[perm.index(i)] for i in range(3))
                if np.array_equal(plain.reshape(before).transpose(perm).reshape(-1), flat):
                    axes = (0, *(p + 1 for p in perm))
                    return self.builder.one(Transpose(axes), self.reshaped(value, (1, *before)), origin=value.origin)
        raise Blocked("a reshape or transpose before it reorders the elements", "remove it, or keep channels together")

    def reshaped(self, value: Value, shape: tuple[int, ...]) -> Value:
        if value.type.shape == shape:
            return value
        return self.builder.one(Reshape(shape), value, origin=value.origin)

    def flat(self, value: Value) -> Value:
        """The value as [1,1,1,F], in its own order."""
        return self.reshaped(value, (1, 1, 1, value.type.elements))

    def end(self, node: OnnxNode, act: Act) -> None:
        """Drops a softmax or sigmoid at the end of the model."""
        self.acts[node.outputs[0]] = act
        self.dropped.add(node.outputs[0])
        self.ends.append(node.op)
        self.notes.append(f"the {node.op} at the end ({node.name}) is dropped: the head works on logits")

    def index(self, act: Act) -> Array:
        """The index map of an activation, made when it is first needed."""
        if act.index is not None:
            return act.index
        _, h, w, c = act.value.type.shape
        return self.spend(np.arange(h * w * c, dtype=np.int32).reshape(1, h, w, c).transpose(0, 3, 1, 2).reshape(act.shape))

    def spend(self, index: Array) -> Array:
        """The same index map, its size charged against a limit, so that a hostile model cannot eat memory."""
        self.indexed += index.size
        if self.indexed > MAX_INDEX:
            raise Blocked("too many large reshapes and transposes", "simplify the model before export")
        return index

    def next_layer(self) -> str:
        """The name of the next convolution, depthwise or fully connected layer, in forward order."""
        self.layers += 1
        return f"conv{self.layers - 1}"

    def parameter(self, name: str, data: Array, origin: str) -> Value:
        """A float32 parameter; the total is bounded."""
        self.weights += data.size
        if self.weights > MAX_WEIGHTS:
            raise Blocked(f"the layers hold more than {MAX_WEIGHTS:,} weights", "use a network made for microcontrollers")
        return self.builder.param(name, TensorType(data.shape, "f32"), data.astype(np.float32), origin)

    def weight_of(self, name: str, data: Stored, axis: int, origin: str) -> Value:
        """A layer's weight with its output channels along `axis`; Blocked when a channel has several steps."""
        value = self.parameter(name, data.real, origin)
        if data.step is not None:
            rows = np.moveaxis(data.step, axis, 0).reshape(data.step.shape[axis], -1)
            if (rows != rows[:, :1]).any():
                raise Blocked("the weight's scales differ within an output channel", "quantize weights per output channel")
            self.weight_steps[value] = np.abs(rows[:, 0])
        return value

    def emit(self, op: Op, *inputs: Value, name: str, node: OnnxNode) -> Value:
        """A node of the float graph; its output is bounded."""
        (type_,) = op.infer(*(v.type for v in inputs))
        bounded_activation(type_.shape)
        return self.builder.one(op, *inputs, name=name, origin=self.origin(node))

    def affine(self, act: Act, scale: Array, shift: Array, node: OnnxNode) -> Act:
        """y = x * scale + shift with constants that broadcast against the activation and are equal per channel."""
        channels, stem = act.value.type.shape[-1], act.value.name.removesuffix("_norm")
        params = []
        for key, data in (("scale", scale), ("shift", shift)):
            per = self.per_channel(act, data)
            params.append(self.parameter(f"{stem}_{key}", per, self.origin(node)))
            if per.shape != (channels,):
                raise Blocked(f"{per.shape} constants for {channels} channels", "export the model again")
        value = self.emit(BatchNorm(), act.value, *params, name=f"{stem}_norm", node=node)
        return Act(value, act.shape, act.index)

    def per_channel(self, act: Act, data: Array) -> Array:
        """The value of a broadcast constant for each channel of the NHWC value: [C]."""
        channels = act.value.type.shape[-1]
        if data.size == 1:
            return np.full(channels, data.reshape(-1)[0])
        if np.broadcast_shapes(act.shape, data.shape) != act.shape:
            raise Blocked(
                f"a constant of shape {list(data.shape)} would enlarge {list(act.shape)}", "export at batch 1, broadcast free"
            )
        flat = np.empty(act.value.type.elements)
        flat[self.index(act).reshape(-1)] = np.broadcast_to(data, act.shape).reshape(-1)
        rows = flat.reshape(-1, channels)
        if (rows != rows[0]).any():
            raise Blocked("the constant differs between positions of one channel", "use one constant per channel")
        first: Array = rows[0]
        return first


def bounded_activation(shape: Iterable[int]) -> None:
    """Raises Blocked for an activation that no microcontroller could hold."""
    shape = list(shape)
    if math.prod(shape) > MAX_ACTIVATION:
        raise Blocked(
            f"an activation of shape {shape} is too large", f"at most {MAX_ACTIVATION:,} elements: use a smaller input"
        )


def _tail(source: Source) -> set[str]:
    """Values from which only operators of a model's end lead to the output."""
    readers: dict[str, list[OnnxNode]] = {}
    for node in source.nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    tail: set[str] = set()
    for node in reversed(source.nodes):
        tail.update(o for o in node.outputs if all(n.op in TAIL and tail.issuperset(n.outputs) for n in readers.get(o, [])))
    return tail
