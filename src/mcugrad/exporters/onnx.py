"""A learned network as ONNX: with quantize/dequantize pairs for tools that know them, or in the device's own integers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from mcugrad.errors import McugradError
from mcugrad.exporters.learned import Learned
from mcugrad.exporters.onnx_build import Pieces, float_info, image
from mcugrad.exporters.onnx_exact import EXACT, ExactPieces
from mcugrad.exporters.onnx_ops import HANDLERS, OUTPUT
from mcugrad.importers.onnx import PREPROCESS_KEY
from mcugrad.ir import Node, Op
from mcugrad.ops.head import Head
from mcugrad.ops.losses import Logits
from mcugrad.preprocess import Input, Preprocess

CLASSES_KEY = "mcugrad.classes"


def onnx_model(learned: Learned) -> bytes:
    """The serialized model: float [1,C,H,W] in, float logits [1,K] out, int8 with quantize/dequantize pairs in between.

    Raises McugradError for an operation that has no counterpart."""
    return _written(learned, Pieces(learned.graph, learned.units), HANDLERS)


def exact_model(learned: Learned) -> bytes:
    """The same function in the device's own integers, which onnxruntime computes bit for bit.

    Raises McugradError for an operation that has no counterpart."""
    return _written(learned, ExactPieces(learned.graph, learned.units), EXACT)


def _written(learned: Learned, pieces: Pieces, handlers: Mapping[type[Op], Callable[[Any, Node], None]]) -> bytes:
    graph, name = learned.graph, input_name(learned)
    (x,) = graph.inputs
    pieces.quantized(name, x)
    for node in graph.nodes:
        handler = handlers.get(type(node.op))
        if handler is None:
            raise McugradError(f"{node.where}: {node.op.name} cannot be written as ONNX yet: use --to graph to look at it")
        handler(pieces, node)
    (last,) = graph.outputs
    output = OUTPUT if last not in pieces.stored else pieces.real(last)
    shape = [1, last.type.elements] if isinstance(graph.nodes[-1].op, Head | Logits) else image(last)
    metadata = {PREPROCESS_KEY: json.dumps(float_preprocess(learned).to_dict())}
    if learned.classes:
        metadata[CLASSES_KEY] = json.dumps(list(learned.classes))
    model = pieces.model([float_info(name, image(x))], [float_info(output, shape)], metadata)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def input_name(learned: Learned) -> str:
    """The name of the input in the user's model, as far as it is known and free."""
    (x,) = learned.graph.inputs
    own = x.origin.removeprefix(f"{learned.file}:")
    taken = {v.name for n in learned.graph.nodes for v in n.outputs} | {x.name}
    return own if own and own not in taken else f"{x.name}_float"


def float_preprocess(learned: Learned) -> Preprocess:
    """How raw samples become the float input: for int8 models, what their int8 input stands for in real numbers."""
    own, quant = learned.preprocess, learned.input_quant
    if own.kind is Input.FLOAT:
        return own
    offset = 128 if learned.raw == "uint8" else 0
    return replace(own, kind=Input.FLOAT, scale=1.0, mean=(float(offset + quant.zero),), std=(1 / quant.scale[0],))
