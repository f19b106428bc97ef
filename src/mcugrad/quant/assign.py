"""Post-training quantization: a float graph and the ranges of its activations become an int8 graph."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.ir import Array, Builder, Graph, Node, Op, Quant, TensorType, Value
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.softmax import PROBABILITY, Softmax
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.quant.observe import LEVELS, Ranges
from mcugrad.quant.repair import DEAD_SCALE, live_scales

FLAT = 1e-6  # a narrower activation is constant zero
DEAD_RATIO = 1e-4  # a channel is dead only if it is also this much below the layer's largest scale
TINY = float(np.finfo(np.float64).tiny)  # zeros are always dead
ADD_RATIO = 1 / 32  # an addition's output scale is at least this much of each input's


def activation_quant(low: float, high: float) -> Quant:
    """Asymmetric int8 quantization of [low, high], widened to hold 0; an unsigned range gets zero point -128."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low if high - low > FLAT else 1.0) / LEVELS
    return Quant((scale,), int(np.clip(round(-128 - low / scale), -128, 127)))


def absorbed_clamps(graph: Graph) -> dict[Node, Node]:
    """The clamp that a node can apply through its output range: its only reader, and no output."""
    readers = graph.consumers()
    found = {}
    for node in graph.nodes:
        (reader, *others) = readers.get(node.outputs[0], [node])
        last = others or node.outputs[0] in graph.outputs
        if isinstance(node.op, (Conv2d, DepthwiseConv2d, Add, Mul, Concat)) and isinstance(reader.op, Clamp) and not last:
            found[node] = reader
    return found


def assign(graph: Graph, ranges: Ranges) -> Graph:
    """The quantized graph: same value and parameter names, s8 activations and weights, s32 biases.

    Weights are symmetric per output channel, activations asymmetric per tensor, biases integers at s_x * s_w[o] within
    +-2**30.  A clamp that is the only reader of a layer, sum, product or concatenation becomes that one's output range.  Raises
    McugradError when a range is missing, and GraphError where the integer arithmetic could overflow.
    """
    return Assignment(graph, ranges).result()


