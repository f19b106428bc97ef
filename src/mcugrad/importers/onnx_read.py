"""Reads an ONNX file that nobody vouches for: sizes bounded, external data confined to its folder, structure checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx

from mcugrad.errors import McugradError
from mcugrad.importers.source import AGAIN, MAX_FILE, MAX_NODES, OnnxNode, Source, printable

EXTERNAL = onnx.TensorProto.EXTERNAL
READABLE = {getattr(onnx.TensorProto, kind) for kind in ("FLOAT", "DOUBLE", "FLOAT16", "INT8", "UINT8")}
OWN_DOMAINS = {
    "mcugrad.exact": "an exact export of mcugrad, made to be run",
    "mcugrad": "a training graph of mcugrad, made to be looked at",
}


def read(path: Path) -> Source:
    """The model in `path`; raises McugradError when it is no well-formed ONNX model with one input of known shape."""
    try:
        return _source(_parse(path), path)
    except McugradError:
        raise
    except Exception as error:  # protobuf and onnx fail in their own ways on damaged files
        raise McugradError(f"{path.name}: this is not a readable ONNX file (truncated or corrupt: {error}): {AGAIN}") from None


def _source(model: Any, path: Path) -> Source:
    graph, name = model.graph, path.name
    for tensor in _tensors(graph):
        _inline(tensor, path)
    _check_structure(graph, name)
    _not_for_reading(graph, name)
    _check(model, name)
    tensors = {t.name: t for t in graph.initializer}
    inputs = [v for v in graph.input if v.name not in tensors]
    if len(inputs) != 1:
        names = ", ".join(v.name for v in inputs) or "none"
        what = f"one input is expected, this model has {len(inputs)} ({names})"
        raise McugradError(f"{name}: {what}: export a model that takes one tensor")
    shape, notes = _batch_one(inputs[0], name)
    return Source(
        name=name,
        input=inputs[0].name,
        input_shape=shape,
        input_type=str(onnx.helper.tensor_dtype_to_np_dtype(inputs[0].type.tensor_type.elem_type)),
        outputs=tuple(v.name for v in graph.output),
        nodes=tuple(_node(n) for n in graph.node),
        tensors=tensors,
        shapes=_shapes(model),
        notes=notes,
        metadata={p.key: p.value for p in model.metadata_props},
    )


def _not_for_reading(graph: Any, name: str) -> None:
    """Raises McugradError for exports of mcugrad whose operators are its own."""
    domains = {n.domain for n in graph.node}
    for domain, what in OWN_DOMAINS.items():
        if domain in domains:
            raise McugradError(f"{name}: this is {what}, not to be read again: write the run with `mcugrad export --to onnx`")


def _parse(path: Path) -> Any:
    size = path.stat().st_size
    if size > MAX_FILE:
        raise McugradError(f"{path.name}: {size:,} bytes is more than the {MAX_FILE:,} this reads: use a smaller model")
    model = onnx.load_model_from_string(path.read_bytes())
    if not model.graph.node:
        raise McugradError(f"{path.name}: no ONNX graph in this file, or an empty one (truncated or corrupt): {AGAIN}")
    if len(model.graph.node) > MAX_NODES:
        raise McugradError(
            f"{path.name}: {len(model.graph.node):,} nodes, more than the {MAX_NODES:,} this reads: simplify the model"
        )
    return model


def _tensors(graph: Any) -> Iterator[Any]:
    """All tensors, those in attributes and subgraphs included (protobuf bounds the nesting)."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _tensors(inner)


