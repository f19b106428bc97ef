"""Generic tests of every op: its type rule, integer against real semantics, and its C kernel bit for bit."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest

import kernels
from emulated_qemu import core_of
from kernels import DRAWS, cases, expected, run, same, stream
from mcugrad import toolchain
from mcugrad.build import WIDE, sanitizer_environment
from mcugrad.ir import Op, verify
from mcugrad.memory.overlap import least_distance
from mcugrad.ops import registry
from mcugrad.ops.accumulate import Accumulate
from mcugrad.ops.backprop import Chain
from mcugrad.ops.head import HeadUpdate
from mcugrad.ops.piece import Piece
from mcugrad.ops.update import Update

CASES = cases()
CALLED = [c for c in CASES if c.node.op.kernel(c.node) is not None]
SPLIT = [c for c in CALLED if c.node.op.splits_rows]
BUILDS = {
    "gcc": (lambda: toolchain.installed("gcc"), ("-O2",)),
    "gcc-packed": (lambda: toolchain.installed("gcc"), ("-O2", "-DMCG_DUAL_MAC=1")),
    "zig": (toolchain.zig, ("-O3",)),
    "wide": (lambda: toolchain.for_this_cpu(toolchain.zig()), ("-O3", "-march=native", *WIDE)),
}

# Largest difference of an integer output from the real one, in units of its last place, before both are clamped.
TOLERANCE = {
    "AdaptExponent": 0,
    "Add": 0.52,
    "AvgPool": 0.5,
    "Clamp": 0.51,
    "ClampMask": 0,
    "Concat": 0.51,
    "Conv2d": 0.51,
    "DepthwiseConv2d": 0.51,
    "CountSample": 0,
    "Head": 0,
    "HeadInputGrad": 0,
    "HeadUpdate": 0.5,
    "Logits": 0,
    "Lut": 0.5,
    "MaxPool": 0,
    "Mul": 0.51,
    "Pad": 0.5,
    "Reshape": 0,
    "SampleScale": 0.5,
    "SigmoidCrossEntropy": 60,
    "Slice": 0,
    "Softmax": 1.2,
    "SoftmaxCrossEntropy": 40,
    "StopIfEasy": 0,
    "StopIfZero": 0,
    "Sub": 0.52,
    "Transpose": 0,
    "Upsample": 0,
}


def each(found):
    return pytest.mark.parametrize("case", found, ids=[c.name for c in found])


@pytest.fixture(scope="session", params=list(BUILDS))
def library(request, tmp_path_factory):
    compiler, flags = BUILDS[request.param]
    return kernels.Host(kernels.build(tmp_path_factory.mktemp("kernels"), CALLED, compiler(), flags))


@pytest.fixture(scope="session", params=["cortex-m7", "cortex-m4", "cortex-m0plus", "cortex-m55", "rv32imc"])
def core(request, tmp_path_factory):
    return core_of(tmp_path_factory.mktemp("core"), CALLED, request.param)


def parts(op):
    """The op and the ops it fuses."""
    if isinstance(op, Chain):
        used = {"GradSum": any(s.add for s in op.stages), "GradMask": any(s.mask for s in op.stages)}
        return {"Chain", "GradQuantize", type(op.producer).__name__, *(name for name, present in used.items() if present)}
    if isinstance(op, Piece | Accumulate):
        return {type(op).__name__}
    return {"Update", type(op.grad).__name__, type(op.step).__name__} if isinstance(op, Update) else {type(op).__name__}


def test_every_integer_op_has_an_example():
    covered = set().union(*(parts(c.node.op) for c in CASES))
    integer = {name for name, cls in registry().items() if cls.eval is not Op.eval}
    assert integer <= covered


@each(CASES)
def test_example_obeys_its_type_rule(case):
    verify(case.graph)
    assert len(case.graph.nodes) == 1


def one_rounding(case):
    """Not what several samples move together: it is rounded twice, and keeps what it does not move (test_hold.py)."""
    return not (isinstance(case.node.op, HeadUpdate) and case.node.op.samples > 1)


@each([c for c in CASES if type(c.node.op).__name__ in TOLERANCE and one_rounding(c)])
def test_integer_semantics_stay_close_to_the_real_ones(case):
    contents = case.contents(0)
    want, stop = expected(case, contents)
    if stop:
        return
    real = case.node.op.real(case.node, *(contents[v].astype(np.float64) for v in case.node.inputs))
    for value, exact, whole in zip(case.node.outputs, real, want, strict=True):
        info = np.iinfo(whole.dtype)
        inside = np.clip(exact, info.min, info.max)
        if type(case.node.op).__name__ == "HeadUpdate":
            inside = np.clip(inside, whole.min(), whole.max())
        assert np.abs(inside - whole).max() <= TOLERANCE[type(case.node.op).__name__], value


@each(CALLED)
def test_kernel_gives_the_bits_of_the_integer_semantics_at_every_alignment(case, library):
    for seed, alignment in itertools.product(range(DRAWS), range(4)):
        contents = case.contents(seed)
        assert same(run(case, library, contents, alignment=alignment), expected(case, contents)), (seed, alignment)


@each(CALLED)
def test_kernel_gives_the_same_bits_on_the_core(case, core):
    for seed in range(DRAWS):
        contents = case.contents(seed)
        assert same(run(case, core, contents, alignment=seed + 1), expected(case, contents)), seed


def replaceable(case):
    """Pairs that may share bytes: the planner lets only values of one size do so."""
    node = case.node
    return [(i, o) for i, o in node.op.replaces(node) if node.inputs[i].type.nbytes == node.outputs[o].type.nbytes]


IN_PLACE = [c for c in CALLED if replaceable(c)]


@each(IN_PLACE)
def test_kernel_in_place_gives_the_same_bits(case, library):
    for pair in replaceable(case):
        for seed in range(DRAWS):
            contents = case.contents(seed)
            assert same(run(case, library, contents, alignment=seed, shared=(pair,)), expected(case, contents)), pair


@each(IN_PLACE)
def test_kernel_in_place_gives_the_same_bits_on_the_core(case, core):
    for pair in replaceable(case):
        assert same(run(case, core, case.contents(0), shared=(pair,)), expected(case, case.contents(0))), pair


def overlaps(case):
    """(input, output, distance): as close as the op allows, a little further, and where that is possible at one place."""
    for walk in case.node.op.walks(case.node):
        least = least_distance(walk)
        least = -case.node.inputs[walk.source].type.nbytes if least is None else least
        for distance in sorted({least, least + 1, least + 6, max(least, 0)}):
            yield walk.source, walk.target, distance


SLIDING = [c for c in CALLED if c.node.op.walks(c.node)]


@each(SLIDING)
def test_kernel_over_its_own_input_gives_the_same_bits(case, library):
    for seed, slid in enumerate(overlaps(case)):
        contents = case.contents(seed)
        assert same(run(case, library, contents, alignment=seed % 4, slid=slid), expected(case, contents)), slid


@each(SLIDING)
def test_kernel_over_its_own_input_gives_the_same_bits_on_the_core(case, core):
    slid = next(overlaps(case))
    assert same(run(case, core, case.contents(0), slid=slid), expected(case, case.contents(0))), slid


@each(SPLIT)
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("spare", [0, 1])
def test_pieces_in_rings_give_the_same_bits(case, library, size, spare):
    contents = case.contents(1)
    assert np.array_equal(stream(case, library, contents, size, spare), expected(case, contents)[0][0])


@pytest.mark.parametrize("way", [("-DMCG_DUAL_MAC=0",), ("-DMCG_DUAL_MAC=1",), WIDE], ids=["plain", "packed", "wide"])
def test_kernels_are_clean_under_sanitizers(tmp_path, way):
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *way)
    path = kernels.build(tmp_path, CALLED, toolchain.installed("gcc"), flags)
    environment = {**os.environ, **sanitizer_environment()}
    command = [sys.executable, kernels.__file__, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
