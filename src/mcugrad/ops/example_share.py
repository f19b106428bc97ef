"""Shares of channels made from the examples of updates and chains, for the generic op tests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mcugrad.ir import NUMPY, Graph, Node, Param, Quant, TensorType, Value
from mcugrad.ops.backprop import Chain
from mcugrad.ops.conv2d import Conv2d, Conv2dInputGrad, Conv2dWeightGrad, is_pointwise
from mcugrad.ops.share import PartOfSum, Share
from mcugrad.ops.update import BiasGrad, Update, WeightStep

BEFORE, AFTER = 2, 1  # rows that a parameter has around a share
RANGE = {"s4": (-8, 8), "s8": (-127, 128), "s16": (-300, 300), "s32": (-900, 900)}


def shares() -> Iterator[Graph]:
    """Updates of some rows of larger biases and weights, some outputs of layers, and chains whose counts go on."""
    for i, graph in enumerate(Update.examples()):
        update = graph.nodes[0].op
        assert isinstance(update, Update)
        centred = isinstance(update.step, WeightStep) and update.step.centred
        if isinstance(update.grad, BiasGrad | Conv2dWeightGrad) and not centred and update.step.hold is None and i % 2 == 0:
            yield _rows(graph, update, np.random.default_rng(i))
    for i, graph in enumerate(Conv2d.examples()):
        (node,) = graph.nodes
        if node.op.groups == 1 and node.outputs[0].type.shape[3] > 2 and i % 3 != 1:  # type: ignore[attr-defined]
            yield _outputs(graph, tuple(range(1, len(node.inputs))), 1, node.outputs[0].type.shape[3] - i % 2)
    for i, graph in enumerate(Chain.examples()):
        (node,) = graph.nodes
        if i % 7 == 0 and len(node.outputs) == 2:
            before = Param(Value("count", node.outputs[1].type), np.array([i], np.int32))
            op = Share(node.op, (), count=len(node.inputs))
            yield replace(graph, nodes=(Node(op, (*node.inputs, before.value), node.outputs),), params=(*graph.params, before))


def _outputs(graph: Graph, shared: tuple[int, ...], first: int, last: int) -> Graph:
    """Some outputs of a layer."""
    (node,) = graph.nodes
    op = Share(node.op, shared, first, last)
    (type_,) = op.infer(*(v.type for v in node.inputs))
    outputs = (Value(node.outputs[0].name, type_),)
    return replace(graph, nodes=(Node(op, node.inputs, outputs),), outputs=outputs)


def _rows(graph: Graph, update: Update, rng: np.random.Generator) -> Graph:
    """The update of a parameter that has more rows than these."""
    (node,), wider = graph.nodes, dict[Value, Param]()
    for value in (node.inputs[i] for i, _ in update.aliased):
        wider[value] = _wider(value, rng)
    outputs = tuple(
        Value(v.name, wider[node.inputs[i]].value.type) for (i, _), v in zip(update.aliased, node.outputs, strict=True)
    )
    rows = node.outputs[0].type.shape
    step = update.step
    if isinstance(step, WeightStep):
        step = replace(step, first=BEFORE * rows[1] * rows[2] * (step.total or rows[3]))
    op = Share(replace(update, step=step), tuple(i for i, _ in update.aliased), BEFORE, BEFORE + rows[0])
    inputs = tuple(wider[v].value if v in wider else v for v in node.inputs)
    params = tuple(wider.get(p.value, p) for p in graph.params)
    updates = tuple((inputs[i], outputs[o]) for i, o in update.aliased)
    return replace(graph, nodes=(Node(op, inputs, outputs),), params=params, outputs=outputs, updates=updates)


def _wider(value: Value, rng: np.random.Generator) -> Param:
    type_, quant = value.type, value.type.quant
    if quant is not None and quant.axis == 0:
        quant = Quant((*(0.01,) * BEFORE, *quant.scale, *(0.01,) * AFTER), quant.zero, 0, quant.exponent)
    shape = (BEFORE + type_.shape[0] + AFTER, *type_.shape[1:])
    data = rng.integers(*RANGE[type_.dtype], shape).astype(NUMPY[type_.dtype])
    return Param(Value(value.name, TensorType(shape, type_.dtype, quant)), data)


def parts_of_sums() -> Iterator[Graph]:
    """The first, a middle and the last part of the chains of convolutions; of 1x1 ones also for some of the channels."""
    for i, graph in enumerate(Chain.examples()):
        (node,) = graph.nodes
        chain, rng = node.op, np.random.default_rng(i)
        assert isinstance(chain, Chain)
        if not isinstance(chain.producer, Conv2dInputGrad):
            continue
        first, last = ((True, False), (False, False), (False, True))[i % 3]
        op, h = chain.producer, node.inputs[0].type
        pointwise = op.channels is None and is_pointwise(op.window, op.groups, op.shape, h.shape)
        if not last and pointwise and op.shape[3] > 3:
            chain = replace(chain, producer=replace(op, shape=(*op.shape[:3], op.shape[3] - 3), first=2))
        yield _part(graph, chain, first, last, rng)


def _part(graph: Graph, chain: Chain, first: bool, last: bool, rng: np.random.Generator) -> Graph:
    (node,), n = graph.nodes, chain.producer_inputs
    (acc,) = chain.producer.infer(*(v.type for v in node.inputs[:n]))
    before = [] if first else [Param(Value("before", acc), rng.integers(-9999, 9999, acc.shape).astype(np.int32))]
    inputs = (*node.inputs[:n], *(p.value for p in before), *(node.inputs[n:] if last else ()))
    outputs = node.outputs if last else (Value("total", acc),)
    params = (*(p for p in graph.params if p.value in inputs), *before)
    made = Node(PartOfSum(chain, first, last), inputs, outputs)
    return replace(graph, nodes=(made,), params=params, outputs=outputs)
