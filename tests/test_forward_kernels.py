"""Forward kernels beyond the small examples: layers of real size, every strip width, and the rarest requantizations."""

from __future__ import annotations

import numpy as np
import pytest

from emulated_qemu import core_of
from kernels import Case, expected, run, same, stream
from mcugrad.ir import Quant, TensorType
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.example import activation, filled, single, vector, weights
from mcugrad.ops.spatial import Window

SCALES = tuple(2.0**e for e in (-30, -25, -24, -23, -22, -9, -3, -2, -1, 0, 1, 3, 12, 23, 24, 25))
SIZES = ((1, 1), (1, 2), (1, 3), (2, 2), (1, 5), (2, 3), (1, 7), (2, 4), (3, 3), (1, 17))
SAME = Window((3, 3), (1, 1), (1, 1, 1, 1))
HALF = Window((3, 3), (2, 2), (0, 0, 1, 1))


def extreme(inputs, channels=None):
    """A 1x1 convolution whose outputs are scaled from 2^-30 to 2^25."""
    n = len(SCALES)
    live = len(channels) if channels else inputs
    scale = Quant(tuple(s * 1.3 for s in SCALES), 0, 0)
    rest = {"rest": TensorType((n, 1, 1, inputs - live), "s8", scale)} if channels else {}
    op = Conv2d(Window((1, 1)), Quant((1.0,), -90), 1, channels)
    x = TensorType((1, 2, 5, inputs), "s8", Quant((1.0,), 7))
    return single(op, x=x, weight=TensorType((n, 1, 1, live), "s8", scale), bias=vector(n), **rest)


def convolution(height, width, inputs, outputs, window):
    op = Conv2d(window, filled(inputs * window.kernel[0] * window.kernel[1], 4))
    x = activation(height, width, inputs, -128)
    return single(op, x=x, weight=weights(outputs, *window.kernel, inputs, axis=0), bias=vector(outputs))


def depthwise(height, width, channels, window, scales=None):
    out = filled(window.kernel[0] * window.kernel[1], -128)
    weight = weights(1, *window.kernel, channels, axis=3)
    if scales is not None:
        out, weight = Quant((0.05,), 3), TensorType((1, *window.kernel, channels), "s8", Quant(scales, 0, 3))
    return single(DepthwiseConv2d(window, out), x=activation(height, width, channels, 11), weight=weight, bias=vector(channels))


