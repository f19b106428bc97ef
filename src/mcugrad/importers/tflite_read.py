"""Reads a TFLite file that nobody vouches for: counts and offsets bounded, every tensor written before it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tflite
from numpy.typing import NDArray

from mcugrad.errors import McugradError
from mcugrad.importers.source import AGAIN, MAX_FILE, MAX_NAME, MAX_NODES, printable

Array = NDArray[Any]

MAGIC = b"TFL3"
MAX_TENSORS = 50_000
MAX_RANK = 8
MAX_OPERANDS = 256  # inputs or outputs of one operator
ABSENT = -1  # index of an optional input that is not given
DTYPES = {"FLOAT32": "<f4", "FLOAT16": "<f2", "INT32": "<i4", "UINT8": "u1", "INT64": "<i8", "INT8": "i1"}
POOL = ("Padding", "StrideH", "StrideW", "FilterHeight", "FilterWidth", "FusedActivationFunction")
CONV = ("Padding", "StrideH", "StrideW", "DilationHFactor", "DilationWFactor", "FusedActivationFunction")
OPTIONS = {  # operator: its options and the fields that are read
    "ADD": ("AddOptions", ("FusedActivationFunction",)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", POOL),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", "FusedActivationFunction")),
    "CONV_2D": ("Conv2DOptions", CONV),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", CONV),
    "FULLY_CONNECTED": ("FullyConnectedOptions", ("FusedActivationFunction", "KeepNumDims", "WeightsFormat")),
    "GELU": ("GeluOptions", ("Approximate",)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "MAX_POOL_2D": ("Pool2DOptions", POOL),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "MUL": ("MulOptions", ("FusedActivationFunction",)),
    "RESHAPE": ("ReshapeOptions", ("NewShape",)),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims",)),
    "STRIDED_SLICE": ("StridedSliceOptions", ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask")),
    "SUB": ("SubOptions", ("FusedActivationFunction",)),
}
VECTORS = {"NewShape", "SqueezeDims"}
REALS = {"Alpha"}


def _names(enumeration: Any) -> dict[int, str]:
    return {number: name for name, number in vars(enumeration).items() if isinstance(number, int)}


TYPE_NAMES = _names(tflite.TensorType)
OPERATOR_NAMES = _names(tflite.BuiltinOperator)


@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor: `dtype` is the format's name of the element type, `data` its bytes if it is a constant.

    scale and zero hold one number per tensor, or one per index of `axis`; empty: not quantized."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Array
    zero: Array
    axis: int
    data: memoryview | None
    sparse: bool


@dataclass(frozen=True)
class TfliteNode:
    """One operator: `name` says where (its number and first output), operands are tensor indices."""

    op: str
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A readable, well-formed model with one input."""

    name: str
    tensors: tuple[Tensor, ...]
    nodes: tuple[TfliteNode, ...]
    input: int
    outputs: tuple[int, ...]
    notes: tuple[str, ...]


def read(path: Path) -> Source:
    """The model in `path`; raises McugradError when it is no well-formed TFLite model with one input."""
    try:
        return _source(path)
    except McugradError:
        raise
    except Exception as error:  # struct and numpy refuse offsets outside of the file in their own ways
        raise McugradError(
            f"{path.name}: this is not a readable TFLite file (truncated or corrupt: {error}): {AGAIN}"
        ) from None


