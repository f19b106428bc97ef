"""`mcugrad export`: a run in another format, compared with the device on real samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.data import load_data
from mcugrad.errors import McugradError
from mcugrad.exporters.compare import RUNNERS, Agreement, NoRuntime, compare, device_logits
from mcugrad.exporters.graph import graph_model
from mcugrad.exporters.learned import Learned, read_run
from mcugrad.exporters.onnx import exact_model, onnx_model
from mcugrad.exporters.onnx_build import MARK
from mcugrad.exporters.tflite import tflite_model
from mcugrad.exporters.torch import saved
from mcugrad.folder import write_fresh
from mcugrad.ir import Array

FORMATS = ("onnx", "onnx-exact", "tflite", "torch", "graph")
SUFFIX = {"onnx": ".onnx", "onnx-exact": ".exact.onnx", "tflite": ".tflite", "torch": ".pt", "graph": ".graph.onnx"}
WITHIN, TOP1 = 0.99, 0.995  # a quantize/dequantize export that agrees less says that there is an exact one
EXACT_NOTE = (
    "runtimes add and average quantize/dequantize pairs in float, the device in integers: `--to onnx-exact` writes the "
    "device's own arithmetic, bit for bit"
)
SAMPLES = 200  # of --data, evenly spaced


def export_run(
    run: str | Path, to: str = "onnx", out: str | Path | None = None, data: str | Path | None = None
) -> dict[str, Any]:
    """Writes the model of a training run with the weights it learned; what was written and compared as JSON values.

    to: onnx (QDQ), onnx-exact (the device's arithmetic in integer operators), tflite or torch (where the run came from there),
    or graph (the training graph, for viewers).  out: default: beside the run.  data: samples to compare on (default: the run's
    own calibration samples).  Raises McugradError for what is no trained run, a source that does not suit `to`, and a file it
    must not replace; then nothing is written."""
    if to not in FORMATS:
        raise McugradError(f"--to {to}: use {', '.join(FORMATS)}")
    folder = Path(run)
    learned = read_run(folder)
    file = Path(out) if out is not None else folder.with_name(folder.resolve().name + SUFFIX[to])
    model = _model(learned, to)
    notes: list[str] = []
    agreement = None
    if to in RUNNERS:
        x, y, origin = _samples(learned, data)
        try:
            agreement = _agreement(learned, model, to, x, y)
            if to == "onnx" and (agreement.within < WITHIN or agreement.top1 < TOP1):
                notes.append(EXACT_NOTE)
        except NoRuntime as missing:
            notes.append(f"not compared with the device: {missing}")
    write_fresh(file, model, MARK.encode())
    return {
        "run": str(folder),
        "model": learned.file,
        "to": to,
        "file": str(file),
        "bytes": len(model),
        "parameters_sha256": learned.sha256,
        "agreement": None if agreement is None else {**agreement.to_dict(), "data": origin},
        "notes": notes,
    }


def _model(learned: Learned, to: str) -> bytes:
    if to == "graph":
        return graph_model(learned.training, learned.name)
    return {"onnx": onnx_model, "onnx-exact": exact_model, "tflite": tflite_model, "torch": saved}[to](learned)


def _samples(learned: Learned, data: str | Path | None) -> tuple[Array, Array | None, str]:
    """(int8 inputs, labels in the head's range or None, where they come from)."""
    if data is None:
        return learned.x, None, "calibration samples of the run"
    _, *shape = learned.graph.inputs[0].type.shape
    found = load_data(data, input_shape=tuple(shape))
    x, y = found.test if (found.split == 1).any() else found.train
    chosen = np.linspace(0, len(x) - 1, min(SAMPLES, len(x))).round().astype(np.int64)
    known = int(y.max(initial=0)) < learned.graph.outputs[0].type.elements
    return learned.quantize(x[chosen]), y[chosen] if known else None, str(data)


def _agreement(learned: Learned, model: bytes, to: str, x: Array, y: Array | None) -> Agreement:
    names = {"onnx": "onnxruntime", "onnx-exact": "onnxruntime", "tflite": "LiteRT", "torch": "PyTorch"}
    exported = RUNNERS[to](model, learned, x)
    return compare(device_logits(learned, x), exported, names[to], y)
