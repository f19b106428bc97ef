"""A graph with its contents in one .npz, without pickle: JSON for the structure, plain arrays for the parameters."""

from __future__ import annotations

import importlib
import json
import pkgutil
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad import ir, ops
from mcugrad.augment import Augment
from mcugrad.errors import McugradError
from mcugrad.ir import NUMPY, Array, Graph, Node, Param, TensorType, Value, verify

VERSION = 1
STRUCTURE = "graph"  # name of the array that holds the JSON


def save_graph(graph: Graph, path: Path) -> None:
    """Writes the graph; `load_graph` gives an equal one, value by value."""
    computed = (v for n in graph.nodes for v in n.outputs)
    values = list(dict.fromkeys((*graph.inputs, *(p.value for p in graph.params), *computed)))
    number = {v: i for i, v in enumerate(values)}

    def numbers(some: tuple[Value, ...]) -> list[int]:
        return [number[v] for v in some]

    structure = {
        "version": VERSION,
        "values": [[v.name, encode(v.type), v.origin] for v in values],
        "inputs": numbers(graph.inputs),
        "params": numbers(tuple(p.value for p in graph.params)),
        "nodes": [[encode(n.op), numbers(n.inputs), numbers(n.outputs)] for n in graph.nodes],
        "outputs": numbers(graph.outputs),
        "updates": [numbers(pair) for pair in graph.updates],
        "meta": encode(dict(graph.meta)),
    }
    text = np.frombuffer(json.dumps(structure).encode(), np.uint8)
    arrays = {f"p{i}": p.data for i, p in enumerate(graph.params)}
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **{STRUCTURE: text}, **arrays)


def load_graph(path: Path) -> Graph:
    """The graph in `path`, verified.  Raises McugradError when the file is missing, damaged or of another version."""
    try:
        with np.load(path, allow_pickle=False) as file:
            structure = json.loads(file[STRUCTURE].tobytes())
            if structure["version"] != VERSION:
                raise McugradError(f"{path}: written by another version of mcugrad: compile again")
            graph = _graph(structure, file)
        verify(graph)
    except OSError as error:
        raise McugradError(f"{path}: cannot be read ({error.strerror or error}): compile again") from None
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, zipfile.BadZipFile, EOFError) as error:
        raise McugradError(f"{path}: damaged, no graph of mcugrad ({error}): compile again") from None
    return graph


def _graph(structure: Mapping[str, Any], file: Mapping[str, Array]) -> Graph:
    values = [Value(name, decode(type_), origin) for name, type_, origin in structure["values"]]

    def some(numbers: list[int]) -> tuple[Value, ...]:
        return tuple(values[i] for i in numbers)

    params = [
        Param(value, np.ascontiguousarray(file[f"p{i}"], NUMPY[value.type.dtype]))
        for i, value in enumerate(some(structure["params"]))
    ]
    nodes = [Node(decode(op), some(ins), some(outs)) for op, ins, outs in structure["nodes"]]
    updates = [(values[old], values[new]) for old, new in structure["updates"]]
    inputs, outputs = some(structure["inputs"]), some(structure["outputs"])
    return Graph(inputs, tuple(params), tuple(nodes), outputs, tuple(updates), decode(structure["meta"]))


def encode(value: Any) -> Any:
    """JSON of numbers, text, None, tuples, dicts and the dataclasses and enumerations of ops and types."""
    if isinstance(value, Enum):
        return {"is": type(value).__name__, "value": value.value}
    if is_dataclass(value) and not isinstance(value, type):
        found = {f.name: encode(getattr(value, f.name)) for f in fields(value)}
        return {"is": type(value).__name__, **found}
    if isinstance(value, tuple | list):
        return [encode(v) for v in value]
    if isinstance(value, dict):
        return {"is": "dict", "items": [[k, encode(v)] for k, v in value.items()]}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a {type(value).__name__} has no place in a graph file")


def decode(value: Any) -> Any:
    """The inverse of `encode`; lists become tuples."""
    if isinstance(value, list):
        return tuple(decode(v) for v in value)
    if not isinstance(value, dict):
        return value
    kind = value["is"]
    if kind == "dict":
        return {k: decode(v) for k, v in value["items"]}
    return _classes()[kind](**{k: decode(v) for k, v in value.items() if k != "is"})


@cache
def _classes() -> dict[str, type]:
    """Dataclasses and enumerations by name: those of the op families and of types."""
    modules = [ir, *(importlib.import_module(f"{ops.__name__}.{m.name}") for m in pkgutil.iter_modules(ops.__path__))]
    kinds = {n: c for m in modules for n, c in vars(m).items() if isinstance(c, type)}
    found = {n: c for n, c in kinds.items() if is_dataclass(c) or issubclass(c, Enum)}
    return {**found, "TensorType": TensorType, "Augment": Augment}