def _source(path: Path) -> Source:
    size = path.stat().st_size
    if size > MAX_FILE:
        raise McugradError(f"{path.name}: {size:,} bytes is more than the {MAX_FILE:,} this reads: use a smaller model")
    file = path.read_bytes()
    if file[4:8] != MAGIC:
        raise McugradError(f"{path.name}: this is not a TFLite file (its identifier is not TFL3): {AGAIN}")
    model = tflite.Model.GetRootAs(file, 0)
    graph = model.Subgraphs(0)
    if graph is None or not model.SubgraphsLength() or not graph.OperatorsLength():
        raise McugradError(f"{path.name}: no TFLite graph in this file, or an empty one: {AGAIN}")
    tensors = _tensors(model, graph, file, path.name)
    nodes = _nodes(model, graph, tensors, path.name)
    inputs, outputs = (_indices(graph, what, len(tensors)) for what in ("Inputs", "Outputs"))
    if len(inputs) != 1:
        what = f"one input is expected, this model has {len(inputs)}"
        raise McugradError(f"{path.name}: {what}: export a model that takes one tensor")
    notes = () if model.SubgraphsLength() == 1 else (f"only the first of {model.SubgraphsLength()} subgraphs is read",)
    source = Source(path.name, tensors, nodes, inputs[0], outputs, notes)
    _check_structure(source)
    return source


def _length(table: Any, what: str, limit: int) -> int:
    """Entries of a vector field, which a damaged file may overstate."""
    count = int(getattr(table, f"{what}Length")())
    if count > limit:
        raise ValueError(f"{count:,} {what.lower()}, more than {limit:,}")
    return count


def _indices(table: Any, what: str, tensors: int) -> tuple[int, ...]:
    """Tensor indices of an operator's or graph's operands."""
    if not _length(table, what, MAX_OPERANDS):
        return ()
    indices = tuple(int(i) for i in getattr(table, f"{what}AsNumpy")())
    if any(not ABSENT <= i < tensors for i in indices):
        raise ValueError(f"a tensor index of {indices} is outside of the {tensors} tensors")
    return indices


def _tensors(model: Any, graph: Any, file: bytes, name: str) -> tuple[Tensor, ...]:
    try:
        count = _length(graph, "Tensors", MAX_TENSORS)
    except ValueError as error:
        raise McugradError(f"{name}: {error}: simplify the model") from None
    return tuple(_tensor(graph.Tensors(i), model, file) for i in range(count))


def _tensor(table: Any, model: Any, file: bytes) -> Tensor:
    rank = _length(table, "Shape", MAX_RANK)
    shape = tuple(int(n) for n in table.ShapeAsNumpy()) if rank else ()
    quant = table.Quantization()
    return Tensor(
        name=_text(table, 10, file),
        shape=shape,
        dtype=TYPE_NAMES.get(table.Type(), f"type {table.Type()}"),
        scale=_vector(quant, "Scale", np.float32),
        zero=_vector(quant, "ZeroPoint", np.int64),
        axis=quant.QuantizedDimension() if quant else 0,
        data=_data(model, table.Buffer(), file),
        sparse=table.Sparsity() is not None,
    )


def _vector(quant: Any, field: str, dtype: Any) -> Array:
    """A view of a vector of the quantization parameters."""
    if quant is None or not getattr(quant, f"{field}Length")():
        return np.zeros(0, dtype)
    view: Array = getattr(quant, f"{field}AsNumpy")()
    return view


def _data(model: Any, index: int, file: bytes) -> memoryview | None:
    """The bytes of a constant; large models keep them behind the flatbuffer, at an offset in the file."""
    if not 0 <= index < model.BuffersLength():
        raise ValueError(f"buffer {index} of {model.BuffersLength()}")
    buffer = model.Buffers(index)
    if buffer.Offset() > 1:
        first, last = buffer.Offset(), buffer.Offset() + buffer.Size()
        if last > len(file):
            raise ValueError(f"a buffer at {first} to {last} of {len(file)} bytes")
        return memoryview(file)[first:last]
    return memoryview(buffer.DataAsNumpy()).cast("B") if buffer.DataLength() else None


def _text(table: Any, slot: int, file: bytes) -> str:
    """A string field (by its slot in the vtable), shortened and printable."""
    offset = table._tab.Offset(slot)
    if not offset:
        return ""
    start, length = table._tab.Vector(offset), table._tab.VectorLen(offset)
    return printable(file[start : start + min(length, 4 * MAX_NAME)].decode("utf-8", "replace"))


