"""Reads what torch.export.save wrote, without torch and without unpickling: JSON and raw numbers in a zip."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.importers.onnx_state import MAX_WEIGHTS
from mcugrad.importers.source import MAX_FILE, MAX_NODES, Array, printable

AGAIN = "write it again with torch.export.save(torch.export.export(module.eval(), (x,)), 'model.pt2'), torch 2.8 or newer"
MODEL = "models/model.json"
MAX_JSON = 64 << 20  # bytes; the graph of a microcontroller's network takes less than one
DTYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 6: "<f2", 7: "<f4", 8: "<f8", 12: "?"}  # torch.export's schema
BFLOAT16 = 13
PICKLED = "a tensor is stored as a Python pickle, which could run code"


@dataclass(frozen=True)
class Call:
    """One node of the exported graph.  Arguments are Python values; a tensor is its name, wrapped in `Tensor`."""

    target: str
    name: str
    arguments: Mapping[str, Any]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Tensor:
    """A tensor argument, by name."""

    name: str


@dataclass(frozen=True)
class Program:
    """The exported graph: the one input, constants by name in the graph, static shapes of all tensors.

    names: what each constant is called in the user's module.  stored: all parameters and buffers by that name."""

    name: str
    input: str
    outputs: tuple[str, ...]
    calls: tuple[Call, ...]
    constants: Mapping[str, Array]
    shapes: Mapping[str, tuple[int, ...]]
    names: Mapping[str, str]
    stored: Mapping[str, Array]


