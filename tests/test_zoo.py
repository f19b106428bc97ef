"""Models that others made, from the file to learning: checked, trained for a few steps, and equal on host and virtual MCU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.zoo import key, settings
from benchmarks.zoo_models import ENTRIES, Entry
from benchmarks.zoo_rate import best, explored, without_test
from benchmarks.zoo_table import HEADS, zoo_table

from mcugrad.compiler import Budget, compile_model
from mcugrad.data import Dataset
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.importers import Imported, check, load
from mcugrad.loss import Loss
from mcugrad.prepare import prepare
from mcugrad.training.scheme import Update, UpdateScheme

THERE = [e for e in ENTRIES if e.builder is not None or e.path.exists()]
HEADLESS = "SqueezeNet, small"  # it ends in an average of its classes, which it keeps
CLASSES = 3
SAMPLES = 6


def loaded(entry: Entry) -> Imported:
    """The model; from code untrained."""
    if entry.builder is None:
        return load(entry.path)
    pytest.importorskip("torch")
    import torch_models

    return load(*torch_models.build(entry.builder))


def synthetic_data(entry: Entry, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Smooth images, or values of the right size, whose mean tells the class."""
    rng = np.random.default_rng(0)
    y = np.arange(SAMPLES) % CLASSES
    x = rng.normal(0, 30, (SAMPLES, *shape)) + 60.0 * (y - 1).reshape(-1, *[1] * len(shape)) + 128
    return np.clip(x, 0, 255).astype(np.uint8), y


@pytest.mark.parametrize("entry", THERE, ids=key)
def test_the_model_is_checked_in_under_two_seconds(entry: Entry) -> None:
    import time

    start = time.process_time()
    report = check(entry.path) if entry.builder is None else loaded(entry).report
    assert report.ok and report.params > 1000 and report.macs > 1000
    assert entry.builder is not None or time.process_time() - start < 2


@pytest.mark.parametrize("entry", THERE, ids=key)
def test_a_few_steps_lower_the_loss_and_give_the_same_bits_in_the_virtual_mcu(entry: Entry, tmp_path: Path) -> None:
    from mcugrad.data import Calibration

    imported = loaded(entry)
    _, *shape = imported.graph.inputs[0].type.shape
    x, y = synthetic_data(entry, tuple(shape))
    own = entry.name == HEADLESS or entry.loss is Loss.AUTOENCODER
    found = Calibration(x, y, "synthetic")
    prepared = prepare(imported, classes=None if own else CLASSES, keep_head=own, calibration=found, loss=entry.loss)
    y, score = prepared.targets.encode(y, len(y)), prepared.targets.loss_of(prepared.graph)
    last = [n.inputs[1].name.rsplit("_", 1)[0] for n in prepared.graph.nodes if n.op.weight_axis == 0][-1]
    scheme = UpdateScheme("tail", weights={last: Update(residual_bits=8)}, biases=3)
    budget, rate = Budget("cortex-m7", sram=1 << 20, flash=2 << 20), 0.01 if entry.builder is None else 0.25
    compiled = compile_model(prepared, scheme, tmp_path / "build", budget, rate=rate)
    q, hashes, losses = prepared.quantize(x), [], []
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=3, skip=NEVER_SKIP)
            steps = [device.train_step(q[i % SAMPLES], y[i % SAMPLES]) for i in range(4 if kind == "vm" else 2 * SAMPLES)]
            if kind == "host":
                losses = [score(s.p_label) for s in steps]
                device.reset()
                device.set_control(seed=3, step=0, skip=NEVER_SKIP)
                for i in range(4):
                    device.train_step(q[i], y[i])
            hashes.append(compiled.program.state_hash(device.read_params()))
    assert hashes[0] == hashes[1]
    assert np.mean(losses[SAMPLES:]) < np.mean(losses[:SAMPLES])


def test_the_table_has_a_cell_for_every_heading_and_says_what_is_missing() -> None:
    row = {
        "model": "m", "source": "s", "params": 1000, "macs": 2000,
        "agreement": {"within": 0.995, "top1": 1.0},
        "exported": {"qdq": {"within": 0.75, "top1": 0.95}},
        "own": {"int8": 0.85, "published": 85.2},
        "build": {"sram": 1024, "flash": 4096, "instructions": 77777, "same_bits": True},
        "adaptation": {"set": "flowers", "head": "new", "metric": "accuracy", "rate": {"rate": 0.004},
                       "before": 0.1, "after": 0.9},
    }  # fmt: skip
    lines = zoo_table([row, {"model": "n", "source": "s", "params": 1, "macs": 2}])
    assert all(line.count("|") == len(HEADS) + 1 for line in lines[-4:])
    assert "| 99.5 | 100.0 | 75.0 | 95.0 | 85.2 | - | 85.0 | 1,024 | 4,096 | 77,777 | yes | flowers" in lines[-2]
    assert lines[-2].endswith("| flowers (*new*) | 0.004 | 10.0 | 90.0 |")
    assert lines[-1].endswith("| - | - | - | - |") and zoo_table([]) == []


def test_names_of_rows_are_unique_and_a_changed_entry_is_measured_again() -> None:
    assert len({key(e) for e in ENTRIES}) == len(ENTRIES)
    assert settings(ENTRIES[0]) != settings(replace(ENTRIES[0], steps=1))


@pytest.mark.parametrize(("top", "tried"), [(8, 5), (12, 6), (14, 7), (2, 7), (-9, 7), (30, 7)])
def test_rates_go_on_while_the_best_lies_at_an_edge(top: int, tried: int) -> None:
    scores = explored(lambda halvings: -abs(halvings - top))
    assert len(scores) == tried and sorted(scores) == list(range(min(scores), max(scores) + 1, 2))
    assert min(scores) < best(scores) < max(scores) or best(scores) in {0, 16}
    assert best({4: 0.5, 6: 0.5, 8: 0.1}) == 6, "of equals the slowest"


def test_a_rate_is_chosen_without_the_test_split() -> None:
    y = np.repeat(np.arange(3), 20)
    split = (np.arange(60) % 4 == 0).astype(np.uint8)
    data = Dataset(np.arange(60), y, split, ("a", "b", "c"), "synthetic")
    part = without_test(data)
    assert not set(part.x) & set(data.test[0]) and len(part.x) == 45
    assert np.bincount(part.test[1]).tolist() == [3, 3, 3]
    grouped = without_test(replace(data, group=np.arange(60) // 6))
    assert not set(grouped.group[grouped.split == 0]) & set(grouped.group[grouped.split == 1])
    assert len(set(grouped.test_group)) == 2
