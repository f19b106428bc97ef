"""What the importers share: a model as plain nodes and tensors, and how large a foreign file may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError

Array = NDArray[Any]

MAX_FILE = 128 << 20  # bytes; a microcontroller's network is a hundred times smaller
MAX_NODES = 10_000
MAX_NAME = 120  # characters of a foreign name in a message
AGAIN = "export the model again"


@dataclass(frozen=True)
class OnnxNode:
    """One node: `name` is the exporter's, or its first output; unused optional inputs are ''."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]


def optional(node: OnnxNode, i: int) -> str:
    """The name of an input that may be left out; '' then."""
    return node.inputs[i] if i < len(node.inputs) else ""


@dataclass(frozen=True)
class Source:
    """A readable, well-formed model; `shapes` are those that ONNX's own inference could tell, at batch 1."""

    name: str
    input: str
    input_shape: tuple[int, ...]
    input_type: str  # as numpy names it
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    tensors: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...]
    metadata: Mapping[str, str]


def printable(name: str) -> str:
    """A foreign name, safe and short enough for a message."""
    text = "".join(c if c.isprintable() else "?" for c in name[:MAX_NAME])
    return text if len(name) <= MAX_NAME else f"{text}..."


def check_order(source: Source) -> None:
    """Every value read is written before, and once; raises McugradError."""
    known = {source.input, *source.tensors, ""}
    for node in source.nodes:
        missing = next((v for v in node.inputs if v not in known), None)
        if missing is not None:
            raise McugradError(f"{source.name}: {node.name} reads {printable(missing)!r} before anything computes it: {AGAIN}")
        twice = next((v for v in node.outputs if v and v in known), None)
        if twice is not None:
            raise McugradError(f"{source.name}: {printable(twice)!r} is written twice, the second time by {node.name}: {AGAIN}")
        known.update(node.outputs)
    if not source.outputs or not known.issuperset(source.outputs):
        raise McugradError(f"{source.name}: nothing computes the output: {AGAIN}")


def array(tensor: Any) -> Array:
    """The contents of a TensorProto; raises ValueError when they do not match its own dims and type.  Arrays are kept."""
    if isinstance(tensor, np.ndarray):
        return tensor
    import onnx

    count = math.prod(tensor.dims)
    if any(d < 0 for d in tensor.dims) or count > MAX_FILE:
        raise ValueError(f"absurd dims {list(tensor.dims)}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    if tensor.HasField("raw_data") and len(tensor.raw_data) != count * dtype.itemsize:
        raise ValueError(f"{len(tensor.raw_data)} bytes for dims {list(tensor.dims)}")
    data: Array = onnx.numpy_helper.to_array(tensor)
    return data.astype(np.float32) if dtype in {np.dtype(np.float64), np.dtype(np.float16)} else data
