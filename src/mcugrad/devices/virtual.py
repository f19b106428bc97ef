"""The virtual MCU: unicorn with exactly the target's flash and SRAM, exact instruction counts, and faults as errors."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from unicorn import arm_const, unicorn_const

from mcugrad.build import Firmware
from mcugrad.devices.base import Counters, DeviceFault, Int8, Int32, StepResult
from mcugrad.devices.elf import ElfFacts
from mcugrad.devices.link import Link, LinkedDevice
from mcugrad.devices.nor import Controller
from mcugrad.devices.probe import Engine, Kind, Probe, PythonProbe, UcError, make_probe
from mcugrad.errors import McugradError
from mcugrad.nor import NorFlash, PowerCut
from mcugrad.targets import Target

_NOWHERE = 0xFFFFFFFE  # an address no program runs to
_SYSTEM_SPACE = 0xE000E000
_BUDGET = 20_000_000_000  # instructions between two bytes on the link; minutes of emulation
_SHELL = ("link_", "mmio_", "stack_", "firmware_", "fault_", "mcg_crc32", "mcg_init")
_START = frozenset({"main", "Reset_Handler", "Fault_Handler"})
_RUNTIME_NAMES = ("mcg_infer", "mcg_train_step", "mcg_train_target")


def kind_of(symbol: str) -> Kind:
    """What the instructions of a function count as, by the naming convention of the kernels."""
    if symbol in _START or symbol.startswith(_SHELL):
        return Kind.SHELL
    if symbol.startswith("mcg_model_") or symbol in _RUNTIME_NAMES:
        return Kind.SITE
    if "_update" in symbol:
        return Kind.UPDATE
    if any(part in symbol for part in ("_grad", "_backward", "_cross_entropy", "_squared_error", "_exponential")):
        return Kind.BACKWARD
    return Kind.KERNEL


@dataclass(frozen=True)
class Site:
    """A stretch of generated code up to its next call: `callee` is that call's function, "" when it ends otherwise.

    `address` is where the stretch starts, `instructions` its own and those of everything called at its end.
    """

    address: int
    function: str
    callee: str
    instructions: int


@dataclass(frozen=True)
class Profile:
    """Instructions of the last infer or train_step, the link's excluded from `sites` and not from `symbols`."""

    symbols: dict[str, int]  # by function
    sites: tuple[Site, ...]  # by call in mcg_model_* functions, in order of address


