"""One row per model of the zoo: import, agreement with other runtimes, cost of a training build, and what it learns.

python -m benchmarks.zoo [--only TEXT] [--again]      rows that are in zoo.json already are kept unless --again
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.zoo_code import Network
from benchmarks.zoo_data import calibration, machine_sounds, samples, spread
from benchmarks.zoo_models import ENTRIES, INTEGER, Entry
from benchmarks.zoo_rate import chosen_rate
from benchmarks.zoo_reference import LiteRt, exported_agreement, integer_agreement, twin_logits
from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.data import Calibration, Dataset
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.errors import BudgetError, McugradError
from mcugrad.importers import Imported, check, load
from mcugrad.ir import Array
from mcugrad.loss import Loss
from mcugrad.prepare import Prepared, prepare
from mcugrad.trainer import Course, train
from mcugrad.training.scheme import Update, UpdateScheme, read_scheme

RESULTS = Path(__file__).with_name("zoo.json")
SAMPLES = 200  # compared with the other runtime
HASH_STEPS = 5
SRAM = (192, 320, 512, 1024, 2048)  # KiB, tried in this order
TARGET = "cortex-m7"
CHOSEN = "what learns"


def measure(entry: Entry) -> dict[str, Any]:
    """The row of an entry.  Raises McugradError when its files are not there or it cannot be built."""
    network = Network(entry) if entry.builder is not None else None
    start = time.monotonic()
    report = network.imported().report if network else check(entry.path)
    report.require()
    imported = network.imported() if network else load(entry.path)
    if entry.feed is not None:
        imported = replace(imported, preprocess=entry.feed)
    row: dict[str, Any] = {
        "model": entry.name, "source": entry.source, "file": entry.builder or entry.path.name,
        "params": report.params, "macs": report.macs,
        "check_seconds": round(time.monotonic() - start, 2),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        row |= anomaly(entry, imported) if entry.own == "toycar" else own_head(entry, imported, network)
        if entry.learns is not None:
            row |= learning(entry, imported, Path(scratch) / "build")
    return {**row, "seconds": round(time.monotonic() - start, 1)}


def shape_of(imported: Imported) -> tuple[int, int, int]:
    _, h, w, c = imported.graph.inputs[0].type.shape
    return h, w, c


def is_float(imported: Imported) -> bool:
    return imported.graph.inputs[0].type.dtype == "f32"


def own_head(entry: Entry, imported: Imported, network: Network | None) -> dict[str, Any]:
    """Agreement on real samples and, where its own task is known, accuracy of the model as it came."""
    data = samples(entry.own or entry.learns or "", shape_of(imported))
    prepared = prepare(imported, keep_head=True, calibration=fitting(imported, calibration(data)))
    scored = entry.own is not None and len(data.classes) == prepared.classes
    everything = data.test if entry.epochs else (data.x, data.y)
    x, y = everything if scored else spread(*everything, SAMPLES)
    q = prepared.quantize(x)
    real = twin_logits(prepared, q)
    some = np.linspace(0, len(q) - 1, min(SAMPLES, len(q))).round().astype(int)
    row = agreements(entry, prepared, q[some], real[some])
    if not scored:
        return row
    accuracy = {"set": entry.own, "samples": len(x), "int8": float((real.argmax(1) == y).mean()), "published": entry.published}
    if is_float(imported):
        floats = network.logits if network else LiteRt(entry.path)
        accuracy["float"] = float((floats(prepared.preprocess.apply(x)).argmax(1) == y).mean())
    return {**row, "own": accuracy}


def agreements(entry: Entry, prepared: Prepared, q: Array, real: Array) -> dict[str, Any]:
    """With LiteRT on an int8 file, otherwise with onnxruntime on the exact export; and of both exports in any case."""
    exported = exported_agreement(prepared, q, real)
    first = integer_agreement(entry.path, q, real) if entry.source == INTEGER else exported["exact"]
    return {"agreement": first, "exported": exported}


def fitting(imported: Imported, found: Calibration) -> Calibration:
    """Calibration samples whose labels the model's own head has."""
    own = imported.classifier
    return found if own is None or int((found.y if found.y is not None else found.x[:0]).max(initial=0)) < len(own.bias) else (
        replace(found, y=None)
    )  # fmt: skip


def anomaly(entry: Entry, imported: Imported) -> dict[str, Any]:
    """Reconstruction error per file: the area under the curve, in float and with the integer features."""
    from sklearn.metrics import roc_auc_score

    windows, owner, anomalous, _ = machine_sounds()
    found = replace(calibration(samples("toycar", shape_of(imported))), y=None)  # of all recordings: one alone costs 5 points
    prepared = prepare(imported, keep_head=True, calibration=found)
    q = prepared.quantize(windows)
    real = twin_logits(prepared, q)
    scores = auc(real, windows, owner, anomalous, roc_auc_score)
    row: dict[str, Any] = {"set": "toycar", "samples": len(windows), "auc_int8": scores, "published": entry.published}
    if is_float(imported):
        row["auc_float"] = auc(LiteRt(entry.path)(windows), windows, owner, anomalous, roc_auc_score)
    some = np.linspace(0, len(q) - 1, SAMPLES).round().astype(int)
    return {**agreements(entry, prepared, q[some], real[some]), "own": row}