def _inline(tensor: Any, path: Path) -> None:
    """Moves external data into the tensor; only from a plain file beside the model."""
    if tensor.data_location != EXTERNAL:
        return
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    file = path.parent / location
    where = f"{path.name}: tensor {tensor.name or '(unnamed)'} keeps its data in {location!r}"
    if not location or Path(location).name != location or location in {".", ".."} or "\\" in location:
        raise McugradError(f"{where}, outside the model's folder: save it as one file (onnx.save(onnx.load(...), 'one.onnx'))")
    if file.is_symlink() or not file.is_file():
        raise McugradError(f"{where}, which is not a plain file beside the model: put it there, or save the model as one file")
    offset, length = (_whole(entries.get(key, "0"), where) for key in ("offset", "length"))
    size = file.stat().st_size
    length = length or size - offset
    if not 0 <= offset <= offset + length <= size or length > MAX_FILE:
        raise McugradError(f"{where} at {offset}+{length}, but that file has {size} bytes: {AGAIN}")
    with file.open("rb") as stream:
        stream.seek(offset)
        tensor.raw_data = stream.read(length)
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT


def _whole(text: str, where: str) -> int:
    if not text.isdecimal() or len(text) > 18:
        raise McugradError(f"{where} at {text[:40]!r}, which is not a number: {AGAIN}")
    return int(text)


def _check_structure(graph: Any, name: str) -> None:
    """Every value read is written before, and once: no cycles, no missing initializers."""
    known = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {""}
    later = {o for n in graph.node for o in n.output}
    for node in graph.node:
        label = node.name or (node.output[0] if node.output else node.op_type)
        for value in node.input:
            if value not in known:
                why = "nodes form a cycle or are out of order" if value in later else "nothing computes or stores it"
                raise McugradError(f"{name}: node {label} ({node.op_type}) reads {value!r}, but {why}: {AGAIN}")
        for value in node.output:
            if value and value in known:
                raise McugradError(f"{name}: {value!r} is written twice, the second time by node {label}: {AGAIN}")
        known.update(node.output)
    for value in graph.output:
        if value.name not in known:
            raise McugradError(f"{name}: nothing computes the output {value.name!r}: {AGAIN}")
    if not graph.output:
        raise McugradError(f"{name}: the model has no output: {AGAIN}")


def _check(model: Any, name: str) -> None:
    """onnx.checker; unknown operators pass, because the report names each of them."""
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        text = str(error)
        if "No Op registered" not in text and "No opset import" not in text:
            raise McugradError(f"{name}: onnx.checker refuses the model ({text.splitlines()[0]}): {AGAIN}") from None


def _batch_one(value: Any, name: str) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Shape of the input at batch 1, written back so that shape inference sees it."""
    if value.type.WhichOneof("value") != "tensor_type":
        raise McugradError(f"{name}: the input {value.name} is not a tensor: {AGAIN}")
    dims = value.type.tensor_type.shape.dim
    notes: tuple[str, ...] = ()
    if value.type.tensor_type.elem_type not in READABLE:
        kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        raise McugradError(f"{name}: the input {value.name} holds {kind}, not FLOAT, INT8 or UINT8: export the float model")
    if len(dims) > 1 and dims[0].dim_value > 1:
        notes = (f"the model's batch of {dims[0].dim_value} is taken as 1",)
    if len(dims) > 1 and dims[0].dim_value != 1:
        dims[0].dim_value = 1
    shape = tuple(d.dim_value for d in dims)
    if not shape or min(shape) < 1:
        said = [d.dim_param or d.dim_value for d in dims]
        raise McugradError(
            f"{name}: the input {value.name} has shape {said}; all but the batch must be fixed: export with a fixed size"
        )
    return shape, notes


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Static shapes by value name, as far as onnx.shape_inference finds them."""
    del model.graph.value_info[:]
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception:  # only stand-ins for blocked nodes use these shapes
        return {}
    return {v.name: s for v in (*graph.value_info, *graph.output) if (s := _static(v))}


def _static(value: Any) -> tuple[int, ...]:
    return static if min(static := tuple(d.dim_value for d in value.type.tensor_type.shape.dim), default=0) > 0 else ()


def _node(node: Any) -> OnnxNode:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute if not a.ref_attr_name}
    outputs = tuple(node.output)
    return OnnxNode(
        node.op_type,
        node.domain,
        printable(node.name or next(iter(outputs), node.op_type)),
        tuple(node.input),
        outputs,
        attributes,
    )
