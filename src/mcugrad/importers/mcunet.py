"""The published int8 models of tiny-training: a pickle of plain numpy arrays, read without running its code."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.importers.model import Classifier, Imported, Report, layer_table
from mcugrad.ir import Array, Builder, Graph, Quant, TensorType, Value, interpret
from mcugrad.ops.add import Add
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.pool import global_average
from mcugrad.ops.spatial import Window
from mcugrad.preprocess import Input, Preprocess
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.quant.repair import repair_dead_channels

MAX_BYTES = 64 << 20
MAX_PIXELS = 1024  # per side of the input
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
FIELDS = ("weight", "bias", "w_scales", "x_scale", "x_zero", "y_scale", "y_zero")


class _Restricted(pickle.Unpickler):
    """Rebuilds numpy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise McugradError(f"it wants to call {module}.{name}, which a model file has no business doing")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


@dataclass(frozen=True)
class Layer:
    """One convolution of the file: arrays checked, name in forward order."""

    name: str
    kind: str
    weight: Array  # int8 OIHW
    bias: Array  # int64 [O]
    w_scales: Array  # float64 [O]
    x: Quant
    y: Quant
    kernel: int
    stride: int
    groups: int


@dataclass(frozen=True)
class Block:
    """The layers of an inverted bottleneck and the output quantization of its residual addition."""

    layers: tuple[Layer, ...]
    residual: Quant | None


@dataclass(frozen=True)
class Model:
    """The file's contents."""

    size: int
    blocks: tuple[Block, ...]
    classifier: Layer

    def layers(self) -> Iterator[Layer]:
        for block in self.blocks:
            yield from block.layers


def read_pickle(path: Path) -> Model:
    """The model in a torch zip.  Raises McugradError for anything that is not such a file."""
    try:
        data = _unpickle(path)
    except McugradError as error:
        raise McugradError(f"{path.name}: {error}") from None
    except Exception as error:
        raise McugradError(f"{path.name} is damaged or not a tiny-training pickle ({type(error).__name__}: {error})") from None
    try:
        return _model(data)
    except McugradError as error:
        raise McugradError(f"{path.name}: {error}") from None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        raise McugradError(f"{path.name}: not the layout of a tiny-training model: {error!r}") from None


def _unpickle(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise McugradError("not a zip archive, as the tiny-training models are (truncated or corrupt): download it again")
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("/data.pkl") or n == "data.pkl"]
        if len(names) != 1:
            raise McugradError("it holds no data.pkl")
        if archive.getinfo(names[0]).file_size > MAX_BYTES:
            raise McugradError(f"its data.pkl unpacks to more than {MAX_BYTES >> 20} MB")
        return _Restricted(io.BytesIO(archive.read(names[0]))).load()


def _model(data: dict[str, Any]) -> Model:
    if data.get("feature_mix") is not None:
        raise ValueError("a feature_mix layer is not supported")
    counter = iter(range(10_000))
    first = _layer(data["first_conv"], f"conv{next(counter)}", "first_conv")
    blocks = [Block((first,), None)]
    for i, block in enumerate(data["blocks"]):
        if block.get("se") is not None:
            raise ValueError(f"block {i} has a squeeze-and-excite part, which is not supported")
        keys = [k for k in ("pointwise1", "depthwise", "pointwise2") if block[k] is not None]
        parts = tuple(_layer(block[k], f"conv{next(counter)}", f"blocks.{i}.{k}") for k in keys)
        residual = block["residual"]
        blocks.append(Block(parts, None if residual is None else _quant(residual["params"], "y")))
    size = int(data["first_conv"]["in_shape"])
    if not 1 <= size <= MAX_PIXELS:
        raise ValueError(f"an input of {size}x{size} pixels")
    classifier = _layer(data["classifier"], "classifier", "classifier")
    features = blocks[-1].layers[-1].weight.shape[0]
    if classifier.weight.shape[1:] != (features, 1, 1):
        raise ValueError(f"the classifier reads {classifier.weight.shape[1]} features, the network has {features}")
    return Model(size, tuple(blocks), classifier)


