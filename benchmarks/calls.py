"""Instructions of every call of a training step, in the order of its schedule: in the virtual MCU, or in QEMU for cores
that it does not know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from unicorn import arm_const, unicorn_const

from mcugrad.compiler import Compiled
from mcugrad.devices.base import NEVER_SKIP, Counters, StepResult
from mcugrad.devices.probe import Kind
from mcugrad.devices.qemu import Qemu
from mcugrad.devices.virtual import VirtualMcu, kind_of
from mcugrad.errors import McugradError
from mcugrad.ir import Node, Value
from mcugrad.memory.schedule import LoadRows, Step
from mcugrad.program import Program


def callee(step: Step | LoadRows) -> str:
    """The C function that a step calls; "" for one that only renames bytes."""
    if isinstance(step, LoadRows):
        return "mcg_load_rows"
    kernel = step.node.op.kernel(step.node)
    return kernel.function if kernel else ""


class Trace(ABC):
    """A counting device.  The instructions between two entries of kernels belong to the first."""

    device: VirtualMcu | Qemu

    def __init__(self, program: Program) -> None:
        self.steps = [s for s in program.schedule if callee(s)]

    @abstractmethod
    def step(self, x: Any, label: int) -> StepResult:
        """A training step, counted."""

    @abstractmethod
    def entered(self) -> list[tuple[str, int]]:
        """Kernels that generated code called in the last step, and the instructions before each."""

    @abstractmethod
    def functions(self) -> dict[str, int]:
        """Instructions of the last step by C function."""

    @property
    def counters(self) -> Counters:
        counters = self.device.counters()
        assert counters is not None
        return counters

    def costs(self) -> Counter[Node | Value]:
        """Instructions by node, or by value for pulled rows, of the last step, which must have run to its end."""
        entered = self.entered()
        if [name for name, _ in entered] != [callee(s) for s in self.steps]:
            raise McugradError(f"the step made {len(entered)} calls, its schedule has {len(self.steps)}: is it a full step?")
        edges = [0, *(at for _, at in entered[1:]), self.counters.total]
        found: Counter[Node | Value] = Counter()
        for step, (first, last) in zip(self.steps, pairwise(edges), strict=True):
            found[step.node if isinstance(step, Step) else step.value] += last - first
        return found


class VirtualTrace(Trace):
    """Notes when generated code enters a kernel."""

    def __init__(self, program: Program, device: VirtualMcu) -> None:
        super().__init__(program)
        self.device: VirtualMcu = device
        self.machine = device.machine
        self._entered: list[tuple[str, int]] = []
        wanted = {callee(s) for s in self.steps}
        self.names = {f.address: f.name for f in self.machine.elf.functions if f.name in wanted}
        for address in self.names:
            self.machine.uc.hook_add(unicorn_const.UC_HOOK_BLOCK, self._enter, begin=address, end=address)

    def step(self, x: Any, label: int) -> StepResult:
        self._entered.clear()
        return self.device.train_step(x, label)

    def entered(self) -> list[tuple[str, int]]:
        return list(self._entered)

    def functions(self) -> dict[str, int]:
        return self.device.profile().symbols

    def _enter(self, uc: Any, address: int, _size: int, _user: Any) -> None:
        caller = self.machine.elf.symbol_at(uc.reg_read(arm_const.UC_ARM_REG_LR) & ~1)
        if caller is not None and kind_of(caller.name) == Kind.SITE:
            probe = self.machine.probe  # has counted the block that begins here
            block = int(probe.shape[(address - probe.base) >> 1]) & 0xFFFF
            self._entered.append((self.names[address], self._instructions() - block))

    def _instructions(self) -> int:
        phases = self.machine.probe.state.phases
        return sum(phases[k] for k in Kind if k != Kind.SHELL)


class QemuTrace(Trace):
    """What the plugin noted; the runtime's own calls into kernels, such as those of memory functions, do not count."""

    def __init__(self, program: Program, device: Qemu) -> None:
        super().__init__(program)
        assert device.plugin is not None
        self.device: Qemu = device
        self.plugin = device.plugin
        self.wanted = {callee(s) for s in self.steps}

    def step(self, x: Any, label: int) -> StepResult:
        return self.device.train_step(x, label)

    def entered(self) -> list[tuple[str, int]]:
        return [call for call in self.plugin.calls() if call[0] in self.wanted]

    def functions(self) -> dict[str, int]:
        return self.plugin.symbols()


@contextmanager
def traced(build: Compiled) -> Iterator[Trace]:
    """The model on a device that counts, with every sample learned in full.  Raises McugradError where there is none."""
    if build.firmware.target.unicorn_cpu:
        virtual = VirtualMcu.load(build.firmware)
        trace: Trace = VirtualTrace(build.program, virtual)
    else:
        trace = QemuTrace(build.program, Qemu.load(build.on_qemu(), counting=True))
    with trace.device:
        trace.device.set_control(skip=NEVER_SKIP)
        yield trace
