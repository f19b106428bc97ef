"""Built firmware: its ELF agrees with its arrays, its stack with the bound, its bits with the host's, its faults with us."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mcugrad.build import Firmware, build, build_host, sanitizer_environment
from mcugrad.devices.base import Control, DeviceFault
from mcugrad.devices.elf import read_elf
from mcugrad.devices.host import Host
from mcugrad.devices.qemu import Qemu
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.errors import BudgetError, McugradError
from mcugrad.targets import get_target
from tiny import samples, tiny_folder

CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33")
COMPILERS = (
    "zig",
    pytest.param("gcc", marks=pytest.mark.skipif(not shutil.which("arm-none-eabi-gcc"), reason="no arm-none-eabi-gcc here")),
)
needs_qemu = pytest.mark.skipif(not shutil.which("qemu-system-arm"), reason="no qemu-system-arm here")
needs_riscv = pytest.mark.skipif(not shutil.which("qemu-system-riscv32"), reason="no qemu-system-riscv32 here")
Make = Callable[..., Firmware]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """build() of the tiny model with the given macros, in a folder of its own."""

    def made(core: str = "cortex-m7", compiler: str = "zig", *macros: str, stack: int | None = None) -> Firmware:
        folder = tiny_folder(tmp_path / "model")
        return build(folder, get_target(core), compiler=compiler, stack=stack, flags=[f"-D{m}" for m in macros])

    return made


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    with Host.load(build_host(tiny_folder(tmp_path / "host"))) as device:
        yield device


def check_same_learning(device: VirtualMcu | Qemu, host: Host, steps: int) -> None:
    x, labels = samples(steps)
    for sample, label in zip(x, labels, strict=True):
        ours, theirs = device.train_step(sample, int(label)), host.train_step(sample, int(label))
        assert (ours.p_label, ours.predicted, ours.progress) == (theirs.p_label, theirs.predicted, theirs.progress)
    assert device.read_params() == host.read_params()
    assert (device.infer(x[0]) == host.infer(x[0])).all()
    assert device.control() == host.control() == Control(step=steps)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("core", CORES)
def test_every_core_and_compiler_learns_the_same_bits_within_the_bound_of_its_stack(
    core: str, compiler: str, make: Make, host: Host
) -> None:
    firmware = make(core, compiler)
    device = VirtualMcu.load(firmware)
    check_same_learning(device, host, 20)
    x, labels = samples(1)
    used = device.stack_high_water(lambda: (device.train_step(x[0], int(labels[0])), device.evaluate(x, labels)))
    assert used <= firmware.facts.stack_bound <= device.stack_reserved
    assert firmware.facts.stack_bound <= used + 32, "the bound is loose on a program this small"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_64_bit_products_come_from_the_compilers_library_where_the_core_has_none(
    compiler: str, tmp_path: Path, host: Host
) -> None:
    folder = tiny_folder(tmp_path / "wide")
    path = folder / "ops" / "tiny.c"
    path.write_text(
        path.read_text().replace("(x[i] * gradient[k] >> shift)", "(int32_t)((int64_t)x[i] * gradient[k] >> shift)")
    )
    firmware = build(folder, get_target("cortex-m0plus"), compiler=compiler)
    assert any("lmul" in symbol.name or "muldi3" in symbol.name for symbol in firmware.facts.functions)
    check_same_learning(VirtualMcu(firmware), host, 5)


@pytest.mark.parametrize("core", CORES)
def test_rows_pulled_one_by_one_give_the_same_bits_within_the_bound(core: str, make: Make, host: Host) -> None:
    firmware = make(core, "zig", "TINY_ROWS=1")
    device = VirtualMcu.load(firmware)
    check_same_learning(device, host, 5)
    x, labels = samples(1)
    used = device.stack_high_water(lambda: device.train_step(x[0], int(labels[0])))
    assert used <= firmware.facts.stack_bound


def test_the_elf_holds_the_arrays_of_the_plan_and_a_shell_below_700_bytes(make: Make) -> None:
    facts = make().facts
    arrays = {name: facts.symbol(name).size for name in ("arena", "state", "logits", "server")}
    assert (arrays["arena"], arrays["state"], arrays["logits"]) == (160, 1040, 16)
    assert 0 <= facts.sram_static - sum(arrays.values()) < 16, "something else lives in SRAM"
    assert facts.sram_static - arrays["arena"] - arrays["state"] < 700
    assert facts.section(".stack").address == get_target("cortex-m7").sram_base
    assert facts.flash_total == facts.flash_code + facts.flash_constants, "this model has no .data"
    assert facts.sram_total == facts.sram_static + facts.stack_bound


def test_addresses_have_names(make: Make) -> None:
    facts = make().facts
    train = facts.symbol("mcg_train_target")
    assert facts.where(train.address + 2) == "mcg_train_target+0x2"
    assert facts.where(0x10) == "0x00000010"
    assert facts.symbol_at(train.address + train.size - 1) == train
    with pytest.raises(McugradError, match="has no symbol nobody"):
        facts.symbol("nobody")


def test_counts_are_exact_repeatable_and_complete(make: Make) -> None:
    firmware = make()
    x, _ = samples(2)
    native, slow = VirtualMcu(firmware), VirtualMcu(firmware, native=False)
    for device in (native, slow):
        device.train_step(x[0], 1)
    again = VirtualMcu(firmware)
    again.train_step(x[0], 1)
    assert native.counters() == slow.counters() == again.counters()
    assert native.profile() == slow.profile()
    counters, profile = native.counters(), native.profile()
    assert counters.update == profile.symbols["mcg_tiny_linear_update"]
    assert counters.backward == profile.symbols["mcg_tiny_linear_grad"]
    assert counters.total + counters.link == sum(profile.symbols.values())
    assert sum(site.instructions for site in profile.sites) == counters.total
    site = next(site for site in profile.sites if site.callee == "mcg_tiny_linear_update")
    assert site.function == "mcg_model_train" and site.instructions > counters.update


def test_the_count_of_a_step_does_not_depend_on_how_its_rows_arrive(make: Make) -> None:
    resident, rows = VirtualMcu(make()), VirtualMcu(make("cortex-m7", "zig", "TINY_ROWS=1"))
    x, _ = samples(1)
    difference = (rows.train_step(x[0], 1).instructions or 0) - (resident.train_step(x[0], 1).instructions or 0)
    assert 0 < difference < 8 * 20, "eight calls of the row source, and nothing of the link"


def test_settings_steer_learning(make: Make, host: Host) -> None:
    device = VirtualMcu(make())
    x, _ = samples(1)
    for twin in (device, host):
        assert twin.set_control(seed=7, halvings=2, skip=0) == Control(7, 0, 2, 0)
        assert twin.train_step(x[0], 1).progress == 1, "every sample is good enough for a threshold of zero"
        before = twin.read_params()
        twin.reset()
        assert twin.control() == Control() and twin.read_params() == before
    with pytest.raises(McugradError, match=r"label is outside \[0, classes\)"):
        host.train_step(x[0], 4)
    with pytest.raises(McugradError, match=r"refused TRAIN: the label is outside"):
        device.train_step(x[0], 4)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("0x20040000u", "accessing 0x20040000 \\(outside every memory\\)"),
        ("0x1FFFFFF0u", "accessing 0x1ffffff0 \\(below the stack: it overflowed\\)"),
        ("0x08000100u", "accessing 0x08000100 \\(flash\\)"),
        ("0x00000000u", "accessing 0x00000000 \\(outside every memory\\)"),
    ],
)
def test_a_write_where_there_is_no_sram_names_the_culprit(address: str, said: str, make: Make) -> None:
    device = VirtualMcu(make("cortex-m7", "zig", f"TINY_FAULT={address}"))
    x, _ = samples(1)
    device.train_step(x[0], 0)
    with pytest.raises(DeviceFault, match=f"faulted in mcg_tiny_fault.*{said}") as caught:
        device.train_step(x[0], 3)
    assert caught.value.symbol == "mcg_tiny_fault"
    assert caught.value.address == int(address.rstrip("u"), 16)


def test_recursion_has_no_bound_and_its_overflow_is_a_fault(make: Make) -> None:
    with pytest.raises(McugradError, match=r"recursion has no bound of its stack: .*mcg_tiny_fault -> mcg_tiny_fault"):
        make("cortex-m7", "zig", "TINY_RECURSION=1")
    device = VirtualMcu(make("cortex-m7", "zig", "TINY_RECURSION=1", stack=2048))
    assert device.stack_reserved == 2048
    with pytest.raises(DeviceFault, match="below the stack: it overflowed") as caught:
        device.train_step(samples(1)[0][0], 3)
    assert caught.value.symbol == "mcg_tiny_fault"


def test_a_program_that_never_ends_is_stopped(make: Make) -> None:
    device = VirtualMcu(make("cortex-m7", "zig", "TINY_FOREVER=1"), budget=100_000)
    with pytest.raises(DeviceFault, match=r"mcg_tiny_fault.*did not finish within 100000 instructions"):
        device.train_step(samples(1)[0][0], 3)


def test_firmware_that_does_not_fit_says_by_how_much(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    with pytest.raises(BudgetError, match=r"does not fit its SRAM of 1024 bytes: \d+ bytes too many"):
        build(folder, get_target("cortex-m7", sram=1024))
    with pytest.raises(BudgetError, match=r"does not fit its FLASH of 2048 bytes: \d+ bytes too many"):
        build(folder, get_target("cortex-m7", flash=2048))


def test_code_that_does_not_compile_shows_the_compilers_words(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path)
    (folder / "ops" / "tiny.c").write_text("int f(int n) { char c = n; return c; }\n")
    with pytest.raises(McugradError, match=r"(?s)compiling tiny\.c failed with zig .*implicit conversion"):
        build(folder, get_target("cortex-m7"))
    with pytest.raises(McugradError, match=r"holds no model\.c"):
        build(tmp_path / "ops", get_target("cortex-m7"))
    with pytest.raises(McugradError, match="unknown compiler 'rustc'; known: zig, gcc"):
        build(folder, get_target("cortex-m7"), compiler="rustc")


def test_a_file_that_is_no_firmware_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.elf"
    path.write_text("not an ELF")
    with pytest.raises(McugradError, match="is not a linked firmware"):
        read_elf(path)


def test_wrong_input_and_parameters_are_refused(host: Host) -> None:
    with pytest.raises(McugradError, match="takes 128 int8 values, got 127 of int8"):
        host.infer(np.zeros(127, np.int8))
    with pytest.raises(McugradError, match="got 128 of float64"):
        host.infer(np.zeros(128))  # type: ignore[arg-type]
    with pytest.raises(McugradError, match="state is 1040 bytes, got 3"):
        host.write_params(b"abc")
    with pytest.raises(McugradError, match="one label per sample, got 3 numbers for 2 samples"):
        host.train_many(np.zeros((2, 128), np.int8), np.zeros(3, np.int32))
    host.close()
    with pytest.raises(McugradError, match="closed"):
        host.read_params()


def test_a_changed_model_is_loaded_anew(tmp_path: Path, host: Host) -> None:
    folder = tiny_folder(tmp_path / "changed")
    first = build_host(folder)
    assert build_host(folder) == first, "the same content needs no second build"
    text = (folder / "model.c").read_text()
    (folder / "model.c").write_text(text.replace("{4, 0, 1, 0, 2, 0}", "{4, 0, 5, 0, 2, 0}"))
    second = build_host(folder)
    assert second != first
    assert Host.load(second).read_params()[0] == 5 and host.read_params()[0] == 1


def test_exported_parameters_come_back_and_damage_is_refused(tmp_path: Path) -> None:
    library = ctypes.CDLL(str(build_host(tiny_folder(tmp_path))))
    for name in ("mcg_host_model", "mcg_host_open", "mcg_host_context", "mcg_host_state"):
        getattr(library, name).restype = ctypes.c_void_p
    model, handle = ctypes.c_void_p(library.mcg_host_model()), ctypes.c_void_p(library.mcg_host_open())
    context = ctypes.c_void_p(library.mcg_host_context(handle))
    state = library.mcg_host_state(handle)
    size = library.mcg_export_bytes(model)
    image = ctypes.create_string_buffer(size)
    assert library.mcg_export(model, context, image, size - 1) == 1
    assert library.mcg_export(model, context, image, size) == 0
    learned = ctypes.string_at(state, 1040)
    assert image.raw[:4] == b"MCGP" and image.raw[16:] == learned
    assert int.from_bytes(image.raw[12:16], "little") == zlib.crc32(learned)
    ctypes.memset(state, 7, 1040)
    for at, status in ((0, 4), (4, 4), (8, 4), (12, 3), (500, 3)):
        damaged = bytearray(image.raw)
        damaged[at] ^= 1
        assert library.mcg_import(model, context, bytes(damaged), size) == status
        assert ctypes.string_at(state, 1040) == bytes([7]) * 1040, "a refused import changes nothing"
    assert library.mcg_import(model, context, image, size) == 0
    assert ctypes.string_at(state, 1040) == learned
    library.mcg_crc32.restype = ctypes.c_uint32
    assert library.mcg_crc32(library.mcg_crc32(0, learned, 1000), learned[1000:], 40) == zlib.crc32(learned)


_SANITIZED = """
import sys
from pathlib import Path
from tiny import samples
from mcugrad.devices.host import Host
x, labels = samples(10)
with Host.load(Path(sys.argv[1])) as device:
    device.train_many(x, labels)
    print(device.evaluate(x, labels)[0])
