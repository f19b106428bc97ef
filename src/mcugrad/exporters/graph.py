"""The training graph itself as ONNX with operators of a domain of its own, so that a viewer such as Netron opens it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from mcugrad.exporters.onnx_build import IR_VERSION, MARK, OPSET
from mcugrad.graphfile import encode
from mcugrad.ir import Graph, Node, Op, Value

DOMAIN = "mcugrad"
DOMAIN_VERSION = 1
# Bit masks and nibbles are shown unpacked; their types stand in the text of each value.
ELEMENTS = {
    "u1": TensorProto.BOOL,
    "s4": TensorProto.INT8,
    "s8": TensorProto.INT8,
    "s16": TensorProto.INT16,
    "s32": TensorProto.INT32,
    "f32": TensorProto.FLOAT,
}


def graph_model(graph: Graph, name: str) -> bytes:
    """The serialized model: one node of domain `mcugrad` per node, attributes as their op has them.

    Parameters are initializers; the next value of each that learns is an output, named in the metadata
    `mcugrad.updates`.  Shapes are those of the int8 graph (NHWC), types of values are in their text."""
    computed = [v for n in graph.nodes for v in n.outputs]
    outputs = list(dict.fromkeys((*graph.outputs, *(new for _, new in graph.updates))))
    written = helper.make_graph(
        [_node(n) for n in graph.nodes],
        name,
        [_info(v) for v in graph.inputs],
        [_info(v) for v in outputs],
        [numpy_helper.from_array(_shown(p.value, p.data), p.value.name) for p in graph.params],
        value_info=[_info(v) for v in (*(p.value for p in graph.params), *computed) if v not in outputs],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(written, opset_imports=opsets, ir_version=IR_VERSION, producer_name="mcugrad")
    updates = {old.name: new.name for old, new in graph.updates}
    helper.set_model_props(model, {MARK: "1", "mcugrad.updates": json.dumps(updates)})
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _info(value: Value) -> Any:
    shape = list(value.type.shape)
    return helper.make_tensor_value_info(value.name, ELEMENTS[value.type.dtype], shape, doc_string=str(value.type))


def _shown(value: Value, data: Any) -> Any:
    return data.astype(bool) if value.type.dtype == "u1" else data


def _node(node: Node) -> Any:
    first = (*node.outputs, *node.inputs)[0]
    return helper.make_node(
        type(node.op).__name__,
        [v.name for v in node.inputs],
        [v.name for v in node.outputs],
        first.name if node.outputs else f"{node.op.name} {first.name}",
        doc_string=first.origin,
        domain=DOMAIN,
        **attributes(node.op),
    )


def attributes(op: Op) -> Mapping[str, Any]:
    """Fields of the op as numbers, lists of numbers or text; fields of a field are joined by underscores."""
    found: dict[str, Any] = {"phase": op.phase}
    _collect(op, "", found)
    return found


def _collect(value: Any, prefix: str, found: dict[str, Any]) -> None:
    for field in fields(value):
        name, content = f"{prefix}{field.name}", getattr(value, field.name)
        if is_dataclass(content) and not isinstance(content, type):
            found[name] = type(content).__name__
            _collect(content, f"{name}_", found)
        elif isinstance(content, tuple) and content and not all(isinstance(v, int | float) for v in content):
            found[name] = json.dumps(encode(content))
        elif content is not None and content != ():
            found[name] = int(content) if isinstance(content, bool) else content
