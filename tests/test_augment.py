"""Augmentation: the same on every device, resident or row by row, in training alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad.augment import Augment, parse_augment
from mcugrad.compiler import Budget, compile_model, host_program
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.digits import PREPROCESS, digits
from mcugrad.emit.c import source
from mcugrad.errors import McugradError
from mcugrad.graphfile import load_graph, save_graph
from mcugrad.importers import load
from mcugrad.ir import Array, TensorType, interpret
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.program import Machine
from mcugrad.training.scheme import read_scheme

STEPS, SEED = 12, 11
ALL = Augment(flip=True, shift=3, brightness=20, contrast=30)


@pytest.fixture(scope="module")
def network() -> Prepared:
    x, y = digits("changed").train
    own = prepare(replace(load(ASSET), preprocess=PREPROCESS), classes=10, calibration=Calibration(x[:64], y[:64], "digits"))
    return replace(own, augment=ALL)


def one_pixel_at_a_time(how: Augment, x: Array, zero: int, seed: int, step: int) -> Array:
    """What `Augment` says, with no array arithmetic."""
    flip, down, right, add, gain = how.drawn(seed, step, x.shape)
    _, h, w, channels = x.shape
    out = np.zeros_like(x)
    for row, column, c in np.ndindex(h, w, channels):
        from_row, from_column = row - down, column - right
        value = zero
        if 0 <= from_row < h and 0 <= from_column < w:
            pixel = int(x[0, from_row, w - 1 - from_column if flip else from_column, c])
            value = min(max(((pixel - zero) * gain + 64 >> 7) + zero + add, -128), 127)
        out[0, row, column, c] = value
    return out


def test_the_array_form_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    for step, shape in enumerate(((1, 5, 7, 3), (1, 4, 4, 1), (1, 1, 9, 2), (1, 9, 1, 1)) * 4):
        x, zero = rng.integers(-128, 128, shape).astype(np.int8), (0, -128, 17)[step % 3]
        assert np.array_equal(ALL.apply(x, zero, 3, step), one_pixel_at_a_time(ALL, x, zero, 3, step))


def test_draws_reach_their_limits_and_depend_on_seed_and_step_alone() -> None:
    found = np.array([ALL.drawn(1, step, (1, 16, 16, 1)) for step in range(2000)])
    assert found.min(axis=0).tolist() == [0, -3, -3, -20, 98] and found.max(axis=0).tolist() == [1, 3, 3, 20, 158]
    assert abs(found[:, 0].mean() - 0.5) < 0.04 and abs(found[:, 1:4].mean(axis=0)).max() < 0.6
    assert ALL.drawn(1, 5, (1, 8, 8, 3)) == ALL.drawn(1, 5, (1, 16, 16, 1)) != ALL.drawn(2, 5, (1, 8, 8, 3))


def states(network: Prepared, mode: str, folder: Path, kinds: tuple[str, ...]) -> set[str]:
    """Hashes of what interpreter, program and devices learned; what inference says must not change by augmentation."""
    compiled = compile_model(network, read_scheme("demo", "digits"), folder, Budget(input_mode=mode))
    program, graph, machine = compiled.program, compiled.program.graph, Machine(compiled.program, poison=True)
    assert program.input_rows == (mode == "rows")
    for step in range(STEPS):
        x, label, control = network.x[step][None], network.y[step], np.array([SEED, step, 0, NEVER_SKIP], np.int32)
        machine.train_step(x, int(label), control)
        seen = ALL.apply(x, program.zero, SEED, step)
        result = interpret(graph, {graph.inputs[0].name: seen, "label": np.array([label]), "control": control})
        graph = graph.with_params(result.next_params(graph))
    params = {p.value.name: p.data for p in graph.mutable()}
    found = {program.state_hash(program.pack_state(params)), program.state_hash(machine.state.tobytes())}
    for kind in kinds:
        with compiled.device(kind) as device:
            device.set_control(seed=SEED, step=0, skip=NEVER_SKIP)
            for step in range(STEPS):
                device.train_step(network.x[step], int(network.y[step]))
            found.add(program.state_hash(device.read_params()))
            assert np.array_equal(device.infer(network.x[0]), machine.infer(network.x[0][None]))
    return found


@pytest.mark.parametrize("mode", ["resident", "rows"])
def test_interpreter_host_and_virtual_mcu_learn_the_same_bits(mode: str, network: Prepared, tmp_path: Path) -> None:
    assert len(states(network, mode, tmp_path / mode, ("host", "vm"))) == 1


def test_without_the_option_nothing_is_printed_and_a_saved_graph_keeps_it(network: Prepared, tmp_path: Path) -> None:
    plain, _ = host_program(training_graph(replace(network, augment=None), read_scheme("head")), "digits", tmp_path / "plain")
    changed = training_graph(network, read_scheme("head"))
    save_graph(changed, tmp_path / "graph.npz")
    assert "augment" not in source(plain)
    assert load_graph(tmp_path / "graph.npz").meta["augment"] == ALL


IMAGE, SIGNAL, NUMBERS = (TensorType(shape, "s8") for shape in ((1, 128, 96, 3), (1, 1, 200, 2), (1, 1, 1, 16)))


def test_parts_and_numbers_may_be_left_out() -> None:
    assert parse_augment("flip, shift,brightness=9", IMAGE) == Augment(True, 6, 9)
    assert parse_augment("shift=5,contrast", SIGNAL) == Augment(shift=5, contrast=16)


WRONG = {
    ("flip", SIGNAL): "needs images; the model reads a signal, which shift, brightness and contrast suit",
    ("shift", NUMBERS): r"needs images or signals; the model reads \[1, 1, 1, 16\]",
    ("turn", IMAGE): "'turn' is unknown: write it as flip,shift=8",
    ("flip=2", IMAGE): "'flip=2' is unknown",
    ("shift=96", IMAGE): "shift must be between 1 and 95 for this model, got 96",
    ("brightness=0", IMAGE): "brightness must be between 1 and 127",
}


@pytest.mark.parametrize("case", WRONG, ids=lambda c: c[0])
def test_what_a_sample_cannot_have_is_an_error(case: tuple[str, TensorType]) -> None:
    with pytest.raises(McugradError, match=WRONG[case]):
        parse_augment(*case)
