"""The cases of `kernels` on an emulated Cortex-M, so that packed and hand-scheduled code is compared as well."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import unicorn
from elftools.elf.elffile import ELFFile
from unicorn import arm_const

from kernels import CSRC, STRICT, Buffer, Case, source
from mcugrad import toolchain
from mcugrad.targets import Target

FLASH, SRAM, SIZE = 0x08000000, 0x20000000, 1 << 21
RETURN = FLASH + SIZE - 4  # where a called function comes back to
FLAGS = ("-O3", "-fomit-frame-pointer", "-ffreestanding", "-ffunction-sections", "-fno-unwind-tables", "-fno-jump-tables")
SCRIPT = f"""MEMORY {{ FLASH (rx) : ORIGIN = {FLASH}, LENGTH = {SIZE} }}
SECTIONS {{ .text : {{ *(.text*) *(.rodata*) }} > FLASH .ARM.exidx : {{ *(.ARM.exidx*) }} > FLASH }}
"""


class Core:
    """All kernels and cases linked for a target, in an emulator with one flash and one SRAM."""

    def __init__(self, folder: Path, cases: Sequence[Case], target: Target) -> None:
        self.uc = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB)
        self.uc.ctl_set_cpu_model(getattr(arm_const, target.unicorn_cpu))
        self.uc.mem_map(FLASH, SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
        self.uc.mem_map(SRAM, SIZE, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
        elf = ELFFile(link_cases(folder, cases, target, SCRIPT, "run_0").open("rb"))
        for segment in elf.iter_segments():
            if segment["p_type"] == "PT_LOAD":
                self.uc.mem_write(segment["p_vaddr"], segment.data())
        self.symbols = {s.name: s["st_value"] for s in elf.get_section_by_name(".symtab").iter_symbols()}

    def call(self, number: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]) -> int:
        memory, places, distinct = place(SRAM, buffers, rows, control)
        self.uc.mem_write(SRAM, memory)
        registers = (arm_const.UC_ARM_REG_R0, arm_const.UC_ARM_REG_R1, arm_const.UC_ARM_REG_R2)
        for register, value in zip(registers, (SRAM, SRAM + 512, SRAM + 768), strict=True):
            self.uc.reg_write(register, value)
        self.uc.reg_write(arm_const.UC_ARM_REG_SP, SRAM + SIZE)
        self.uc.reg_write(arm_const.UC_ARM_REG_LR, RETURN | 1)
        self.uc.emu_start(self.symbols[f"run_{number}"] | 1, RETURN, timeout=20 * unicorn.UC_SECOND_SCALE)
        assert self.uc.reg_read(arm_const.UC_ARM_REG_PC) == RETURN, "the kernel did not come back"
        for key, buffer in distinct.items():
            buffer.whole[:] = memoryview(self.uc.mem_read(places[key], buffer.whole.size))
        return int(self.uc.reg_read(arm_const.UC_ARM_REG_R0))


def place(
    base: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]
) -> tuple[bytes, dict[int, int], dict[int, Buffer]]:
    """The memory at `base`: the pointers to the buffers, 512 on the rows, 768 on the context, then the buffers; and the
    address and a buffer by the id of its whole."""
    at, places = base + 1024, {}
    for buffer in buffers:
        if id(buffer.whole) not in places:  # parts of one whole lie together
            places[id(buffer.whole)] = at + (buffer.whole.ctypes.data - at) % 8  # the same remainder
            at = places[id(buffer.whole)] + buffer.whole.size
    memory = bytearray(at - base)
    struct.pack_into(f"<{len(buffers)}I", memory, 0, *(places[id(b.whole)] + b.start for b in buffers))
    struct.pack_into("<5i", memory, 512, *rows)
    struct.pack_into("<8I", memory, 768, 0, 0, 0, 0, *control)
    distinct = {id(b.whole): b for b in buffers}
    for key, buffer in distinct.items():
        memory[places[key] - base : places[key] - base + buffer.whole.size] = buffer.whole.tobytes()
    return bytes(memory), places, distinct


def link_cases(folder: Path, cases: Sequence[Case], target: Target, layout: str, entry: str, *more: Path) -> Path:
    """An ELF of all kernels, all cases and more sources, by a linker script."""
    core = ("-target", target.zig_target, f"-mcpu={target.zig_cpu}")
    program, script = folder / "cases.c", folder / "cases.ld"
    program.write_text(source(cases), encoding="utf-8")
    script.write_text(layout, encoding="utf-8")
    kernels = [program, CSRC / "runtime.c", *sorted((CSRC / "ops").glob("*.[cS]")), *more]
    sources = [(path, (*core, *FLAGS, *STRICT)) for path in kernels]
    sources.append((CSRC / "firmware" / "memory.c", (*core, *FLAGS, *STRICT, "-fno-builtin")))
    objects = toolchain.compile_objects(toolchain.zig(), sources, (folder, CSRC / "host", CSRC))
    elf = folder / f"{target.name}.elf"
    toolchain.link(toolchain.zig(), objects, [*core, "-T", str(script), f"-Wl,-e,{entry}"], elf)
    return elf
