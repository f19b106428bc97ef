"""The cases of `kernels` on a core that only QEMU knows, through its debugger's protocol."""

from __future__ import annotations

import select
import shutil
import struct
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from emulated import Core, link_cases, place
from kernels import Buffer, Case
from mcugrad.devices.qemu import PROGRAM
from mcugrad.targets import Target, get_target

RAM, SIZE = 0x21000000, 1 << 21  # SSE-300's internal SRAM
RETURN = RAM + SIZE - 4  # where a called function comes back to
CHUNK = 1920  # bytes of memory in a packet
SECONDS = 20.0
LR, PC, XPSR = 14, 15, 25
BOOT = """#include <stdint.h>
void boot(void);
void ready(void);
__attribute__((used, section(".vectors"))) const struct { uint32_t stack; void (*reset)(void); } vectors = {0x21200000u, boot};
__attribute__((noinline)) void ready(void) { for (;;) __asm__ volatile("nop"); }
void boot(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm__ volatile("dsb\\n\\tisb" ::: "memory");
  ready();
}
"""
SCRIPT = """MEMORY { VECTORS (r) : ORIGIN = 0, LENGTH = 1K  CODE (rx) : ORIGIN = 0x11000000, LENGTH = 2M }
SECTIONS {
  .vectors : { KEEP(*(.vectors)) } > VECTORS
  .text : { *(.text*) *(.rodata*) } > CODE
  .ARM.exidx : { *(.ARM.exidx*) } > CODE
}
"""


def core_of(folder: Path, cases: Sequence[Case], name: str) -> Core | QemuCore:
    """The cases on the core of a target: in unicorn, or in QEMU for those that unicorn does not know."""
    target = get_target(name)
    if target.unicorn_cpu:
        return Core(folder, cases, target)
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"{PROGRAM} is not installed")
    return QemuCore(folder, cases, target)


class Debugger:
    """The remote serial protocol of GDB over the pipes of a QEMU process."""

    def __init__(self, machine: str, elf: Path) -> None:
        program = shutil.which(PROGRAM)
        assert program is not None
        command = [program, "-M", machine, "-display", "none", "-monitor", "none", "-serial", "null", "-S", "-gdb", "stdio"]
        self.process = subprocess.Popen(
            [*command, "-kernel", str(elf)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        self._end = weakref.finalize(self, self.process.kill)
        self.buffer = bytearray()
        self.ask(b"qXfer:features:read:target.xml:0,100")  # whoever asks may access single registers

    def ask(self, body: bytes) -> bytes:
        """The answer to one packet."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"$" + body + b"#%02x" % (sum(body) & 0xFF))
        while True:
            start = self.buffer.find(b"$")
            end = self.buffer.find(b"#", start)
            if 0 <= start < end and len(self.buffer) >= end + 3:
                answer = bytes(self.buffer[start + 1 : end])
                del self.buffer[: end + 3]
                self.process.stdin.write(b"+")
                return answer
            self._read()

    def _read(self) -> None:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], SECONDS)
        data = self.process.stdout.read(1 << 16) if ready else b""
        assert data, "QEMU fell silent: the kernel faulted or did not come back"
        self.buffer += data

    def write(self, address: int, data: bytes) -> None:
        for at in range(0, len(data), CHUNK):
            chunk = data[at : at + CHUNK]
            assert self.ask(b"M%x,%x:" % (address + at, len(chunk)) + chunk.hex().encode()) == b"OK"

    def read(self, address: int, size: int) -> bytes:
        parts = (self.ask(b"m%x,%x" % (address + at, min(CHUNK, size - at))) for at in range(0, size, CHUNK))
        return bytes.fromhex(b"".join(parts).decode())

    def set_register(self, number: int, value: int) -> None:
        assert self.ask(b"P%x=" % number + struct.pack("<I", value & 0xFFFFFFFF).hex().encode()) == b"OK"

    def register(self, number: int) -> int:
        return int(struct.unpack("<I", bytes.fromhex(self.ask(b"p%x" % number).decode()))[0])

    def run_to(self, address: int) -> None:
        assert self.ask(b"Z0,%x,2" % address) == b"OK"
        self.ask(b"c")
        assert self.register(PC) == address, "the kernel did not come back"


class QemuCore:
    """All kernels and cases linked for a target that QEMU emulates."""

    def __init__(self, folder: Path, cases: Sequence[Case], target: Target) -> None:
        boot = folder / "boot.c"
        boot.write_text(BOOT, encoding="utf-8")
        elf = link_cases(folder, cases, target, SCRIPT, "boot", boot)
        symbols = ELFFile(elf.open("rb")).get_section_by_name(".symtab")
        self.symbols = {s.name: s["st_value"] for s in symbols.iter_symbols()}
        self.debugger = Debugger(target.qemu_machine, elf)
        self.debugger.run_to(self.symbols["ready"] & ~1)

    def call(self, number: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]) -> int:
        memory, places, distinct = place(RAM, buffers, rows, control)
        gdb = self.debugger
        gdb.write(RAM, memory)
        for register, value in enumerate((RAM, RAM + 512, RAM + 768)):
            gdb.set_register(register, value)
        for register, value in ((13, RAM + SIZE - 64), (LR, RETURN | 1), (PC, self.symbols[f"run_{number}"] & ~1)):
            gdb.set_register(register, value)
        gdb.set_register(XPSR, 1 << 24)
        gdb.run_to(RETURN)
        for key, buffer in distinct.items():
            buffer.whole[:] = memoryview(gdb.read(places[key], buffer.whole.size))
        return gdb.register(0)
