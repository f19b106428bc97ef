"""From a model file and some data to a quantized graph with a head, ready to be trained or compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mcugrad.augment import AUGMENT, Augment
from mcugrad.data import Calibration
from mcugrad.errors import McugradError
from mcugrad.importers import Imported
from mcugrad.ir import Array, Graph, verify
from mcugrad.loss import Loss
from mcugrad.ops.head import Head
from mcugrad.own_output import own_output
from mcugrad.passes import TRAIN, Pass, run
from mcugrad.preprocess import Input, Preprocess
from mcugrad.quant.assign import assign
from mcugrad.quant.observe import QUANTIZERS, image_range, observe
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import EXPONENT_SAMPLES, MEAN_SAMPLES, gradient_exponents, input_means, temporary_head
from mcugrad.training.head import attach_head, attach_logits, masked
from mcugrad.training.scheme import Selection, UpdateScheme, resolve
from mcugrad.training.targets import Targets

CALIBRATION_SAMPLES = 64
"""Samples read from calibration data: activation ranges see all, means and exponents the first of them."""

SYNTHETIC_NOTE = (
    "no calibration data: gradient exponents come from synthetic images (smooth random fields, seeded); "
    "give --calibrate DATA for exponents that fit yours"
)


@dataclass(frozen=True)
class Source:
    """Where a network came from: its file's name and format, its classifier's place in it, and the file itself where
    learned weights can go back into it."""

    file: str
    format: str
    classifier: str = ""
    data: bytes | None = None


@dataclass(frozen=True, eq=False)
class Prepared:
    """A quantized network with its head, how raw samples become its input, and calibration inputs.

    x: int8 [N,H,W,C] calibration inputs, y: their labels [N] in the head's range, or targets int32 [N,K]; notes: warnings
    to show.  raw: element type of samples before `preprocess`.  aim: how targets are written (None: class labels).
    augment: what a training step does to its sample.
    """

    name: str
    graph: Graph
    preprocess: Preprocess
    x: Array
    y: Array
    notes: tuple[str, ...]
    source: Source = Source("", "")
    raw: str = "uint8"
    aim: Targets | None = None
    augment: Augment | None = None

    @property
    def targets(self) -> Targets:
        """How targets are written; class labels unless something else was prepared."""
        return self.aim or Targets.of(self.graph, Loss.SOFTMAX)

    @property
    def classes(self) -> int:
        return self.graph.outputs[0].type.elements

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, h, w, c = self.graph.inputs[0].type.shape
        return h, w, c

    def quantize(self, raw: Array) -> Array:
        """Raw samples [N, ...] as the int8 input [N,H,W,C]."""
        quant = self.graph.inputs[0].type.quant
        assert quant is not None, "a prepared graph is quantized"
        q = self.preprocess.quantized(raw, quant.scale[0], quant.zero)
        return q.reshape(len(q), *self.input_shape)


def prepare(
    imported: Imported,
    *,
    classes: int | None = None,
    keep_head: bool = False,
    calibration: Calibration | None = None,
    loss: Loss = Loss.SOFTMAX,
    seed: int = 0,
    quantizer: str = "minmax",
    preprocess: Preprocess | None = None,
) -> Prepared:
    """Quantizes a float model, attaches the head and quantizes the calibration samples.

    keep_head: a classifier goes on from its own last layer; under a squared error, and where the last layer is no plain
    linear one, the model keeps its own output, as an autoencoder always does.  quantizer: one of QUANTIZERS.  preprocess:
    what raw samples go through (None: what the model says, or the usual).  Raises McugradError for a float model without
    calibration data, and for labels that the head does not have."""
    notes = list(imported.report.notes)
    preprocess = preprocess or default_preprocess(imported, calibration)
    if loss is Loss.AUTOENCODER or (keep_head and (loss is Loss.MSE or imported.classifier is None)):
        imported = own_output(imported, None if calibration is None else preprocess.apply(calibration.x[:CALIBRATION_SAMPLES]))
        keep_head = True
    backbone = quantized_backbone(imported, preprocess, calibration, quantizer)
    graph = _with_head(backbone, imported, classes, keep_head, loss)
    verify(graph)
    classifier = imported.classifier.origin if imported.classifier else ""
    source = Source(imported.report.name, imported.format, classifier, imported.data)
    aim = Targets.of(graph, loss, None if calibration is None else _numbers(calibration, preprocess, loss))
    blank = Prepared(imported.name, graph, preprocess, np.zeros(0), np.zeros(0), (), source, aim=aim)
    if calibration is None:
        notes.append(SYNTHETIC_NOTE)
        x = synthetic(CALIBRATION_SAMPLES, blank.input_shape, seed)
        y = _guesses(blank.targets, len(x), seed)
    else:
        x = blank.quantize(calibration.x)
        y = _labels(calibration, blank.targets, seed)
        notes += calibration.notes
        blank = replace(blank, raw=calibration.x.dtype.name)
    return replace(blank, x=x, y=y, notes=tuple(notes))


def default_preprocess(imported: Imported, calibration: Calibration | None) -> Preprocess:
    """What the model says; where it says nothing, the usual for this kind of data.

    Real numbers for a model that reads pixels are in the units of the model's own input."""
    own = imported.preprocess
    if own is not None and (own.kind is Input.FLOAT or calibration is None or calibration.x.dtype.kind != "f"):
        return own
    if own is not None:
        return Preprocess(Input.FLOAT, scale=imported.unit)
    float_model = _is_float(imported.graph)
    if calibration is None and float_model:
        raise McugradError(f"{imported.name} is a float model: give calibration data (--calibrate) to find activation ranges")
    dtype = np.dtype(np.uint8) if calibration is None else calibration.x.dtype
    return Preprocess.default(dtype, quantized=not float_model)


