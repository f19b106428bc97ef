"""Targets are data: complete, refused when wrong, and printed exactly into the linker script."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from unicorn import arm_const

from mcugrad import targets
from mcugrad.errors import McugradError
from mcugrad.targets import board_header, get_target, known_targets, linker_script


@pytest.mark.parametrize("name", known_targets())
def test_every_target_can_be_built_for_and_run_somewhere(name: str) -> None:
    target = get_target(name)
    assert target.name == name
    assert target.unicorn_cpu or target.qemu_machine
    assert not target.unicorn_cpu or hasattr(arm_const, target.unicorn_cpu)
    assert target.zig_cpu and bool(target.gcc_flags) != target.riscv
    assert target.fpu == target.zig_target.endswith("eabihf")
    assert (target.uart == "virtual") == bool(target.unicorn_cpu), "only the virtual MCU has the virtual UART"


def test_the_cores_of_the_paper_and_its_peers_are_known() -> None:
    assert {"cortex-m0plus", "cortex-m4", "cortex-m7", "mps2-an500", "microbit"} <= set(known_targets())


def test_an_unknown_target_is_answered_with_the_known_ones() -> None:
    with pytest.raises(McugradError, match=r"unknown target 'cortex-m9'; known targets: .*cortex-m7"):
        get_target("cortex-m9")


@pytest.mark.parametrize("size", [0, -1024, 1000])
def test_a_size_that_no_memory_has_is_refused(size: int) -> None:
    with pytest.raises(McugradError, match=f"sram={size} is not a positive multiple of 1024"):
        get_target("cortex-m7", sram=size)


def test_sizes_replace_those_of_the_file_and_nothing_else() -> None:
    target = get_target("cortex-m7", sram=64 * 1024, flash=512 * 1024)
    assert (target.sram, target.flash) == (65536, 524288)
    assert target.sram_base == get_target("cortex-m7").sram_base


def test_a_board_takes_its_core_facts_from_the_core() -> None:
    board, core = get_target("mps2-an500"), get_target("cortex-m7")
    assert (board.zig_cpu, board.gcc_flags, board.fpu) == (core.zig_cpu, core.gcc_flags, core.fpu)
    assert not board.unicorn_cpu


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('core = "cortex-m7"\ncolour = "red"\n', "unknown keys colour"),
        ('core = "cortex-m7"\nuart = "teletype"\n', "uart 'teletype' has no driver; drivers: virtual, cmsdk, nrf51, ns16550"),
        ('core = "cortex-m7"\nnor = "eeprom"\n', "nor 'eeprom' has no driver; drivers: virtual, nrf51"),
        ('core = "cortex-m7"\nflash_erase = 3000\n', "flash_erase=3000 is not a power of two of at least 1024 bytes"),
        ('name = "board"\nuart = "virtual"\n', "missing"),
    ],
)
def test_a_wrong_file_is_refused_by_name(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cortex-m7.toml").write_bytes((Path(targets.__file__).parent / "cortex-m7.toml").read_bytes())
    (tmp_path / "board.toml").write_text(text)
    monkeypatch.setattr(targets, "_FOLDER", tmp_path)
    targets._load.cache_clear()
    try:
        with pytest.raises(McugradError, match=rf"board\.toml: .*{message}"):
            get_target("board")
    finally:
        targets._load.cache_clear()


def test_the_linker_script_holds_exactly_the_targets_memories_and_the_stack_lowest() -> None:
    target = get_target("cortex-m4", sram=96 * 1024, flash=256 * 1024)
    script = linker_script(target, 640)
    assert re.search(r"FLASH \(rx\)\s+: ORIGIN = 0x08000000, LENGTH = 262144\n", script)
    assert re.search(r"SRAM  \(rw\)\s+: ORIGIN = 0x20000000, LENGTH = 98304\n", script)
    in_sram = re.findall(r"^  \.(\w+).*> SRAM", script, re.MULTILINE)
    assert in_sram == ["stack", "data", "bss"]
    assert ". += 640;" in script


def test_the_board_header_names_one_uart() -> None:
    header = board_header(get_target("microbit"))
    assert re.findall(r"BOARD_UART_([A-Z]\w+) 1", header) == ["NRF51"]
    assert "BOARD_FPU 0" in header and "BOARD_UART_BASE 0x40002000u" in header
