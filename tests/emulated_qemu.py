"""The cases of `kernels` on a core that only QEMU knows, through its debugger's protocol."""

from __future__ import annotations

import select
import shutil
import struct
import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from emulated import Core, link_cases, place
from kernels import Buffer, Case
from mcugrad.targets import Target, get_target

SIZE = 1 << 21  # bytes of RAM
CHUNK = 1920  # bytes of memory in a packet
SECONDS = 20.0


@dataclass(frozen=True)
class Board:
    """How to reach `ready` on a board with its floating-point unit enabled, and the debugger's numbers of registers."""

    ram: int
    mark: int  # bit set in a return address
    arguments: int  # register of the first; the result comes in it too
    sp: int
    link: int
    pc: int
    state: tuple[tuple[int, int], ...]  # (register, value) before a call
    boot: str
    script: str


ARM = Board(
    ram=0x21000000,  # SSE-300's internal SRAM
    mark=1,
    arguments=0,
    sp=13,
    link=14,
    pc=15,
    state=((25, 1 << 24),),  # XPSR: Thumb
    boot="""#include <stdint.h>
void boot(void);
void ready(void);
__attribute__((used, section(".start"))) const struct { uint32_t stack; void (*reset)(void); } vectors = {0x21200000u, boot};
__attribute__((noinline)) void ready(void) { for (;;) __asm__ volatile("nop"); }
void boot(void) {
  *(volatile uint32_t *)0xE000ED88u |= 0xFu << 20;
  __asm__ volatile("dsb\\n\\tisb" ::: "memory");
  ready();
}
""",
    script="""MEMORY { VECTORS (r) : ORIGIN = 0, LENGTH = 1K  CODE (rx) : ORIGIN = 0x11000000, LENGTH = 2M }
SECTIONS {
  .start : { KEEP(*(.start)) } > VECTORS
  .text : { *(.text*) *(.rodata*) } > CODE
  .ARM.exidx : { *(.ARM.exidx*) } > CODE
}
""",
)
RISCV = Board(
    ram=0x84000000,
    mark=0,
    arguments=10,
    sp=2,
    link=1,
    pc=32,
    state=(),
    boot="""void boot(void);
void ready(void);
__attribute__((naked, used, section(".start"))) void boot(void) { __asm__ volatile("j ready"); }
void ready(void) { for (;;) __asm__ volatile("nop"); }
""",
    script="""MEMORY { CODE (rx) : ORIGIN = 0x80000000, LENGTH = 2M }
SECTIONS { .text : { KEEP(*(.start)) *(.text*) *(.rodata*) } > CODE }
""",
)


def core_of(folder: Path, cases: Sequence[Case], name: str) -> Core | QemuCore:
    """The cases on the core of a target: in unicorn, or in QEMU for those that unicorn does not know."""
    target = get_target(name)
    if target.unicorn_cpu:
        return Core(folder, cases, target)
    if shutil.which(target.qemu_program) is None:
        pytest.skip(f"{target.qemu_program} is not installed")
    return QemuCore(folder, cases, target)


class Debugger:
    """The remote serial protocol of GDB over the pipes of a QEMU process."""

    def __init__(self, target: Target, elf: Path) -> None:
        program = shutil.which(target.qemu_program)
        assert program is not None
        command = [program, "-M", target.qemu_machine, *target.qemu_flags, "-display", "none", "-monitor", "none"]
        self.process = subprocess.Popen(
            [*command, "-serial", "null", "-S", "-gdb", "stdio", "-kernel", str(elf)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
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

    def run_to(self, address: int, pc: int) -> None:
        assert self.ask(b"Z0,%x,2" % address) == b"OK"
        self.ask(b"c")
        assert self.register(pc) == address, "the kernel did not come back"


class QemuCore:
    """All kernels and cases linked for a target that QEMU emulates."""

    def __init__(self, folder: Path, cases: Sequence[Case], target: Target) -> None:
        self.board = RISCV if target.riscv else ARM
        boot = folder / "boot.c"
        boot.write_text(self.board.boot, encoding="utf-8")
        elf = link_cases(folder, cases, target, self.board.script, "boot", boot)
        symbols = ELFFile(elf.open("rb")).get_section_by_name(".symtab")
        self.symbols = {s.name: s["st_value"] for s in symbols.iter_symbols()}
        self.debugger = Debugger(target, elf)
        self.debugger.run_to(self.symbols["ready"] & ~1, self.board.pc)

    def call(self, number: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]) -> int:
        board, gdb = self.board, self.debugger
        memory, places, distinct = place(board.ram, buffers, rows, control)
        gdb.write(board.ram, memory)
        for register, offset in enumerate((0, 512, 768), board.arguments):
            gdb.set_register(register, board.ram + offset)
        back = board.ram + SIZE - 4  # where a called function comes back to
        entry = self.symbols[f"run_{number}"] & ~1
        for register, value in ((board.sp, back - 60), (board.link, back | board.mark), (board.pc, entry), *board.state):
            gdb.set_register(register, value)
        gdb.run_to(back, board.pc)
        for key, buffer in distinct.items():
            buffer.whole[:] = memoryview(gdb.read(places[key], buffer.whole.size))
        return gdb.register(board.arguments)
