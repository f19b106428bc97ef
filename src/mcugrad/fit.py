"""The cheapest plan whose firmware fits its memories; where none does, by how much it misses and what would fit."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mcugrad.build import Firmware, build
from mcugrad.devices.elf import ElfFacts
from mcugrad.emit import c as emit
from mcugrad.errors import BudgetError, McugradError
from mcugrad.ir import Graph
from mcugrad.memory.buffer import ALIGN
from mcugrad.memory.modes import Planned, Planner
from mcugrad.memory.problem import state_layout
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Cut, Program, lower
from mcugrad.replay import MOST_SLOTS, Replay
from mcugrad.targets import Target
from mcugrad.training.scheme import BUILT_IN, UpdateScheme, read_scheme, shipped, with_bias_bits, with_residual_bits

INPUT_MODES = {"auto": None, "resident": False, "rows": True}
"""Is the input pulled row by row?  None: only where nothing else fits."""

_TRIES = 3
_GROWTH = 64  # bytes of code that a number of slots may add
SLOTS_PER_CLASS = 4  # of a replay buffer, before a cheaper plan gets the SRAM
_ROOMY_SRAM, _ROOMY_FLASH = 16 << 20, 64 << 20  # bytes


class Shortage(BudgetError):
    """A firmware is larger than a memory.  rest: bytes of SRAM besides arena and parameters (shell and stack).  slots: of a
    replay buffer that would fit; None where none was asked for."""

    def __init__(self, target: Target, memory: str, needed: int, rest: int, slots: int | None = None) -> None:
        self.slots = slots
        self.available = target.sram if memory == "SRAM" else target.flash
        self.memory, self.rest = memory, rest
        super().__init__(
            f"{target.name}: the firmware needs {needed} bytes of {memory}, {needed - self.available} more than the "
            f"{self.available} it may use",
            needed,
        )


@dataclass(frozen=True)
class Probe:
    """What one look at a graph found: bytes of SRAM and flash, and the program, None where no plan kept the budget.

    least: bytes of SRAM of its leanest forward pass.  sram: of the firmware, or of the smallest plan that was tried."""

    program: Program | None
    least: int
    sram: int
    flash: int | None


@dataclass(frozen=True)
class Line:
    """How a graph becomes firmware: target with the memories it may use, an input mode, a compiler, a replay buffer."""

    target: Target
    input_mode: str
    compiler: str
    replay: Replay | None = None

    def fit(self, graph: Graph, name: str, folder: Path) -> tuple[Program, Firmware]:
        """The cheapest plan that fits, printed and built into `folder`.  Raises Shortage when there is none."""
        if self.replay is not None and self.replay.slots is None:
            return self._roomiest(graph, name, folder, self.replay)
        return self._cheapest(graph, name, folder)

    def _roomiest(self, graph: Graph, name: str, folder: Path, replay: Replay) -> tuple[Program, Firmware]:
        """The cheapest plan with room for a few samples of each class, and as many more as there is room for."""
        classes = graph.outputs[0].type.elements
        least = replace(self, replay=replace(replay, slots=SLOTS_PER_CLASS * classes))
        try:
            program, firmware = least.fit(graph, name, folder)
        except Shortage as shortage:
            if not shortage.slots:
                raise
            return replace(self, replay=replace(replay, slots=shortage.slots)).fit(graph, name, folder)
        assert program.cut is not None
        slots = SLOTS_PER_CLASS * classes + self._more_slots(program, program.cut, firmware.facts)
        roomier = replace(self, replay=replace(replay, slots=min(slots, MOST_SLOTS)))
        return roomier.fit(graph, name, folder)

    def _more_slots(self, program: Program, cut: Cut, facts: ElfFacts) -> int:
        """Slots that there is room for besides those of the program."""
        room = self.target.sram - _occupied(facts, self.target)
        more = max(room - ALIGN, 0) // _slot_bytes(program)
        if not cut.pitch:
            return more
        start = -(-(facts.flash_image + _GROWTH) // cut.replay.erase) * cut.replay.erase
        return max(min(more, (self.target.flash - start) // cut.pitch - (cut.replay.slots or 0)), 0)

    def _cheapest(self, graph: Graph, name: str, folder: Path) -> tuple[Program, Firmware]:
        cap = self.target.sram - state_layout(graph).total
        planner = self.planner(graph)
        for _ in range(_TRIES):
            program = self.plan(planner, name, cap)
            emit.write(program, folder)
            linked = build(folder, self._roomy, compiler=self.compiler).facts
            needed = _occupied(linked, self.target)
            rest = needed - program.plan.arena - program.state.total
            if linked.flash_total > self.target.flash:
                missing = linked.flash_total - self.target.flash
                raise Shortage(self.target, "flash", linked.flash_total, rest, _fewer_in_flash(program, missing))
            if needed <= self.target.sram:
                return program, build(folder, self.target, compiler=self.compiler, stack=linked.stack_reserved)
            if program.plan.arena > cap:
                break
            cap = self.target.sram - (needed - program.plan.arena)
        raise Shortage(self.target, "SRAM", needed, rest, _fewer(program, needed - self.target.sram))

    def probe(self, graph: Graph, name: str, rest: int) -> Probe:
        """Whether it fits, from one look: at most one firmware, and no search for the smallest plan of all.

        rest: bytes of SRAM besides arena and parameters, known from another firmware of the same network."""
        planner, state = self.planner(graph), state_layout(graph).total
        planned = planner.probe(self.target.sram - state - rest)
        arena = planner.live if planned is None else planned.arena
        if planned is None or arena + state + rest > self.target.sram:
            return Probe(None, planner.live + state + rest, arena + state + rest, None)
        program = _lowered(planned, name, self.replay)
        with tempfile.TemporaryDirectory() as folder:
            emit.write(program, Path(folder))
            facts = build(Path(folder), self._roomy, compiler=self.compiler).facts
        sram = _occupied(facts, self.target)
        return Probe(program, sram - arena + min(arena, planner.live), sram, facts.flash_total)

    def planner(self, graph: Graph) -> Planner:
        return Planner(graph, INPUT_MODES[self.input_mode], target=self.target)

    def plan(self, planner: Planner, name: str, cap: int) -> Program:
        """The cheapest program whose arena has at most `cap` bytes, or the smallest one where none has."""
        try:
            planned = planner.plan(max(cap, 0))
        except BudgetError as error:
            planned = planner.plan(error.needed)
        return _lowered(planned, name, self.replay)

    @property
    def _roomy(self) -> Target:
        """The target with memories that anything fits: what a firmware needs is known only once it is linked."""
        return replace(self.target, sram=max(self.target.sram, _ROOMY_SRAM), flash=max(self.target.flash, _ROOMY_FLASH))


def _lowered(planned: Planned, name: str, replay: Replay | None) -> Program:
    scheduled = planned.scheduled
    return lower(scheduled.graph, scheduled.schedule, scheduled.plan, name, replay)


def _slot_bytes(program: Program) -> int:
    """Of SRAM: a latent, unless it lies in flash, and its label, and what rounding may add."""
    assert program.cut is not None
    return 4 + (0 if program.cut.pitch else program.cut.value.type.nbytes)


def _fewer(program: Program, missing: int) -> int | None:
    """Slots that a replay buffer may have when so many bytes are missing; None without a buffer."""
    if program.cut is None or program.cut.replay.slots is None:
        return None
    return max(program.cut.replay.slots - -(-(missing + ALIGN) // _slot_bytes(program)), 0)


def _fewer_in_flash(program: Program, missing: int) -> int | None:
    """The same for bytes of flash; None where flash holds no latents."""
    if program.cut is None or not program.cut.pitch:
        return None
    return max((program.cut.replay.slots or 0) - -(-missing // program.cut.pitch), 0)


@dataclass(frozen=True)
class Choice:
    """Something else the user could ask for."""

    option: str
    scheme: UpdateScheme
    line: Line


def advice(shortage: Shortage, prepared: Prepared, scheme: UpdateScheme, line: Line, rate: float | None, seed: int) -> str:
    """What would fit, tried out; a sentence for the message."""
    give = f"Give it that much (--{shortage.memory.lower()} {-(-(shortage.needed or 0) // 1024)}K)"
    if shortage.slots is not None:
        less = f"use --replay {shortage.slots}" if shortage.slots else "leave --replay out"
        return f"{give}, or {less}"
    for choice in _choices(prepared, scheme, line):
        graph = training_graph(prepared, choice.scheme, rate=rate, seed=seed)
        needed = _needed(graph, prepared, choice, shortage)
        if needed is not None:
            return f"{give}, or use {choice.option}, which needs {needed}"
    smaller = "a smaller model" if shortage.memory == "flash" else "a smaller model or input"
    return f"{give}, or take {smaller}: no shipped scheme and no option makes this one fit"


def _choices(prepared: Prepared, scheme: UpdateScheme, line: Line) -> Iterator[Choice]:
    """What to try, in order of preference: numerics.md says to give up channels before the first residual bits."""
    if line.input_mode == "resident":
        line = replace(line, input_mode="auto")
        yield Choice("--input auto", scheme, line)
    bits = max(scheme.residual_bits, *(u.residual_bits or 0 for u in scheme.weights.values())) if scheme.weights else 0
    if bits > 4:
        yield Choice("--residual-bits 4", with_residual_bits(scheme, 4), line)
    if scheme.bias_bits == 32 and scheme.biases:
        yield Choice("--bias-bits 16", with_bias_bits(scheme, 16), line)
    for other in _shipped(prepared):
        if other.name != scheme.name:
            yield Choice(f"--scheme {other.name}", other, line)
    if bits > 0:
        yield Choice("--residual-bits 0", with_residual_bits(scheme, 0), line)
    for name in ("bias", "head"):
        if name != scheme.name:
            yield Choice(f"--scheme {name}", BUILT_IN[name], line)


def _shipped(prepared: Prepared) -> list[UpdateScheme]:
    """The schemes that ship for a model of this name and fit its layers, largest state first."""
    sizes: dict[str, int] = {}
    schemes = {n: read_scheme(n, prepared.name) for n in shipped(prepared.name) if n not in BUILT_IN}
    for name, scheme in schemes.items():
        with suppress(McugradError):  # another model of the same name
            sizes[name] = state_layout(training_graph(prepared, scheme)).total
    return [schemes[n] for n in sorted(sizes, key=lambda n: -sizes[n])]


def _needed(graph: Graph, prepared: Prepared, choice: Choice, shortage: Shortage) -> int | None:
    """Bytes of the memory that was short which this choice needs; None where it does not fit either."""
    target = choice.line.target
    cap = target.sram - shortage.rest - state_layout(graph).total
    if cap <= 0 or choice.line.plan(choice.line.planner(graph), prepared.name, cap).plan.arena > cap:
        return None
    with tempfile.TemporaryDirectory() as folder:
        try:
            _, firmware = choice.line.fit(graph, prepared.name, Path(folder))
        except Shortage:
            return None
    return (
        firmware.facts.sram_static + firmware.facts.stack_reserved if shortage.memory == "SRAM" else firmware.facts.flash_total
    )


def _occupied(facts: ElfFacts, target: Target) -> int:
    """Bytes of SRAM up to the end of the last section, the reserved stack and gaps between sections included."""
    return max(s.address + s.size for s in facts.sections if s.writable) - target.sram_base
