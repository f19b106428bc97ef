"""The graph itself: what verify refuses, how it reads as text, and how a run ends early."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from graphs import random_training
from mcugrad.ir import (
    Builder,
    Graph,
    GraphError,
    Node,
    Op,
    Param,
    Quant,
    TensorType,
    Value,
    interpret,
    rebuild,
    verify,
)
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.loss import StopIfEasy
from mcugrad.ops.spatial import Window

ACTIVATION = TensorType((1, 2, 2, 3), "s8", Quant((0.5,), -3))


def two_layers() -> Graph:
    """input -> conv -> clamp, with its parameters."""
    build = Builder()
    x = build.input("input", ACTIVATION)
    weight = build.param("conv_weight", TensorType((4, 1, 1, 3), "s8", Quant((0.1,) * 4, 0, 0)), np.ones((4, 1, 1, 3)))
    bias = build.param("conv_bias", TensorType((4,), "s32"), np.zeros(4))
    y = build.one(Conv2d(Window((1, 1)), Quant((0.25,), 1)), x, weight, bias, name="conv", origin="model.onnx:Conv_0")
    return build.graph((build.one(Clamp(out=Quant((0.2,))), y, name="clamp"),))


def test_a_sound_graph_passes() -> None:
    verify(two_layers())


def read_too_early(g: Graph) -> Graph:
    return replace(g, nodes=g.nodes[::-1])


def written_twice(g: Graph) -> Graph:
    return replace(g, nodes=(*g.nodes, g.nodes[0]))


def wrong_type(g: Graph) -> Graph:
    conv, clamp = g.nodes
    lie = Value("clamp", replace(clamp.outputs[0].type, shape=(1, 2, 2, 5)))
    return replace(g, nodes=(conv, replace(clamp, outputs=(lie,))), outputs=(lie,))


def wrong_shape_of_contents(g: Graph) -> Graph:
    return replace(g, params=(replace(g.params[0], data=np.ones((4, 1, 1, 2), np.int8)), g.params[1]))


def wrong_dtype_of_contents(g: Graph) -> Graph:
    return replace(g, params=(replace(g.params[0], data=np.ones((4, 1, 1, 3), np.int32)), g.params[1]))


def parameter_twice(g: Graph) -> Graph:
    return replace(g, params=(*g.params, g.params[0]))


def same_name(g: Graph) -> Graph:
    conv, clamp = g.nodes
    double = Value("conv", clamp.outputs[0].type)
    return replace(g, nodes=(conv, replace(clamp, outputs=(double,))), outputs=(double,))


def output_of_nobody(g: Graph) -> Graph:
    return replace(g, outputs=(Value("ghost", ACTIVATION),))


def update_of_nobody(g: Graph) -> Graph:
    return replace(g, updates=((g.params[1].value, Value("ghost", TensorType((4,), "s32"))),))


def update_of_no_parameter(g: Graph) -> Graph:
    return replace(g, updates=((g.inputs[0], g.outputs[0]),))


def update_of_another_type(g: Graph) -> Graph:
    return replace(g, updates=((g.params[1].value, g.outputs[0]),))


def operands_that_do_not_fit(g: Graph) -> Graph:
    conv = g.nodes[0]
    return replace(g, nodes=(replace(conv, inputs=(conv.inputs[0], conv.inputs[1], conv.inputs[1])), g.nodes[1]))


BROKEN: list[tuple[Callable[[Graph], Graph], str]] = [
    (read_too_early, "clamp reads conv before it is written"),
    (written_twice, r"conv is written twice, the second time at conv \(model.onnx:Conv_0\)"),
    (wrong_type, r"clamp: the rule of clamp gives s8\[1,2,2,4\] .*, not s8\[1,2,2,5\]"),
    (wrong_shape_of_contents, r"parameter conv_weight: contents int8\(4, 1, 1, 2\) are not s8\[4,1,1,3\]"),
    (wrong_dtype_of_contents, "parameter conv_weight: contents int32"),
    (parameter_twice, "an input or parameter is listed twice"),
    (same_name, "two values are called conv"),
    (output_of_nobody, "ghost is an output or an update but nothing computes it"),
    (update_of_nobody, "ghost is an output or an update but nothing computes it"),
    (update_of_no_parameter, "input is updated but is not a parameter"),
    (update_of_another_type, "conv_bias: its next value clamp has another type"),
    (operands_that_do_not_fit, r"conv \(model.onnx:Conv_0\): a bias of shape"),
]


@pytest.mark.parametrize(("broken", "message"), BROKEN, ids=[b.__name__ for b, _ in BROKEN])
def test_verify_names_the_broken_rule(broken: Callable[[Graph], Graph], message: str) -> None:
    with pytest.raises(GraphError, match=message):
        verify(broken(two_layers()))


def test_verify_refuses_a_read_of_the_old_value_after_its_update() -> None:
    _, graph = random_training(1)
    old, new = graph.updates[-1]
    late = Node(StopIfEasy(), (old, graph.inputs[2]), ())
    with pytest.raises(GraphError, match=f"reads {old.name} after its update"):
        verify(replace(graph, nodes=(*graph.nodes, late)))
    update = next(i for i, n in enumerate(graph.nodes) if new in n.outputs)
    verify(replace(graph, nodes=(*graph.nodes[:update], late, *graph.nodes[update:])))


def test_text_shows_types_state_and_next_values() -> None:
    graph = two_layers()
    assert str(graph).splitlines() == [
        "input %input: s8[1,2,2,3] q(0.5,-3)",
        "const %conv_weight: s8[4,1,1,3] q(4 scales@0,0)",
        "const %conv_bias: s32[4]",
        "%conv: s8[1,2,2,4] q(0.25,1) = " + str(graph.nodes[0].op) + "(%input, %conv_weight, %conv_bias)",
        "%clamp: s8[1,2,2,4] q(0.2,0) = " + str(graph.nodes[1].op) + "(%conv)",
        "output %clamp",
    ]
    _, training = random_training(2)
    lines = str(training).splitlines()
    for old, new in training.updates:
        assert f"next {old} = {new}" in lines
        assert f"state {old}: {old.type}" in lines


def test_a_run_that_stops_at_an_easy_sample_leaves_the_updates_out() -> None:
    net, graph = random_training(4)
    p_label = int(interpret(graph, net.feeds(0))[graph.outputs[1]][0])
    eager = interpret(graph, net.feeds(0, skip=p_label + 1))
    skipped = interpret(graph, net.feeds(0, skip=p_label))
    assert (eager.progress, skipped.progress) == (0, 1)
    before = {p.value.name: p.data for p in graph.mutable()}
    assert all(np.array_equal(data, before[name]) for name, data in skipped.next_params(graph).items())
    assert any(not np.array_equal(data, before[name]) for name, data in eager.next_params(graph).items())
    assert graph.outputs[0].name in skipped.values


def test_a_run_with_a_zero_head_updates_the_head_alone() -> None:
    net, graph = random_training(0)
    zero = {p.value.name: np.zeros_like(p.data) for p in graph.params if p.value.name.startswith("head_")}
    graph = graph.with_params(zero)
    run = interpret(graph, net.feeds(0))
    changed = {n for n, data in run.next_params(graph).items() if not np.array_equal(data, named(graph, n))}
    assert run.progress == 2
    assert changed == {"head_weight", "head_bias"}


def named(graph: Graph, name: str) -> np.ndarray:
    return next(p.data for p in graph.params if p.value.name == name)


def test_real_runs_do_not_stop() -> None:
    net, graph = random_training(4)
    run = interpret(graph, net.feeds(0, skip=0), "real")
    assert run.progress == 0
    assert all(new.name in run.values for _, new in graph.updates)


def test_until_stops_after_the_node_that_writes_the_value() -> None:
    net, graph = random_training(4)
    run = interpret(graph, net.feeds(0), until=graph.outputs[0])
    assert graph.outputs[0].name in run.values
    assert graph.outputs[1].name not in run.values


@pytest.mark.parametrize("scale", [(), (0.0,), (-1.0,), (float("nan"),), (1.0, float("inf"))])
def test_a_scale_is_positive_and_finite(scale: tuple[float, ...]) -> None:
    with pytest.raises(GraphError, match="positive and finite"):
        Quant(scale, axis=0)


def test_several_scales_need_an_axis() -> None:
    with pytest.raises(GraphError, match="need an axis"):
        Quant((1.0, 2.0))


@pytest.mark.parametrize(
    ("type_", "nbytes"),
    [
        (TensorType((1, 3, 5, 3), "u1"), 3 * 2),
        (TensorType((9,), "u1"), 2),
        (TensorType((3, 1, 1, 1), "s4"), 2),
        (TensorType((5,), "s16"), 10),
        (TensorType((2, 3), "s32"), 24),
    ],
)
def test_bytes_of_packed_types(type_: TensorType, nbytes: int) -> None:
    assert type_.nbytes == nbytes


def test_builder_makes_names_unique_and_refuses_contents_of_another_shape() -> None:
    build = Builder()
    x = build.input("x", ACTIVATION)
    assert [build.one(Add(ACTIVATION.quant), x, x, name="x").name for _ in range(2)] == ["x_2", "x_3"]
    with pytest.raises(GraphError, match=r"parameter w: data has shape \(2,\), its type says \(3,\)"):
        build.param("w", TensorType((3,), "s32"), np.zeros(2))


def test_rebuild_drops_parameters_without_readers() -> None:
    graph = two_layers()
    spare = Param(Value("spare", TensorType((1,), "s32")), np.zeros(1, np.int32))
    grown = replace(graph, params=(*graph.params, spare))
    assert spare not in rebuild(grown, grown.nodes).params
    assert len(rebuild(grown, grown.nodes, outputs=(*grown.outputs, spare.value)).params) == 3


def test_an_op_without_a_rule_says_what_to_do() -> None:
    node = Node(Op(), (Value("x", ACTIVATION, "model.onnx:Foo_1"),), (Value("y", ACTIVATION, "model.onnx:Foo_1"),))
    with pytest.raises(GraphError, match=r"y \(model.onnx:Foo_1\) has no gradient: freeze it and everything before it"):
        node.op.gradient(node, None)
    with pytest.raises(GraphError, match="quantize the graph first"):
        node.op.eval(node)
