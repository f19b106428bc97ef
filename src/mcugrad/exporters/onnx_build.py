"""The pieces of an ONNX model with quantize/dequantize pairs, collected in order."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mcugrad.exporters.learned import PLAIN, Units, parameter, quant_of, real_of
from mcugrad.ir import Array, Graph, Quant, Value

OPSET, IR_VERSION = 17, 8  # read by every onnxruntime since 1.12
MARK = "mcugrad.export"


class Pieces:
    """Nodes and initializers; int8 activations are [1,C,H,W], as ONNX has them, all others keep their shape.

    `stored` gives the int8 tensor of a value, `real` the float tensor behind its DequantizeLinear.  `functions`: what nodes
    of other domains do, in standard operators."""

    functions: tuple[Any, ...] = ()

    def __init__(self, graph: Graph, units: Units = PLAIN) -> None:
        self.graph, self.units = graph, units
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self.stored: dict[Value, str] = {}
        self._real: dict[Value, str] = {}

    def constant(self, name: str, data: Array) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(data, order="C"), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, where: str = "", **attributes: Any) -> str:
        """Adds a node with one output of that name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], f"{name}/{kind}", doc_string=where, **attributes))
        return name

    def grid(self, name: str, quant: Quant, zero: Any = np.int8) -> list[str]:
        """Names of the scale and zero point of a tensor; per channel where the quantization is."""
        scale = np.array(quant.scale, np.float32)
        shape = scale.shape if quant.axis is not None else ()
        zeros = np.full(shape, quant.zero, zero)
        return [self.constant(f"{name}_scale", scale.reshape(shape)), self.constant(f"{name}_zero_point", zeros)]

    def real(self, value: Value) -> str:
        """The float tensor of an int8 activation."""
        if value not in self._real:
            stored = self.stored[value]
            self._real[value] = self.node(
                "DequantizeLinear", [stored, *self.grid(f"{value.name}_read", quant_of(value))], f"{value.name}_real"
            )
        return self._real[value]

    def quantized(self, tensor: str, value: Value) -> None:
        """Declares `tensor` (float) to be the activation `value` before it is rounded to its int8 grid."""
        grid = self.grid(value.name, quant_of(value))
        self.stored[value] = self.node("QuantizeLinear", [tensor, *grid], value.name, value.origin)

    def weight(self, value: Value, order: tuple[int, ...], grid: tuple[float, ...]) -> str:
        """The float tensor of an int8 weight, axes in `order`, its output channels first; grid: scale per channel."""
        found = parameter(self.graph, value)
        name = self.constant(f"{value.name}_int8", found.data.transpose(order))
        scales = self.grid(value.name, Quant(grid, 0, 0))
        return self.node("DequantizeLinear", [name, *scales], value.name, value.origin, axis=0)

    def bias(self, value: Value, grid: tuple[float, ...]) -> str:
        """The float tensor of an int32 bias."""
        name = self.constant(f"{value.name}_int32", parameter(self.graph, value).data)
        scales = self.grid(value.name, Quant(grid, 0, 0), np.int32)
        return self.node("DequantizeLinear", [name, *scales], value.name, value.origin, axis=0)

    def contents(self, value: Value) -> Array:
        """Real numbers of a parameter."""
        found = parameter(self.graph, value)
        return found.data.astype(np.float64) if value.type.quant is None else real_of(found, value.type.quant)

    def model(self, inputs: list[Any], outputs: list[Any], metadata: dict[str, str]) -> Any:
        """The checked model."""
        graph = helper.make_graph(self.nodes, "mcugrad", inputs, outputs, self.initializers)
        opsets = [helper.make_opsetid("", OPSET), *(helper.make_opsetid(f.domain, 1) for f in self.functions)]
        known = {"opset_imports": opsets, "functions": list(self.functions)}
        model = helper.make_model(graph, ir_version=IR_VERSION, producer_name="mcugrad", **known)
        helper.set_model_props(model, {MARK: "1", **metadata})
        onnx.checker.check_model(model, full_check=True)
        return model


def image(value: Value) -> list[int]:
    """The ONNX shape of an activation: [1,C,H,W] for a map."""
    shape = value.type.shape
    return [shape[0], shape[3], shape[1], shape[2]] if len(shape) == 4 else list(shape)


def float_info(name: str, shape: list[int]) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