GRAPHS = {
    **{f"scales-{k}": extreme(k) for k in (1, 7, 8, 20)},
    "scales-segments": extreme(12, (0, 3, 7, 8)),
    "scales-odd-segments": extreme(9, (1, 2, 3, 5, 8)),
    **{f"pixels-{h}x{w}": convolution(h, w, 12, 5, Window((1, 1))) for h, w in SIZES},
    **{f"inputs-{k}": convolution(3, 5, k, 6, Window((1, 1))) for k in (1, 2, 3, 4, 5, 16, 21, 36)},
    "first-layer": convolution(13, 27, 3, 16, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    "first-layer-padded": convolution(13, 27, 3, 5, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    "first-layer-dense": convolution(7, 19, 3, 4, SAME),
    "first-layer-narrow": convolution(9, 7, 3, 4, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    **{f"first-layer-{w}": convolution(5, w, 3, 5, Window((3, 3), (2, 2), (1, 1, 1, 1))) for w in (54, 131)},  # strips
    "first-layer-outside": convolution(5, 9, 3, 3, Window((3, 3), (2, 2), (5, 0, 13, 12))),
    "3x3": convolution(5, 19, 8, 9, SAME),
    **{f"depthwise-{h}x{w}": depthwise(h, w, 9, SAME) for h, w in ((4, 1), (4, 4), (5, 9), (11, 15))},
    **{f"depthwise-2-{h}x{w}": depthwise(h, w, 6, HALF) for h, w in ((4, 2), (5, 9), (8, 8), (9, 31))},
    "depthwise-2-odd": depthwise(9, 14, 5, Window((3, 3), (1, 2), (2, 1, 0, 1))),
    **{f"depthwise-{k}-{n}x{n}": depthwise(n, n, 8, Window((k, k), (1, 1), (k // 2,) * 4)) for k in (3, 5, 7) for n in (4, 8)},
    "depthwise-7-half": depthwise(8, 8, 8, Window((7, 7), (2, 2), (3, 3, 3, 3))),
    "depthwise-even": depthwise(6, 8, 8, Window((2, 4), (1, 1), (0, 1, 1, 2))),
    **{f"depthwise-row-{w}": depthwise(1, w, 9, SAME) for w in (5, 9)},  # lines of one row
    **{f"depthwise-2-row-{w}": depthwise(2, w, 9, HALF) for w in (12, 27)},
    **{f"depthwise-2-rows-{w}": depthwise(9, w, 9, HALF) for w in (5, 8, 31)},  # 5: no quad
    **{f"depthwise-7-{h}x{w}": depthwise(h, w, 8, Window((7, 7), (1, 1), (3, 3, 3, 3))) for h, w in ((7, 7), (9, 13))},
    "depthwise-5-row": depthwise(1, 9, 8, Window((5, 5), (1, 1), (2, 2, 2, 2))),
    "depthwise-steps": depthwise(7, 12, 9, Window((3, 3), (1, 2), (1, 1, 1, 1))),
    "depthwise-steps-down": depthwise(9, 12, 9, Window((3, 3), (2, 1), (1, 1, 1, 1))),
    "depthwise-tile-even": depthwise(4, 4, 9, Window((4, 4), (1, 1), (1, 2, 2, 1))),
    "depthwise-tile-even-below": depthwise(4, 4, 9, Window((4, 4), (1, 1), (2, 1, 1, 2))),
    "depthwise-tile-half": depthwise(8, 8, 9, Window((8, 8), (2, 2), (3, 3, 3, 3))),
    "depthwise-windows-outside": depthwise(4, 4, 4, Window((3, 3), (1, 1), (4, 1, 5, 1))),
    "depthwise-scales": depthwise(6, 6, 8, SAME, tuple(2.0**e for e in (-24, -23, -22, -21, -9, -8, -6, -2))),
}
CASES = [Case(name, n, type(g.nodes[0].op), g) for n, (name, g) in enumerate(GRAPHS.items())]


@pytest.fixture(scope="module", params=["cortex-m7", "cortex-m0plus", "cortex-m55", "rv32imc"])
def core(request, tmp_path_factory):
    return core_of(tmp_path_factory.mktemp("forward"), CASES, request.param)


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_kernel_gives_the_bits_of_the_integer_semantics(case, core):
    for seed in range(2):
        contents = case.contents(seed)
        assert same(run(case, core, contents, alignment=seed + 1), expected(case, contents)), seed


STREAMED = [c for c in CASES if c.name.startswith(("first-layer", "depthwise-11", "depthwise-2-rows"))]


@pytest.mark.parametrize("case", STREAMED, ids=lambda c: c.name)
def test_layers_in_pieces_and_rings_give_the_same_bits(case, core):
    contents = case.contents(0)
    for size, spare in ((1, 0), (2, 1), (3, 2)):
        assert np.array_equal(stream(case, core, contents, size, spare), expected(case, contents)[0][0]), (size, spare)


def test_the_scales_reach_every_way_to_requantize():
    shifts = {int(s) for c in CASES[:1] for s in c.op._multipliers(*(v.type for v in c.node.inputs[:2]), c.node.op.out)[1]}
    assert min(shifts) < 8 and any(8 <= s < 33 for s in shifts) and any(33 <= s < 55 for s in shifts) and max(shifts) > 54
    assert np.all(np.diff(SCALES) > 0)
