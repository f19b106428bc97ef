"""The quantized graph that a quantized ONNX model describes: its own scales and zero points, nothing estimated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mcugrad.importers.integer_layers import IntegerLayer, symmetric
from mcugrad.importers.limits import NO_LIMITS, Limits, grids, span
from mcugrad.ir import Array, Graph, GraphError, Node, Quant, TensorType, Value
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool, Ties
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample
from mcugrad.quant.assign import Assignment

Layer = Conv2d | DepthwiseConv2d
KEEPS = (MaxPool, Pad, Reshape, Slice, Transpose, Upsample)  # the same numbers before and after


class Unassigned(Exception):
    """A value that cannot be computed on the grids of the model, and why."""

    def __init__(self, value: Value, reason: str) -> None:
        super().__init__(reason)
        self.value, self.reason = value, reason


class Given(Assignment):
    """Assignment with the model's own numbers.

    quants: grid of each float value that has one.  steps: scale [O] of each float weight that came from integers; a
    weight without one is quantized here.  `layers` tells what re-expressing the weights changed."""

    def __init__(self, graph: Graph, quants: Mapping[Value, Quant], steps: Mapping[Value, Array]) -> None:
        self.quants, self.steps = spread(graph, quants), steps
        self.layers: list[IntegerLayer] = []
        self.made = graph.producers()
        self.estimated = 0
        super().__init__(graph, {})

    def _absorbed(self) -> dict[Node, Node]:
        """Clamps that follow at once; not those after a result that the model rounds to a grid of its own."""
        return {node: clamp for node, clamp in super()._absorbed().items() if node.outputs[0] not in self.quants}

    def _quant(self, value: Value) -> Quant:
        """The grid in which a value is first computed: saturation is its clamp."""
        return grids(self._given(value), self._limits(value))[0]

    def _function_quant(self, fixed: Quant | None, value: Value) -> Quant:
        """The model's own grid, also where the field has a usual one."""
        return self._quant(value)

    def _constant_quant(self, value: Value, data: Array) -> Quant:
        return self.quants.get(value) or super()._constant_quant(value, data)

    def _given(self, value: Value) -> Quant:
        quant = self.quants.get(value)
        if quant is None:
            raise Unassigned(value, "its result is not quantized: no QuantizeLinear follows")
        return quant

    def _limits(self, value: Value) -> Limits:
        node = self.made.get(value)
        return (node.op.low, node.op.high) if node is not None and isinstance(node.op, Clamp) else NO_LIMITS

    def _node(self, node: Node) -> None:
        """The node, and what is left to do for the grid and the clamp of its result."""
        clamp = self.clamps.get(node)
        last = clamp.outputs[0] if clamp else node.outputs[0]
        if isinstance(node.op, Clamp) and last not in self.quants:
            x = self.values[node.inputs[0]].type.quant
            assert x is not None
            self.quants[last] = x
        try:
            if isinstance(node.op, AvgPool):
                self._averaged(node, node.op)
            else:
                super()._node(node)
        except GraphError as error:
            raise Unassigned(last, str(error)) from None
        value = self.values[last]
        steps = grids(self.quants.get(last) or value.type.quant or Quant((1.0,)), self._limits(last))
        for step in steps if value.type.quant != steps[0] else steps[1:]:
            op = Clamp(*span(step), step)
            value = self.build.one(op, value, name=f"{last.name}_grid", origin=last.origin)
        self.values.update({node.outputs[0]: value, last: value})

    def _averaged(self, node: Node, op: AvgPool) -> None:
        """An average: rounded as onnxruntime does, or where its result has a grid of its own, a layer of equal weights."""
        x, y = self.values[node.inputs[0]], node.outputs[0]
        out = self.quants.get(y)
        if out is None or out == x.type.quant or any(op.window.padding):
            ties = Ties.ODD if x.type.quant and x.type.quant.zero % 2 else Ties.EVEN
            self.values[y] = self.build.one(replace(op, ties=ties), x, name=y.name, origin=y.origin)
            return
        channels, kernel = x.type.shape[3], op.window.kernel
        scale = Quant((1 / math.prod(kernel),) * channels, 0, 3)
        shape = (1, *kernel, channels)
        weight = self.build.param(f"{y.name}_weight", TensorType(shape, "s8", scale), np.ones(shape, np.int8), y.origin)
        bias = self.build.param(f"{y.name}_bias", TensorType((channels,), "s32"), np.zeros(channels, np.int32), y.origin)
        layer = DepthwiseConv2d(op.window, out)
        self.values[y] = self.build.one(layer, x, weight, bias, name=y.name, origin=y.origin)

    def _numbers(self, node: Node, op: Layer, scales: tuple[float, float]) -> tuple[Array, Array, Array]:
        step = self.steps.get(node.inputs[1])
        if step is None:
            self.estimated += 1
            return super()._numbers(node, op, scales)
        weight, bias = (self.data[v].astype(np.float64) for v in node.inputs[1:3])
        rows = np.moveaxis(weight, op.weight_axis, 0)
        stored = np.rint(rows / step.reshape(-1, *[1] * (weight.ndim - 1))).astype(np.int64)
        shift = np.rint(bias / (step * scales[0])).astype(np.int64)
        fitted = symmetric(node.outputs[0].name, stored, shift, step)
        self.layers.append(fitted)
        return fitted.scale, np.moveaxis(fitted.weight, 0, op.weight_axis), fitted.bias.astype(np.int32)


def spread(graph: Graph, quants: Mapping[Value, Quant]) -> dict[Value, Quant]:
    """The grids of the graph, also before operators that keep numbers, where those are the only readers."""
    found, readers = dict(quants), graph.consumers()
    for node in reversed(graph.nodes):
        x, y = node.inputs[0], node.outputs[0]
        if isinstance(node.op, KEEPS) and y in found and x not in found and readers[x] == [node]:
            found[x] = found[y]
    return found
