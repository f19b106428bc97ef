"""Facts about cores and boards, read from one TOML file each, and the linker script printed from them."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from mcugrad.errors import McugradError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_FOLDER = Path(__file__).parent
_PAGE = 1024  # bytes; the virtual MCU maps memory in such pages
UARTS = ("virtual", "cmsdk", "nrf51", "ns16550")
NORS = ("", "virtual", "nrf51")


@dataclass(frozen=True)
class Target:
    """A core with its memories and its link; sizes and addresses in bytes."""

    name: str
    core: str
    zig_target: str
    zig_cpu: str
    gcc_flags: tuple[str, ...]  # empty: arm-none-eabi-gcc knows no such core
    fpu: bool  # floating-point registers exist and must be enabled before use
    cfsr: bool  # a configurable fault status register exists
    flash_base: int
    flash: int
    sram_base: int
    sram: int
    uart: str  # one of UARTS
    uart_base: int
    vectors_base: int | None = None  # where the core looks for its vectors after reset; None: at the start of flash
    unicorn_cpu: str = ""  # name in unicorn.arm_const; empty: not emulated by the virtual MCU
    qemu_machine: str = ""  # empty: not emulated by QEMU
    qemu_program: str = "qemu-system-arm"
    qemu_flags: tuple[str, ...] = ()
    flash_erase: int = 4096  # bytes of flash that are erased at once: a power of two
    nor: str = ""  # one of NORS: how the firmware writes flash; empty: it cannot
    nor_base: int = 0
    optimize: str = "-O3"  # "-Os" where hand-scheduled assembly has the hot loops, so that speed is hardly the compiler's

    @property
    def riscv(self) -> bool:
        """The core runs RV32 code, otherwise Thumb."""
        return self.zig_target.startswith("riscv32")


def known_targets() -> tuple[str, ...]:
    """Names that get_target accepts, sorted."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def get_target(name: str, *, sram: int | None = None, flash: int | None = None) -> Target:
    """The target of that name, with its SRAM and flash cut or grown to the given numbers of bytes.

    Raises McugradError when the name is unknown or a size is not a positive multiple of 1024.
    """
    target = _load(name)
    for kind, size in (("sram", sram), ("flash", flash)):
        if size is not None and (size <= 0 or size % _PAGE):
            raise McugradError(f"target {name}: {kind}={size} is not a positive multiple of {_PAGE} bytes")
    return replace(target, sram=sram or target.sram, flash=flash or target.flash)


@cache
def _load(name: str) -> Target:
    if name not in known_targets():
        raise McugradError(f"unknown target {name!r}; known targets: {', '.join(known_targets())}")
    return _from_facts(_read(name), _FOLDER / f"{name}.toml")


def _read(name: str) -> dict[str, Any]:
    with (_FOLDER / f"{name}.toml").open("rb") as file:
        facts: dict[str, Any] = tomllib.load(file)
    core = facts.get("core", name)
    return facts if core == name else {**_read(core), "unicorn_cpu": "", "nor": "", **facts}


def _from_facts(facts: dict[str, Any], path: Path) -> Target:
    known = {field.name for field in fields(Target)}
    if stray := sorted(set(facts) - known):
        raise McugradError(f"{path.name}: unknown keys {', '.join(stray)}; known keys: {', '.join(sorted(known))}")
    try:
        target = Target(**{**facts, **{key: tuple(facts.get(key, ())) for key in ("gcc_flags", "qemu_flags")}})
    except TypeError as error:
        raise McugradError(f"{path.name}: {error}") from error
    if target.uart not in UARTS:
        raise McugradError(f"{path.name}: uart {target.uart!r} has no driver; drivers: {', '.join(UARTS)}")
    if target.nor not in NORS:
        raise McugradError(f"{path.name}: nor {target.nor!r} has no driver; drivers: {', '.join(filter(None, NORS))}")
    if target.flash_erase < _PAGE or target.flash_erase & target.flash_erase - 1:
        raise McugradError(f"{path.name}: flash_erase={target.flash_erase} is not a power of two of at least {_PAGE} bytes")
    return target


def linker_script(target: Target, stack: int) -> str:
    """A GNU ld script for exactly the target's flash and SRAM.

    The stack (`stack` bytes) lies at the bottom of SRAM: an overflow leaves SRAM and faults instead of corrupting data.
    """
    vectors = "FLASH" if target.vectors_base is None else "VECTORS"
    align = 16 if target.riscv else 8  # of the stack pointer
    apart = f"  VECTORS (r) : ORIGIN = {target.vectors_base:#010x}, LENGTH = {_PAGE}\n" if vectors == "VECTORS" else ""
    return f"""\
MEMORY
{{
{apart}  FLASH (rx)  : ORIGIN = {target.flash_base:#010x}, LENGTH = {target.flash}
  SRAM  (rw)  : ORIGIN = {target.sram_base:#010x}, LENGTH = {target.sram}
}}
ENTRY(Reset_Handler)
SECTIONS
{{
  .vectors : {{ KEEP(*(.vectors)) }} > {vectors}
  .text    : {{ KEEP(*(.start)) *(.text .text.*) }} > FLASH
  .rodata  : {{ *(.rodata .rodata.*) }} > FLASH
  .stack (NOLOAD) : {{ __stack_bottom = .; . += {stack}; . = ALIGN({align}); __stack_top = .; }} > SRAM
  .data : ALIGN(16) {{ __data_start = .; *(.data .data.*) . = ALIGN(4); __data_end = .; }} > SRAM AT > FLASH
  .latents (NOLOAD) : {{ *(.bss.latents) }} > FLASH
  .bss (NOLOAD)   : {{ . = ALIGN(16); __bss_start = .; *(.bss .bss.* COMMON) . = ALIGN(4); __bss_end = .; }} > SRAM
  __data_image = LOADADDR(.data);
  __flash_start = ORIGIN(FLASH);
  __flash_end = ORIGIN(FLASH) + LENGTH(FLASH);
  __sram_end = ORIGIN(SRAM) + LENGTH(SRAM);
  /DISCARD/ : {{ *(.ARM.exidx* .ARM.extab* .comment .note*) }}
}}
"""


def board_header(target: Target) -> str:
    """`board.h`: what the firmware's register file needs to know."""
    nor = f"#define BOARD_NOR_{target.nor.upper()} 1\n#define BOARD_NOR_BASE {target.nor_base:#010x}u\n" if target.nor else ""
    return f"""\
#ifndef BOARD_H
#define BOARD_H

#define BOARD_RISCV {int(target.riscv)}
#define BOARD_FPU {int(target.fpu)}
#define BOARD_CFSR {int(target.cfsr)}
#define BOARD_UART_{target.uart.upper()} 1
#define BOARD_UART_BASE {target.uart_base:#010x}u
{nor}
#endif
"""
