"""TFLite operators beyond convolutions against LiteRT: by table, several branches, moved elements; int8 and float."""

import numpy as np
import pytest

from test_tflite import same
from tflite_models import RELU, Net

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")

KINDS = ["INT8", "FLOAT32"]
MAP = (1, 9, 8, 4)


def grid(net, scale, zero):
    return {} if net.dtype == "FLOAT32" else {"scale": scale, "zero": zero}


def number(net, data):
    """A constant that can be an operand."""
    data = np.asarray(data)
    if net.dtype == "FLOAT32":
        return net.const(data * 0.05, "FLOAT32")
    return net.const(data, net.dtype, np.array([0.05]), 3)


def gated(net):
    x = net.conv(net.input, 4)
    gate = net.conv(net.mean(x, [1, 2], keep=True), 4, 1)
    gate = net.op("LOGISTIC", [gate], (1, 1, 1, 4), **grid(net, 1 / 256, -128))
    return net.op("MUL", [x, gate], MAP, "MulOptions", **grid(net, net.step(x) if net.dtype != "FLOAT32" else 1, 5))


def joined(net, axis=3):
    a, b = net.conv(net.input, 4, scale=0.3), net.conv(net.input, 4, 1, scale=0.3)
    shape = tuple(n * (2 if i == axis % 4 else 1) for i, n in enumerate(MAP))
    quant = grid(net, net.tensors[a][2] and net.step(a), net.tensors[a][3])
    return net.op("CONCATENATION", [a, b], shape, "ConcatenationOptions", Axis=axis, **quant)


def strided(net, **masks):
    x = net.conv(net.input, 4)
    ends = [net.const(v) for v in ([0, 1, 0, 1], [1, 8, 8, 3], [1, 2, 3, 1])]
    return net.op("STRIDED_SLICE", [x, *ends], (1, 4, 3, 2), "StridedSliceOptions", **masks)


def halves(net):
    x = net.conv(net.input, 4)
    first = net.op("SPLIT", [net.const(3), x], (1, 9, 8, 2), "SplitOptions", NumSplits=2)
    second = net.tensor((1, 9, 8, 2), net.dtype, *net.tensors[x][2:4])
    net.tensors[first] = ((1, 9, 8, 2), *net.tensors[x][1:4], None, 0)
    net.nodes[-1][2].append(second)
    return net.op(
        "SUB", [first, second], (1, 9, 8, 2), "SubOptions", **grid(net, 2 * net.step(x) if net.tensors[x][2] else 1, 1)
    )


def unary(op, scale, zero, kind=None, **fields):
    return lambda n: n.op(op, [n.conv(n.input, 4, scale=0.05)], MAP, kind, **grid(n, scale, zero), **fields)


NETS = {
    "tanh": unary("TANH", 1 / 128, 0),
    "hard swish": unary("HARD_SWISH", 0.04, -100),
    "leaky relu": unary("LEAKY_RELU", 0.05, -60, "LeakyReluOptions", Alpha=0.2),
    "elu": unary("ELU", 0.05, -90),
    "logistic inside": lambda n: n.conv(unary("LOGISTIC", 1 / 256, -128)(n), 3),
    "gate": gated,
    "sub": lambda n: n.op("SUB", [n.conv(n.input, 4, scale=0.1), n.conv(n.input, 4, scale=0.2)], MAP, "SubOptions",
                          **grid(n, 0.2, 9)),
    "add with a constant": lambda n: n.op("ADD", [n.conv(n.input, 4, scale=0.1), number(n, [1, 20, -30, 4])], MAP, "AddOptions",
                                          **grid(n, 0.1, -9)),
    "add with a mean": lambda n: n.add(x := n.conv(n.input, 4, scale=0.1), n.mean(x, [1, 2], keep=True), **grid(n, 0.2, 3)),
    "mul with fused relu": lambda n: n.op(
        "MUL", [n.conv(n.input, 4, scale=0.1), n.conv(n.input, 4, scale=0.1)], MAP, "MulOptions",
        FusedActivationFunction=RELU, **grid(n, 0.1, -128)),
    "concat": joined,
    "concat rows": lambda n: joined(n, 1),
    "concat columns": lambda n: joined(n, -2),
    "strided slice": strided,
    "strided slice with masks": lambda n: n.op(
        "STRIDED_SLICE", [n.conv(n.input, 4), *(n.const(v) for v in ([0, 3, 2, 0], [0, 0, 6, 0], [1, 1, 1, 1]))], (1, 4, 4),
        "StridedSliceOptions", BeginMask=1, EndMask=0b1001, ShrinkAxisMask=0b10),
    "slice": lambda n: n.op("SLICE", [n.conv(n.input, 4), n.const([0, 2, 1, 1]), n.const([1, -1, 3, 2])], (1, 7, 3, 2),
                            "SliceOptions"),
    "split": halves,
    "transpose": lambda n: n.op("TRANSPOSE", [n.conv(n.input, 4), n.const([0, 3, 1, 2])], (1, 4, 9, 8), "TransposeOptions"),
    "resize": lambda n: n.op("RESIZE_NEAREST_NEIGHBOR", [n.conv(n.input, 4), n.const([18, 24])], (1, 18, 24, 4),
                             "ResizeNearestNeighborOptions"),
    "softmax inside": lambda n: n.conv(n.softmax(n.conv(n.input, 4, scale=0.1)), 3),
    "pad of channels and rows": lambda n: n.pad(n.conv(n.input, 4), (0, 0), (1, 0), (0, 2), (2, 1)),
    "dilated": lambda n: n.conv(n.input, 4, kernel=(3, 2), DilationHFactor=2, DilationWFactor=3),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_operator_gives_what_litert_gives(tmp_path, kind, build):
    net = Net(dtype=kind)
    same(net, tmp_path, build(net), equal=0.85)
