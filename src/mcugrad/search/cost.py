"""What a training graph costs in instructions and in flash, estimated from its nodes without building it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from mcugrad import costs
from mcugrad.ir import Graph, Struct, Table
from mcugrad.memory.schedule import Step
from mcugrad.program import Program
from mcugrad.targets import Target


def instructions(graph: Graph, target: Target) -> int:
    """Instructions of a full training step, every node run whole."""
    return round(sum(costs.instructions(node, target) for node in graph.nodes))


def scheduled_instructions(program: Program, target: Target) -> int:
    """Instructions of a full training step, with every call of its row-streamed blocks."""
    calls = Counter(step.node for step in program.schedule if isinstance(step, Step))
    return round(sum(costs.instructions(node, target, n) for node, n in calls.items()))


def constants(graph: Graph) -> int:
    """Bytes of the graph's constants in flash: parameters, the first contents of the mutable ones, kernel tables."""
    tables = 0
    for node in graph.nodes:
        kernel = node.op.kernel(node)
        tables += sum(_table_bytes(kernel.args)) if kernel is not None else 0
    return tables + sum(p.value.type.nbytes for p in graph.params)


def _table_bytes(args: Any) -> Iterable[int]:
    """Sizes of the tables in kernel arguments, those inside structs included."""
    for arg in args:
        if isinstance(arg, Table):
            yield len(arg.data) * int("".join(c for c in arg.ctype if c.isdigit())) // 8
        elif isinstance(arg, Struct):
            yield from _table_bytes(value for _, value in arg.fields)
