"""Refuses a wrong memory plan: plays the schedule on an arena whose every byte knows which row of which value it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError
from mcugrad.ir import Graph, Node, Value
from mcugrad.memory.schedule import LoadRows, Schedule, Step

NOBODY = -1
Ids = NDArray[np.int64]


class PlanError(McugradError):
    """A memory plan lets a step read bytes that no longer hold its operand; the message names value, step and bytes."""


@dataclass
class Memory:
    """A block of bytes; `owner` holds one id per byte: of a row of a value, or of a whole value that is renamed."""

    size: int
    offsets: Mapping[Value, int]
    rings: Mapping[Value, int]
    renamed: Mapping[Value, Value]
    owner: Ids = field(init=False)
    first_id: dict[Value, int] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.owner = np.full(self.size, NOBODY, np.int64)

    def rows(self, value: Value) -> int:
        """Rows that begin at whole bytes; 1 for a value that is packed without them."""
        type_ = value.type
        return type_.shape[1] if len(type_.shape) == 4 and type_.shape[1] * type_.row_bytes == type_.nbytes else 1

    def ids(self, value: Value, rows: Ids) -> Ids:
        """Owner ids of the rows; a renamed value has the one id of its first name."""
        name = self.renamed.get(value, value)
        if name not in self.first_id:
            self.first_id[name] = len(self.names)
            self.names += [f"row {r} of {name.name}" for r in range(self.rows(name))] if self.rows(name) > 1 else [name.name]
        return self.first_id[name] + (np.zeros_like(rows) if value in self.renamed else rows)

    def row_size(self, value: Value) -> int:
        return value.type.nbytes // max(self.rows(value), 1)

    def places(self, value: Value, first: int, last: int, where: str) -> tuple[Ids, Ids]:
        """(address, owner id) of every byte of rows [first, last)."""
        size, keep = self.row_size(value), self.rings.get(value, self.rows(value))
        if last - first > keep:
            raise PlanError(f"{where}: {value.name} keeps {keep} rows, but rows [{first}, {last}) must exist at once")
        rows = np.arange(first, last)
        start = self.offsets[value] + (rows % keep) * size
        addresses = (start[:, None] + np.arange(size)).reshape(-1)
        if addresses.size and (addresses.min() < 0 or addresses.max() >= self.size):
            raise PlanError(f"{where}: {value.name} at {self.offsets[value]} leaves the {self.size} bytes of its memory")
        return addresses, np.repeat(self.ids(value, rows), size)

    def check(self, value: Value, first: int, last: int, where: str) -> Ids:
        """Addresses of rows [first, last), which must hold the value."""
        addresses, expected = self.places(value, first, last, where)
        wrong = np.flatnonzero(self.owner[addresses] != expected)
        if wrong.size:
            at = np.unique(addresses[wrong])
            holder = self.owner[addresses[wrong[0]]]
            held = self.names[holder] if holder >= 0 else "nothing, or scratch"
            raise PlanError(
                f"{where} reads {self.names[expected[wrong[0]]]}, but {wrong.size} of its bytes, "
                f"from {at[0]} to {at[-1]}, hold {held}"
            )
        return addresses

    def write(self, value: Value, first: int, last: int, where: str) -> Ids:
        addresses, owners = self.places(value, first, last, where)
        self.owner[addresses] = owners
        return addresses


def validate(
    graph: Graph,
    schedule: Schedule,
    *,
    offsets: Mapping[Value, int],
    scratch: Mapping[Node, int],
    rings: Mapping[Value, int],
    arena: int,
    state: Mapping[Value, int],
    state_bytes: int,
) -> None:
    """Plays every step; the offsets are bytes in the arena and in the state block.

    Raises PlanError when a step reads bytes that do not hold its operand, writes over an operand that its op does not
    let it overwrite, when scratch meets an operand, when something leaves its memory, or when an output is lost.
    """
    renamed = _renamed(graph)
    play = _Play(graph, Memory(arena, offsets, rings, renamed), Memory(state_bytes, state, {}, renamed), scratch)
    play.run(schedule)


def _renamed(graph: Graph) -> dict[Value, Value]:
    """First name of every value that a node without a kernel gives another name to, and of those other names."""
    first: dict[Value, Value] = {}
    for node in graph.nodes:
        if node.op.aliased and node.op.kernel(node) is None:
            first.setdefault(node.inputs[0], node.inputs[0])
            first[node.outputs[0]] = first[node.inputs[0]]
    return first


@dataclass
class _Play:
    graph: Graph
    arena: Memory
    state: Memory
    scratch: Mapping[Node, int]

    def run(self, schedule: Schedule) -> None:
        self._begin(schedule)
        for index, step in enumerate(schedule):
            where = f"step {index} ({step})"
            if isinstance(step, LoadRows):
                self.arena.write(step.value, step.first, step.last, where)
            elif (kernel := step.node.op.kernel(step.node)) is None:
                self._rename(step.node, where)
            else:
                self._compute(step, kernel.scratch, where)
        for value in (*self.graph.outputs, *(new for _, new in self.graph.updates)):
            memory = self.memory(value)
            if memory is not None:
                memory.check(value, 0, memory.rows(value), "the end of the step")

    def memory(self, value: Value) -> Memory | None:
        """Where the value is; None: in flash, or with the caller."""
        if value in self.state.offsets:
            return self.state
        if value in self.arena.offsets:
            return self.arena
        if value in self.graph.inputs[1:] or self.graph.param(value) is not None or value.type.nbytes == 0:
            return None
        raise PlanError(f"{value.name} has no address")

    def _begin(self, schedule: Schedule) -> None:
        resident = [] if any(isinstance(s, LoadRows) for s in schedule) else self.graph.inputs[:1]
        for value in (*resident, *(old for old, _ in self.graph.updates)):
            memory = self.memory(value)
            if memory is None:
                continue
            addresses, _ = memory.places(value, 0, memory.rows(value), "the start")
            if (memory.owner[addresses] != NOBODY).any():
                raise PlanError(f"{value.name} overlaps another value at the start of the step")
            memory.write(value, 0, memory.rows(value), "the start")

    def _rename(self, node: Node, where: str) -> None:
        x, y = node.inputs[0], node.outputs[0]
        memory = self.memory(x)
        if memory is not None:
            read = memory.check(x, 0, memory.rows(x), where)
            written = memory.write(y, 0, memory.rows(y), where)
            if not np.array_equal(read, written):
                raise PlanError(f"{where}: {y.name} must be the bytes of {x.name}")

    def _compute(self, step: Step, scratch: int, where: str) -> None:
        reads = self._reads(step, where)
        marks = {id(m): np.zeros(m.size, bool) for m in (self.arena, self.state)}
        work = self._scratch(step.node, scratch, where)
        for _, operand, where_read, bytes_read in reads:
            if where_read is self.arena and np.isin(work, bytes_read).any():
                raise PlanError(f"{where}: its scratch memory overlaps its operand {operand.name}")
        self.arena.owner[work] = NOBODY
        marks[id(self.arena)][work] = True
        for out, value in enumerate(step.outputs):
            memory = self.memory(value)
            if memory is not None:
                first, last = (0, memory.rows(value)) if step.segment is None else (step.first, step.last)
                addresses, _ = memory.places(value, first, last, where)
                if marks[id(memory)][addresses].any():
                    raise PlanError(f"{where}: {value.name} overlaps another result or the scratch memory of the step")
                marks[id(memory)][addresses] = True
                self._overwrites(step, out, [r for r in reads if r[2] is memory], addresses, where)
                memory.write(value, first, last, where)

    def _reads(self, step: Step, where: str) -> list[tuple[int, Value, Memory, Ids]]:
        """(input index, value, memory, addresses) of all operands, each checked to be there."""
        rows: dict[int, tuple[int, int]] = {}
        if step.segment is not None:
            rows = {n.index: (n.first, n.last) for n in step.node.op.needs(step.node, step.first, step.last)}
        reads = []
        for index, value in enumerate(step.inputs):
            memory = self.memory(value)
            if memory is not None:
                first, last = rows.get(index, (0, memory.rows(value)))
                reads.append((index, value, memory, memory.check(value, first, last, where)))
        return reads

    def _scratch(self, node: Node, size: int, where: str) -> Ids:
        if size and node not in self.scratch:
            raise PlanError(f"{where} needs {size} bytes of scratch memory and has no address for it")
        start = self.scratch.get(node, 0)
        if size and not 0 <= start <= self.arena.size - size:
            raise PlanError(f"{where}: {size} bytes of scratch memory at {start} leave the arena of {self.arena.size} bytes")
        return np.arange(start, start + size)

    def _overwrites(
        self, step: Step, out: int, reads: list[tuple[int, Value, Memory, Ids]], addresses: Ids, where: str
    ) -> None:
        """An output meets only operands that the op lets it replace, and then byte for byte."""
        y = step.outputs[out]
        must = [i for i, o in step.node.op.aliased if o == out]
        may = [i for i, o in step.node.op.replaces(step.node) if o == out]
        for index, x, _, bytes_read in reads:
            meets = np.isin(bytes_read, addresses).any()
            same = np.array_equal(bytes_read, addresses)
            if index in must and not same:
                raise PlanError(f"{where}: {y.name} must be the bytes of {x.name}")
            if meets and not (same and index in (*may, *must)) and not self._walks(step, index, out, bytes_read, addresses):
                raise PlanError(
                    f"{where}: {y.name} overwrites {x.name} (operand {index}) while {step.node.op.name} still reads it"
                )

    def _walks(self, step: Step, index: int, out: int, read: Ids, written: Ids) -> bool:
        """Does the op walk from this operand to this output, and never over bytes that it has still to read?"""
        walk = next((s for s in step.node.op.walks(step.node) if (s.source, s.target) == (index, out)), None)
        if walk is None or step.segment is not None:
            return False
        gone = np.zeros(self.arena.size, bool)
        for first, last, start, end in walk.pieces.tolist():
            if gone[read[first:last]].any():
                return False
            gone[written[start:end]] = True
        return bool(gone[written].all())
