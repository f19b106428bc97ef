"""Pieces and partial sums made from the examples of the ops that can be cut into rows, for the generic op tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mcugrad.ir import NUMPY, Graph, Node, Param, TensorType, Value
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.add import Add
from mcugrad.ops.backprop import Chain, ClampMask
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.piece import Placed, piece_of
from mcugrad.ops.update import Update


def pieces() -> Iterator[Graph]:
    """Some rows of every example that has several: the first, the last or those between, with and without rows before."""
    for op in (Conv2d, DepthwiseConv2d, Add, Clamp, ClampMask, Chain, Update):
        for i, graph in enumerate(op.examples()):
            (node,) = graph.nodes
            height = node.op.cut_rows(node)
            if height >= 2:
                first, last = ((0, height - 1), (1, height), (min(1, height - 2), height - 1))[i % 3]
                yield _piece(graph, node, first, last, more=i % 2 == 0 and op is not Update)


def _piece(graph: Graph, node: Node, first: int, last: int, more: bool) -> Graph:
    rng = np.random.default_rng(last)
    rows = [len(v.type.shape) == 4 and not isinstance(node.op, Update) for v in node.outputs]
    place = Placed(first, node.outputs[0].type.shape[1]) if more else Placed(0, last - first)
    places = [place if r else None for r in rows]
    before = [_filled(f"before{i}", v.type, rng) for i, v in enumerate(node.outputs)] if more else []
    piece = piece_of(node, first, last, {}, places, more, "")
    inputs = (*node.inputs, *(p.value for p in before))
    types = piece.infer(*(v.type for v in inputs))
    outputs = tuple(Value(v.name, t) if r else v for v, t, r in zip(node.outputs, types, rows, strict=True))
    made = Node(piece, inputs, outputs)
    return replace(graph, nodes=(made,), params=(*graph.params, *before), outputs=outputs)


def _filled(name: str, type_: TensorType, rng: np.random.Generator) -> Param:
    """Earlier contents of an output."""
    data = rng.integers(0, 2, type_.shape) if type_.dtype == "u1" else rng.integers(-90, 91, type_.shape)
    return Param(Value(name, type_), data.astype(NUMPY[type_.dtype]))


def accumulations() -> Iterator[Graph]:
    """The first, a middle and the last part of the gradient of every update."""
    for i, graph in enumerate(Update.examples()):
        (node,) = graph.nodes
        update = node.op
        assert isinstance(update, Update)
        first, last = ((True, False), (False, False), (False, True))[(i + i // 3) % 3]
        n = update.grad_inputs
        (gradient,) = update.grad.infer(*(v.type for v in node.inputs[:n]))
        before = [] if first else [_filled("sum", gradient, np.random.default_rng(i))]
        inputs = (*node.inputs[:n], *(p.value for p in before), *(node.inputs[n:] if last else ()))
        outputs = node.outputs if last else (Value("total", gradient),)
        used = {*inputs}
        params = tuple(p for p in graph.params if p.value in used)
        updates = graph.updates if last else ()
        made = Node(Accumulate(update, first, last), inputs, outputs)
        yield replace(graph, nodes=(made,), params=(*params, *before), outputs=outputs, updates=updates)
