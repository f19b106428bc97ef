"""What a training run left behind: the network with the weights it learned, in canonical order, and how it is fed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.compiler import MODEL_FILES, NETWORK, PARAMETERS, PREPROCESS, REPORT, SAMPLES
from mcugrad.errors import McugradError
from mcugrad.graphfile import load_graph
from mcugrad.ir import Array, Builder, Graph, Node, Op, Param, Quant, Value
from mcugrad.layout import from_bytes, parameter_hash
from mcugrad.memory.problem import state_layout
from mcugrad.ops.bias import whole_bias
from mcugrad.ops.conv2d import Conv2d, merge
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import HEAD_ONE
from mcugrad.preprocess import Preprocess
from mcugrad.program import inference_graph
from mcugrad.trainer import TRAINING

AGAIN = "give a folder written by `mcugrad train`"


@dataclass(frozen=True, eq=False)
class Units:
    """From logits in real units to the numbers that were learned: logit * spread + mean, float64 [K]; 1 and 0 for classes."""

    spread: Array
    mean: Array


PLAIN = Units(np.ones(1), np.zeros(1))


@dataclass(frozen=True, eq=False)
class Learned:
    """A run: `graph` infers, with the learned weights; `training` is the whole step with the same contents.

    file, format: the model it came from, classifier: where its own classifier stands, original: a copy of that file, kept
    for TFLite and PyTorch.  changed: parameters of `graph` that the run could change.  x int8 [N,H,W,C], y [N]: calibration
    samples.  state: the parameter block of the device.
    classes: names, or none.  raw: element type of the samples before `preprocess`."""

    folder: Path
    graph: Graph
    training: Graph
    file: str
    format: str
    classifier: str
    original: Path | None
    changed: frozenset[str]
    preprocess: Preprocess
    classes: tuple[str, ...]
    raw: str
    units: Units
    x: Array
    y: Array
    state: bytes
    sha256: str

    @property
    def name(self) -> str:
        return Path(self.file).stem

    @property
    def input_quant(self) -> Quant:
        return quant_of(self.graph.inputs[0])

    def quantize(self, raw: Array) -> Array:
        """Raw samples [N, ...] as the int8 input [N,H,W,C]."""
        quant, (_, *shape) = self.input_quant, self.graph.inputs[0].type.shape
        return self.preprocess.quantized(raw, quant.scale[0], quant.zero).reshape(-1, *shape)


def read_run(folder: Path) -> Learned:
    """The run in `folder`.

    Raises McugradError when it is no folder of mcugrad, was never trained, or its parts do not belong together."""
    report = _json(folder / REPORT, folder)
    training = load_graph(folder / NETWORK)
    block = _state(folder)
    layout = state_layout(training)
    if len(block) != layout.total:
        raise McugradError(
            f"{folder / PARAMETERS} has {len(block)} bytes, the model of this folder {layout.total}: another model's? {AGAIN}"
        )
    places = {p.value: layout.offsets[p.value] for p in training.mutable()}
    state = {v.name: from_bytes(block[at : at + v.type.nbytes], v.type) for v, at in places.items()}
    sha256 = parameter_hash(state)
    said = _json(folder / TRAINING, folder) if (folder / TRAINING).exists() else {}
    if said.get("parameters_sha256", sha256) != sha256:
        raise McugradError(f"{folder / PARAMETERS} does not hold what {TRAINING} says was learned: train again, or {AGAIN}")
    training = training.with_params(state)
    samples = _samples(folder / SAMPLES)
    try:
        source = report["source"]
        units = Units(np.array(source["units"]["spread"]), np.array(source["units"]["mean"]))
        kept = folder / MODEL_FILES.get(source["format"], "")
        return Learned(
            folder, canonical(inference_graph(training)), training, source["file"], source["format"], source["classifier"],
            kept if kept.is_file() else None, _changed(training, state),
            Preprocess.from_dict(_json(folder / PREPROCESS, folder)),
            tuple(said.get("classes", ())), source["samples"], units, samples["x"], samples["y"], block, sha256,
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise McugradError(f"{folder / REPORT} is damaged ({error!r} is missing): compile again") from None


def _json(path: Path, folder: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise McugradError(f"{folder} is not a run of mcugrad (no {path.name} in it): {AGAIN}") from None
    except ValueError:
        raise McugradError(f"{path} is damaged: compile again") from None


def _state(folder: Path) -> bytes:
    try:
        return (folder / PARAMETERS).read_bytes()
    except OSError:
        raise McugradError(
            f"{folder} was compiled but nothing has learned in it: {AGAIN}, or store the parameter block read from the device "
            f"as {folder / PARAMETERS}"
        ) from None


def _samples(path: Path) -> Mapping[str, Array]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in ("x", "y")}
    except (OSError, ValueError, KeyError) as error:
        raise McugradError(f"{path}: cannot be read ({error}): compile again") from None


def _changed(training: Graph, state: Mapping[str, Array]) -> frozenset[str]:
    """Parameters that the run could change; a bias where its delta learned."""
    moved = {n.inputs[-1].name: n.inputs[2].name for n in training.nodes if getattr(n.op, "delta", False)}
    return frozenset(moved.get(name, name) for name in state)


def canonical(graph: Graph) -> Graph:
    """The inference graph with every weight whole: updated and resting input channels in their original order."""
    data = {p.value: p.data for p in graph.params}
    build, values = Builder(), dict[Value, Value]()
    build.inputs = list(graph.inputs)
    build.reserve(v.name for v in graph.inputs)
    values.update({v: v for v in graph.inputs})
    for node in graph.nodes:
        op, inputs = node.op, node.inputs
        if isinstance(op, Conv2d | DepthwiseConv2d) and op.delta:
            op, inputs = _with_delta(node, data, build)
        if isinstance(op, Conv2d | DepthwiseConv2d) and op.channels is not None:
            op, inputs = _whole(Node(op, inputs, node.outputs), data, build)
        for value in inputs:
            if value not in values:
                found = data.get(value)
                values[value] = value if found is None else build.param(value.name, value.type, found, value.origin)
        outputs = build.add(op, *(values[v] for v in inputs), name=node.outputs[0].name, origin=node.outputs[0].origin)
        values.update(zip(node.outputs, outputs, strict=True))
    return build.graph([values[v] for v in graph.outputs], (), {})


def _with_delta(node: Node, data: dict[Value, Array], build: Builder) -> tuple[Op, tuple[Value, ...]]:
    """The layer with its learned bias, the delta added."""
    op, bias = node.op, node.inputs[2]
    assert isinstance(op, Conv2d | DepthwiseConv2d)
    total = whole_bias(node, [data.get(v, np.zeros(0)) for v in node.inputs]).astype(np.int32)
    learned = build.param(bias.name, bias.type, total, bias.origin)
    return replace(op, delta=False), (*node.inputs[:2], learned, *node.inputs[3:-1])


def _whole(node: Node, data: dict[Value, Array], build: Builder) -> tuple[Op, tuple[Value, ...]]:
    """The layer with one weight in place of its two segments."""
    op, (x, live, bias, rest) = node.op, node.inputs
    assert isinstance(op, Conv2d | DepthwiseConv2d)
    full = merge(op.channels, data[live], data[rest])
    weight = build.param(live.name, replace(live.type, shape=full.shape), full, live.origin)
    return replace(op, channels=None), (x, weight, bias)


def parameter(graph: Graph, value: Value) -> Param:
    """The parameter behind a value of `graph`.  Raises McugradError when it is computed."""
    found = graph.param(value)
    if found is None:
        raise McugradError(f"{value.name} is computed where a parameter is expected: report this as a bug of mcugrad")
    return found


def classifier(graph: Graph, node: Node, units: Units, channels_first: bool) -> tuple[Array, Array]:
    """(weight float64 [F,K], bias [K]) in real numbers of a Head, its rows in the order of [1,H,W,C] or of [1,C,H,W]."""
    x, weight, bias = node.inputs
    q12 = parameter(graph, weight).data.astype(np.float64) / HEAD_ONE
    if channels_first and len(x.type.shape) == 4:
        _, h, w, c = x.type.shape
        q12 = q12.reshape(h, w, c, -1).transpose(2, 0, 1, 3).reshape(h * w * c, -1)
    shift = parameter(graph, bias).data * (quant_of(x).scale[0] / HEAD_ONE)
    return q12 * units.spread, shift * units.spread + units.mean


def quant_of(value: Value) -> Quant:
    """The quantization of a value.  Raises McugradError when it has none."""
    if value.type.quant is None:
        raise McugradError(f"{value.name} is not quantized: only trained int8 graphs are exported")
    return value.type.quant


def real_of(param: Param, quant: Quant) -> Array:
    """float64 contents of a quantized parameter: scale[c] * (q - zero)."""
    shape = [-1 if i == quant.axis else 1 for i in range(param.data.ndim)]
    scale = np.array(quant.scale)
    real: Array = (param.data.astype(np.float64) - quant.zero) * (scale if len(scale) == 1 else scale.reshape(shape))
    return real