"""


@pytest.mark.skipif(not shutil.which("gcc"), reason="no gcc with sanitizers here")
@pytest.mark.parametrize("broken", [False, True])
def test_the_sanitizers_watch_the_host_twin(tmp_path: Path, broken: bool) -> None:
    folder = tiny_folder(tmp_path)
    if broken:
        path = folder / "ops" / "tiny.c"
        path.write_text(path.read_text().replace("i < 128; ++i) {", "i < 132; ++i) {"))
    library = build_host(folder, sanitize=True)
    environment = {**os.environ, **sanitizer_environment(), "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", _SANITIZED, str(library)], env=environment, capture_output=True, text=True, check=False
    )
    assert ("AddressSanitizer" in done.stderr) == broken, done.stderr
    assert (done.returncode == 0) != broken


@needs_qemu
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("board", ["mps2-an500", "mps2-an386", "microbit", "cortex-m55"])
def test_qemu_agrees(board: str, rows: int, compiler: str, make: Make, host: Host) -> None:
    firmware = make(board, compiler, f"TINY_ROWS={rows}")
    with Qemu.load(firmware) as device:
        check_same_learning(device, host, 5)
        x, labels = samples(1)
        used = device.stack_high_water(lambda: device.train_step(x[0], int(labels[0])))
        assert used <= firmware.facts.stack_bound
        process = device.link.transport._process  # type: ignore[attr-defined]
    assert process.returncode is not None, "QEMU still runs"


@needs_riscv
@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("optimize", ["-O3", "-O1"])
def test_risc_v_learns_the_same_bits_within_the_bound_of_its_stack(
    rows: int, optimize: str, tmp_path: Path, host: Host
) -> None:
    folder = tiny_folder(tmp_path / "model")
    firmware = build(folder, get_target("rv32imc"), optimize=optimize, flags=[f"-DTINY_ROWS={rows}"])
    with Qemu.load(firmware) as device:
        assert device.link.resent == 0, "the first request waited for the receiver"
        check_same_learning(device, host, 5)
        x, labels = samples(1)
        used = device.stack_high_water(lambda: (device.train_step(x[0], int(labels[0])), device.evaluate(x, labels)))
        assert used <= firmware.facts.stack_bound <= device.stack_reserved
        assert firmware.facts.stack_bound <= used + 32, "the bound is loose on a program this small"


@needs_riscv
def test_the_overflow_of_a_stack_is_a_fault_on_risc_v(tmp_path: Path) -> None:
    with pytest.raises(McugradError, match=r"recursion has no bound of its stack: .*mcg_tiny_fault -> mcg_tiny_fault"):
        build(tiny_folder(tmp_path), get_target("rv32imc"), flags=["-DTINY_RECURSION=1"])
    firmware = build(tmp_path, get_target("rv32imc"), flags=["-DTINY_RECURSION=1"], stack=2048)
    with Qemu.load(firmware) as device, pytest.raises(DeviceFault, match="faulted in mcg_tiny_fault"):
        device.train_step(samples(1)[0][0], 3)


def test_the_compiler_for_arm_is_refused_for_risc_v(make: Make) -> None:
    with pytest.raises(McugradError, match="arm-none-eabi-gcc does not build for rv32imc: use the compiler zig"):
        make("rv32imc", "gcc")


@pytest.mark.parametrize(
    ("board", "nowhere"),
    [
        pytest.param("mps2-an386", 0xA0000000, marks=needs_qemu),
        pytest.param("microbit", 0xA0000000, marks=needs_qemu),
        pytest.param("cortex-m55", 0x08000000, marks=needs_qemu),
        pytest.param("rv32imc", 0xA0000000, marks=needs_riscv),
        pytest.param("rv32imc", 0x80000100, marks=needs_riscv, id="rv32imc-flash"),
    ],
)
def test_a_fault_is_reported_over_the_link(board: str, nowhere: int, make: Make) -> None:
    firmware = make(board, "zig", f"TINY_FAULT={nowhere:#x}u")
    with Qemu.load(firmware) as device, pytest.raises(DeviceFault, match="the device faulted in mcg_tiny_fault") as caught:
        device.train_step(samples(1)[0][0], 3)
    assert caught.value.symbol == "mcg_tiny_fault"


def test_a_target_without_a_board_is_told_where_to_go(make: Make) -> None:
    with pytest.raises(McugradError, match="QEMU has no board for target cortex-m7; build for mps2-an500"):
        Qemu.load(make())


@needs_qemu
def test_the_virtual_mcu_refuses_a_board_it_does_not_emulate(make: Make) -> None:
    with pytest.raises(McugradError, match="does not emulate mps2-an500; use QEMU, or the target cortex-m7"):
        VirtualMcu.load(make("mps2-an500"))
