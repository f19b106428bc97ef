"""The float-graph passes: what they remove, and that the function stays the same."""

import math

import numpy as np

from mcugrad.ir import Builder, TensorType, interpret
from mcugrad.ops.add import Add
from mcugrad.ops.batch_norm import BatchNorm
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample
from mcugrad.passes.clean import CLEAN, drop_identities, fold_batch_norm, remove_dead
from mcugrad.passes.run import run

RNG = np.random.default_rng(0)


def param(build, name, *shape):
    return build.param(name, TensorType(shape, "f32"), RNG.normal(size=shape))


def start():
    build = Builder()
    return build, build.input("input", TensorType((1, 5, 4, 3), "f32"))


def conv(build, x, name="conv"):
    return build.one(Conv2d(Window((2, 3))), x, param(build, f"{name}_w", 6, 2, 3, 3), param(build, f"{name}_b", 6), name=name)


def norm(build, x, name):
    channels = x.type.shape[3]
    return build.one(BatchNorm(), x, param(build, f"{name}_s", channels), param(build, f"{name}_t", channels), name=name)


def same_function(before, after):
    x = RNG.normal(size=before.inputs[0].type.shape)
    a, b = (interpret(g, {"input": x}, "real")[g.outputs[0]] for g in (before, after))
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_chains_of_batch_norm_fold_into_convolutions_of_both_kinds():
    build, x = start()
    y = norm(build, norm(build, conv(build, x), "n1"), "n2")
    y = build.one(DepthwiseConv2d(Window((2, 2))), y, param(build, "dw_w", 1, 2, 2, 6), param(build, "dw_b", 6), name="dw")
    graph = build.graph([build.one(Clamp(0, 6), norm(build, y, "n3"))])
    folded = run(graph, CLEAN)
    assert [n.op.name for n in folded.nodes] == ["conv2d", "depthwise_conv2d", "clamp"]
    assert [p.value.name for p in folded.params] == ["conv_w", "conv_b", "dw_w", "dw_b"]
    same_function(graph, folded)


def test_batch_norm_stays_where_the_convolution_has_other_readers():
    build, x = start()
    y = conv(build, x)
    forked = build.graph([build.one(Add(), y, norm(build, y, "n"))])
    assert fold_batch_norm(forked).nodes == forked.nodes
    build, x = start()
    y = conv(build, x)
    seen = build.graph([y, norm(build, y, "n")])
    assert fold_batch_norm(seen).nodes == seen.nodes


def test_batch_norm_stays_where_two_convolutions_share_the_weight():
    build, x = start()
    weight, bias = param(build, "w", 3, 1, 1, 3), param(build, "b", 3)
    y = build.one(Conv2d(Window((1, 1))), x, weight, bias)
    graph = build.graph([norm(build, build.one(Conv2d(Window((1, 1))), y, weight, bias), "n")])
    assert len(fold_batch_norm(graph).nodes) == 3


def test_identities_vanish_also_in_a_row_and_at_the_output():
    build, x = start()
    y = build.one(Reshape((1, 5, 4, 3)), build.one(Clamp(-math.inf, math.inf), x))
    y = build.one(Clamp(0, math.inf), build.one(MaxPool(Window((1, 1))), y))
    graph = build.graph([build.one(AvgPool(Window((1, 1))), y)])
    clean = drop_identities(graph)
    assert [n.op.name for n in clean.nodes] == ["clamp"]
    assert clean.nodes[0].inputs == graph.inputs and clean.outputs == clean.nodes[0].outputs
    same_function(graph, clean)


def test_moves_that_change_nothing_vanish():
    build, x = start()
    y = build.one(Transpose((0, 1, 2, 3)), build.one(Upsample((1, 1)), x))
    y = build.one(Pad((0, 0, 0), (0, 0, 0), 7.0), build.one(Slice((0, 0, 0), x.type.shape[1:]), y))
    graph = build.graph([build.one(Clamp(0, math.inf), build.one(Transpose((0, 2, 1, 3)), y))])
    clean = drop_identities(graph)
    assert [n.op.name for n in clean.nodes] == ["transpose", "clamp"]
    same_function(graph, clean)


def test_a_strided_1x1_pool_is_no_identity():
    build, x = start()
    graph = build.graph([build.one(MaxPool(Window((1, 1), (2, 2))), x)])
    assert drop_identities(graph).nodes == graph.nodes


def test_dead_branches_go_with_their_parameters():
    build, x = start()
    live = build.one(Clamp(0, 6), x)
    norm(build, conv(build, x), "n")
    clean = remove_dead(build.graph([live]))
    assert len(clean.nodes) == 1 and clean.params == ()
