"""Several samples make one step: the same bits on every device, nothing lost and nothing overflowing on the way."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad.compiler import Budget, compile_model, host_program
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import NEVER_SKIP, Device
from mcugrad.devices.host import Host
from mcugrad.digits import PREPROCESS, digits
from mcugrad.emit.c import source
from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.ir import Array, Graph, GraphError, TensorType, interpret
from mcugrad.memory.problem import build
from mcugrad.memory.schedule import layerwise
from mcugrad.memory.solve import solve
from mcugrad.ops.hold import TOP, Hold
from mcugrad.prepare import Prepared, prepare, training_graph
from mcugrad.program import Program, lower
from mcugrad.training.scheme import Update, UpdateScheme, read_scheme, with_accumulation

SAMPLES = 3
STEPS = 3 * SAMPLES + 1  # the first SAMPLES train the head alone, which is still zero: 2 * SAMPLES + 1 are left
PARTS = {f"conv{i}": Update(residual_bits=bits) for i, bits in ((4, 8), (7, 4), (8, 0))}
SCHEME = UpdateScheme("parts", weights={**PARTS, "conv12": Update(0.5, centred=True)}, biases=9, accumulate=SAMPLES)


@pytest.fixture(scope="module")
def network() -> Prepared:
    x, y = digits("changed").train
    return prepare(replace(load(ASSET), preprocess=PREPROCESS), classes=10, calibration=Calibration(x[:64], y[:64], "digits"))


def by_interpreter(graph: Graph, network: Prepared, steps: int) -> list[dict[str, Array]]:
    """Mutable parameters after each step."""
    found = []
    for step in range(steps):
        control = np.array([5, step, 0, NEVER_SKIP], np.int64)
        label = np.array([network.y[step]])
        result = interpret(graph, {graph.inputs[0].name: network.x[step : step + 1], "label": label, "control": control})
        graph = graph.with_params(result.next_params(graph))
        found.append({p.value.name: p.data for p in graph.mutable()})
    return found


def by_device(device: Device, program: Program, network: Prepared) -> str:
    device.set_control(seed=5, step=0, skip=NEVER_SKIP)
    for step in range(STEPS):
        device.train_step(network.x[step], int(network.y[step]))
    return program.state_hash(device.read_params())


def test_interpreter_host_and_virtual_mcu_hold_the_same_bits(network: Prepared, tmp_path: Path) -> None:
    compiled = compile_model(network, SCHEME, tmp_path / "build", Budget(input_mode="rows"))
    program = compiled.program
    state = by_interpreter(program.graph, network, STEPS)[-1]
    want = program.state_hash(program.pack_state(state))
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            assert by_device(device, program, network) == want, kind
    assert state["conv8_weight_held"].any() and state["backward_samples"][0] == 1


def test_a_parameter_moves_with_the_last_sample_alone(network: Prepared) -> None:
    states = by_interpreter(training_graph(network, SCHEME, rate=0.05), network, STEPS)
    for name in ("conv4_residual", "conv7_bias", "head_weight"):
        moved = [not np.array_equal(a[name], b[name]) for a, b in itertools.pairwise(states)]
        counter = "head_samples" if name == "head_weight" else "backward_samples"
        complete = [a[counter][0] == SAMPLES - 1 for a in states[:-1]]
        assert moved == complete and any(moved), name


def test_one_sample_a_step_prints_the_code_without_the_option(network: Prepared) -> None:
    demo = read_scheme("demo", "digits")
    plain, one, many = (printed(network, s) for s in (demo, with_accumulation(demo, 1), with_accumulation(demo, 2)))
    assert plain == one and "hold" not in one and "hold" in many


def printed(network: Prepared, scheme: UpdateScheme) -> str:
    graph = training_graph(network, scheme)
    schedule = layerwise(graph)
    return source(lower(graph, schedule, solve(build(graph, schedule), effort=0), "digits"))


def test_the_planner_charges_what_is_held(network: Prepared) -> None:
    sizes = []
    for samples in (1, SAMPLES):
        graph = training_graph(network, with_accumulation(SCHEME, samples))
        sizes.append(sum(p.value.type.nbytes for p in graph.mutable()))
        held = sum(p.value.type.nbytes for p in graph.mutable() if p.value.name.endswith(("_held", "_samples")))
    assert sizes[1] - sizes[0] == held > 0


@pytest.mark.parametrize("hold", [Hold(2, 8), Hold(256, 8), Hold(7, 0), Hold(256, 8, "s32"), Hold(100, 2)], ids=str)
def test_the_largest_shares_do_not_overflow_and_what_is_not_moved_is_kept(hold: Hold) -> None:
    rng = np.random.default_rng(hold.samples)
    held, moved, shared = np.zeros(1000, np.int64), np.zeros(1000, np.int64), np.zeros(1000, np.int64)
    for step in range(5 * hold.samples):
        ends = np.where(np.arange(1000) < 100, 1 << 40, np.where(np.arange(1000) < 200, -(1 << 40), 0))
        share = np.where(ends, ends, rng.integers(-hold.most, hold.most + 1, 1000))
        by, held = hold.take(share, held, np.array([step % hold.samples]))
        moved, shared = moved + by, shared + np.clip(share, -hold.most, hold.most)
        assert abs(held).max() <= TOP[hold.dtype]
    assert np.array_equal((moved << hold.fraction) + held, shared)
    assert abs(held).max() <= 1 << hold.fraction >> 1


@pytest.mark.parametrize("hold", [Hold(1, 8), Hold(257, 8), Hold(4, 9)], ids=str)
def test_what_could_overflow_is_refused(hold: Hold) -> None:
    with pytest.raises(GraphError, match="samples"):
        hold.check(TensorType((4,), "s8"), TensorType((4,), "s16"), TensorType((1,), "s32"))


def test_an_accumulator_of_another_shape_is_refused() -> None:
    with pytest.raises(GraphError, match="does not fit"):
        Hold(4, 8).check(TensorType((4,), "s8"), TensorType((5,), "s16"), TensorType((1,), "s32"))


@pytest.mark.parametrize("samples", [0, 257, True])
def test_a_scheme_says_what_it_accumulates(samples: int, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(f"accumulate = {str(samples).lower()}\n", encoding="utf-8")
    with pytest.raises(McugradError, match=r"s\.toml: accumulate must be a number of samples between 1 and 256"):
        read_scheme(tmp_path / "s.toml")
    (tmp_path / "s.toml").write_text("accumulate = 8\n", encoding="utf-8")
    assert read_scheme(tmp_path / "s.toml").accumulate == 8


def test_the_mean_of_equal_samples_is_the_step_of_one(network: Prepared, tmp_path: Path) -> None:
    """The same sample four times with held gradients moves the weights about as far as once without."""
    found = []
    for samples in (1, 4):
        scheme = UpdateScheme("two", weights={"conv8": Update(residual_bits=8)}, accumulate=samples)
        graph = training_graph(network, scheme, rate=4e-3)
        head = next(p for p in graph.params if p.value.name == "head_weight")
        weight = np.random.default_rng(0).integers(-2000, 2000, head.data.shape)
        program, library = host_program(graph.with_params({"head_weight": weight}), "digits", tmp_path / str(samples))
        before = program.unpack_state(program.initial_state())
        with Host.load(library) as device:
            device.set_control(seed=1, skip=NEVER_SKIP)
            for _ in range(samples):
                device.train_step(network.x[0], int(network.y[0]))
            after = program.unpack_state(device.read_params())
        units = [256 * s["conv8_weight"].astype(int) + s["conv8_residual"] for s in (before, after)]
        found.append((units[1] - units[0]).ravel())
    assert np.abs(found[0]).max() > 8
    assert np.abs(found[0] - found[1]).max() <= 4
