"""One network, five ways to run it: interpreter, planned program, host, virtual MCU and QEMU learn the same bits."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.data import Calibration
from mcugrad.demo import ASSET
from mcugrad.devices.base import Device
from mcugrad.devices.elf import read_elf
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.digits import PREPROCESS, digits
from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.ir import Array, interpret
from mcugrad.prepare import Prepared, prepare, synthetic
from mcugrad.program import Machine
from mcugrad.trainer import loss_of
from mcugrad.training.scheme import Update, UpdateScheme, read_scheme, with_bias_bits, with_residual_bits

STEPS, SEED, HALVE_AT, SKIP = 10, 7, 6, 16000
MCUNET = Path(__file__).resolve().parents[2] / "shared" / "models" / "tiny_training" / "mcunet-5fps.pkl"
needs_gcc = pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="arm-none-eabi-gcc is not installed")
needs_riscv = pytest.mark.skipif(not shutil.which("qemu-system-riscv32"), reason="qemu-system-riscv32 is not installed")
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="qemu-system-arm is not installed")


@dataclass(frozen=True)
class Trace:
    """What ten steps left behind."""

    losses: tuple[float, ...]
    progress: tuple[int, ...]
    sha256: str


@dataclass(frozen=True, eq=False)
class Lesson:
    """int8 samples [N,H,W,C] and labels to learn from."""

    x: Array
    y: Array

    def control(self, step: int) -> Array:
        """seed, step, halvings, skip: the rate is halved once, and confident samples are skipped."""
        return np.array([SEED, step, int(step >= HALVE_AT), SKIP], np.int32)


@pytest.fixture(scope="module")
def network() -> Prepared:
    imported = replace(load(ASSET), preprocess=PREPROCESS)
    x, y = digits("changed").train
    return prepare(imported, classes=10, calibration=Calibration(x[:32], y[:32], "digits"))


@pytest.fixture(scope="module")
def lesson(network: Prepared) -> Lesson:
    x, y = digits("changed").train
    again = np.array([0, 1, 2, 3, 0, 0, 0, 4, 5, 6])  # one sample often enough to be skipped
    return Lesson(network.quantize(x[again]), y[again])


def scheme_of(name: str) -> UpdateScheme:
    """A scheme by name; "inner" updates every weight but the first, whose gradient would need the whole input."""
    if name == "demo16":
        return with_bias_bits(read_scheme("demo", "digits"), 16)
    if name != "inner":
        return read_scheme(name, "digits")
    return UpdateScheme("inner", weights={f"conv{i}": Update() for i in range(1, 13)}, biases=13, centred=True)


def by_interpreter(compiled: Compiled, lesson: Lesson) -> Trace:
    graph, losses, progress = compiled.program.graph, [], []
    for step, (sample, label) in enumerate(zip(lesson.x, lesson.y, strict=True)):
        feeds = {graph.inputs[0].name: sample[None], "label": np.array([label]), "control": lesson.control(step)}
        result = interpret(graph, feeds)
        assert compiled.program.p_label is not None
        losses.append(loss_of(int(result[compiled.program.p_label][0])))
        progress.append(result.progress)
        graph = graph.with_params(result.next_params(graph))
    params = {p.value.name: p.data for p in graph.mutable()}
    return Trace(tuple(losses), tuple(progress), compiled.program.state_hash(compiled.program.pack_state(params)))


def by_program(compiled: Compiled, lesson: Lesson) -> Trace:
    machine = Machine(compiled.program, poison=True)
    pairs = enumerate(zip(lesson.x, lesson.y, strict=True))
    found = [machine.train_step(sample[None], int(label), lesson.control(step)) for step, (sample, label) in pairs]
    losses = tuple(loss_of(p) for p, _ in found)
    return Trace(losses, tuple(p for _, p in found), compiled.program.state_hash(machine.state.tobytes()))


def by_device(device: Device, compiled: Compiled, lesson: Lesson) -> Trace:
    found = []
    for step, (sample, label) in enumerate(zip(lesson.x, lesson.y, strict=True)):
        seed, _, halvings, skip = lesson.control(step).tolist()
        device.set_control(seed=seed, halvings=halvings, skip=skip)
        found.append(device.train_step(sample, int(label)))
    losses, progress = tuple(loss_of(r.p_label) for r in found), tuple(r.progress for r in found)
    return Trace(losses, progress, compiled.program.state_hash(device.read_params()))


def trace(compiled: Compiled, lesson: Lesson, kind: str) -> Trace:
    with compiled.device(kind) as device:
        return by_device(device, compiled, lesson)


CASES = {
    "sparse, 4 bits": ("demo", 4, Budget("cortex-m7", input_mode="resident")),
    "sparse, pure int8": ("demo", 0, Budget("cortex-m7", input_mode="rows")),
    "sparse, 8 bits": ("demo", 8, Budget("cortex-m4", input_mode="resident")),
    "sparse, 16 bits a bias": ("demo16", 4, Budget("cortex-m7", input_mode="rows")),
    "full and centred": ("full", 4, Budget("cortex-m7", input_mode="resident")),
    "all but the first layer, by rows": ("inner", 8, Budget("cortex-m4", input_mode="rows")),
    "head": ("head", 4, Budget("cortex-m4", input_mode="rows")),
    "biases": ("bias", 4, Budget("cortex-m0plus", input_mode="resident")),
    "sparse on the smallest core": ("demo", 4, Budget("cortex-m0plus", input_mode="rows")),
}


@pytest.mark.parametrize("case", CASES)
def test_every_way_to_run_it_learns_the_same_bits(case: str, network: Prepared, lesson: Lesson, tmp_path: Path) -> None:
    name, bits, budget = CASES[case]
    scheme = with_residual_bits(scheme_of(name), bits)
    compiled = compile_model(network, scheme, tmp_path / "out", budget, rate=0.05, seed=SEED)
    assert compiled.program.input_rows == (budget.input_mode == "rows")
    want = by_interpreter(compiled, lesson)
    assert len(set(want.losses)) > STEPS // 2, "it learns"
    assert 1 in want.progress and 0 in want.progress, "some steps are skipped, some are not"
    assert by_program(compiled, lesson) == want
    assert trace(compiled, lesson, "host") == want
    with VirtualMcu.load(compiled.firmware) as mcu:
        assert by_device(mcu, compiled, lesson) == want
        check_the_books(compiled, mcu, lesson)


def check_the_books(compiled: Compiled, mcu: VirtualMcu, lesson: Lesson) -> None:
    """The linked ELF is what the report says, and no step needs more stack than the bound."""
    sram, flash, elf = compiled.facts()["sram"], compiled.facts()["flash"], read_elf(compiled.firmware.elf)
    sizes = {s.name: s.size for s in elf.sections}
    assert sram["static"] == sizes.get(".data", 0) + sizes.get(".bss", 0)
    assert sram["total"] == sram["static"] + elf.stack_bound
    assert (elf.symbol("arena").size, elf.symbol("state").size) == (sram["arena"], sram["parameters"])
    assert flash["total"] == sum(len(s.data) for s in elf.sections) == flash["code"] + flash["constants"]
    mcu.set_control(skip=32769)
    used = mcu.stack_high_water(lambda: mcu.train_step(lesson.x[0], int(lesson.y[0])))
    assert 0 < used <= elf.stack_bound <= mcu.stack_reserved


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("cortex-m7", marks=needs_qemu),
        pytest.param("cortex-m55", marks=needs_qemu),
        pytest.param("rv32imc", marks=needs_riscv),
    ],
)
@pytest.mark.parametrize(
    ("name", "mode"), [("full", "resident"), ("demo", "rows")], ids=["full and centred, resident", "sparse, by rows"]
)
def test_qemu_agrees(name: str, mode: str, target: str, network: Prepared, lesson: Lesson, tmp_path: Path) -> None:
    budget = Budget(target, input_mode=mode)
    compiled = compile_model(network, scheme_of(name), tmp_path / "out", budget, rate=0.05, seed=SEED)
    assert trace(compiled, lesson, "qemu") == trace(compiled, lesson, "host")


@needs_riscv
def test_a_core_that_only_qemu_knows_runs_the_firmware_of_the_budget(network: Prepared, tmp_path: Path) -> None:
    budget = Budget("rv32imc", sram=16 << 10)
    compiled = compile_model(network, scheme_of("demo"), tmp_path / "out", budget)
    assert compiled.on_qemu() is compiled.firmware and compiled.firmware.target.sram == 16 << 10
    with pytest.raises(McugradError, match=r"the virtual MCU does not emulate rv32imc; use QEMU$"):
        compiled.device("vm")
    with compiled.device("qemu") as device:
        assert len(device.read_params()) == compiled.facts()["sram"]["parameters"]


@needs_gcc
def test_gcc_builds_the_same_bits(network: Prepared, lesson: Lesson, tmp_path: Path) -> None:
    traces = {}
    for compiler in ("zig", "gcc"):
        budget = Budget("cortex-m7", compiler=compiler)
        compiled = compile_model(network, read_scheme("demo", "digits"), tmp_path / compiler, budget, rate=0.05, seed=SEED)
        traces[compiler] = trace(compiled, lesson, "vm")
    assert traces["zig"] == traces["gcc"]


def test_an_image_network_learns_in_256_kilobytes(tmp_path: Path) -> None:
    if not MCUNET.exists():
        pytest.skip("the pretrained networks are not beside the project")
    network = prepare(load(MCUNET), classes=10)
    budget = Budget("cortex-m7", sram=256 << 10, flash=1 << 20)
    compiled = compile_model(network, read_scheme("49kb", network.name), tmp_path / "out", budget, seed=SEED)
    lesson = Lesson(synthetic(20, network.input_shape, seed=3), np.arange(20) % 10)
    want = trace(compiled, lesson, "host")
    assert want.sha256 != compiled.program.state_hash(compiled.program.initial_state())
    assert trace(compiled, lesson, "vm") == want == by_interpreter(compiled, lesson)