def _nodes(model: Any, graph: Any, tensors: tuple[Tensor, ...], name: str) -> tuple[TfliteNode, ...]:
    try:
        count = _length(graph, "Operators", MAX_NODES)
    except ValueError as error:
        raise McugradError(f"{name}: {error}: simplify the model") from None
    codes = [_operator(model.OperatorCodes(i)) for i in range(_length(model, "OperatorCodes", MAX_NODES))]
    return tuple(_node(graph.Operators(i), i, codes, tensors) for i in range(count))


def _operator(code: Any) -> str:
    """The operator's name; the package chooses between the older, shorter field and the newer one."""
    number = code.BuiltinCode()
    if number != tflite.BuiltinOperator.CUSTOM:
        return OPERATOR_NAMES.get(number, f"operator {number}")
    return f"custom {_text(code, 6, code._tab.Bytes)}"


def _node(table: Any, number: int, codes: list[str], tensors: tuple[Tensor, ...]) -> TfliteNode:
    if not 0 <= table.OpcodeIndex() < len(codes):
        raise ValueError(f"operator {number} has code {table.OpcodeIndex()} of {len(codes)}")
    op = codes[table.OpcodeIndex()]
    inputs, outputs = (_indices(table, what, len(tensors)) for what in ("Inputs", "Outputs"))
    first = tensors[outputs[0]].name.split(";")[0] if outputs and outputs[0] != ABSENT else op
    return TfliteNode(op, f"#{number} {first}", inputs, outputs, _attributes(table, op))


def _attributes(table: Any, op: str) -> dict[str, Any]:
    """The fields of the operator's options; none when the file has options of another kind, or none."""
    if op not in OPTIONS:
        return {}
    kind, fields = OPTIONS[op]
    union = table.BuiltinOptions()
    if union is None or table.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, kind):
        return {}
    options = getattr(tflite, kind)()
    options.Init(union.Bytes, union.Pos)
    return {f: _field(options, f) for f in fields}


def _field(options: Any, field: str) -> Any:
    if field in VECTORS:
        return _list(options, field)
    return float(getattr(options, field)()) if field in REALS else int(getattr(options, field)())


def _list(options: Any, field: str) -> list[int]:
    count = _length(options, field, MAX_RANK)
    return [int(v) for v in getattr(options, f"{field}AsNumpy")()] if count else []


def _check_structure(source: Source) -> None:
    """Every tensor read is written before, and once: no cycles, no missing constants."""
    known = {i for i, t in enumerate(source.tensors) if t.data is not None} | {source.input, ABSENT}
    later = {o for n in source.nodes for o in n.outputs}
    for node in source.nodes:
        for i in node.inputs:
            if i not in known:
                why = "operators form a cycle or are out of order" if i in later else "nothing computes or stores it"
                tensor = source.tensors[i].name or f"tensor {i}"
                raise McugradError(f"{source.name}: {node.name} ({node.op}) reads {tensor}, but {why}: {AGAIN}")
        for i in node.outputs:
            if i in known:
                raise McugradError(f"{source.name}: a tensor is written twice, the second time by {node.name}: {AGAIN}")
        known.update(node.outputs)
    if not source.outputs:
        raise McugradError(f"{source.name}: the model has no output: {AGAIN}")
    for i in source.outputs:
        if i not in known - {ABSENT}:
            raise McugradError(f"{source.name}: nothing computes the output {source.tensors[i].name!r}: {AGAIN}")


def contents(tensor: Tensor) -> Array:
    """A constant's array; raises ValueError when its bytes do not match its shape and type."""
    if tensor.data is None:
        raise ValueError("it is no constant")
    if tensor.sparse or tensor.dtype not in DTYPES:
        raise ValueError(f"it holds {'sparse data' if tensor.sparse else tensor.dtype}")
    dtype = np.dtype(DTYPES[tensor.dtype])
    if min(tensor.shape, default=0) < 0 or math.prod(tensor.shape) * dtype.itemsize != len(tensor.data):
        raise ValueError(f"{len(tensor.data)} bytes for shape {list(tensor.shape)}")
    return np.frombuffer(tensor.data, dtype).reshape(tensor.shape)
