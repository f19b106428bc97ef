"""What to update: a scheme says per layer which channels at which precision, and it is only data."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.ir import Array, Graph, GraphError, Node, Param, Value, rebuild
from mcugrad.ops.hold import MOST_SAMPLES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(__file__).resolve().parent.parent / "schemes"
RESIDUAL_BITS = (0, 4, 8)
BIAS_BITS = (16, 32)
ACCUMULATE = range(1, MOST_SAMPLES + 1)
"""Samples that may make one step."""
ADDED = ("_rest", "_delta")
"""Ends of the names of parameters that `split` adds."""


@dataclass(frozen=True)
class Update:
    """How a weight is updated: the share of input channels of largest magnitude, or listed ones."""

    ratio: float = 1.0
    channels: tuple[int, ...] | None = None
    residual_bits: int | None = None
    centred: bool | None = None


@dataclass(frozen=True)
class UpdateScheme:
    """Weights by layer name, biases of the last `biases` layers (or listed ones), and whether the head learns.

    adapt: the exponents of the gradients follow the data, and are learned state too.  bias_bits: 32, or 16 where SRAM holds
    int16 deltas of the biases, which themselves stay in flash.  accumulate: samples whose gradients make one step.
    masked: outputs that no sample has reached have no probability and learn nothing."""

    name: str = "head"
    model: str = ""
    weights: Mapping[str, Update] = field(default_factory=dict)
    biases: int | tuple[str, ...] = 0
    head: bool = True
    residual_bits: int = 4
    centred: bool = False
    adapt: bool = False
    bias_bits: int = 32
    accumulate: int = 1
    masked: bool = False


@dataclass(frozen=True)
class Part:
    """One resolved weight update: the live channels (None: all), residual bits F, centred or not."""

    channels: tuple[int, ...] | None
    residual_bits: int
    centred: bool


@dataclass(frozen=True)
class Selection:
    """A scheme applied to a graph: weight parts and bias layers by layer name."""

    weights: Mapping[str, Part]
    biases: tuple[str, ...]
    head: bool
    adapt: bool = False
    bias_bits: int = 32
    accumulate: int = 1


HEAD_ONLY = UpdateScheme()


def layer_of(parameter: str) -> str:
    """Layer name of a weight or bias parameter: conv3_weight -> conv3."""
    return parameter.rsplit("_", 1)[0]


def layers(graph: Graph) -> dict[str, Node]:
    """Layers with weights, in forward order, by name."""
    return {layer_of(n.inputs[1].name): n for n in graph.nodes if n.op.weight_axis is not None}


def read_scheme(source: str | Path, model: str = "") -> UpdateScheme:
    """A scheme from a TOML file, or a shipped one by name: "head", "bias", "full", or per model ("49kb").

    Raises McugradError naming the file, the key and what is allowed."""
    text = str(source)
    if text in BUILT_IN:
        return BUILT_IN[text]
    path = Path(source)
    if path.suffix != ".toml" and not path.exists():
        path = SHIPPED / model / f"{text}.toml"
        if not path.exists():
            raise McugradError(f"no scheme {text!r} for the model {model!r}: use {', '.join(shipped(model))}, or a .toml file")
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise McugradError(f"cannot read the scheme {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise McugradError(f"the scheme {path} is not TOML: {error}") from None
    return _parse(data, path)


def shipped(model: str) -> list[str]:
    """Names that `read_scheme` knows for a model."""
    return [*BUILT_IN, *sorted(p.stem for p in (SHIPPED / model).glob("*.toml") if model)]


def with_residual_bits(scheme: UpdateScheme, bits: int) -> UpdateScheme:
    """The scheme with the same residual bits everywhere."""
    weights = {name: replace(update, residual_bits=bits) for name, update in scheme.weights.items()}
    return replace(scheme, weights=weights, residual_bits=bits)


def with_bias_bits(scheme: UpdateScheme, bits: int) -> UpdateScheme:
    """The scheme with biases of so many bits in SRAM."""
    return replace(scheme, bias_bits=bits)


def with_accumulation(scheme: UpdateScheme, samples: int) -> UpdateScheme:
    """The scheme with one step for so many samples.  Raises McugradError for a number out of range."""
    return replace(scheme, accumulate=_samples(samples, f"scheme {scheme.name!r}"))


def _samples(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value not in ACCUMULATE:
        raise McugradError(f"{where}: accumulate must be a number of samples between 1 and {MOST_SAMPLES}, not {value!r}")
    return value


def _parse(data: dict[str, Any], path: Path) -> UpdateScheme:
    known = {"model", "weights", "biases", "head", "residual_bits", "centred", "adapt", "bias_bits", "accumulate", "masked",
             "source"}  # fmt: skip
    unknown = sorted(set(data) - known)
    if unknown:
        raise McugradError(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    biases = data.get("biases", 0)
    if isinstance(biases, list):
        biases = tuple(str(b) for b in biases)
    elif not isinstance(biases, int) or isinstance(biases, bool) or biases < 0:
        raise McugradError(f"{path}: biases must be a number of layers (from the last) or a list of layer names")
    table = data.get("weights", {})
    if not isinstance(table, dict):
        raise McugradError(f"{path}: weights must be a table of layer names, [weights]")
    weights = {k: _parse_update(v, f"{path}: weights.{k}") for k, v in table.items()}
    defaults = (("head", True), ("centred", False), ("adapt", False), ("masked", False))
    head, *others = (_flag(data.get(k, default), f"{path}: {k}") for k, default in defaults)
    given = dict(zip(("centred", "adapt", "masked"), others, strict=True))
    scheme = UpdateScheme(path.stem, str(data.get("model", "")), weights, biases, head, **given)
    bias_bits = data.get("bias_bits", scheme.bias_bits)
    if isinstance(bias_bits, bool) or bias_bits not in BIAS_BITS:
        raise McugradError(f"{path}: bias_bits must be 16 or 32, not {bias_bits!r}")
    bits = _bits(data.get("residual_bits", scheme.residual_bits), f"{path}")
    scheme = replace(scheme, residual_bits=bits, bias_bits=int(bias_bits))
    return replace(scheme, accumulate=_samples(data.get("accumulate", scheme.accumulate), f"{path}"))


def _flag(value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise McugradError(f"{where} must be true or false, not {value!r}")
    return value


def _bits(value: Any, where: str) -> int:
    if isinstance(value, bool) or value not in RESIDUAL_BITS:
        raise McugradError(f"{where}: residual_bits must be 0, 4 or 8, not {value!r}")
    return int(value)


def _parse_update(value: Any, where: str) -> Update:
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = {"ratio": value}
    if not isinstance(value, dict):
        raise McugradError(f"{where} must be a ratio or a table like {{ ratio = 0.5, residual_bits = 4 }}")
    unknown = sorted(set(value) - {"ratio", "channels", "residual_bits", "centred"})
    if unknown:
        raise McugradError(f"{where}: unknown key {unknown[0]!r}; known are ratio, channels, residual_bits, centred")
    ratio = value.get("ratio", 1.0)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 1:
        raise McugradError(f"{where}: ratio must be above 0 and at most 1, not {ratio!r}")
    channels = value.get("channels")
    if channels is not None and not (isinstance(channels, list) and all(type(c) is int for c in channels) and channels):
        raise McugradError(f"{where}: channels must be a list of channel numbers")
    bits = value.get("residual_bits")
    return Update(
        float(ratio),
        None if channels is None else tuple(sorted(set(channels))),
        None if bits is None else _bits(bits, where),
        None if "centred" not in value else _flag(value["centred"], f"{where}: centred"),
    )


BUILT_IN = {
    "head": HEAD_ONLY,
    "bias": UpdateScheme("bias", biases=1 << 30),
    "full": UpdateScheme("full", weights={"*": Update()}, biases=1 << 30, centred=True),
}


def resolve(scheme: UpdateScheme, graph: Graph) -> Selection:
    """The scheme on this graph: channels chosen by magnitude.  Raises McugradError for layers or channels it has not."""
    table = layers(graph)
    names = list(table)
    where = f"scheme {scheme.name!r}"
    wanted = dict.fromkeys(names, scheme.weights["*"]) if "*" in scheme.weights else scheme.weights
    parts = {}
    for name, update in wanted.items():
        if name not in table:
            raise McugradError(f"{where}: the model has no layer {name!r}; its layers are {_listed(names)}")
        parts[name] = _part(update, table[name], graph, scheme, f"{where}, {name}")
    if isinstance(scheme.biases, int):
        biases = tuple(names[max(0, len(names) - scheme.biases) :]) if scheme.biases else ()
    else:
        biases = scheme.biases
    for name in biases:
        if name not in table:
            raise McugradError(f"{where}: biases name a layer {name!r} the model has not; its layers are {_listed(names)}")
    chosen = {n: parts[n] for n in names if n in parts}
    learned = tuple(n for n in names if n in biases)
    return Selection(chosen, learned, scheme.head, scheme.adapt, scheme.bias_bits, scheme.accumulate)


def _listed(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{', '.join(names[:4])} ... {names[-1]}"


def _part(update: Update, node: Node, graph: Graph, scheme: UpdateScheme, where: str) -> Part:
    weight = node.inputs[1]
    total = weight.type.shape[3]
    channels = update.channels
    if channels is not None and not 0 <= min(channels) <= max(channels) < total:
        raise McugradError(f"{where}: channels must lie in 0..{total - 1}")
    if channels is None and update.ratio < 1:
        param = graph.param(weight)
        if param is None:
            raise GraphError(f"{weight.name} is not a parameter")
        channels = largest(param.data, math.floor(total * update.ratio))
        if not channels:
            raise McugradError(f"{where}: a ratio of {update.ratio} keeps none of its {total} input channels")
    if channels is not None and len(channels) == total:
        channels = None
    if channels is not None:
        try:
            node.op.partial(channels)
        except GraphError as error:
            raise McugradError(f"{where}: {error}") from None
    bits = scheme.residual_bits if update.residual_bits is None else update.residual_bits
    return Part(channels, bits, scheme.centred if update.centred is None else update.centred)


def largest(weight: Array, count: int) -> tuple[int, ...]:
    """Input channels (last axis) of largest L2 norm over the other axes, ascending; ties go to the lower index."""
    energy = np.square(weight.astype(np.int64)).sum(axis=(0, 1, 2))
    order = np.argsort(-energy, kind="stable")[:count]
    return tuple(sorted(int(c) for c in order))


def split(graph: Graph, selection: Selection) -> Graph:
    """The same network with what learns apart from what does not: every partly updated weight in two segments, its live
    channels and `<weight>_rest`; and beside every bias that learns by int16 deltas, these (`<layer>_delta`, zero)."""
    nodes: list[Node] = []
    replaced: dict[Value, tuple[Param, Param]] = {}
    for original in graph.nodes:
        node = original
        name = layer_of(node.inputs[1].name) if node.op.weight_axis is not None else ""
        part = selection.weights.get(name)
        if part is not None and part.channels is not None:
            live, rest = replaced[node.inputs[1]] = _segments(graph, node.inputs[1], part.channels)
            inputs = (node.inputs[0], live.value, node.inputs[2], rest.value)
            node = Node(node.op.partial(part.channels), inputs, node.outputs)
        if selection.bias_bits == 16 and (name in selection.biases or (part is not None and part.centred)):
            base, delta = replaced[node.inputs[2]] = _with_delta(graph, node.inputs[2], f"{name}_delta")
            node = Node(node.op.with_delta(), (*node.inputs[:2], base.value, *node.inputs[3:], delta.value), node.outputs)
        nodes.append(node)
    params = tuple(q for p in graph.params for q in replaced.get(p.value, (p,)))
    return rebuild(replace(graph, params=params), nodes)


def _with_delta(graph: Graph, bias: Value, name: str) -> tuple[Param, Param]:
    param = graph.param(bias)
    if param is None:
        raise GraphError(f"{bias.name} is not a parameter")
    delta = Value(name, replace(bias.type, dtype="s16"), bias.origin)
    return param, Param(delta, np.zeros(bias.type.shape, np.int16))


def _segments(graph: Graph, weight: Value, channels: tuple[int, ...]) -> tuple[Param, Param]:
    param = graph.param(weight)
    if param is None:
        raise GraphError(f"{weight.name} is not a parameter")
    data = param.data
    keep = np.zeros(data.shape[3], bool)
    keep[list(channels)] = True

    def segment(name: str, mask: Array) -> Param:
        part = np.ascontiguousarray(data[..., mask])
        return Param(Value(name, replace(weight.type, shape=part.shape), weight.origin), part)

    return segment(weight.name, keep), segment(f"{weight.name}_rest", ~keep)