def _quant(params: dict[str, Any], side: str) -> Quant:
    zero = int(params[f"{side}_zero"])
    if not -128 <= zero <= 127:
        raise ValueError(f"zero point {zero} is not int8")
    return Quant((float(params[f"{side}_scale"]),), zero)


def _layer(conv: dict[str, Any], name: str, kind: str) -> Layer:
    p = {k: conv["params"][k] for k in FIELDS}
    weight, bias, scales = np.asarray(p["weight"]), np.asarray(p["bias"]), np.asarray(p["w_scales"], np.float64)
    outputs, groups, stride = int(conv["out_channel"]), int(conv["groups"]), int(conv["stride"])
    kernel = int(conv["kernel_size"][0])
    if groups < 1 or stride < 1:
        raise ValueError(f"{kind}: {groups} groups and stride {stride} make no sense")
    expected = (outputs, int(conv["in_channel"]) // groups, kernel, kernel)
    square = tuple(conv["kernel_size"]) == (kernel, kernel)
    if weight.dtype != np.int8 or weight.shape != expected or weight.size > MAX_BYTES or not square:
        raise ValueError(f"{kind}: weight {weight.dtype}{weight.shape}, expected int8{expected}")
    if bias.dtype.kind != "i":
        raise ValueError(f"{kind}: bias {bias.dtype} is not int32")
    if bias.shape != (outputs,) or scales.shape != (outputs,) or not (np.isfinite(scales).all() and (scales > 0).all()):
        raise ValueError(f"{kind}: bias or scales do not fit {outputs} channels")
    if bool(conv.get("depthwise", False)) != (groups == outputs and groups > 1):
        raise ValueError(f"{kind}: {groups} groups for {outputs} channels")
    return Layer(name, kind, weight, bias.astype(np.int64), scales, _quant(p, "x"), _quant(p, "y"), kernel, stride, groups)


def build_graph(model: Model) -> tuple[Graph, int]:
    """The quantized backbone, ending in the pooled features, and the number of repaired channels."""
    build, repaired = Builder(), 0
    first = model.blocks[0].layers[0]
    shape = (1, model.size, model.size, first.weight.shape[1])
    x = build.input("input", TensorType(shape, "s8", first.x))
    for block in model.blocks:
        start = x
        for layer in block.layers:
            x, dead = _convolution(build, x, layer)
            repaired += dead
        if block.residual is not None:
            add = Add(block.residual)
            x = build.one(add, x, start, name=f"{block.layers[-1].name}_add", origin=f"{block.layers[-1].kind}.residual")
    features = build.one(global_average(x.type), x, name="features")
    return build.graph((features,)), repaired


def _convolution(build: Builder, x: Value, layer: Layer) -> tuple[Value, int]:
    weight, scales, bias, dead = repair_dead_channels(layer.w_scales, layer.weight, layer.bias)
    pad = (layer.kernel - 1) // 2
    window = Window((layer.kernel,) * 2, (layer.stride,) * 2, (pad,) * 4)
    depthwise = layer.groups > 1
    data = np.transpose(weight, (1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
    quant = Quant(tuple(float(s) for s in scales), 0, 3 if depthwise else 0)
    w = build.param(f"{layer.name}_weight", TensorType(data.shape, "s8", quant), data, layer.kind)
    clipped = np.clip(bias, -BIAS_LIMIT, BIAS_LIMIT)
    b = build.param(f"{layer.name}_bias", TensorType(clipped.shape, "s32"), clipped, layer.kind)
    op = DepthwiseConv2d(window, layer.y) if depthwise else Conv2d(window, layer.y)
    return build.one(op, x, w, b, name=layer.name, origin=layer.kind), dead


def reference_features(model: Model, x: Array) -> Array:
    """The released simulator's semantics in float64 on one image int8 [1,H,W,C]: (pooled features int64 [F]).

    It shares no code with the integer graph: direct convolution in NCHW, float requantization, round half to even."""
    q = np.transpose(x, (0, 3, 1, 2)).astype(np.float64)
    for block in model.blocks:
        start, start_quant = q, block.layers[0].x
        for layer in block.layers:
            q = _reference_convolution(q, layer)
        if block.residual is not None:
            conv = block.layers[-1].y
            real = (q - conv.zero) * conv.scale[0] + (start - start_quant.zero) * start_quant.scale[0]
            q = np.clip(np.rint(real / block.residual.scale[0]) + block.residual.zero, -128, 127)
    features: Array = np.rint(q.mean(axis=(0, 2, 3))).astype(np.int64)
    return features


def _reference_convolution(q: Array, layer: Layer) -> Array:
    k, s, pad = layer.kernel, layer.stride, (layer.kernel - 1) // 2
    padded = np.pad(q - layer.x.zero, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (k, k), axis=(2, 3))[:, :, ::s, ::s]
    subscripts = "nchwij,cij->nchw" if layer.groups > 1 else "nchwij,ocij->nohw"
    weight = layer.weight[:, 0] if layer.groups > 1 else layer.weight
    acc = np.einsum(subscripts, windows, weight.astype(np.float64), optimize=True) + layer.bias[:, None, None]
    scale = (layer.x.scale[0] * layer.w_scales / layer.y.scale[0])[:, None, None]
    y: Array = np.clip(np.rint(acc * scale) + layer.y.zero, -128, 127)
    return y


def classifier_float(model: Model) -> tuple[Array, Array]:
    """The model's own classifier in real units: weight [F,K], bias [K]."""
    c = model.classifier
    weight = (c.weight[:, :, 0, 0].astype(np.float64) * c.w_scales[:, None]).T
    return weight, c.bias * (c.x.scale[0] * c.w_scales)


def reference_logits(model: Model, features: Array) -> Array:
    """The classifier's int8 logits for pooled features (integers with the zero point in)."""
    c = model.classifier
    acc = c.weight[:, :, 0, 0].astype(np.int64) @ (features - c.x.zero) + c.bias
    real = acc * (c.x.scale[0] * c.w_scales / c.y.scale[0])
    logits: Array = np.clip(np.rint(real) + c.y.zero, -128, 127).astype(np.int64)
    return logits


def load_mcunet(path: Path, size: int | None = None) -> Imported:
    """The quantized backbone and the model's own classifier; pixels enter as q = pixel - 128.

    size: pixels per side of the input, where not those of the file; its weights are convolutions and fit any.
    The report notes repaired channels and how far the integer forward pass is from the released simulator's.
    """
    model = read_pickle(path)
    if size is not None:
        model = replace(model, size=size)
    try:
        graph, repaired = build_graph(model)
    except McugradError as error:
        raise McugradError(f"{path.name}: {error}") from None
    weight, bias = classifier_float(model)
    size = graph.inputs[0].type.shape[1]
    notes = (f"{repaired} dead channels repaired (weight scale below 1e-7)", *agreement_notes(model, graph))
    report = Report(path.stem, "tiny-training pickle", layer_table(graph.nodes), (), notes, _supported(model))
    preprocess = Preprocess(Input.INT8, size=(size, size))
    return Imported(graph, path.stem, report.format, preprocess, Classifier(weight, bias, "classifier"), report)


def _supported(model: Model) -> tuple[tuple[str, int], ...]:
    kinds = [layer.kind.rsplit(".", 1)[-1] for layer in model.layers()]
    return tuple(sorted((k, kinds.count(k)) for k in set(kinds)))


def agreement_notes(model: Model, graph: Graph, samples: int = 2) -> tuple[str, ...]:
    """How many int8 logits of the model's own classifier differ from the simulator's semantics, and by how much."""
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(samples):
        coarse = rng.integers(-128, 128, (1, 8, 8, graph.inputs[0].type.shape[3]))
        tile = -(-model.size // 8)
        x = np.kron(coarse, np.ones((1, tile, tile, 1)))[:, : model.size, : model.size].astype(np.int8)
        ours = interpret(graph, {graph.inputs[0].name: x})[graph.outputs[0]].reshape(-1).astype(np.int64)
        differences.append(np.abs(reference_logits(model, ours) - reference_logits(model, reference_features(model, x))))
    d = np.concatenate(differences)
    share = 100 * np.mean(d > 0)
    return (
        f"integer forward against the reference semantics on {samples} synthetic images: {share:.1f} % of the "
        f"{len(d)} int8 logits differ, by {d.max()} LSB at most",
    )