class Assignment:
    """The walk that quantizes; where numbers come from is decided by `_quant` (activations) and `_numbers` (layers)."""

    def __init__(self, graph: Graph, ranges: Ranges) -> None:
        self.graph, self.ranges, self.build = graph, ranges, Builder()
        self.values: dict[Value, Value] = {}
        self.clamps = self._absorbed()
        self.data = {p.value: p.data for p in graph.params}
        for value in graph.inputs:
            quant = self._quant(value)
            self.values[value] = self.build.input(value.name, TensorType(value.type.shape, "s8", quant), value.origin)
        for node in graph.nodes:
            if node.outputs[0] not in self.values:
                self._node(node)

    def result(self) -> Graph:
        return self.build.graph([self.values[v] for v in self.graph.outputs], meta=self.graph.meta)

    def _absorbed(self) -> dict[Node, Node]:
        return absorbed_clamps(self.graph)

    def _quant(self, value: Value) -> Quant:
        return activation_quant(*self._range(value))

    def _range(self, value: Value) -> tuple[float, float]:
        found = self.ranges.get(value.name)
        if found is None or not np.isfinite([found.low, found.high]).all():
            raise McugradError(f"no finite calibrated range for {value.name} ({value.origin}): calibrate this same model")
        return found.low, found.high

    def _node(self, node: Node) -> None:
        clamp = self.clamps.get(node)
        last = clamp.outputs[0] if clamp else node.outputs[0]
        value = self._emit(node, last)
        self.values.update({node.outputs[0]: value, last: value})

    def _emit(self, node: Node, last: Value) -> Value:
        op = node.op
        if isinstance(op, (Conv2d, DepthwiseConv2d)):
            return self._layer(node, op, self.values[node.inputs[0]], self._quant(last))
        inputs = [self._operand(v) for v in node.inputs]
        if isinstance(op, Add):
            op = replace(op, out=self._wide_enough(last, inputs))
        elif isinstance(op, (Clamp, Concat, Mul)):
            op = replace(op, out=self._quant(last))
        elif isinstance(op, Lut):
            op = replace(op, out=self._function_quant(op.function.quant, last))
        elif isinstance(op, Softmax):
            op = replace(op, out=PROBABILITY)
        return self._add(op, *inputs, node=node)

    def _function_quant(self, fixed: Quant | None, value: Value) -> Quant:
        """Of a function's result: the usual one of its range, where there is one."""
        return fixed or self._quant(value)

    def _constant_quant(self, value: Value, data: Array) -> Quant:
        return activation_quant(float(data.min()), float(data.max()))

    def _operand(self, value: Value) -> Value:
        """An activation, or a constant at the scale of its own range."""
        if value not in self.values:
            data = self.data[value].astype(np.float64)
            quant = self._constant_quant(value, data)
            q = np.clip(np.rint(data / quant.scale[0]) + quant.zero, -128, 127)
            self.values[value] = self.build.param(value.name, TensorType(data.shape, "s8", quant), q, value.origin)
        return self.values[value]

    def _add(self, op: Op, *inputs: Value, node: Node) -> Value:
        out = node.outputs[0]
        return self.build.one(op, *inputs, name=out.name, origin=out.origin)

    def _wide_enough(self, value: Value, sides: list[Value]) -> Quant:
        """The range of a sum, widened where its terms nearly cancel, so that their factors fit 32-bit arithmetic."""
        quant = self._quant(value)
        least = max(s.type.quant.scale[0] for s in sides if s.type.quant) * ADD_RATIO
        return quant if quant.scale[0] >= least else Quant((least,), quant.zero)

    def _layer(self, node: Node, op: Conv2d | DepthwiseConv2d, x: Value, out: Quant) -> Value:
        assert x.type.quant is not None
        scale, q, b = self._numbers(node, op, (x.type.quant.scale[0], out.scale[0]))
        names = [v.name for v in node.inputs[1:3]]
        types = TensorType(q.shape, "s8", Quant(tuple(map(float, scale)), 0, op.weight_axis)), TensorType(b.shape, "s32")
        params = [self.build.param(*p, node.outputs[0].origin) for p in zip(names, types, (q, b), strict=True)]
        return self._add(replace(op, out=out), x, *params, node=node)

    def _numbers(self, node: Node, op: Conv2d | DepthwiseConv2d, scales: tuple[float, float]) -> tuple[Array, Array, Array]:
        """(weight scale [O], weight int8, bias int32 [O]) of a layer; scales: of its input and output."""
        weight, bias = (self.data[v] for v in node.inputs[1:3])
        return quantize_layer(weight, bias, scales, op.weight_axis)


def quantize_layer(weight: Array, bias: Array, scales: tuple[float, float], axis: int) -> tuple[Array, Array, Array]:
    """(scale float64 [O], weight int8, bias int32 [O]) of a float layer whose output channels lie along `axis`.

    scales: of its input and output.  scale = max|w| / 127.  Dead channels get the median scale, at which weights vanish.  A
    channel whose bias would leave +-2**30, or whose multiplier is below 2**-30, gets the scale at which it just fits: its
    weights do not matter beside the bias or the output's step.
    """
    x_scale, y_scale = scales
    largest = np.abs(weight.astype(np.float64)).max(axis=tuple(i for i in range(weight.ndim) if i != axis))
    scale = largest / 127
    scale, _ = live_scales(scale, min(DEAD_SCALE, max(DEAD_RATIO * float(scale.max()), TINY)))
    scale = np.maximum(scale, np.abs(bias.astype(np.float64)) / (x_scale * BIAS_LIMIT))
    scale = np.maximum(scale, y_scale / x_scale * 2.0**-30)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    q = np.clip(np.rint(weight / scale.reshape(shape)), -127, 127).astype(np.int8)
    b = np.clip(np.rint(bias / (x_scale * scale)), -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)
    return scale, q, b
