"""When the nodes of a graph run and in which pieces: layerwise, or row-streamed through ring buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from mcugrad.errors import McugradError
from mcugrad.ir import Graph, Node, TensorType, Value


class ScheduleError(McugradError):
    """A schedule does not compute its graph; the message names the step and the rows."""


@dataclass(frozen=True)
class Step:
    """Computes rows [first, last) of the node's (first) output; `segment` is None when the node runs whole."""

    node: Node
    first: int
    last: int
    segment: int | None = None

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self.node.inputs

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self.node.outputs

    def __str__(self) -> str:
        if not self.node.outputs:
            return f"{self.node.op.name} of {self.node.where}"
        return self.node.where if self.segment is None else f"{self.node.where}[{self.first}:{self.last}]"


@dataclass(frozen=True)
class LoadRows:
    """Pulls rows [first, last) of the graph's input through the caller's row source."""

    value: Value
    first: int
    last: int
    segment: int | None = None

    @property
    def inputs(self) -> tuple[Value, ...]:
        return ()

    @property
    def outputs(self) -> tuple[Value, ...]:
        return (self.value,)

    def __str__(self) -> str:
        return f"load {self.value.name}[{self.first}:{self.last}]"


Schedule = tuple[Step | LoadRows, ...]


def height(type_: TensorType) -> int:
    """Rows of a value: the second axis of NHWC, 1 for any other rank."""
    return type_.shape[1] if len(type_.shape) == 4 else 1


def node_rows(node: Node) -> int:
    """Rows that a node computes, those of its first output; 1 for a node without outputs."""
    return height(node.outputs[0].type) if node.outputs else 1


def layerwise(graph: Graph) -> Schedule:
    """One step per node, full ranges, in graph order."""
    return tuple(Step(n, 0, node_rows(n)) for n in graph.nodes)


def streamed(graph: Graph, start: int, stop: int, *, input_rows: bool = False) -> Schedule:
    """nodes[start:stop) row by row, everything else layerwise.

    With `input_rows` the segment begins with the input's only reader and pulls the input through the row source.
    Raises ScheduleError when a node of the segment cannot be split or the input has another reader.
    """
    return arrange(graph, [Segment(start, stop)], input_rows=input_rows)


class Segment(NamedTuple):
    """nodes[start:stop), row-streamed: each row as late as possible or, with `rounds`, so many rows of the last node's output
    at a time, for which every other node first computes at once what is missing."""

    start: int
    stop: int
    rounds: int = 0


def arrange(graph: Graph, segments: Sequence[Segment], *, input_rows: bool = False) -> Schedule:
    """Every segment (ascending, disjoint) row-streamed, everything else layerwise.

    `input_rows`: the first segment pulls the graph's input.  Raises ScheduleError as `streamed` does.
    """
    steps: list[Step | LoadRows] = []
    at = 0
    for index, (start, stop, rounds) in enumerate(segments):
        if not at <= start < stop <= len(graph.nodes):
            raise ScheduleError(f"segment [{start}, {stop}) is empty or overlaps the one before it, which ends at {at}")
        steps += (Step(n, 0, node_rows(n)) for n in graph.nodes[at:start])
        pulled = graph.inputs[0] if input_rows and index == 0 else None
        steps += _stream(graph, graph.nodes[start:stop], index, pulled, rounds)
        at = stop
    if input_rows and not segments:
        raise ScheduleError("the input can only be pulled row by row into a row-streamed segment")
    steps += (Step(n, 0, node_rows(n)) for n in graph.nodes[at:])
    return _join(steps, ring_rows(graph, tuple(steps)))


def stream_block(
    graph: Graph, segment: Segment, whole: Set[Value], *, input_rows: bool = False
) -> tuple[Schedule, dict[Value, int]]:
    """The steps of a segment alone, and the rings of their values but for those in `whole`.

    Raises ScheduleError as `streamed` does."""
    nodes = graph.nodes[segment.start : segment.stop]
    steps = _stream(graph, nodes, 0, graph.inputs[0] if input_rows else None, segment.rounds)
    rings = {v: n for v, n in ring_rows(graph, tuple(steps)).items() if v not in whole}
    return _join(steps, rings), rings


