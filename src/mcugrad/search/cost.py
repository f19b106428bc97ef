"""What a training graph costs in instructions and in flash, estimated from its nodes without building it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mcugrad.ir import Graph, Node, Struct, Table
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.piece import Piece
from mcugrad.program import Program
from mcugrad.targets import Target


@dataclass(frozen=True)
class Factor:
    """Instructions of a kernel per multiply-accumulate and per element (of its output; for biases, of the gradient)."""

    mac: float
    element: float


DSP: Mapping[str, Factor] = {
    "mcg_conv2d": Factor(0.91, 17.8),
    "mcg_depthwise": Factor(1.5, 17.6),
    "mcg_conv2d_input_grad": Factor(1.58, 29.4),
    "mcg_depthwise_input_grad": Factor(3.1, 34.9),
    "mcg_conv2d_update": Factor(1.7, 123.0),
    "mcg_depthwise_update": Factor(5.2, 105.0),
    "mcg_bias_update": Factor(0.0, 5.8),
    "mcg_clamp_mask": Factor(0.0, 8.5),
    "mcg_add": Factor(0.0, 16.2),
    "mcg_avg_pool_grad_s32": Factor(0.0, 78.0),
    "mcg_head_update": Factor(34.0, 0.0),
    "mcg_head_input_grad": Factor(6.5, 0.0),
    "mcg_head": Factor(11.2, 0.0),
}
"""Cores with the dual 16-bit multiply-accumulate (Cortex-M4, M7, M33)."""

PLAIN: Mapping[str, Factor] = {
    "mcg_conv2d": Factor(5.95, 77.0),
    "mcg_depthwise": Factor(7.3, 91.0),
    "mcg_conv2d_input_grad": Factor(7.7, 56.0),
    "mcg_depthwise_input_grad": Factor(8.6, 97.0),
    "mcg_conv2d_update": Factor(7.6, 183.0),
    "mcg_depthwise_update": Factor(12.0, 183.0),
    "mcg_bias_update": Factor(0.0, 7.0),
    "mcg_clamp_mask": Factor(0.0, 10.6),
    "mcg_add": Factor(0.0, 27.2),
    "mcg_avg_pool_grad_s32": Factor(0.0, 127.0),
    "mcg_head_update": Factor(44.0, 0.0),
    "mcg_head_input_grad": Factor(11.4, 0.0),
    "mcg_head": Factor(12.1, 0.0),
}
"""Cores without it, measured on a Cortex-M0+ (a Cortex-M3 needs fewer).

Both tables: least squares over every call of the profiled steps of benchmarks/step.py (MCUNet-5FPS, MbV2-w0.35, digits);
the sums of conv and depthwise calls are met within 8 %, all others within 3 %."""

OTHER = Factor(2.0, 10.0)
"""A kernel that no profile holds."""

INSTRUCTIONS_PER_CALL = 4000
"""What one more call of a row-streamed layer costs on a Cortex-M7 (MCUNet-5FPS)."""

WITH_DSP = ("cortex-m4", "cortex-m7", "cortex-m33")


def factors(target: Target) -> Mapping[str, Factor]:
    """The table of the target's core."""
    return DSP if target.core in WITH_DSP else PLAIN


def instructions(graph: Graph, target: Target) -> int:
    """Instructions of a full training step, every node run whole."""
    table = factors(target)
    return round(sum(_instructions(node, table) for node in graph.nodes))


def scheduled_instructions(program: Program, target: Target) -> int:
    """Instructions of a full training step with the extra calls of its row-streamed blocks."""
    extra = len(program.schedule) - len(program.graph.nodes)
    return instructions(program.graph, target) + INSTRUCTIONS_PER_CALL * max(extra, 0)


def _instructions(node: Node, table: Mapping[str, Factor]) -> float:
    kernel = node.op.kernel(node)
    if kernel is None:
        return 0.0
    factor = table.get(kernel.function, OTHER)
    whole = node.op.inner(node) if isinstance(node.op, Piece) else node
    counted = whole.inputs[0] if kernel.function == "mcg_bias_update" else (*whole.outputs, *whole.inputs)[0]
    summed = isinstance(whole.op, Accumulate) and not whole.op.last  # its elements are added up, not stepped
    element = OTHER.element if summed else factor.element
    return factor.mac * node.op.work(node).macs + element * counted.type.elements


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