def _is_float(graph: Graph) -> bool:
    return graph.inputs[0].type.dtype == "f32"


def quantized_backbone(
    imported: Imported, preprocess: Preprocess, calibration: Calibration | None, quantizer: str = "minmax"
) -> Graph:
    """The int8 graph up to the features; quantizer: one of QUANTIZERS, for float models.  Raises McugradError."""
    if not _is_float(imported.graph):
        return imported.graph
    if calibration is None:
        raise McugradError(f"{imported.name} is a float model: give calibration data (--calibrate) to find activation ranges")
    if quantizer not in QUANTIZERS:
        raise McugradError(f"unknown quantizer {quantizer!r}: use {', '.join(QUANTIZERS)}")
    ranges = observe(imported.graph, preprocess.apply(calibration.x), QUANTIZERS[quantizer])
    if preprocess.kind is Input.FLOAT and calibration.x.dtype == np.uint8:
        ranges[imported.graph.inputs[0].name] = image_range(preprocess)
    return assign(imported.graph, ranges)


def _with_head(graph: Graph, imported: Imported, classes: int | None, keep_head: bool, loss: Loss) -> Graph:
    own = imported.classifier
    if keep_head:
        if own is None:
            return attach_logits(graph)
        if classes not in (None, own.bias.shape[0]):
            raise McugradError(f"--keep-head keeps {own.bias.shape[0]} classes, --classes says {classes}: give one of them")
        return attach_head(graph, own.bias.shape[0], own.weight, own.bias)
    if classes is None:
        raise McugradError("how many classes? Give --classes N for a new head, or --keep-head for the model's own")
    return attach_head(graph, classes, least=2 if loss is Loss.SOFTMAX else 1)


def _numbers(calibration: Calibration, preprocess: Preprocess, loss: Loss) -> Array | None:
    """float [N,K]: what the outputs are to become under a squared error."""
    if loss is Loss.AUTOENCODER:
        return np.stack([np.asarray(x, np.float64).reshape(-1) for x in preprocess.apply(calibration.x)])
    return calibration.y if loss is Loss.MSE else None


def _guesses(targets: Targets, n: int, seed: int) -> Array:
    """Random labels or targets, where the data has none."""
    rng = np.random.default_rng(seed)
    if targets.loss is Loss.SOFTMAX:
        return rng.integers(0, targets.outputs, n)
    if targets.loss is Loss.SIGMOID:
        return rng.integers(0, 2, (n, targets.outputs))
    return targets.encode(rng.normal(targets.mean, targets.spread, (n, targets.outputs)), n)


