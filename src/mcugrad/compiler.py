"""The straight line from a prepared network to a linked firmware in a folder, checked against its budget."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mcugrad.build import Firmware, build, build_host
from mcugrad.devices.base import Device
from mcugrad.devices.host import Host
from mcugrad.devices.qemu import Qemu
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit import c as emit
from mcugrad.errors import BudgetError, McugradError
from mcugrad.ir import Graph
from mcugrad.memory import modes
from mcugrad.memory.problem import state_layout
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Program, lower
from mcugrad.report.ledger import facts, layer_rows
#from mcugrad.report.memory_map import draw
from mcugrad.targets import Target, get_target, known_targets
from mcugrad.training.scheme import UpdateScheme, shipped

REPORT = "report.json"
INPUT_MODES = ("auto", "resident", "rows")
DEVICES = ("host", "vm", "qemu")


@dataclass(frozen=True)
class Budget:
    """What the firmware must fit: SRAM and flash in bytes; input_mode is one of INPUT_MODES."""

    target: str = "cortex-m7"
    sram: int | None = None
    flash: int | None = None
    input_mode: str = "auto"
    compiler: str = "zig"

    def resolve(self) -> Target:
        """The target with the budget's memories.  Raises McugradError for an unknown target or mode."""
        if self.input_mode not in INPUT_MODES:
            raise McugradError(f"unknown input mode {self.input_mode!r}: use {', '.join(INPUT_MODES)}")
        return get_target(self.target, sram=self.sram, flash=self.flash)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model in C, its linked firmware and where both lie."""

    folder: Path
    program: Program
    prepared: Prepared
    firmware: Firmware
    scheme: UpdateScheme

    def facts(self) -> dict[str, Any]:
        """What the build measures, as nested JSON values."""
        return facts(self.program, self.firmware, self.folder)

    @cached_property
    def host_library(self) -> Path:
        return build_host(self.folder)

    def device(self, kind: str) -> Device:
        """A device that runs this model: "host", "vm" or "qemu"."""
        if kind == "host":
            return Host.load(self.host_library)
        if kind == "vm":
            return VirtualMcu.load(self.firmware)
        if kind == "qemu":
            return Qemu.load(self.on_qemu())
        raise McugradError(f"unknown device {kind!r}: use {', '.join(DEVICES)}")

    def on_qemu(self) -> Firmware:
        """The same model built for the QEMU machine with this core.  Raises McugradError when there is none."""
        core = self.firmware.target.core
        for name in known_targets():
            if get_target(name).core == core and get_target(name).qemu_machine:
                return build(self.folder, get_target(name))
        raise McugradError(f"QEMU has no machine with a {core}: use --on vm")


def compile_model(prepared: Prepared, scheme: UpdateScheme, out: Path, budget: Budget, *, rate: float | None = None,
                  seed: int = 0) -> Compiled:  # fmt: skip
    """Plans, prints and builds into `out`, which appears only when everything succeeded.

    Raises BudgetError when it does not fit, McugradError for everything else the caller can mend."""
    target = budget.resolve()
    graph = training_graph(prepared, scheme, rate=rate, seed=seed)
    with fresh_folder(out) as folder:
        program, firmware = _fit(graph, prepared, folder, target, budget)
        _write_facts(program, prepared, firmware, folder)
    return Compiled(out, program, prepared, _moved(firmware, out), scheme)


def _moved(firmware: Firmware, folder: Path) -> Firmware:
    """The firmware at its final place."""
    elf = folder / "build" / firmware.elf.name
    return replace(firmware, elf=elf, facts=replace(firmware.facts, path=elf))


def _fit(graph: Graph, prepared: Prepared, folder: Path, target: Target, budget: Budget) -> tuple[Program, Firmware]:
    """The cheapest plan whose firmware links and fits.  What the shell and the stack need is known only after a link."""
    cap = target.sram - state_layout(graph).total
    roomy = replace(target, sram=max(target.sram, 16 << 20), flash=max(target.flash, 64 << 20))
    rows = {"auto": None, "resident": False, "rows": True}[budget.input_mode]
    for _ in range(3):
        if cap <= 0:
            raise _does_not_fit(target, "SRAM", target.sram - cap, target.sram, prepared)
        try:
            planned = modes.plan(graph, sram_for_arena=cap, input_rows=rows).programs[0]
        except BudgetError as error:
            raise BudgetError(f"{target.name} with {target.sram} bytes of SRAM: {error}{_smaller(prepared)}") from None
        program = lower(graph, planned.schedule, planned.plan, prepared.name)
        emit.write(program, folder)
        measured = build(folder, roomy, compiler=budget.compiler).facts
        if measured.flash_total > target.flash:
            raise _does_not_fit(target, "flash", measured.flash_total, target.flash, prepared)
        if measured.sram_total <= target.sram:
            return program, build(folder, target, compiler=budget.compiler)
        cap = target.sram - (measured.sram_total - program.plan.arena)
    raise _does_not_fit(target, "SRAM", measured.sram_total, target.sram, prepared)


def _does_not_fit(target: Target, what: str, needed: int, have: int, prepared: Prepared) -> BudgetError:
    return BudgetError(
        f"{target.name}: the firmware needs {needed} bytes of {what}, {needed - have} more than the {have} it may use. "
        f"Give it that much{_smaller(prepared)}"
    )


def _smaller(prepared: Prepared) -> str:
    names = [n for n in shipped(prepared.name) if n != "full"]
    return f"; or choose a smaller scheme (--scheme, one of {', '.join(names)}) or fewer residual bits (--residual-bits)"


def _write_facts(program: Program, prepared: Prepared, firmware: Firmware, folder: Path) -> None:
    report = {**facts(program, firmware, folder), "layers": layer_rows(program), "notes": list(prepared.notes)}
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "preprocess.json").write_text(json.dumps(prepared.preprocess.to_dict(), indent=1), encoding="utf-8")
    (folder / "graph-forward.txt").write_text(str(prepared.graph), encoding="utf-8")
    (folder / "graph-training.txt").write_text(str(program.graph), encoding="utf-8")
    #    draw(program.plan, program.schedule, folder / "memory.png")


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside `out` that takes its place when the block succeeds, and vanishes when it does not.

    Raises McugradError when `out` cannot be written or holds something that mcugrad did not make."""
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / REPORT).exists())):
        raise McugradError(f"{out} exists and is not a folder that mcugrad made: choose another one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise McugradError(f"{out} cannot be written: {error.strerror}; choose another folder") from None
    try:
        yield temporary
        if out.exists():
            shutil.rmtree(out)
        temporary.chmod(0o755)
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
