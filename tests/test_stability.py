"""Long runs: the rules of the benchmark find what they are there for, and a short run breaks none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from benchmarks import stability
from benchmarks.stability import Watch, verdict

from mcugrad.compiler import Budget, compile_model, host_program
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.devices.host import Host
from mcugrad.digits import PREPROCESS, digits
from mcugrad.importers import load
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.trainer import Course
from mcugrad.training.scheme import read_scheme

MARKS = (1000, 3000)
ON_THE_CORE = 300  # steps


@pytest.fixture(scope="module")
def network() -> Prepared:
    x, y = digits("changed").train
    return prepare(replace(load(ASSET), preprocess=PREPROCESS), classes=10, calibration=Calibration(x[:64], y[:64], "digits"))


def test_a_full_update_at_a_constant_rate_is_stable(network: Prepared, tmp_path: Path) -> None:
    (x, y), (test_x, test_y) = digits("changed").train, digits("changed").test
    graph = training_graph(network, replace(read_scheme("full"), adapt=True), rate=2e-3)
    program, library = host_program(graph, "digits", tmp_path)
    with Host.load(library) as device:
        watch = Watch(program, device, Course(steps=MARKS[-1], schedule="constant"), MARKS)
        rows = watch.rows(network.quantize(x), y, network.quantize(test_x), test_y)
    assert [r["step"] for r in rows] == list(MARKS)
    assert verdict(rows) == [] and rows[-1]["accuracy"] > 0.75


def test_hundreds_of_steps_on_the_core_are_those_of_the_host(network: Prepared, tmp_path: Path) -> None:
    compiled = compile_model(network, read_scheme("demo", "digits"), tmp_path / "build", Budget(sram=64 << 10))
    found = []
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=2, step=0, skip=NEVER_SKIP)
            for step in range(ON_THE_CORE):
                device.train_step(network.x[step % len(network.x)], int(network.y[step % len(network.x)]))
            found.append(compiled.program.state_hash(device.read_params()))
    assert found[0] == found[1]


def test_a_run_that_was_cut_short_goes_on_to_the_same_bits(network: Prepared, tmp_path: Path) -> None:
    (x, y), (test_x, test_y) = digits("changed").train, digits("changed").test
    program, library = host_program(training_graph(network, read_scheme("demo", "digits")), "digits", tmp_path)
    course, test = Course(steps=4000, schedule="constant"), (network.quantize(test_x[:50]), test_y[:50])
    kept, hashes = tmp_path / "last.json", []
    for marks, file in (((1000, 2000), kept), ((1000, 2000, 4000), kept), ((1000, 2000, 4000), None)):
        with Host.load(library) as device:
            rows = Watch(program, device, course, marks).rows(network.quantize(x), y, *test, file)
        assert [r["step"] for r in rows] == list(marks)
        hashes.append(rows)
    assert hashes[1] == hashes[2] and hashes[1][:2] == hashes[0]


def row(step: int, **changes: float) -> dict[str, Any]:
    good = {"loss": 1.0, "accuracy": 0.8, "saturated": 1e-5, "weights_clamped": 0.0, "largest_bias": 0.01}
    return {"step": step, **good, **changes}


BROKEN: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "accuracy fell": lambda: [row(1000), row(10_000, accuracy=0.85), row(30_000)],
    "loss rose": lambda: [row(1000), row(10_000), row(30_000, loss=1.2)],
    "gradients clamped": lambda: [row(1000, saturated=0.002), row(10_000)],
    "weights came to": lambda: [row(1000), row(10_000, weights_clamped=0.02)],
    "a bias reached": lambda: [row(1000), row(10_000, largest_bias=0.6)],
}


@pytest.mark.parametrize("rule", BROKEN)
def test_each_rule_finds_what_it_is_for(rule: str) -> None:
    (found,) = verdict(BROKEN[rule]())
    assert rule in found


def test_what_is_committed_says_what_its_rules_say() -> None:
    for result in stability.stored():
        assert result["broken"] == verdict(result["marks"]), result["run"]
        assert result["marks"][-1]["step"] == stability.MARKS[-1]
