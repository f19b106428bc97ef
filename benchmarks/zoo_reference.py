"""The zoo's models in the runtimes of others: LiteRT on the file itself, onnxruntime on what mcugrad exports."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.compiler import host_program
from mcugrad.devices.host import Host
from mcugrad.exporters.compare import compare, run_onnx
from mcugrad.exporters.learned import PLAIN, Learned
from mcugrad.exporters.onnx import exact_model, onnx_model
from mcugrad.importers.tflite_read import read
from mcugrad.ops.head import HEAD_ONE, Head
from mcugrad.prepare import Prepared

Array = NDArray[Any]
ENDS = {"SOFTMAX", "LOGISTIC", "DEQUANTIZE", "QUANTIZE", "RESHAPE"}


class LiteRt:
    """A .tflite file; `logits` is the last tensor before softmax and the like."""

    def __init__(self, path: Path) -> None:
        from ai_edge_litert.interpreter import Interpreter

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.session = Interpreter(model_path=str(path), num_threads=1, experimental_preserve_all_tensors=True)
        self.session.allocate_tensors()
        self.input = self.session.get_input_details()[0]
        source = read(path)
        last = source.outputs[0]
        made = {o: n for n in source.nodes for o in n.outputs}
        while last in made and made[last].op in ENDS:
            last = made[last].inputs[0]
        self.logits = last
        self.scale, self.zero = self.session.get_tensor_details()[last]["quantization"]

    def __call__(self, x: Array) -> Array:
        """Logits [N,K] as stored, of samples [N,...] in the file's own input type."""
        rows = []
        for sample in x:
            self.session.set_tensor(self.input["index"], sample.astype(self.input["dtype"]).reshape(self.input["shape"]))
            self.session.invoke()
            rows.append(self.session.get_tensor(self.logits).reshape(-1).copy())
        return np.stack(rows)


def twin_logits(prepared: Prepared, q: Array) -> Array:
    """float64 [N,K] in real units, by the C of the forward pass, built for this machine."""
    last = prepared.graph.nodes[-1]
    quant = last.inputs[0].type.quant
    assert quant is not None
    step = quant.scale[0] / (HEAD_ONE if isinstance(last.op, Head) else 1)
    with tempfile.TemporaryDirectory() as folder:
        _, library = host_program(prepared.graph, prepared.name, Path(folder))
        with Host.load(library) as twin:
            return twin.infer_many(q) * step


def integer_agreement(path: Path, q: Array, real: Array) -> dict[str, Any]:
    """Our logits on the grid of the file's own against LiteRT's, for int8 inputs q; 1 LSB is a step of that grid."""
    reference = LiteRt(path)
    fed = (q.view(np.uint8) ^ np.uint8(0x80)) if reference.input["dtype"] == np.uint8 else q
    theirs = reference(fed).astype(np.int64)
    if theirs.shape[1] * 2 == real.shape[1]:  # a sigmoid became two classes
        real = real[:, 1:]
    low = 0 if reference.input["dtype"] == np.uint8 and theirs.min() >= 0 else -128
    ours = np.clip(np.rint(real / reference.scale) + reference.zero, low, low + 255)
    same = theirs[np.arange(len(q)), real.argmax(1)] == theirs.max(1)  # their int8 logits may tie
    return _row("LiteRT", np.abs(ours - theirs), same, len(q))


FORMS = {"exact": exact_model, "qdq": onnx_model}


def exported_agreement(prepared: Prepared, q: Array, real: Array) -> dict[str, Any]:
    """By form of the export, our logits against onnxruntime's on it; 1 LSB is 1/255 of their range."""
    learned, rows = as_learned(prepared), {}
    for form, written in FORMS.items():
        found = compare(real, run_onnx(written(learned), learned, q), "onnxruntime")
        rows[form] = {
            "runtime": found.runtime,
            "samples": found.samples,
            "within": found.within,
            "top1": found.top1,
            "largest": found.largest,
        }
    return rows


def as_learned(prepared: Prepared) -> Learned:
    """The network before any learning, as an export sees it."""
    source = prepared.source
    return Learned(
        Path(), prepared.graph, prepared.graph, source.file, source.format, "", None, frozenset(), prepared.preprocess, (),
        prepared.raw, PLAIN, prepared.x, prepared.y, b"", "",
    )  # fmt: skip


def _row(runtime: str, off: Array, same: Array, samples: int) -> dict[str, Any]:
    within, largest = float((off <= 1).mean()), float(off.max())
    return {"runtime": runtime, "samples": samples, "within": within, "top1": float(same.mean()), "largest": largest}
