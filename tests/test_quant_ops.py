"""Quantization of functions by table, products, branches and moves: each stays close to its float self."""

import math

import numpy as np
import pytest

from mcugrad.ir import Builder, Quant, TensorType, interpret, verify
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.functions import (
    ELEMENTARY,
    Elementary,
    Elu,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)
from mcugrad.ops.lut import Lut, LutGrad
from mcugrad.ops.mul import Mul
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import global_average
from mcugrad.ops.softmax import Softmax
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample
from mcugrad.quant.assign import assign
from mcugrad.quant.noise import layer_noise
from mcugrad.quant.observe import observe

FUNCTIONS = (
    Sigmoid(),
    Tanh(),
    HardSigmoid(),
    HardSigmoid(0.2),
    HardSwish(),
    LeakyRelu(0.1),
    Elu(),
    Elu(1.67326, 1.0507),
    Silu(),
    Gelu(),
    Gelu(tanh=True),
    Softplus(),
    *(Elementary(name) for name in ("abs", "exp", "square", "sin", "cos")),
)


def graph_of(make):
    """A float graph of one input [1,4,5,6]."""
    build = Builder()
    x = build.input("input", TensorType((1, 4, 5, 6), "f32"))
    return build.graph([make(build, x)])


def constant(build, name, shape, seed=1):
    data = np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)
    return build.param(name, TensorType(shape, "f32"), data)


NETWORKS = {
    **{f"table-{i}": lambda b, x, f=f: b.one(Lut(f), x) for i, f in enumerate(FUNCTIONS)},
    "product": lambda b, x: b.one(Mul(), x, b.one(Lut(Tanh()), x)),
    "gate": lambda b, x: b.one(Mul(), x, b.one(Lut(Sigmoid()), b.one(global_average(x.type), x))),
    "constant factor": lambda b, x: b.one(Mul(), x, constant(b, "factor", (1, 1, 1, 6))),
    "clamped product": lambda b, x: b.one(Clamp(0, 2), b.one(Mul(), x, x)),
    "difference": lambda b, x: b.one(Sub(), x, constant(b, "term", (1, 4, 5, 6))),
    "sum with a constant": lambda b, x: b.one(Add(), x, constant(b, "term", (1, 4, 5, 6))),
    "concatenation": lambda b, x: b.one(Concat(3), x, b.one(Lut(Tanh()), x), b.one(Clamp(0, 6), x)),
    "clamped concatenation": lambda b, x: b.one(Clamp(0, 1), b.one(Concat(1), x, b.one(Lut(HardSwish()), x))),
    "moves": lambda b, x: b.one(Upsample((2, 1)), b.one(Slice((0, 1, 0), (5, 3, 6)), b.one(Pad((1, 0, 0), (0, 2, 0)), x))),
    "transposed": lambda b, x: b.one(Transpose((0, 3, 1, 2)), x),
    "softmax": lambda b, x: b.one(Softmax(), x),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_quantized_op_stays_close_to_float(name):
    graph = graph_of(NETWORKS[name])
    rng = np.random.default_rng(0)
    xs = [rng.normal(0, 1.5, (4, 5, 6)) for _ in range(4)]
    quantized = assign(graph, observe(graph, xs))
    verify(quantized)
    assert all(v.type.dtype == "s8" for n in quantized.nodes for v in n.outputs)
    worst = min(layer_noise(graph, quantized, xs), key=lambda layer: layer.sqnr_db)
    assert worst.sqnr_db > 28, worst


def test_functions_of_known_range_get_the_field_s_quantization():
    for function, quant in ((Sigmoid(), Quant((1 / 256,), -128)), (Tanh(), Quant((1 / 128,), 0))):
        graph = graph_of(lambda b, x, f=function: b.one(Lut(f), x))
        quantized = assign(graph, observe(graph, [np.random.default_rng(0).normal(size=(4, 5, 6))]))
        assert quantized.outputs[0].type.quant == quant


@pytest.mark.parametrize("function", (*FUNCTIONS, *(Elementary(n) for n in ELEMENTARY)), ids=str)
def test_slope_is_the_derivative(function):
    """Central differences on both signs, away from kinks; only positive numbers for what needs them."""
    positive = isinstance(function, Elementary) and function.name in ("log", "sqrt", "rsqrt", "reciprocal")
    x = np.linspace(0.31 if positive else -4.37, 4.41, 53)
    step = 1e-6
    measured = (function.value(x + step) - function.value(x - step)) / (2 * step)
    assert function.slope(x) == pytest.approx(measured, rel=1e-6, abs=1e-7)


def test_slopes_of_a_table_are_as_exact_as_int16_can_hold():
    """D / 2**S differs from f' by at most 2**-(S + 1), and the largest uses half of int16 or more."""
    x = TensorType((1, 1, 1, 9), "s8", Quant((0.05,), -3))
    for function in FUNCTIONS:
        grad = LutGrad(function, function.quant or Quant((0.04,), -20))
        error = np.abs(grad.table(x) * 2.0 ** -grad.shift(x) - grad._exact(x)).max()
        assert error <= 2.0 ** -(grad.shift(x) + 1)
        if grad.shift(x) < 15:
            assert np.abs(grad.table(x)).max() >= 2**14


def test_a_softmax_sums_to_one_within_its_steps():
    graph = graph_of(lambda b, x: b.one(Softmax(), x))
    xs = [np.random.default_rng(0).normal(0, 3, (4, 5, 6))]
    quantized = assign(graph, observe(graph, xs))
    (x,) = quantized.inputs
    q = np.clip(np.rint(xs[0] / x.type.quant.scale[0]) + x.type.quant.zero, -128, 127).astype(np.int8)[None]
    p = (interpret(quantized, {"input": q})[quantized.outputs[0]].astype(np.float64) + 128) / 256
    assert np.abs(p.sum(axis=3) - 1).max() <= 3 / 256
    assert math.isclose(p.max(), 255 / 256) or p.max() < 1
