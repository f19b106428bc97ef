"""Instructions of a kernel's call from its node's shapes: factors fitted to measured steps, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from mcugrad.ir import Node, Op, TensorType
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.piece import Piece
from mcugrad.ops.share import Share
from mcugrad.targets import Target, get_target

DATA = Path(__file__).with_name("costs.json")
"""{core: {kernel: [mac, element, input, weight, call, more]}}, written by benchmarks/costs.py."""

LIKE = {"cortex-m4": "cortex-m7", "cortex-m33": "cortex-m7", "cortex-m3": "cortex-m0plus"}
"""Cores without measurements of their own, and whose they borrow: the latter has the same kernels."""


ALIKE = {"mcg_avg_pool_ties": "mcg_avg_pool"}
"""Kernels without measurements of their own, and whose they borrow."""


@dataclass(frozen=True)
class Factor:
    """Instructions of a kernel per multiply-accumulate, per element of its output, of its first and of its second input (a
    layer's weight), per node, and per further call: what a range of rows costs beyond its share of the whole."""

    mac: float
    element: float
    input: float = 0.0
    weight: float = 0.0
    call: float = 0.0
    more: float = 0.0


OTHER = Factor(2.0, 10.0)
"""A kernel that was not measured."""


@cache
def factors(core: str) -> Mapping[str, Factor]:
    """By C function, for a core of targets/; one that was never measured is taken for the slowest."""
    known = json.loads(DATA.read_text(encoding="utf-8"))
    table = known.get(LIKE.get(core, core), known["cortex-m0plus"])
    return {name: Factor(*numbers) for name, numbers in table.items()}


def counts(node: Node, calls: int = 1) -> tuple[int, int, int, int, int, int]:
    """What the factors multiply: MACs, elements of the output, of the first and of the second input, whole nodes (a piece in
    rows is none), further calls."""
    whole = _whole(node)
    (output, *_), (first, second, *_) = ([*(v.type.elements for v in side), 0, 0] for side in (whole.outputs, whole.inputs))
    begins = not (isinstance(node.op, Piece) and node.op.in_rows)
    return node.op.work(node).macs, output, first, second, int(begins), calls - begins


def _whole(node: Node) -> Node:
    """What a piece is a piece of: its operands are those of the call."""
    return node.op.inner(node) if isinstance(node.op, Piece | Share) else node


def instructions(node: Node, target: Target, calls: int = 1) -> float:
    """Estimated instructions of the node on the target's core, run in so many calls; 0 for a node without a kernel."""
    kernel = node.op.kernel(node)
    if kernel is None:
        return 0.0
    name, op = ALIKE.get(kernel.function, kernel.function), _whole(node).op
    f = factors(target.core).get(name, OTHER)
    if isinstance(op, Accumulate) and not op.last:
        f = replace(f, element=OTHER.element, weight=0.0)  # its elements are added up, not stepped
    of_each = (f.mac, f.element, f.input, f.weight, f.call, f.more)
    return sum(a * n for a, n in zip(of_each, counts(node, calls), strict=True))


class Costs:
    """`instructions` on one core, estimated once for nodes that differ only in their values.

    target: None for a Cortex-M7."""

    def __init__(self, target: Target | None = None) -> None:
        self.target = get_target("cortex-m7") if target is None else target
        self.known: dict[tuple[Op, tuple[TensorType, ...], int], float] = {}

    def __call__(self, node: Node, calls: int = 1) -> float:
        key = (node.op, tuple(v.type for v in node.inputs), calls)
        if key not in self.known:
            self.known[key] = instructions(node, self.target, calls)
        return self.known[key]
