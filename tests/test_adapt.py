"""Exponents that follow the data: they rise where gradients clamp, on every device alike, and stay where they fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad.compiler import Budget, Compiled, compile_model, host_program
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import NEVER_SKIP, Device
from mcugrad.devices.host import Host
from mcugrad.digits import PREPROCESS, digits
from mcugrad.importers import load
from mcugrad.ir import Array, Graph
from mcugrad.ops.adapt import HEADROOM, WINDOW
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.program import Program
from mcugrad.training.scheme import read_scheme

SCHEME = replace(read_scheme("demo", "digits"), adapt=True)
TOO_LOW = 4  # octaves below the calibrated exponents


@pytest.fixture(scope="module")
def network() -> Prepared:
    x, y = digits("changed").train
    return prepare(replace(load(ASSET), preprocess=PREPROCESS), classes=10, calibration=Calibration(x[:64], y[:64], "digits"))


@pytest.fixture(scope="module")
def graph(network: Prepared) -> Graph:
    return training_graph(network, SCHEME)


def exponents(graph: Graph) -> Array:
    return next(p.data for p in graph.params if p.value.name == "exponents")


def run(device: Device, network: Prepared, steps: int) -> list[int]:
    """Clamped elements of each step."""
    device.set_control(seed=3, step=0, skip=NEVER_SKIP)
    order = np.arange(steps) % len(network.x)
    return [device.train_step(network.x[i], int(network.y[i])).saturated for i in order]


def learned(device: Device, program: Program) -> Array:
    return program.unpack_state(device.read_params())["exponents"]


def test_exponents_that_are_too_low_rise_until_gradients_fit(graph: Graph, network: Prepared, tmp_path: Path) -> None:
    low = graph.with_params({"exponents": exponents(graph) - TOO_LOW})
    program, library = host_program(low, "digits", tmp_path)
    with Host.load(library) as device:
        clamped = run(device, network, 6 * WINDOW)
        after = learned(device, program)
    assert sum(clamped[:WINDOW]) > 20 * sum(clamped[-WINDOW:])
    assert (after > exponents(low)).any() and (after <= exponents(graph) + HEADROOM).all()


def test_exponents_that_fit_stay(graph: Graph, network: Prepared, tmp_path: Path) -> None:
    program, library = host_program(graph, "digits", tmp_path)
    with Host.load(library) as device:
        run(device, network, WINDOW + 1)
        assert (learned(device, program) == exponents(graph)).all()


def test_the_firmware_adapts_as_the_host_does(network: Prepared, tmp_path: Path) -> None:
    compiled = compile_model(network, SCHEME, tmp_path / "build", Budget(sram=64 << 10))
    found = {kind: by_device(compiled, network, kind) for kind in ("host", "vm")}
    assert found["host"] == found["vm"] and found["host"][0] > 0


def by_device(compiled: Compiled, network: Prepared, kind: str) -> tuple[int, str]:
    program = compiled.program
    start = program.unpack_state(program.initial_state())
    with compiled.device(kind) as device:
        device.write_params(program.pack_state({**start, "exponents": start["exponents"] - TOO_LOW}))
        clamped = sum(run(device, network, WINDOW + 4))
        return clamped, program.state_hash(device.read_params())


def test_without_the_option_exponents_are_no_state(network: Prepared) -> None:
    fixed = training_graph(network, replace(SCHEME, adapt=False))
    assert "exponents" not in {p.value.name for p in fixed.mutable()}
