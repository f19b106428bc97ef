"""Instructions of every call of a training step in the virtual MCU, in the order of its schedule."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from unicorn import arm_const, unicorn_const

from mcugrad.devices.probe import Kind
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


class Trace:
    """Notes when generated code enters a kernel.  The instructions between two entries belong to the first."""

    def __init__(self, program: Program, device: VirtualMcu) -> None:
        self.machine = device.machine
        self.steps = [s for s in program.schedule if callee(s)]
        self.entered: list[tuple[str, int]] = []
        wanted = {callee(s) for s in self.steps}
        self.names = {f.address: f.name for f in self.machine.elf.functions if f.name in wanted}
        for address in self.names:
            self.machine.uc.hook_add(unicorn_const.UC_HOOK_BLOCK, self._enter, begin=address, end=address)

    def begin(self) -> None:
        """Forgets the last step."""
        self.entered.clear()

    def costs(self) -> Counter[Node | Value]:
        """Instructions by node, or by value for pulled rows, of the last step, which must have run to its end."""
        names = [name for name, _ in self.entered]
        if names != [callee(s) for s in self.steps]:
            raise McugradError(f"the step made {len(names)} calls, its schedule has {len(self.steps)}: is it a full step?")
        edges = [0, *(at for _, at in self.entered[1:]), self._instructions()]
        found: Counter[Node | Value] = Counter()
        for step, (first, last) in zip(self.steps, pairwise(edges), strict=True):
            found[step.node if isinstance(step, Step) else step.value] += last - first
        return found

    def _enter(self, uc: Any, address: int, _size: int, _user: Any) -> None:
        caller = self.machine.elf.symbol_at(uc.reg_read(arm_const.UC_ARM_REG_LR) & ~1)
        if caller is not None and kind_of(caller.name) == Kind.SITE:
            probe = self.machine.probe  # has counted the block that begins here
            block = int(probe.shape[(address - probe.base) >> 1]) & 0xFFFF
            self.entered.append((self.names[address], self._instructions() - block))

    def _instructions(self) -> int:
        phases = self.machine.probe.state.phases
        return sum(phases[k] for k in Kind if k != Kind.SHELL)
