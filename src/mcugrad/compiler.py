"""The straight line from a prepared network to a linked firmware in a folder, checked against its budget."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad.build import Firmware, build, build_host
from mcugrad.devices.base import Device
from mcugrad.devices.host import Host
from mcugrad.devices.qemu import Qemu
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit import c as emit
from mcugrad.errors import BudgetError, McugradError
from mcugrad.fit import INPUT_MODES, Line, Shortage, advice
from mcugrad.folder import fresh_folder
from mcugrad.graphfile import save_graph
from mcugrad.importers.model import PYTORCH, TFLITE
from mcugrad.ir import Graph
from mcugrad.loss import Loss
from mcugrad.memory.modes import Scheduled
from mcugrad.memory.problem import build as problem
from mcugrad.memory.schedule import layerwise
from mcugrad.memory.solve import solve
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Program, lower
from mcugrad.replay import Replay
from mcugrad.report.ledger import facts, layer_rows
from mcugrad.report.memory_map import draw_memory_map
from mcugrad.targets import Target, get_target, known_targets
from mcugrad.training.scheme import UpdateScheme

REPORT = "report.json"
PREPROCESS = "preprocess.json"
TARGET = "target.json"
NETWORK = "network.npz"  # the training graph with its contents
SAMPLES = "samples.npz"  # calibration inputs x int8 [N,H,W,C] and labels y
KEPT_SAMPLES = 32
MODEL_FILES = {TFLITE: "source.tflite", PYTORCH: "source.pt2"}  # the model itself, where an export is made from it
PARAMETERS = "parameters.bin"  # the parameter block at the end of a training run
DEVICES = ("host", "vm", "qemu")


@dataclass(frozen=True)
class Budget:
    """What the firmware must fit: SRAM and flash in bytes; input_mode is one of INPUT_MODES; replay: a buffer of past samples
    that takes its share of the SRAM."""

    target: str = "cortex-m7"
    sram: int | None = None
    flash: int | None = None
    input_mode: str = "auto"
    compiler: str = "zig"
    replay: Replay | None = None

    def resolve(self) -> Target:
        """The target with the budget's memories.  Raises McugradError for an unknown target or mode."""
        if self.input_mode not in INPUT_MODES:
            raise McugradError(f"unknown input mode {self.input_mode!r}: use {', '.join(INPUT_MODES)}")
        target = get_target(self.target, sram=self.sram, flash=self.flash)
        if self.replay is not None and self.replay.erase and not target.nor:
            able = ", ".join(name for name in known_targets() if get_target(name).nor)
            raise McugradError(
                f"--replay-in flash: the firmware cannot write the flash of {target.name}, only that of {able}: use "
                "one of them, or --replay-in sram"
            )
        return target


@dataclass(frozen=True, eq=False)
class Compiled:
    """A model in C, its linked firmware and where both lie."""

    folder: Path
    program: Program
    prepared: Prepared
    firmware: Firmware
    scheme: UpdateScheme
    budget: Budget

    def facts(self) -> dict[str, Any]:
        """What the build measures, as nested JSON values; paths begin with the folder."""
        found = facts(self.program, self.firmware)
        return {**found, **{name: str(self.folder / found[name]) for name in ("elf", "header")}}

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
        """The firmware itself where its target is a machine of QEMU, otherwise the same model built for the machine with
        this core.  Raises McugradError when there is none.

        The bound of the stack carries over: the same compiler makes the same code for the same core."""
        if self.firmware.target.qemu_machine:
            return self.firmware
        if self.program.cut is not None and self.program.cut.pitch:
            name = self.firmware.target.name
            raise McugradError(
                f"--replay-in flash: QEMU has no machine with the flash of {name}: use --on vm, or --target microbit"
            )
        core, stack = self.firmware.target.core, self.firmware.facts.stack_reserved
        for name in known_targets():
            if get_target(name).core == core and get_target(name).qemu_machine:
                return build(self.folder, get_target(name), compiler=self.budget.compiler, stack=stack)
        raise McugradError(f"QEMU has no machine with a {core}: use --on vm")


def compile_model(prepared: Prepared, scheme: UpdateScheme, out: Path, budget: Budget, *, rate: float | None = None,
                  seed: int = 0) -> Compiled:  # fmt: skip
    """Plans, prints and builds into `out`, which appears only when everything succeeded.

    Raises BudgetError when it does not fit, McugradError for everything else the caller can mend."""
    line = Line(budget.resolve(), budget.input_mode, budget.compiler, budget.replay)
    graph = training_graph(prepared, scheme, rate=rate, seed=seed)
    with fresh_folder(out) as folder:
        try:
            program, firmware = line.fit(graph, prepared.name, folder)
        except Shortage as shortage:
            words = advice(shortage, prepared, scheme, line, rate, seed)
            raise BudgetError(f"{shortage}. {words}", shortage.needed) from None
        _write_facts(program, prepared, firmware, folder)
    return Compiled(out, program, prepared, _moved(firmware, out), scheme, budget)


def host_program(graph: Graph, name: str, folder: Path, replay: Replay | None = None) -> tuple[Program, Path]:
    """A training graph run layerwise on this machine, without a firmware: its program and the host twin's library."""
    program = layerwise_program(graph, name, replay)
    folder.mkdir(parents=True, exist_ok=True)
    emit.write(program, folder)
    return program, build_host(folder)


def layerwise_program(graph: Graph, name: str, replay: Replay | None = None) -> Program:
    """The plain plan of a training graph; replay: a buffer of past samples, its slots given."""
    schedule = layerwise(graph)
    return lower(graph, schedule, solve(problem(graph, schedule), effort=0), name, replay)


def _moved(firmware: Firmware, folder: Path) -> Firmware:
    """The firmware at its final place."""
    elf = folder / "build" / firmware.elf.name
    return replace(firmware, elf=elf, facts=replace(firmware.facts, path=elf))


def _write_facts(program: Program, prepared: Prepared, firmware: Firmware, folder: Path) -> None:
    own = prepared.source
    units = {"mean": prepared.targets.mean.tolist(), "spread": prepared.targets.spread.tolist()}
    source = {"file": own.file, "format": own.format, "classifier": own.classifier, "samples": prepared.raw, "units": units}
    report = {**facts(program, firmware), "layers": layer_rows(program), "notes": list(prepared.notes), "source": source}
    (folder / REPORT).write_text(json.dumps(report, indent=1), encoding="utf-8")
    if prepared.targets.loss is not Loss.SOFTMAX:
        (folder / TARGET).write_text(json.dumps(prepared.targets.to_dict(), indent=1), encoding="utf-8")
    (folder / PREPROCESS).write_text(json.dumps(prepared.preprocess.to_dict(), indent=1), encoding="utf-8")
    save_graph(program.graph, folder / NETWORK)
    np.savez_compressed(folder / SAMPLES, x=prepared.x[:KEPT_SAMPLES], y=prepared.y[:KEPT_SAMPLES])
    if prepared.source.data is not None:
        (folder / MODEL_FILES[prepared.source.format]).write_bytes(prepared.source.data)
    (folder / "graph-forward.txt").write_text(str(prepared.graph), encoding="utf-8")
    (folder / "graph-training.txt").write_text(str(program.graph), encoding="utf-8")
    scheduled = Scheduled(program.graph, program.schedule, program.plan)
    draw_memory_map(scheduled, folder / "memory.png", f"{program.name}, {firmware.target.name}")
