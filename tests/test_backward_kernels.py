"""Backward kernels beyond the small examples: layers of real size, and training that goes on."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from emulated_qemu import core_of
from kernels import Case, Host, Run, build, control_of, expected, run, same
from mcugrad import toolchain
from mcugrad.build import WIDE
from mcugrad.ops.backprop import Chain, shifted
from mcugrad.ops.depthwise import DepthwiseInputGrad
from mcugrad.ops.example_grad import Shape, Sketch, bias_update, chain, convolution, depthwise, weight_update
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import Update
from mcugrad.quant.affine import BIAS_LIMIT, mbqm

LIVE = tuple(range(1, 96, 3))
LAYERS = (
    Shape(8, 8, 48, 91),  # more inputs than one run of a step, outputs that do not fill a group
    Shape(9, 13, 21, 24),  # more positions than a block, odd channels
    Shape(70, 3, 6, 5),
    Shape(2, 67, 5, 7),  # a row longer than a block
    Shape(4, 4, 96, 64, channels=LIVE),
    Shape(1, 1, 160, 33),
    Shape(9, 9, 10, 6, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(4, 4, 24, 200),  # more outputs than are widened together, a byte of mask bits for every two quads
    Shape(5, 5, 16, 102),  # rows that are not whole words
    Shape(40, 30, 6, 8),  # more positions than an update turns at a time
    Shape(41, 35, 3, 6, Window((3, 3), (1, 1), (1, 0, 2, 1))),  # the same under taps
    Shape(7, 6, 5, 9, Window((2, 3), (2, 1), (0, 1, 3, 1), (2, 2))),
    Shape(5, 5, 8, 6, Window((1, 1), (2, 2))),
)
SEPARATE = (
    Shape(8, 8, 24, 24, Window((3, 3), (1, 1), (1, 1, 1, 1))),
    Shape(16, 11, 10, 10, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    Shape(9, 70, 6, 6, Window((5, 5), (2, 2), (2, 1, 2, 2))),
    Shape(6, 6, 9, 9, Window((7, 7), (1, 1), (3, 3, 3, 3))),
    Shape(5, 5, 8, 8, Window((1, 1), (2, 2))),
    Shape(7, 8, 4, 4, Window((2, 4), (1, 2), (1, 3, 0, 0))),
    Shape(3, 3, 4, 4, Window((5, 5), (1, 2), (4, 4, 4, 4))),
    Shape(4, 4, 16, 16, Window((3, 3), (1, 1), (1, 1, 1, 1))),
    Shape(11, 12, 8, 8, Window((3, 3), (1, 1), (1, 1, 1, 1))),  # quads of 3x3 windows in several blocks of rows
    Shape(1, 8, 8, 8, Window((3, 3), (1, 1), (1, 1, 1, 1))),
    Shape(2, 4, 8, 8, Window((3, 3), (1, 1), (2, 0, 1, 1))),
    Shape(5, 6, 8, 8, Window((2, 4), (1, 1), (0, 1, 1, 2))),
)
EXPONENTS = (0, 2, 11, 10)
TIGHT = (0, 2, 6, 6)  # clamps many gradients
FINE, COARSE = (0, 2, 13, 12), (0, 2, 3, 3)  # some shifts are outside of what 3x3 windows with stride 2 take together
AROUND = tuple(  # windows around each position, at most masked and requantized: the bytes of mask of a quad begin anywhere
    Shape(n, n, 16, 16, Window((k, k), (1, 1), (k // 2,) * 4)) for n, k in ((4, 3), (4, 5), (4, 7), (5, 5), (8, 3), (12, 5))
)
HALVES = (  # of stride 2: 2x2 gradients at every position, by planes where windows and padding allow it
    Shape(8, 8, 16, 16, Window((5, 5), (2, 2), (2, 2, 1, 1))),
    Shape(8, 8, 8, 8, Window((5, 6), (2, 2), (1, 2, 2, 2))),
    Shape(16, 16, 16, 16, Window((5, 5), (2, 2), (1, 2, 2, 1))),
    Shape(16, 16, 8, 8, Window((5, 5), (2, 2), (2, 2, 1, 1))),
    Shape(22, 24, 8, 8, Window((6, 5), (2, 2), (2, 2, 1, 2))),
    Shape(2, 8, 8, 8, Window((5, 5), (2, 2), (2, 1, 2, 1))),
    Shape(8, 8, 16, 16, Window((7, 7), (2, 2), (3, 3, 2, 2))),
    Shape(8, 8, 8, 8, Window((6, 5), (2, 2), (1, 2, 3, 1))),
    Shape(8, 8, 8, 8, Window((7, 7), (2, 2), (3, 3, 3, 3))),
    Shape(8, 8, 8, 8, Window((8, 7), (2, 2), (3, 3, 3, 3))),
    Shape(8, 8, 8, 8, Window((5, 5), (2, 2), (3, 2, 0, 1))),
    Shape(8, 8, 16, 16, Window((3, 3), (2, 2), (1, 1, 0, 0))),
    Shape(24, 24, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(1, 8, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(3, 64, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(7, 8, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(13, 16, 8, 8, Window((5, 5), (2, 2), (2, 2, 2, 2))),
    Shape(2, 8, 16, 16, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(16, 64, 8, 8, Window((3, 3), (2, 2), (1, 1, 0, 1))),
    Shape(8, 8, 8, 8, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    Shape(6, 6, 16, 16, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    Shape(15, 14, 8, 8, Window((3, 3), (2, 2), (0, 0, 0, 1))),
    Shape(41, 34, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),  # several blocks of rows
    Shape(44, 34, 8, 8, Window((3, 3), (2, 2), (0, 0, 1, 1))),
    Shape(7, 2, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(3, 16, 16, 16, Window((3, 3), (2, 2), (2, 1, 0, 0))),  # pieces of rows
    Shape(8, 10, 8, 8, Window((3, 3), (2, 2), (1, 1, 2, 0))),
    Shape(1, 128, 8, 8, Window((3, 3), (2, 2), (2, 1, 1, 0))),
    Shape(1, 6, 8, 8, Window((3, 3), (2, 2), (1, 0, 1, 1))),
    Shape(8, 8, 8, 8, Window((3, 3), (2, 2), (1, 1, 2, 2), (2, 2))),
)
BIASES = (  # gradient, and shifts inside and at both ends of 1 ... 31, made of the forward pass's
    ((1, 19, 17, 19), -15),
    ((1, 4, 4, 16), -19),
    ((1, 8, 9, 13), 9),
)
ENDS = {"x": (-128, 127), "h": (-127, 127), "weight": (-127, 127), "bias": (-BIAS_LIMIT, BIAS_LIMIT), "mu": (-255, 255)}
STEPS = 100


def chains():
    for i, shape in enumerate((*LAYERS, *SEPARATE)):
        s = Sketch(1000 + i)
        words = ("mc", "ap mc", "bc")[i % 3]
        yield chain(s, (depthwise if shape in SEPARATE else convolution)(s, shape), words, EXPONENTS)
    ways = [*product(("mc", "bc"), (EXPONENTS, TIGHT)), ("bc", FINE), ("bcf", FINE), ("mc", COARSE)]
    around = [*product(AROUND, ways[:4]), *product(HALVES, ways)]
    for i, (shape, (words, exponents)) in enumerate(around):
        s = Sketch(1050 + i)
        yield chain(s, depthwise(s, shape), words, exponents)
    s = Sketch(1100)
    yield chain(s, convolution(s, Shape(4, 4, 8, 8)), "bp mc", (0, 2, 6, 8))


def updates():
    for i, shape in enumerate((*LAYERS, *SEPARATE)):
        yield weight_update(2000 + i, shape, (8, 4, 0)[i % 3], 4, i % 2 == 1, shape in SEPARATE)
    for i, (shape, base) in enumerate(BIASES):
        yield bias_update(2100 + 2 * i, shape, base)
    for i, (size, base) in enumerate(product((1, 4, 8), (0, -3, 3))):
        around = Window((3, 3), (1, 1), (1, 1, 1, 1))
        yield weight_update(2200 + i, Shape(size, size, 12, 8), 4, base, i % 2 == 1)
        yield weight_update(2300 + i, Shape(size, size, 8, 8, around), 4, base, i % 2 == 0, True)
    for i, (size, kept) in enumerate(product((1, 4, 8), (1, 3, 7, 13))):  # quads of weights that belong to two outputs
        yield weight_update(2400 + i, Shape(size, size, 14, 10, channels=tuple(range(kept))), 4, 6 * (i % 3) - 6, i % 2 == 1)


CASES = [
    Case(f"{kind.__name__}-{i}", n, kind, graph)
    for n, (kind, i, graph) in enumerate(
        (kind, i, graph) for kind, make in ((Chain, chains), (Update, updates)) for i, graph in enumerate(make())
    )
]


@pytest.fixture(scope="module", params=["plain", "packed", "wide", "cortex-m7", "cortex-m55", "rv32imc"])
def library(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("backward")
    if request.param.startswith("cortex"):
        return core_of(folder, CASES, request.param)
    way = WIDE if request.param == "wide" else (f"-DMCG_DUAL_MAC={int(request.param == 'packed')}",)
    return Host(build(folder, CASES, toolchain.zig(), ("-O2", *way)))


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_layer_of_real_size_has_the_bits_of_the_integer_semantics(case, library):
    contents = case.contents(0)
    assert same(run(case, library, contents, alignment=1), expected(case, contents))


def over_mask(case):
    """(mask, output) where the gradient may take the bytes of its mask."""
    node = case.node
    return [(i, o) for i, o in node.op.replaces(node) if node.inputs[i].type.nbytes == node.outputs[o].type.nbytes]


REPLACING = [c for c in CASES if c.op is Chain and over_mask(c)]


@pytest.mark.parametrize("case", REPLACING, ids=[c.name for c in REPLACING])
def test_layer_of_real_size_over_its_mask_has_the_same_bits(case, library):
    contents = case.contents(0)
    for pair in over_mask(case):
        assert same(run(case, library, contents, shared=(pair,)), expected(case, contents))


def halved(case):
    """Whether it is the input gradient of a depthwise convolution of stride 2."""
    producer = case.op is Chain and case.node.op.producer
    return isinstance(producer, DepthwiseInputGrad) and producer.window.stride == (2, 2)


@pytest.mark.parametrize("case", [c for c in CASES if halved(c)], ids=lambda c: c.name)
def test_gradients_that_are_all_negative_or_rarely_large_have_the_same_bits(case, library):
    contents = case.contents(0)
    h = case.node.inputs[0]
    for large in (False, True):
        contents |= {h: np.where(contents[h] < -120, contents[h], contents[h] // 8) if large else np.minimum(contents[h], 0)}
        assert same(run(case, library, contents), expected(case, contents))


def test_a_gradient_one_beyond_the_limit_is_clamped_and_counted(library):
    """RSH(-65 * 126, 6) is -128, which int8 could hold."""
    case = [c for c in CASES if c.op is Chain][-1]
    contents = case.contents(0)
    h, weight, _, bits, _ = contents
    contents |= {h: np.zeros_like(contents[h]), weight: np.full_like(contents[weight], -65)}
    contents[bits] = np.ones_like(contents[bits])
    contents[h][0, 1, 2, 3] = 126
    answer = expected(case, contents)
    assert answer[0][1] == 8
    assert same(run(case, library, contents), answer)


def test_a_depthwise_gradient_one_beyond_the_limit_is_clamped_and_counted(library):
    """One product in each channel, which its factor takes to -128."""
    found = 0
    for case in [c for c in CASES if c.op is Chain and c.graph.nodes[0].inputs[0].type.shape == (1, 4, 4, 16)]:
        op, contents = case.node.op, case.contents(0)
        h, weight, exponents, mask = case.node.inputs
        out = op.stages[0].out
        values = np.arange(-127, 128)
        moved = mbqm(np.outer(values, values)[..., None], *shifted(out.factor, out.shift(case.node, contents[exponents])))
        places = [np.argwhere(moved[..., c] == -128) for c in range(16)]
        contents |= {h: np.zeros_like(contents[h]), weight: np.zeros_like(contents[weight])}
        contents[mask] = np.ones_like(contents[mask])
        for c, place in enumerate(places):
            if len(place):
                contents[h][0, 1, 2, c], contents[weight][0, 1, 1, c] = values[place[len(place) // 2]]  # a large weight
        answer = expected(case, contents)
        found += int(answer[0][1][0])
        assert same(run(case, library, contents), answer)
    assert found > 16


@pytest.mark.parametrize("case", [c for c in CASES if c.op is Update], ids=lambda c: c.name)
def test_parameters_at_their_limits_move_by_the_largest_gradients(case, library):
    """All positions of a channel pull the same way, parameters stand at their ends."""
    contents = case.contents(0)
    for value in [v for v in contents if v.name in ENDS]:
        signs = contents[value][:, :1, :1] if value.name in "xh" else contents[value]
        low, high = (-32767, 32767) if (value.name, value.type.dtype) == ("bias", "s16") else ENDS[value.name]
        ends = np.where(signs < 0, low, high).astype(contents[value].dtype)
        contents[value] = np.broadcast_to(ends, contents[value].shape).copy()
    assert same(run(case, library, contents, alignment=3), expected(case, contents))


@pytest.mark.parametrize("case", [c for c in CASES if c.op is Update], ids=lambda c: c.name)
def test_parameters_stay_equal_over_many_updates(case, library):
    """The step number, and with it every random number, changes; so does the sign of the gradient."""
    contents = case.contents(0)
    h = next(v for v in contents if v.name == "h")
    control = np.array(control_of(case, contents))
    machine = Run(case, library)
    for step in range(STEPS):
        control[1] = step
        contents |= {v: control for v in contents if v.name == "control"}
        contents[h] = np.roll(-contents[h], 1)
        machine.load({h: contents[h]} if step else contents)
        machine.call(control=control)
        new, _ = expected(case, contents)
        contents |= {old: value for (old, _), value in zip(case.graph.updates, new, strict=True)}
    assert all(np.array_equal(got, want) for got, want in zip(machine.outputs(), new, strict=True))
