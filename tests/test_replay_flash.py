"""Latents in flash: a model of NOR flash, the same bits as in SRAM, and what a failing write or a power cut leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mcugrad.api import Request
from mcugrad.build import build as build_firmware
from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.devices.base import Device, DeviceFault
from mcugrad.devices.nor import Controller
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.errors import BudgetError, McugradError
from mcugrad.fit import SLOTS_PER_CLASS
from mcugrad.nor import NorFlash, PowerCut, StoreError
from mcugrad.prepare import Prepared
from mcugrad.program import Machine
from mcugrad.replay import Replay, Reservoir, expected_writes
from mcugrad.targets import get_target
from mcugrad.trainer import wear
from mcugrad.training.scheme import UpdateScheme
from noise import digits_on_noise

STEPS, SEED, NEVER_SKIP, UNIT = 24, 3, 32769, 4096
SCHEME = UpdateScheme("last", biases=2)


@pytest.fixture(scope="module")
def network() -> Prepared:
    return digits_on_noise()


def build(network: Prepared, folder: Path, replay: Replay, flash: int | None = None, mode: str = "resident") -> Compiled:
    return compile_model(network, SCHEME, folder / "out", Budget("cortex-m7", 32 << 10, flash, mode, "zig", replay))


@pytest.fixture(scope="module")
def stored(network: Prepared, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return build(network, tmp_path_factory.mktemp("stored"), Replay(3, 1, UNIT))


def stream(network: Prepared, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return network.x[rng.integers(0, len(network.x), steps)], rng.integers(0, 10, steps)


def learn(device: Device, network: Prepared, steps: int) -> list[int]:
    """Learns from the start; the steps that flash refused."""
    x, y = stream(network, steps)
    device.reset()
    device.set_control(seed=SEED, step=0)
    refused = []
    for i in range(steps):
        try:
            device.train_step(x[i], int(y[i]))
        except McugradError as error:
            assert "flash did not take the sample's latent" in str(error)
            refused.append(i)
    assert device.control().step == steps, "every step counts"
    return refused


def learn_in_numpy(twin: Machine, network: Prepared, steps: int) -> list[int]:
    x, y = stream(network, steps)
    refused = []
    for i in range(steps):
        try:
            twin.train_step(x[i : i + 1], int(y[i]), np.array([SEED, i, 0, NEVER_SKIP]))
        except StoreError:
            refused.append(i)
    return refused


def flash_of(device: Device) -> NorFlash:
    assert device.flash is not None
    return device.flash


# The model of NOR flash


def test_erasing_sets_a_unit_and_programming_only_clears_bits() -> None:
    flash = NorFlash(8192, 4096)
    before = flash.data.copy()
    assert flash.erase_unit(4096)
    assert (flash.data[4096:] == 255).all() and (flash.data[:4096] == before[:4096]).all()
    assert flash.program(4100, b"\x0f\xff\x00\xaa") and flash.program(4100, b"\xf3\x55\xff\xff")
    assert flash.data[4096:4108].tobytes() == b"\xff" * 4 + b"\x03\x55\x00\xaa" + b"\xff" * 4
    assert flash.erased.tolist() == [0, 1] and flash.operations == 3


def test_what_flash_cannot_do_is_an_error() -> None:
    flash = NorFlash(8192, 4096)
    for at in (-4096, 4, 8192):
        with pytest.raises(IndexError, match="no erase unit begins at"):
            flash.erase_unit(at)
    for at in (-4, 2, 8192):
        with pytest.raises(IndexError, match="no word begins at"):
            flash.program(at, bytes(4))


def test_a_write_that_does_not_read_back_has_failed() -> None:
    flash, data = NorFlash(4096, 4096), bytes(range(1, 12))
    assert flash.write(0, 4096, data) and flash.data[:12].tobytes() == data + b"\xff"
    for failing in range(4):
        flash = NorFlash(4096, 4096, fails=lambda n, failing=failing: n == failing)
        assert not flash.write(0, 4096, data)
        assert flash.data[:11].tobytes() != data, "half done"
        assert flash.write(0, 4096, data), "another time it may go well"


def test_power_can_be_cut_in_any_operation() -> None:
    flash = NorFlash(4096, 4096, cut=1)
    with pytest.raises(PowerCut, match="operation 1"):
        flash.write(0, 4096, bytes(8))
    assert flash.data[:8].tobytes() == b"\0\0\xff\xff" + b"\xff" * 4


def test_the_controller_hands_on_what_the_registers_say() -> None:
    stopped = []

    class Core:
        def emu_stop(self) -> None:
            stopped.append(1)

    controller = Controller(NorFlash(4096, 4096, fails=lambda n: n == 2), 0x08010000)
    for offset, value in ((0, 0x08010000), (8, 1), (4, 0x11223344), (4, 0)):
        controller._write(Core(), offset, 4, value, None)
    assert controller.flash.data[:4].tobytes() == b"\x44\x33\x22\x11"
    assert [controller._read(None, 12, 4, None) for _ in range(2)] == [1, 0], "a failure is told once"
    controller._write(Core(), 0, 4, 0x08000000, None)
    controller._write(Core(), 8, 4, 1, None)
    assert stopped == [1] and "no erase unit begins at" in str(controller.stopped)


# The same bits


@pytest.mark.parametrize(("mode", "per_step"), [("resident", 2), ("rows", 1)])
def test_flash_holds_what_sram_would_and_learning_gives_the_same_bits(
    network: Prepared, tmp_path: Path, mode: str, per_step: int
) -> None:
    in_sram = build(network, tmp_path / "sram", Replay(5, per_step), mode=mode)
    compiled = build(network, tmp_path / "flash", Replay(5, per_step, UNIT), mode=mode)
    twin, other = Machine(compiled.program, poison=True), Machine(in_sram.program)
    assert learn_in_numpy(twin, network, STEPS) == learn_in_numpy(other, network, STEPS) == []
    hashes = {m.program.state_hash(m.state.tobytes()) for m in (twin, other)}
    assert twin.flash is not None
    for kind in ("host", "vm"):
        with in_sram.device(kind) as device, compiled.device(kind) as with_flash:
            assert learn(device, network, STEPS) == learn(with_flash, network, STEPS) == []
            assert device.flash is None and np.array_equal(flash_of(with_flash).data, twin.flash.data)
            assert flash_of(with_flash).erased.tolist() == twin.flash.erased.tolist()
            hashes |= {compiled.program.state_hash(d.read_params()) for d in (device, with_flash)}
    assert len(hashes) == 1
    for slot, latent in other.latents.items():
        assert twin.flash.data[slot * UNIT :][: len(latent)].tobytes() == latent


@pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="no qemu-system-arm here")
def test_the_flash_of_a_microcontroller_that_others_modelled_holds_the_same(network: Prepared, tmp_path: Path) -> None:
    budget = Budget("microbit", replay=Replay(3, 1, get_target("microbit").flash_erase))
    compiled = compile_model(network, SCHEME, tmp_path / "out", budget)
    twin = Machine(compiled.program)
    assert twin.flash is not None and len(twin.flash.data) == 3 * 1024
    learn_in_numpy(twin, network, STEPS)
    with compiled.device("qemu") as device:
        assert learn(device, network, STEPS) == []
        assert device.read_params() == twin.state.tobytes()


def test_the_expected_wear_is_that_of_a_reservoir() -> None:
    writes = [
        sum(reservoir.offer(0, seed) is not None for _ in range(400)) for seed in range(100) for reservoir in [Reservoir(8, 1)]
    ]
    assert np.mean(writes) == pytest.approx(expected_writes(8, 400), rel=0.06)
    assert expected_writes(8, 5) == 5


@pytest.mark.parametrize("slots", [36, 40])
def test_slots_that_the_classes_cannot_share_evenly_wear_no_faster(slots: int) -> None:
    reservoir, labels = Reservoir(slots, 12), np.random.default_rng(0).integers(0, 12, 4000)
    written = [slot for label in labels for slot in [reservoir.offer(int(label), SEED)] if slot is not None]
    assert len(written) < 1.3 * expected_writes(slots, 4000)
    assert max(np.bincount(written)) < 4 * len(written) / slots
    assert max(reservoir.kept) - min(reservoir.kept) <= 1


def test_wear_counts_slots_and_the_unit_that_was_erased_most(network: Prepared, stored: Compiled) -> None:
    with stored.device("host") as device:
        learn(device, network, STEPS)
        erased = flash_of(device).erased
        found = wear(stored.program, device, STEPS)["wear"]
    expected = round(3 * (1 + np.log(STEPS / 3)), 1)
    assert found == {"samples": STEPS, "writes": erased.sum(), "expected_writes": expected, "most_erased": erased.max()}
    assert 3 < found["writes"] < STEPS


# What fails


def test_every_failing_operation_costs_one_sample_and_one_slot_and_nothing_else(network: Prepared, stored: Compiled) -> None:
    steps, program = 6, stored.program
    with stored.device("host") as device:
        learn(device, network, steps)
        flash = flash_of(device)
        each, writes = flash.operations // int(flash.erased.sum()), int(flash.erased.sum())
        for write in range(writes):
            twin = Machine(program)
            assert twin.flash is not None
            twin.flash.fails = lambda n, write=write: n == write * each
            refused = learn_in_numpy(twin, network, steps)
            assert len(refused) == 1 and twin.reservoir.labels.count(-1) == 1
            for operation in range(write * each, (write + 1) * each):
                flash.operations, flash.fails = 0, lambda n, operation=operation: n == operation
                assert learn(device, network, steps) == refused
                assert device.read_params() == twin.state.tobytes(), operation


@pytest.mark.parametrize("first", [0, 100, 140])
def test_flash_that_is_worn_out_is_reported_by_every_step_that_needs_it(
    network: Prepared, stored: Compiled, first: int
) -> None:
    twin = Machine(stored.program)
    assert twin.flash is not None
    twin.flash.fails = lambda n: n >= first
    refused = learn_in_numpy(twin, network, 12)
    assert len(refused) == 12 if first == 0 else len(refused) > 2
    for kind in ("host", "vm"):
        with stored.device(kind) as device:
            flash_of(device).fails = lambda n: n >= first
            assert learn(device, network, 12) == refused
            assert device.read_params() == twin.state.tobytes()


def test_after_a_power_cut_in_any_operation_the_buffer_is_empty_and_fills_again(network: Prepared, stored: Compiled) -> None:
    steps = 3
    device = VirtualMcu.load(stored.firmware)
    learn(device, network, steps)
    flash, expected = flash_of(device), device.read_params()
    for operation in range(flash.operations):
        flash.cut = flash.operations + operation
        with pytest.raises(PowerCut):
            learn(device, network, steps)
        device.power_on()
        assert learn(device, network, steps) == [] and device.read_params() == expected, operation
    assert learn(device, network, steps) == [] and device.read_params() == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mmio_flash_erase(at + unit)", "mmio_flash_erase(at + unit + 64u)", "no erase unit begins at 0x40"),
        ("mmio_flash_program(at,", "mmio_flash_program(at - 4096u,", "no word begins at -0x1000"),
        ("mmio_flash_program(at,", "(latents[0] = 0, mmio_flash_program)(at,", "Write to write-protected memory"),
    ],
)
def test_the_virtual_mcu_faults_where_flash_would_be_harmed(
    network: Prepared, stored: Compiled, tmp_path: Path, old: str, new: str, message: str
) -> None:
    folder = tmp_path / "copy"
    replace_in(stored.folder, folder, old, new)
    device = VirtualMcu.load(build_firmware(folder, stored.firmware.target, stack=1024))
    x, y = stream(network)
    with pytest.raises(DeviceFault, match=message):
        device.train_step(x[0], int(y[0]))


def replace_in(source: Path, folder: Path, old: str, new: str) -> None:
    """A copy of a generated folder with another firmware/main.c."""
    for path in (p for p in source.rglob("*.[chS]") if "build" not in p.parts):
        text = path.read_text(encoding="utf-8")
        if path.name == "main.c":
            assert text.count(old) == 1
            text = text.replace(old, new)
        to = folder / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(text, encoding="utf-8")


# What it takes


def test_the_report_is_the_elf(stored: Compiled) -> None:
    facts, elf = stored.facts(), stored.firmware.facts
    target, section = stored.firmware.target, elf.section(".latents")
    assert section.size == 3 * UNIT and section.address % UNIT == 0 and not section.data
    assert facts["flash"]["total"] == section.address + section.size - target.flash_base
    assert facts["flash"]["latents"] == facts["flash"]["total"] - facts["flash"]["code"] - facts["flash"]["constants"]
    assert facts["replay"]["pitch"] == UNIT and facts["replay"]["bytes"] == 256
    assert facts["sram"]["replay"] < 16 + (4 + 8 * 10 + 2 * 3 + 15), "counts and labels only"
    assert facts["sram"]["static"] == elf.sram_static and facts["sram"]["total"] <= 32 << 10


def test_the_stack_of_a_write_is_within_its_bound(network: Prepared, stored: Compiled) -> None:
    device = VirtualMcu.load(stored.firmware)
    used = device.stack_high_water(lambda: learn(device, network, 4))
    assert used <= stored.firmware.facts.stack_bound <= device.stack_reserved


def test_auto_fills_the_flash_and_one_more_does_not_fit(network: Prepared, tmp_path: Path) -> None:
    flash = 272 << 10
    facts = build(network, tmp_path / "auto", Replay(None, 1, UNIT), flash).facts()
    slots = facts["replay"]["slots"]
    assert slots > SLOTS_PER_CLASS * 10 and 0 <= flash - facts["flash"]["total"] < UNIT
    with pytest.raises(BudgetError, match=rf"bytes of flash.*\(--flash 276K\), or use --replay {slots}$"):
        build(network, tmp_path / "more", Replay(slots + 1, 1, UNIT), flash)


def test_auto_takes_fewer_than_it_wants_where_there_is_no_more_room(network: Prepared, tmp_path: Path) -> None:
    flash = 64 << 10
    facts = build(network, tmp_path, Replay(None, 1, UNIT), flash).facts()
    assert 0 < facts["replay"]["slots"] < SLOTS_PER_CLASS * 10 and facts["flash"]["total"] <= flash


def test_flash_without_room_for_a_slot_says_leave_it_out(network: Prepared, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match="or leave --replay out"):
        build(network, tmp_path, Replay(2, 1, UNIT), 40 << 10)


def test_a_slot_is_whole_units() -> None:
    assert [Replay(1, erase=UNIT).pitch(n) for n in (1, 4096, 4097, 10_240)] == [4096, 4096, 8192, 12_288]
    assert Replay(1).pitch(10_240) == 0


def test_flash_that_the_firmware_cannot_write_is_refused(stored: Compiled) -> None:
    with pytest.raises(McugradError, match=r"cannot write the flash of mps2-an500, only that of .*cortex-m7.*--replay-in sram"):
        Budget("mps2-an500", replay=Replay(3, 1, UNIT)).resolve()
    with pytest.raises(McugradError, match="QEMU has no machine with the flash of cortex-m7: use --on vm"):
        stored.device("qemu")


def test_the_request_decides_where_latents_lie() -> None:
    request = Request("model.onnx", replay=7, replay_in="flash")
    assert request.budget.replay == Replay(7, 1, get_target("cortex-m7").flash_erase)
    assert replace(request, replay_in="sram").budget.replay == Replay(7)
    with pytest.raises(McugradError, match="add --replay auto"):
        Request("model.onnx", replay_in="flash")
    with pytest.raises(McugradError, match="--replay-in must be one of sram, flash, got eeprom"):
        Request("model.onnx", replay=7, replay_in="eeprom")