def auc(restored: Array, real: Array, owner: Array, anomalous: Array, score: Any) -> float:
    errors = ((restored - real) ** 2).mean(axis=1)
    return float(score(anomalous, np.bincount(owner, errors) / np.bincount(owner)))


def chosen_scheme(entry: Entry, model: str) -> UpdateScheme:
    if entry.scheme is not None:
        return read_scheme(entry.scheme, model)
    weights = {name: Update(ratio) for name, ratio in entry.weights.items()}
    return UpdateScheme(CHOSEN, weights=weights, biases=entry.biases, residual_bits=8 if "*" in weights else 4)


def learning(entry: Entry, imported: Imported, folder: Path) -> dict[str, Any]:
    """The training build on a Cortex-M7, equality of bits with the virtual MCU, and what it learns on real data."""
    data = samples(entry.learns or "", shape_of(imported))
    classes = None if entry.keep_head else len(data.classes)
    keep = entry.keep_head
    prepared = prepare(imported, classes=classes, keep_head=keep, calibration=calibration(data), loss=entry.loss)
    course = Course(steps=entry.steps, skip=0.95)
    rate = chosen_rate(prepared, chosen_scheme(entry, prepared.name), data, course, folder.with_name("rates"))
    compiled = smallest(entry, prepared, folder, rate["rate"])
    facts = compiled.facts()
    result, _ = train(compiled, data, course, "host")
    losses, metric = result["losses"], "accuracy" if entry.loss is Loss.SOFTMAX else "auc"
    part = max(len(losses) // 10, 1)
    return {
        "build": {
            "target": TARGET,
            "budget": compiled.budget.sram,
            "sram": facts["sram"]["total"],
            "flash": facts["flash"]["total"],
            "input_rows": facts["plan"]["input_rows"],
            "scheme": entry.scheme or CHOSEN,
            **twins(compiled, data),
        },
        "adaptation": {
            "set": entry.learns,
            "head": "its own" if entry.keep_head else "new",
            "steps": entry.steps,
            "rate": rate,
            "metric": metric,
            **result[metric],
            "loss_first": float(np.mean(losses[:part])),
            "loss_last": float(np.mean(losses[-part:])),
            "saturated": result["saturated"]["share"],
        },
    }


def smallest(entry: Entry, prepared: Prepared, folder: Path, rate: float) -> Compiled:
    """The build in the first of the SRAM sizes that hold it."""
    for size in SRAM:
        try:
            budget = Budget(TARGET, sram=size << 10, flash=2 << 20)
            return compile_model(prepared, chosen_scheme(entry, prepared.name), folder, budget, rate=rate)
        except BudgetError:
            continue
    raise McugradError(f"{entry.name} ({entry.source}) does not fit {SRAM[-1]} KiB")


def twins(compiled: Compiled, data: Dataset) -> dict[str, Any]:
    """Instructions of a whole step, and whether host and virtual MCU hold the same bits after a few."""
    x, y = data.train
    order = np.random.default_rng(1).permutation(len(x))[:HASH_STEPS]
    q, hashes, counts = compiled.prepared.quantize(x[order]), [], [0]
    y = compiled.prepared.targets.encode(y[order], len(order))
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=7, skip=NEVER_SKIP)
            for sample, label in zip(q, y, strict=True):
                found = device.train_step(sample, label)
                counts.append(found.instructions or 0)
            hashes.append(compiled.program.state_hash(device.read_params()))
    return {"instructions": max(counts), "steps_compared": HASH_STEPS, "same_bits": hashes[0] == hashes[1]}


def key(entry: Entry) -> str:
    return f"{entry.name} / {entry.source}"


def settings(entry: Entry) -> dict[str, Any]:
    """What decides a row, so that a changed entry is measured again."""
    feed = None if entry.feed is None else entry.feed.to_dict()
    plain: dict[str, Any] = json.loads(
        json.dumps({**asdict(replace(entry, feed=None)), "feed": feed, "loss": entry.loss.value})
    )
    return plain


def read() -> dict[str, Any]:
    """Rows by key."""
    return json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}


def write(rows: Mapping[str, Any]) -> None:
    order = [key(e) for e in ENTRIES]
    kept = dict(sorted(rows.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def due(only: str, again: bool) -> Iterator[Entry]:
    known = read()
    for entry in ENTRIES:
        wanted = only.lower() in key(entry).lower()
        if wanted and (again or known.get(key(entry), {}).get("settings") != settings(entry)):
            yield entry


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--only", default="", help="measure the rows whose name or source holds this text")
    parser.add_argument("--again", action="store_true", help="measure rows that are known already")
    options = parser.parse_args()
    failed = 0
    for entry in list(due(options.only, options.again)):
        print(key(entry), flush=True)
        try:
            row = measure(entry)
        except McugradError as error:
            print(f"  failed: {error}", file=sys.stderr)
            failed = 1
            continue
        write({**read(), key(entry): {"settings": settings(entry), **row}})
        print(json.dumps(row, indent=1), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
