"""Instructions of a kernel's call from its node's shapes: factors fitted to measured steps, as data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from functools import cache
from pathlib import Path

from mcugrad.ir import Node, Op, TensorType
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.backprop import Chain
from mcugrad.ops.conv2d import Conv2d, Conv2dInputGrad
from mcugrad.ops.depthwise import DepthwiseConv2d, DepthwiseInputGrad
from mcugrad.ops.piece import Piece
from mcugrad.ops.share import PartOfSum, Share
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import Update, WeightStep
from mcugrad.targets import Target, get_target

DATA = Path(__file__).with_name("costs.json")
"""{core: {kernel: the numbers of a Factor}}, written by benchmarks/costs.py.  After a colon a kernel's name has the kind of its
nodes (`kind`); without one the numbers are those of all its nodes."""

LIKE = {"cortex-m33": "cortex-m7", "cortex-m3": "cortex-m0plus"}
"""Cores without measurements of their own, and whose they borrow: the latter has the same kernels."""


ALIKE = {"mcg_avg_pool_ties": "mcg_avg_pool"}
"""Kernels without measurements of their own, and whose they borrow."""


@dataclass(frozen=True)
class Factor:
    """Instructions of a kernel per multiply-accumulate, per element of its output, of its first and of its second input (a
    layer's weight), per node, and per further call: what a range of rows costs beyond its share of the whole.

    again: per element of the second input and further call.  joined, rest: per element of the output and of the weight where
    a weight lies in two parts, those that learn and the rest."""

    mac: float
    element: float
    input: float = 0.0
    weight: float = 0.0
    call: float = 0.0
    more: float = 0.0
    again: float = 0.0
    joined: float = 0.0
    rest: float = 0.0


OTHER = Factor(2.0, 10.0)
"""A kernel that was not measured."""


@cache
def factors(core: str) -> Mapping[str, Factor]:
    """By C function and kind, for a core of targets/; one that was never measured is taken for the slowest."""
    known = json.loads(DATA.read_text(encoding="utf-8"))
    table = known.get(LIKE.get(core, core), known["cortex-m0plus"])
    return {name: Factor(*numbers) for name, numbers in table.items()}


def factor(core: str, function: str, kind: str = "") -> Factor:
    """Of a C function's nodes of one kind, of all of them where that kind was not measured, of any kernel where neither was."""
    table, name = factors(core), ALIKE.get(function, function)
    return table.get(f"{name}:{kind}", table.get(name, OTHER))


def kind(node: Node) -> str:
    """In which of its ways a kernel runs a node, where they differ by more than a node's counts say; "" where they do not.

    Windows of one size and stride have loops of their own, so have weights with one number of residual bits, and gradients
    whose operands are taken apart."""
    op = _whole(node).op
    update = op.update if isinstance(op, Accumulate) else op if isinstance(op, Update) else None
    apart = " apart" if update is not None and getattr(update.grad, "rows", None) else ""
    if isinstance(op, PartOfSum) or (isinstance(op, Accumulate) and not op.last):
        return f"sum{apart}"
    if update is not None and isinstance(update.step, WeightStep):
        return update_kind(update.step.residual_bits, update.step.centred) + apart
    window = getattr(_producer(op), "window", None)
    if not isinstance(window, Window) or window.kernel == (1, 1):
        return ""
    size = "x".join(map(str, window.kernel))
    return size if max(window.stride) == 1 else f"{size} strided"


def update_kind(residual_bits: int, centred: bool) -> str:
    """Of the update of a weight."""
    return f"{residual_bits} bits centred" if centred else f"{residual_bits} bits"


def counts(node: Node, calls: int = 1) -> tuple[int, ...]:
    """What the numbers of a Factor multiply, in their order; a piece in rows is no whole node."""
    whole = _whole(node)
    (output, *_), (first, second, *_) = ([*(v.type.elements for v in side), 0, 0] for side in (whole.outputs, whole.inputs))
    begins = not (isinstance(node.op, Piece) and node.op.in_rows)
    rest = _rest(whole)
    weight, more = second + rest, calls - begins
    parts = (output, weight) if rest else (0, 0)
    return node.op.work(node).macs, output, first, weight, int(begins), more, weight * more, *parts


def _whole(node: Node) -> Node:
    """What a piece is a piece of: its operands are those of the call."""
    return node.op.inner(node) if isinstance(node.op, Piece | Share) else node


def _producer(op: Op) -> Op:
    """What computes the sums of a chain, or of a part of one."""
    chain = op.chain if isinstance(op, PartOfSum) else op
    return chain.producer if isinstance(chain, Chain) else op


def _rest(whole: Node) -> int:
    """Elements of a layer's weight that lie apart from those that learn."""
    op = _producer(whole.op)
    if not isinstance(op, Conv2d | DepthwiseConv2d | Conv2dInputGrad | DepthwiseInputGrad) or op.channels is None:
        return 0
    return whole.inputs[3 if op.phase == "forward" else 2].type.elements


def instructions(node: Node, target: Target, calls: int = 1) -> float:
    """Estimated instructions of the node on the target's core, run in so many calls; 0 for a node without a kernel."""
    kernel = node.op.kernel(node)
    if kernel is None:
        return 0.0
    numbers: tuple[float, ...] = astuple(factor(target.core, kernel.function, kind(node)))
    return sum(a * n for a, n in zip(numbers, counts(node, calls), strict=True))


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