def _stream(graph: Graph, nodes: Sequence[Node], segment: int, pulled: Value | None, rounds: int) -> list[Step | LoadRows]:
    for node in nodes:
        if not node.op.splits_rows or len(node.outputs) != 1 or len(node.outputs[0].type.shape) != 4:
            raise ScheduleError(f"{node.where} cannot be split into rows: end the streamed segment before it")
    if pulled is not None:
        readers = graph.consumers().get(pulled, [])
        if readers != [nodes[0]]:
            names = ", ".join(n.where for n in readers) or "nothing"
            raise ScheduleError(
                f"{pulled.name} cannot be pulled row by row: it is read by {names}, not by {nodes[0].where} alone"
            )
    stream = _Stream({n.outputs[0]: n for n in nodes}, _aside(nodes), segment, pulled, rounds > 0)
    last = nodes[-1].outputs[0]
    for stop in range(rounds, height(last.type), rounds) if rounds else ():
        stream.advance(last, stop)
    for node in reversed(nodes):
        stream.advance(node.outputs[0], height(node.outputs[0].type))
    if pulled is not None:
        stream.advance(pulled, height(pulled.type))
    return stream.steps


def _aside(nodes: Sequence[Node]) -> dict[Value, list[Node]]:
    """Nodes that read one value of the segment and feed nothing in it (clamp masks), by that value; not the last node."""
    inside = {v for n in nodes for v in n.inputs}
    table: dict[Value, list[Node]] = {}
    for node in nodes[:-1]:
        if len(node.inputs) == 1 and node.outputs[0] not in inside:
            table.setdefault(node.inputs[0], []).append(node)
    return table


@dataclass
class _Stream:
    """Computes each row as late as possible: only when a row that reads it is about to be computed; `at_once`: all rows that
    are missing then.

    What is computed aside follows its input at once, or the input would have to be kept for it."""

    producer: Mapping[Value, Node]
    aside: Mapping[Value, Sequence[Node]]
    segment: int
    pulled: Value | None
    at_once: bool = False
    steps: list[Step | LoadRows] = field(default_factory=list)
    done: dict[Value, int] = field(default_factory=dict)

    def advance(self, value: Value, stop: int) -> None:
        """Computes the rows of `value` below `stop` that are still missing, and all that they need."""
        while (row := self.done.get(value, 0)) < stop:
            last = stop if self.at_once else row + 1
            if value is self.pulled:
                self.steps.append(LoadRows(value, row, last, self.segment))
            elif value in self.producer:
                node = self.producer[value]
                for need in node.op.needs(node, row, last):
                    self.advance(node.inputs[need.index], need.last)
                self.steps.append(Step(node, row, last, self.segment))
            self.done[value] = last
            for node in self.aside.get(value, ()):
                self._follow(node, last)

    def _follow(self, node: Node, available: int) -> None:
        """Computes the rows of `node` for which its input has enough rows."""
        (y,) = node.outputs
        while (row := self.done.get(y, 0)) < height(y.type) and node.op.needs(node, row, row + 1)[0].last <= available:
            self.steps.append(Step(node, row, row + 1, self.segment))
            self.done[y] = row + 1


def _join(steps: Sequence[Step | LoadRows], rings: Mapping[Value, int]) -> Schedule:
    """Joins a step to the one before it where both compute the same value and its ring holds all their rows."""
    joined: list[Step | LoadRows] = []
    for step in steps:
        last = joined[-1] if joined else None
        if last is not None and last.outputs == step.outputs != ():
            value = step.outputs[0]
            if step.last - last.first <= rings.get(value, height(value.type)):
                joined[-1] = replace(last, last=step.last)
                continue
        joined.append(step)
    return tuple(joined)


def ring_rows(graph: Graph, schedule: Schedule) -> dict[Value, int]:
    """The fewest rows that each row-streamed value must keep; a value not listed is kept whole.

    A step that reads from row q on while w rows are written keeps w - q rows.
    """
    written: dict[Value, int] = {v: height(v.type) for v in graph.inputs}
    written |= {s.value: 0 for s in schedule if isinstance(s, LoadRows)}
    keep: dict[Value, int] = {}
    for step in schedule:
        if isinstance(step, Step):
            for value, first in _lowest_reads(step):
                keep[value] = max(keep.get(value, 0), written.get(value, 0) - first)
        for value in step.outputs:
            first, last = (0, height(value.type)) if step.segment is None else (step.first, step.last)
            written[value] = last
            keep[value] = max(keep.get(value, 0), last - first)
    for value in graph.outputs:
        keep[value] = height(value.type)
    return {v: n for v, n in keep.items() if v in written and n < height(v.type)}


