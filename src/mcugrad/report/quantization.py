"""Where quantization hurts: error of each layer, and accuracy of float against int8, on the user's own data."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mcugrad.data import Calibration, calibration_samples
from mcugrad.errors import McugradError
from mcugrad.importers import Imported
from mcugrad.ir import Array, Graph, interpret
from mcugrad.prepare import CALIBRATION_SAMPLES, default_preprocess, quantized_backbone
from mcugrad.preprocess import Preprocess
from mcugrad.quant.noise import layer_noise
from mcugrad.quant.observe import feed
from mcugrad.training.head import attach_head

NOISE_SAMPLES = 8
ACCURACY_SAMPLES = 100
LOW_DB = 20.0  # a layer whose own rounding leaves less than this is worth a look


def describe_quantization(
    imported: Imported, data: Path, quantizer: str = "minmax", preprocess: Preprocess | None = None
) -> dict[str, Any]:
    """Errors by layer (float models) and accuracies (models with a classifier, labelled data), as JSON values.

    Ranges come from the training split, as in `compile`; so do the samples of the accuracy.  Raises McugradError."""
    _, h, w, c = imported.graph.inputs[0].type.shape
    samples = calibration_samples(data, CALIBRATION_SAMPLES, (h, w, c))
    how = preprocess or default_preprocess(imported, samples)
    integer = quantized_backbone(imported, how, samples, quantizer)
    result: dict[str, Any] = {"quantizer": quantizer, "preprocess": how.to_dict(), "layers": []}
    if imported.graph.inputs[0].type.quant is None:
        rows = layer_noise(imported.graph, integer, how.apply(samples.x[:NOISE_SAMPLES]))
        result["layers"] = [{**asdict(r), "sqnr_db": _finite(r.sqnr_db), "own_db": _finite(r.own_db)} for r in rows]
    result["accuracy"] = _accuracies(imported, integer, how, calibration_samples(data, ACCURACY_SAMPLES, (h, w, c)))
    return result


def _finite(decibel: float) -> float | None:
    return round(decibel, 1) if math.isfinite(decibel) else None


def _accuracies(imported: Imported, integer: Graph, how: Preprocess, data: Calibration) -> dict[str, Any] | None:
    """Shares of right answers of the model's own classifier, float (None for an integer model) and int8."""
    own = imported.classifier
    if own is None or data.y is None or data.y.max(initial=0) >= len(own.bias) or len(own.bias) < 2:
        return None
    head = attach_head(integer, len(own.bias), own.weight, own.bias)
    (x,), (logits,) = head.inputs, head.outputs
    assert x.type.quant is not None
    q = how.quantized(data.x, x.type.quant.scale[0], x.type.quant.zero).reshape(-1, *x.type.shape)
    answers = [int(interpret(head, {x.name: s})[logits].argmax()) for s in q]
    found: dict[str, Any] = {"samples": len(q), "float": None, "int8": float(np.mean(np.array(answers) == data.y))}
    if imported.graph.inputs[0].type.quant is None:
        real = [_float_answer(imported, s, i) for i, s in enumerate(how.apply(data.x))]
        found |= {
            "float": float(np.mean(np.array(real) == data.y)),
            "same": float(np.mean(np.array(answers) == np.array(real))),
        }
    return found


def _float_answer(imported: Imported, sample: Array, number: int) -> int:
    graph, own = imported.graph, imported.classifier
    assert own is not None
    features = interpret(graph, {graph.inputs[0].name: feed(graph, sample, number)}, "real")[graph.outputs[0]]
    return int((features.reshape(-1) @ own.weight + own.bias).argmax())


def print_quantization(result: dict[str, Any], out: Console) -> None:
    """The table of layers, the worst of them marked, and the accuracies."""
    if result["layers"]:
        table = Table(
            "layer", "own dB", "with earlier dB", "where", title=f"signal to quantization noise ({result['quantizer']})"
        )
        for row in result["layers"]:
            low = row["own_db"] is not None and row["own_db"] < LOW_DB
            own = f"[red]{row['own_db']}[/red]" if low else f"{row['own_db']}"
            table.add_row(escape(row["name"]), own, f"{row['sqnr_db']}", escape(row["origin"]))
        out.print(table)
        worst = min(result["layers"], key=lambda r: math.inf if r["own_db"] is None else r["own_db"])
        out.print(f"largest error of its own: {worst['name']} ({worst['origin']}), {worst['own_db']} dB", markup=False)
    accuracy = result["accuracy"]
    if accuracy is None:
        out.print("accuracy: needs labelled data and the model's own classifier")
        return
    real = "" if accuracy["float"] is None else f"float {accuracy['float']:.1%}, "
    same = f"; the same answer for {accuracy['same']:.1%}" if "same" in accuracy else ""
    out.print(f"accuracy on {accuracy['samples']} samples: {real}int8 {accuracy['int8']:.1%}{same}")


def require_data(data: Path | None, quantizer: str) -> None:
    """Raises McugradError when a quantizer is named but there is nothing to quantize with."""
    if data is None and quantizer != "minmax":
        raise McugradError(f"--quantizer {quantizer} needs samples: give --data DATA")
