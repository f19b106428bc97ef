"""The demo: a digits network meets a changed sensor and learns it back, sample by sample, inside a virtual Cortex-M7."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.compiler import REPORT, Budget, Compiled, compile_model
from mcugrad.data import Calibration, Dataset
from mcugrad.digits import PREPROCESS, digits
from mcugrad.folder import fresh_folder
from mcugrad.importers import Imported, load
from mcugrad.ir import Array, Graph, interpret
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.report.curve import learning_curve
from mcugrad.trainer import AGREEMENT_SAMPLES, Course, Learned, Progress, accuracy, agree, learn, quiet, report
from mcugrad.training.scheme import BUILT_IN, HEAD_ONLY, read_scheme

ASSET = Path(__file__).resolve().parent / "assets" / "digits.onnx"
BUDGET = Budget("cortex-m7", sram=64 << 10, flash=256 << 10)
RATES = {"head": 0.1, "sparse": 0.02, "float": 0.01}
CALIBRATION_HALF = 32


@dataclass(frozen=True, eq=False)
class Scene:
    """The model as imported, and what both sensors see."""

    imported: Imported
    original: Dataset
    changed: Dataset

    def calibration(self) -> Calibration:
        """Samples of both sensors, evenly spaced over the training split."""
        parts = [d.train for d in (self.original, self.changed)]
        at = [np.linspace(0, len(x) - 1, CALIBRATION_HALF).astype(int) for x, _ in parts]
        x = np.concatenate([x[i] for (x, _), i in zip(parts, at, strict=True)])
        y = np.concatenate([y[i] for (_, y), i in zip(parts, at, strict=True)])
        order = np.arange(len(x)).reshape(2, -1).T.reshape(-1)
        return Calibration(x[order], y[order], "digits")

    def prepare(self, keep_head: bool, seed: int) -> Prepared:
        classes = None if keep_head else len(self.original.classes)
        return prepare(self.imported, classes=classes, keep_head=keep_head, calibration=self.calibration(), seed=seed)


def run_demo(folder: Path, seed: int = 0, progress: Progress = quiet) -> dict[str, Any]:
    """Runs the whole story into `folder` and returns its figures as nested JSON values.

    Raises McugradError when scikit-learn is missing or the folder cannot be written."""
    imported = replace(load(ASSET), preprocess=PREPROCESS)
    scene = Scene(imported, digits("original", seed), digits("changed", seed))
    with fresh_folder(folder) as work:
        result = _story(scene, work, seed, progress)
        (work / REPORT).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return {**result, **{k: str(folder / result[k]) for k in ("elf", "header")}, "folder": str(folder)}


def _story(scene: Scene, folder: Path, seed: int, progress: Progress) -> dict[str, Any]:
    course = Course(epochs=1, seed=seed)
    accuracies = _before(scene, folder, seed)
    accuracies["head_only"] = _on_host(_compile(scene, "head", folder, seed), scene, course).accuracy
    sparse = _compile(scene, "sparse", folder, seed)
    twin = _on_host(sparse, scene, course)
    accuracies["shuffled_labels"] = _on_host(sparse, scene, course, shuffle=True).accuracy
    learned, trained = _on_mcu(sparse, scene, course, accuracies["changed_sensor"], progress)
    accuracies["sparse"] = trained["accuracy"]["after"]
    accuracies["float_full"] = _float_ceiling(scene, course, progress)
    learning_curve(learned, course, folder / "learning.png")
    shutil.copy(sparse.folder / "memory.png", folder / "memory.png")
    mcu = trained["parameters_sha256"]
    return {
        **_relative(sparse.facts(), folder),
        **trained,
        "sram": sparse.facts()["sram"],
        "accuracy": {**trained["accuracy"], **accuracies},
        "hashes": {"mcu": mcu, "host": twin.sha256, "equal": mcu == twin.sha256},
        "seed": seed,
    }


def _relative(facts: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {k: str(Path(v).relative_to(folder)) if k in ("elf", "header") else v for k, v in facts.items()}


def _compile(scene: Scene, name: str, folder: Path, seed: int) -> Compiled:
    scheme = HEAD_ONLY if name == "head" else read_scheme("demo", "digits")
    return compile_model(scene.prepare(False, seed), scheme, folder / name, BUDGET, rate=RATES[name], seed=seed)


def _before(scene: Scene, folder: Path, seed: int) -> dict[str, float]:
    """The network as it was delivered, on what both sensors see."""
    compiled = compile_model(scene.prepare(True, seed), HEAD_ONLY, folder / "delivered", BUDGET, seed=seed)
    with compiled.device("host") as device:
        found = {}
        for name, data in (("original_sensor", scene.original), ("changed_sensor", scene.changed)):
            x, y = data.test
            found[name] = accuracy(device, compiled.prepared.quantize(x), y)
    return found


@dataclass(frozen=True)
class HostRun:
    """Result of learning on the host twin."""

    accuracy: float
    sha256: str


def _on_host(compiled: Compiled, scene: Scene, course: Course, shuffle: bool = False) -> HostRun:
    (x, y), (test_x, test_y) = scene.changed.train, scene.changed.test
    labels = np.random.default_rng(course.seed).permutation(y) if shuffle else y
    with compiled.device("host") as device:
        learn(device, compiled.prepared.quantize(x), labels, course)
        found = accuracy(device, compiled.prepared.quantize(test_x), test_y)
        return HostRun(found, compiled.program.state_hash(device.read_params()))


def _on_mcu(
    compiled: Compiled, scene: Scene, course: Course, before: float, progress: Progress
) -> tuple[Learned, dict[str, Any]]:
    """Learns in the virtual MCU; test accuracy there, on every sample."""
    (x, y), (test_x, test_y) = scene.changed.train, scene.changed.test
    test_q = compiled.prepared.quantize(test_x)
    with compiled.device("vm") as device, compiled.device("host") as twin:
        learned = learn(device, compiled.prepared.quantize(x), y, course, progress)
        state = device.read_params()
        twin.write_params(state)
        agree(device, twin, test_q[:AGREEMENT_SAMPLES])
        counters = device.counters()
        after = accuracy(device, test_q, test_y)
    return learned, report(
        compiled, learned, ({"accuracy": before}, {"accuracy": after}), state, counters.forward if counters else None
    )


def _float_ceiling(scene: Scene, course: Course, progress: Progress) -> float:
    """Every layer updated in float64: the same graph by its real semantics, with the network's own head as the start."""
    prepared = scene.prepare(True, course.seed)
    graph = training_graph(prepared, BUILT_IN["full"], rate=RATES["float"], seed=course.seed)
    (x, y), (test_x, test_y) = scene.changed.train, scene.changed.test
    order, q = course.order(y, course.length(len(x))), prepared.quantize(x)
    params: dict[str, Array] = {}
    for step, i in enumerate(order):
        control = np.array([course.seed, step, course.halvings(step, len(order)), 1 << 16], np.int64)
        feeds = {prepared.graph.inputs[0].name: q[i : i + 1], "label": y[i : i + 1], "control": control}
        params = _real(graph, {**feeds, **params}).next_params(graph)
        if step % 64 == 0:
            progress("float fine-tuning", step, len(order))
    return _float_accuracy(prepared.graph, params, prepared.quantize(test_x), test_y)


def _real(graph: Graph, feeds: Mapping[str, Array], until: Any = None) -> Any:
    return interpret(graph, feeds, "real", until)


def _float_accuracy(graph: Graph, params: Mapping[str, Array], x: Array, y: Array) -> float:
    logits = graph.outputs[0]
    right = [
        int(np.argmax(_real(graph, {graph.inputs[0].name: sample[None], **params})[logits])) == label
        for sample, label in zip(x, y, strict=True)
    ]
    return float(np.mean(right))