def _labels(calibration: Calibration, targets: Targets, seed: int) -> Array:
    classes = targets.outputs
    if calibration.y is None:
        return _guesses(targets, len(calibration.x), seed)
    if targets.loss is Loss.SOFTMAX and calibration.y.max(initial=0) >= classes:
        raise McugradError(
            f"{calibration.origin}: label {calibration.y.max()} does not exist in a head of {classes} classes: "
            f"give --classes {calibration.y.max() + 1} or more"
        )
    return targets.encode(calibration.y, len(calibration.x))


def synthetic(n: int, shape: tuple[int, int, int], seed: int) -> Array:
    """int8 [n,H,W,C] smooth random fields: stand-ins for images when there is no data.

    Each channel is a sum of four random plane waves of up to three periods plus noise, spread over the int8 range."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    v, u = np.meshgrid(np.linspace(0, 1, h), np.linspace(0, 1, w), indexing="ij")
    waves = rng.uniform(-3, 3, (n, 4, 2, c)), rng.uniform(0, 1, (n, 4, 1, c)), rng.uniform(0, 40, (n, 4, c))
    frequency, phase, amplitude = waves
    angle = u[..., None] * frequency[:, :, :1, None, :] + v[..., None] * frequency[:, :, 1:, None, :] + phase[:, :, :, None]
    fields = (np.sin(2 * np.pi * angle) * amplitude[:, :, None, None]).sum(axis=1)
    noisy = fields + rng.normal(0, 8, fields.shape) + rng.uniform(-40, 40, (n, 1, 1, c))
    quantized: Array = np.clip(np.rint(noisy), -128, 127).astype(np.int8)
    return quantized


def default_rate(selection: Selection, graph: Graph) -> float:
    """Learning rate that suits the scheme at batch 1 (numerics.md): bias or head only, sparse, full."""
    if not selection.weights:
        return 4e-3
    whole = sum(1 for n in graph.nodes if n.op.weight_axis is not None)
    return 5e-4 if len(selection.weights) == whole else 1.5e-3


def training_graph(
    prepared: Prepared,
    scheme: UpdateScheme,
    *,
    rate: float | None = None,
    seed: int = 0,
    compare: bool = False,
    passes: Sequence[Pass] = TRAIN,
) -> Graph:
    """The fused training graph under a scheme, exponents and means calibrated.

    compare: execute the graph before and after every pass.  passes: others than all of them only show what each one brings.
    Raises McugradError when the scheme does not fit the model."""
    selection = resolve(scheme, prepared.graph)
    rate = default_rate(selection, prepared.graph) / prepared.targets.power if rate is None else rate
    plan = TrainingPlan(selection, rate, loss=prepared.targets.loss)
    plan = replace(plan, **_calibrated(prepared, selection, seed))
    graph = differentiate(masked(prepared.graph, plan.loss) if scheme.masked else prepared.graph, plan)
    if prepared.augment is not None:
        graph = replace(graph, meta={**graph.meta, AUGMENT: prepared.augment})
    control = np.array([seed, 0, 0, 1 << 16], np.int64)
    feeds = {prepared.graph.inputs[0].name: prepared.x[:1], "label": np.atleast_1d(prepared.y[0]), "control": control}
    return run(graph, passes, feeds if compare else None)


def _calibrated(prepared: Prepared, selection: Selection, seed: int) -> dict[str, Any]:
    last, head = prepared.graph.nodes[-1], None
    if isinstance(last.op, Head):
        head = temporary_head((last.inputs[1].type.shape[0], prepared.classes), seed)
    n, loss = EXPONENT_SAMPLES, prepared.targets.loss
    exponents = gradient_exponents(prepared.graph, selection, prepared.x[:n], prepared.y[:n], head, loss)
    return {"exponents": exponents, "means": input_means(prepared.graph, selection, prepared.x[:MEAN_SAMPLES])}
