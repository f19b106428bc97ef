"""Every layer as it is exported, in onnxruntime: from the same integers the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graphs import random_network
from kernels import Case, cases
from mcugrad.exporters.onnx_build import Pieces, image
from mcugrad.exporters.onnx_exact import EXACT, ExactPieces
from mcugrad.exporters.onnx_ops import HANDLERS, OUTPUT
from mcugrad.ir import Graph, Node, Param, Value, interpret
from mcugrad.ops.conv2d_sum import Conv2dSum, RequantizeSum
from mcugrad.ops.head import Head
from mcugrad.ops.share import Put, Share, Take

Array = NDArray[Any]


def by_onnxruntime(graph: Graph, node: Node, known: Mapping[Value, Array], exact: bool = False) -> Array:
    """onnxruntime's output, channels first, of one node from the integers `known`."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pieces, fed = (ExactPieces if exact else Pieces)(graph), {v: known[v] for v in node.inputs if graph.param(v) is None}
    pieces.stored.update({v: v.name for v in fed})
    (EXACT if exact else HANDLERS)[type(node.op)](pieces, node)
    (y,) = node.outputs
    kinds = {"s8": onnx.TensorProto.INT8, "s32": onnx.TensorProto.FLOAT}
    last = (OUTPUT, [1, y.type.elements]) if y.type.dtype == "s32" else (y.name, image(y))
    info = [onnx.helper.make_tensor_value_info(v.name, onnx.TensorProto.INT8, image(v)) for v in fed]
    model = pieces.model(info, [onnx.helper.make_tensor_value_info(last[0], kinds[y.type.dtype], last[1])], {})
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {v.name: first(array) for v, array in fed.items()})[0]


@pytest.mark.parametrize("seed", range(20))
def test_every_layer_of_a_random_network_is_that_of_onnxruntime(seed: int) -> None:
    """From the same integers, so that roundings do not add up: a tie or a 15-bit factor makes a difference of one."""
    net = random_network(seed)
    (x,) = net.graph.inputs
    ours = interpret(net.graph, {x.name: net.feeds(0)[x.name]})
    for node in net.graph.nodes:
        if node.outputs[0].type.dtype == "s8":
            found = by_onnxruntime(net.graph, node, {v: ours[v] for v in node.inputs if net.graph.param(v) is None})
            assert np.abs(found.astype(int) - first(ours[node.outputs[0]]).astype(int)).max() <= 1, node.where


BY_THE_PLANNER = (Conv2dSum, RequantizeSum, Share, Take, Put)  # no graph that is exported has them


def inferred(case: Case) -> bool:
    """Does an inference graph hold this op, within the numbers that a runtime can round?"""
    op, (y, *_) = case.node.op, (*case.node.outputs, None)
    split = getattr(op, "channels", None) is not None or getattr(op, "delta", False)  # `canonical` makes it whole
    if op.phase != "forward" or y is None or y.type.dtype == "u1" or split or isinstance(op, BY_THE_PLANNER):
        return False
    return y.type.quant is None or y.type.quant.scale[0] > 1e-6


WRITTEN = [c for c in cases() if c.node.op.lowers and inferred(c)]


@pytest.mark.parametrize("case", WRITTEN, ids=[c.name for c in WRITTEN])
def test_every_example_of_every_forward_op_is_that_of_onnxruntime(case: Case) -> None:
    node, known = case.node, case.contents(0)
    found = by_onnxruntime(with_constants(case, known), node, known)
    (want,) = node.op.eval(node, *(known[v] for v in node.inputs))
    if node.outputs[0].type.dtype == "s32":
        step = node.inputs[0].type.quant.scale[0] / (4096 if isinstance(node.op, Head) else 1)
        np.testing.assert_allclose(found.reshape(-1), want * step, rtol=1e-4, atol=1e-4 * np.abs(want * step).max())
    else:
        assert np.abs(found.astype(int) - first(want).astype(int)).max() <= 1


@pytest.mark.parametrize("case", WRITTEN, ids=[c.name for c in WRITTEN])
def test_every_example_of_every_forward_op_has_an_exact_form_in_onnxruntime(case: Case) -> None:
    node, known = case.node, case.contents(0)
    found = by_onnxruntime(with_constants(case, known), node, known, exact=True)
    (want,) = node.op.eval(node, *(known[v] for v in node.inputs))
    if node.outputs[0].type.dtype == "s32":
        step = node.inputs[0].type.quant.scale[0] / (4096 if isinstance(node.op, Head) else 1)
        np.testing.assert_allclose(found.reshape(-1), want * step, rtol=2e-7)  # float32
    else:
        np.testing.assert_array_equal(found, first(want))


def with_constants(case: Case, known: Mapping[Value, Array]) -> Graph:
    """The case's graph, its weights and biases as parameters."""
    constants = [v for v in case.node.inputs[1:] if case.node.op.weight_axis is not None or isinstance(case.node.op, Head)]
    inputs = tuple(v for v in case.graph.inputs if v not in constants)
    return replace(case.graph, inputs=inputs, params=tuple(Param(v, known[v]) for v in constants))


def first(array: Array) -> Array:
    """Channels first, where there are any."""
    return array.transpose(0, 3, 1, 2).astype(np.int8) if array.ndim == 4 else array.astype(np.int8)