def _lowest_reads(step: Step) -> list[tuple[Value, int]]:
    """(value, first row) that the step reads."""
    if step.segment is None:
        return [(v, 0) for v in step.inputs]
    needs = step.node.op.needs(step.node, step.first, step.last)
    return [(step.inputs[n.index], n.first) for n in needs if n.first < n.last]


def verify_schedule(graph: Graph, schedule: Schedule, rings: Mapping[Value, int] | None = None) -> None:
    """The rows tile every value; what a step reads is written and still in its ring; updates follow the last reader.

    rings: rows kept per value (absent: all).  Raises ScheduleError naming the first offending step.
    """
    kept = rings or {}
    pulled = {s.value for s in schedule if isinstance(s, LoadRows)}
    if pulled - set(graph.inputs[:1]):
        raise ScheduleError("only the graph's first input can be pulled row by row")
    rows = {v: _rows(v) for v in (*graph.inputs, *(p.value for p in graph.params)) if v not in pulled}
    gone: dict[Value, Step] = {}
    for step in schedule:
        if isinstance(step, Step):
            _verify_reads(step, rows, kept, gone)
            gone |= {step.inputs[i]: step for i, _ in step.node.op.aliased if step.node.op.overwrites}
        _verify_writes(step, rows)
    for value in (*pulled, *(v for n in graph.nodes for v in n.outputs)):
        if rows.get(value, 0) != _rows(value):
            raise ScheduleError(f"only {rows.get(value, 0)} of {_rows(value)} rows of {value.name} are computed")
    _verify_nodes(graph, schedule)


def _rows(value: Value) -> int:
    return value.type.shape[1] if len(value.type.shape) == 4 else 1


def _verify_reads(step: Step, rows: Mapping[Value, int], kept: Mapping[Value, int], gone: Mapping[Value, Step]) -> None:
    reads = {v: (0, _rows(v)) for v in step.inputs}
    if step.segment is not None:
        reads |= {step.inputs[n.index]: (n.first, n.last) for n in step.node.op.needs(step.node, step.first, step.last)}
    for value, (first, last) in reads.items():
        if value in gone:
            raise ScheduleError(f"{step} reads {value.name} after its update at {gone[value]}")
        if first < last and rows.get(value, 0) < last:
            raise ScheduleError(f"{step} reads row {last - 1} of {value.name}, of which {rows.get(value, 0)} rows are written")
        if first < last and first < rows[value] - kept.get(value, _rows(value)):
            raise ScheduleError(f"{step} reads row {first} of {value.name}, evicted from its ring of {kept[value]} rows")


def _verify_writes(step: Step | LoadRows, rows: dict[Value, int]) -> None:
    if step.segment is None and (step.first, step.last) != (0, _rows(step.outputs[0]) if step.outputs else 1):
        raise ScheduleError(f"{step} lies outside of any segment but does not run whole")
    for value in step.outputs:
        if step.segment is None:
            step = replace(step, last=_rows(value))
        if step.first != rows.get(value, 0) or not step.first < step.last <= _rows(value):
            raise ScheduleError(f"{step} does not continue {value.name}, of which {rows.get(value, 0)} rows are written")
        rows[value] = step.last


def _verify_nodes(graph: Graph, schedule: Schedule) -> None:
    """Nothing foreign runs, every node without outputs runs once, and the same updates come before it as in the graph."""
    ran: dict[Node, int] = {}
    for i, step in enumerate(schedule):
        if isinstance(step, Step):
            if not step.outputs and step.node in ran:
                raise ScheduleError(f"{step} runs twice")
            ran.setdefault(step.node, i)
    strange = set(ran) ^ set(graph.nodes)
    if strange:
        raise ScheduleError(f"{next(iter(strange)).where} is in the graph or in the schedule but not in both")
    for i, stop in enumerate(graph.nodes):
        if not stop.outputs:
            for j, node in enumerate(graph.nodes):
                if node.op.phase == "update" and (ran[node] < ran[stop]) != (j < i):
                    raise ScheduleError(f"the update {node.where} moves across {stop.where}, which may end the step")