def read(name: str, file: Path | BinaryIO) -> Program:
    """The program in `file`, called `name` in messages; raises McugradError for all that is no well-formed program."""
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive, name).program()
    except McugradError as error:
        raise McugradError(f"{name}: {error}") from None
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise McugradError(f"{name}: not a readable .pt2 file (truncated or corrupt: {error}): {AGAIN}") from None
    except (
        KeyError,
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
        OverflowError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise McugradError(f"{name}: not the layout of an exported program ({error!r:.200}): {AGAIN}") from None


class _Archive:
    """The members of one file; every size is checked before a member is unpacked."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self.archive, self.name = archive, name
        names = [n for n in archive.namelist() if n.endswith(f"/{MODEL}")]
        if len(names) != 1:
            old = "serialized_exported_program.json" in archive.namelist()
            why = "written by an older torch" if old else "it holds no exported program"
            raise McugradError(f"{why}: {AGAIN}")
        self.root = names[0].removesuffix(MODEL)
        total = sum(info.file_size for info in archive.infolist())
        if total > MAX_FILE:
            raise McugradError(f"it unpacks to {total:,} bytes, more than the {MAX_FILE:,} this reads: use a smaller model")

    def bytes(self, member: str, limit: int = MAX_FILE) -> bytes:
        size = self.archive.getinfo(self.root + member).file_size
        if size > limit:
            raise McugradError(f"{member} unpacks to {size:,} bytes, more than {limit:,}: use a smaller model")
        return self.archive.read(self.root + member)

    def json(self, member: str) -> Any:
        return json.loads(self.bytes(member, MAX_JSON))

    def program(self) -> Program:
        if self.bytes("byteorder", 16) != b"little":
            raise McugradError(f"its numbers are big-endian: {AGAIN}")
        model = self.json(MODEL)["graph_module"]
        graph, signature = model["graph"], model["signature"]
        nodes = graph["nodes"]
        if len(nodes) > MAX_NODES:
            raise McugradError(f"{len(nodes):,} nodes, more than the {MAX_NODES:,} this reads: simplify the model")
        shapes = {key: _sizes(meta["sizes"]) for key, meta in graph["tensor_values"].items()}
        stored, inputs = self._stored(), []
        constants, names = {}, {}
        for spec in signature["input_specs"]:
            (kind, entry), *_ = spec.items()
            if kind == "user_input":
                inputs.append(entry["arg"]["as_tensor"]["name"])
            else:
                key = next(entry[k] for k in ("parameter_name", "buffer_name", "tensor_constant_name") if k in entry)
                constants[entry["arg"]["name"]], names[entry["arg"]["name"]] = stored[key], key
        if len(inputs) != 1:
            raise McugradError(f"one input is expected, this model has {len(inputs)}: export a module that takes one tensor")
        outputs = [o["user_output"]["arg"]["as_tensor"]["name"] for o in signature["output_specs"] if "user_output" in o]
        calls = tuple(map(_call, nodes))
        return Program(self.name, inputs[0], tuple(outputs), calls, constants, shapes, names, stored)

    def _stored(self) -> dict[str, Array]:
        """Parameters, buffers and other constants by their names in the module."""
        found: dict[str, Array] = {}
        elements = 0
        for kind in ("weights", "constants"):
            config = self.json(f"data/{kind}/model_{kind}_config.json")["config"]
            for key, entry in config.items():
                if entry["use_pickle"] or entry["tensor_meta"] is None:
                    raise McugradError(f"{PICKLED} ({printable(key)}): {AGAIN}")
                elements += math.prod(_sizes(entry["tensor_meta"]["sizes"]))
                if elements > MAX_WEIGHTS:
                    raise McugradError(f"more than {MAX_WEIGHTS:,} parameters: use a network made for microcontrollers")
                found[key] = _tensor(self.bytes(f"data/{kind}/{entry['path_name']}"), entry["tensor_meta"], key)
        return found


def _sizes(dims: list[dict[str, Any]]) -> tuple[int, ...]:
    """Static sizes; raises McugradError for symbolic ones."""
    if any("as_int" not in d for d in dims):
        raise McugradError("it has dynamic shapes: export with a fixed size (no dynamic_shapes)")
    return tuple(int(d["as_int"]) for d in dims)


def _tensor(data: bytes, meta: dict[str, Any], key: str) -> Array:
    """A strided view of raw numbers; raises McugradError when it leaves them."""
    sizes, strides, offset = _sizes(meta["sizes"]), _sizes(meta["strides"]), int(meta["storage_offset"]["as_int"])
    kind = int(meta["dtype"])
    if kind not in DTYPES and kind != BFLOAT16:
        raise McugradError(f"{printable(key)} holds numbers of type {kind} of torch's schema: use float32 parameters")
    raw = np.frombuffer(data, "<u2" if kind == BFLOAT16 else DTYPES[kind])
    last = offset + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    if min((*sizes, *strides, offset), default=0) < 0 or (0 not in sizes and last >= raw.size):
        raise McugradError(f"{printable(key)} has {list(sizes)} elements, {raw.size} are stored: {AGAIN}")
    if 0 in sizes:
        return np.zeros(sizes, np.float32)
    view = np.lib.stride_tricks.as_strided(raw[offset:], sizes, [s * raw.itemsize for s in strides])
    if kind == BFLOAT16:
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view.astype(np.float32) if raw.dtype.kind == "f" else view.copy()


def _call(node: dict[str, Any]) -> Call:
    arguments = {str(a["name"]): _argument(a["arg"]) for a in node["inputs"]}
    outputs = tuple(name for o in node["outputs"] for name in _outputs(o))
    return Call(str(node["target"]), _place(node), arguments, outputs)


def _outputs(argument: dict[str, Any]) -> list[str]:
    (kind, value), *_ = argument.items()
    if kind == "as_tensor":
        return [str(value["name"])]
    return [str(v["name"]) for v in value] if kind == "as_tensors" else [""]


def _argument(argument: dict[str, Any]) -> Any:
    (kind, value), *_ = argument.items()
    if kind == "as_tensor":
        return Tensor(str(value["name"]))
    if kind == "as_tensors":
        return [Tensor(str(v["name"])) for v in value]
    return None if kind == "as_none" else value


def _place(node: dict[str, Any]) -> str:
    """Where a node stands in the user's module: the layer's path, or the module's path and the function's name."""
    own = str(node.get("name") or node["target"].split(".")[-2])
    stack = str(node.get("metadata", {}).get("nn_module_stack", "")).split(";")[-1].split(",")
    path, kind = (stack[1], stack[-1]) if len(stack) >= 3 else ("", "")
    if kind.startswith("torch.nn.modules") and ".container." not in kind and path:
        return printable(path)
    return printable(f"{path}.{own}" if path else own)