class Machine:
    """The emulated part: memories, core and UART.  It is the link's transport."""

    window = 64

    def __init__(self, target: Target, facts: ElfFacts, *, budget: int = _BUDGET, native: bool = True) -> None:
        self.target, self.elf, self.budget = target, facts, budget
        text = next(section for section in facts.sections if section.executable)
        arguments = (text.address, text.data, _kinds(facts, text.address, len(text.data) // 2))
        self.probe: Probe = make_probe(*arguments) if native else PythonProbe(*arguments)
        self.uc = _engine(target)
        self._access: int | None = None
        latents = facts.latents
        self.nor = None if latents is None else Controller(NorFlash(latents.size, target.flash_erase), latents.address)
        self._map()
        self.restart()

    def _map(self) -> None:
        target, uc = self.target, self.uc
        for start, end in self._fixed_flash():
            uc.mem_map(start, end - start, unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_EXEC)
        if self.nor is not None:
            self.nor.attach(uc, target.nor_base)
        uc.mem_map(target.sram_base, target.sram, unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_WRITE)
        uc.mem_map(_SYSTEM_SPACE, 0x1000, unicorn_const.UC_PROT_READ | unicorn_const.UC_PROT_WRITE)
        self.probe.attach(uc, target.uart_base)
        for section in self.elf.sections:
            if section.data:
                uc.mem_write(section.load_address, section.data)
        uc.hook_add(unicorn_const.UC_HOOK_MEM_INVALID, self._note_access)

    def _fixed_flash(self) -> list[tuple[int, int]]:
        """[start, end) of the flash that the firmware itself never writes."""
        start, end, latents = self.target.flash_base, self.target.flash_base + self.target.flash, self.elf.latents
        if latents is None:
            return [(start, end)]
        parts = [(start, latents.address), (latents.address + latents.size, end)]
        return [part for part in parts if part[0] < part[1]]

    def restart(self) -> None:
        """Power on: SRAM keeps what it held, the core starts at the reset vector."""
        stack, entry = struct.unpack("<II", self.uc.mem_read(self.target.flash_base, 8))
        self.uc.reg_write(arm_const.UC_ARM_REG_SP, stack)
        self._pc = entry | 1

    def lose_power(self) -> None:
        """Power off and on: SRAM holds anything, what was on its way over the link is lost."""
        garbage = np.random.default_rng(self.target.sram).integers(0, 256, self.target.sram, dtype=np.uint8)
        self.uc.mem_write(self.target.sram_base, garbage.tobytes())
        self.probe.clear()
        self.restart()

    def write(self, data: bytes) -> None:
        self.probe.feed(data)

    def read(self, timeout: float) -> bytes:
        """Runs until the firmware waits for a byte it has not been sent; what it sent meanwhile."""
        state = self.probe.state
        sent = bytearray()
        state.starved = 0
        state.budget = state.total + self.budget
        while not state.starved:
            self._run()
            sent += self.probe.drain()
            if state.total > state.budget:
                raise self._fault(f"did not finish within {self.budget} instructions", None)
        return bytes(sent)

    def _run(self) -> None:
        self._access = None
        try:
            self.uc.emu_start(self._pc, _NOWHERE)
        except UcError as error:
            raise self._fault(str(error), self._access) from error
        if self.nor is not None and self.nor.stopped is not None:
            stopped, self.nor.stopped = self.nor.stopped, None
            raise stopped if isinstance(stopped, PowerCut) else self._fault(str(stopped), None)
        self._pc = self.uc.reg_read(arm_const.UC_ARM_REG_PC) | 1

    def _note_access(self, _uc: Any, _kind: int, address: int, _size: int, _value: int, _user: Any) -> bool:
        self._access = address
        return False

    def _fault(self, what: str, address: int | None) -> DeviceFault:
        pc = self.uc.reg_read(arm_const.UC_ARM_REG_PC) & ~1
        symbol = self.elf.symbol_at(pc)
        access = "" if address is None else f", accessing {address:#010x} ({self._region(address)})"
        return DeviceFault(
            f"the program faulted in {self.elf.where(pc)} (pc {pc:#010x}{access}): {what}; "
            f"{self.target.name} has {self.target.flash} bytes of flash at {self.target.flash_base:#010x} and "
            f"{self.target.sram} bytes of SRAM at {self.target.sram_base:#010x}",
            pc=pc,
            symbol=symbol.name if symbol else f"{pc:#010x}",
            address=address,
        )

    def _region(self, address: int) -> str:
        target = self.target
        if target.sram_base - 4096 <= address < target.sram_base:
            return "below the stack: it overflowed"
        if target.flash_base <= address < target.flash_base + target.flash:
            return "flash"
        if target.sram_base <= address < target.sram_base + target.sram:
            return "SRAM"
        return "outside every memory"

    def close(self) -> None:
        """Nothing to give back: the engine ends with its last reference."""


class VirtualMcu(LinkedDevice):
    """A Device in the virtual MCU.  After a DeviceFault it must be loaded again."""

    def __init__(self, firmware: Firmware, *, budget: int = _BUDGET, native: bool = True) -> None:
        self.machine = Machine(firmware.target, firmware.facts, budget=budget, native=native)
        super().__init__(Link(self.machine, firmware.facts.where))

    @property
    def flash(self) -> NorFlash | None:
        return self.machine.nor.flash if self.machine.nor else None

    def power_on(self) -> None:
        """After a PowerCut: SRAM holds anything, flash what it held, the firmware starts again."""
        self.machine.lose_power()
        super().__init__(Link(self.machine, self.machine.elf.where))

    @classmethod
    def load(cls, firmware: Firmware) -> VirtualMcu:
        """A device running that firmware from reset."""
        return cls(firmware)

    def infer(self, x: Int8) -> Int32:
        self._present(x)
        self.machine.probe.begin()
        return self._infer()

    def train_step(self, x: Int8, label: int | Int32) -> StepResult:
        self._present(x)
        self._aim(label)
        self.machine.probe.begin()
        return replace(self._train(label), instructions=self.counters().total)

    def counters(self) -> Counters:
        phases = self.machine.probe.state.phases
        forward = phases[Kind.SITE] + phases[Kind.KERNEL]
        return Counters(forward, phases[Kind.BACKWARD], phases[Kind.UPDATE], phases[Kind.SHELL])

    def profile(self) -> Profile:
        """Where the instructions of the last infer or train_step went."""
        probe, elf = self.machine.probe, self.machine.elf
        symbols: dict[str, int] = {}
        for at in np.flatnonzero(probe.executed):
            name = elf.where(probe.base + 2 * int(at)).partition("+")[0]
            symbols[name] = symbols.get(name, 0) + int(probe.executed[at])
        sites = (
            Site(address, elf.where(address).partition("+")[0], elf.next_call(address), int(probe.site[at]))
            for at in np.flatnonzero(probe.site[:-1])
            for address in [probe.base + 2 * int(at)]
        )
        return Profile(symbols, tuple(sites))


def _engine(target: Target) -> Any:
    if not target.unicorn_cpu:
        other = f", or the target {target.core}" if target.core != target.name else ""
        raise McugradError(f"the virtual MCU does not emulate {target.name}; use QEMU{other}")
    uc = Engine(unicorn_const.UC_ARCH_ARM, unicorn_const.UC_MODE_THUMB)
    uc.ctl_set_cpu_model(getattr(arm_const, target.unicorn_cpu))
    return uc


def _kinds(facts: ElfFacts, base: int, halfwords: int) -> NDArray[np.uint8]:
    """The kind of every halfword of the code; code without a symbol counts as kernel."""
    kinds = np.full(halfwords, Kind.KERNEL, np.uint8)
    for symbol in facts.functions:
        first = (symbol.address - base) // 2
        if 0 <= first < halfwords:
            kinds[first : first + (symbol.size + 1) // 2] = kind_of(symbol.name)
    return kinds
