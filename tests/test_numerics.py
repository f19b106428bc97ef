"""The integer rules of training in plain Python, one number at a time, against the operations."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mcugrad.ir import Node, Op, Quant, TensorType, Value, infer
from mcugrad.ops.add import Add
from mcugrad.ops.backprop import GradMask, GradQuantize, GradSum
from mcugrad.ops.head import HeadInputGrad, HeadUpdate
from mcugrad.ops.loss import SampleScale, SoftmaxCrossEntropy
from mcugrad.ops.pool import AvgPool, Ties, global_average
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import BiasStep, WeightStep

Array = NDArray[Any]

INT32 = 2**31
UINT32 = 2**32


def rsh(v: int, k: int) -> int:
    if k > 31:
        return 0
    if k < 0:
        return max(-INT32, min(INT32 - 1, v << -k))
    return (v + (1 << (k - 1))) >> k if k else v


def mult(scale: float) -> tuple[int, int]:
    mantissa, exponent = math.frexp(scale)
    m, sh = round(mantissa * 2**31), 31 - exponent
    return (m // 2, sh - 1) if m == 2**31 else (m, sh)


def mbqm(v: int, m: int, sh: int) -> int:
    return (v * m + (1 << (sh - 1))) >> sh


def clamp(v: int, limit: int) -> int:
    return max(-limit, min(limit, v))


def random_number(seed: int, step: int, tensor: int, n: int) -> int:
    x = seed ^ (step * 0x9E3779B1 % UINT32) ^ (tensor * 0x85EBCA6B % UINT32)
    v = (n * 0x9E3779B1 + x) % UINT32
    v ^= v >> 15
    v = v * 0x85EBCA6B % UINT32
    v ^= v >> 13
    v = v * 0xC2B2AE35 % UINT32
    return v ^ (v >> 16)


def node(op: Op, *types: TensorType) -> Node:
    inputs = tuple(Value(f"in{i}", t) for i, t in enumerate(types))
    return Node(op, inputs, tuple(Value(f"out{i}", t) for i, t in enumerate(infer(op, inputs, "test"))))


def typed(array: Array, dtype: str, quant: Quant | None = None) -> TensorType:
    return TensorType(array.shape, dtype, quant)


def control(seed: int = 5, step: int = 3, halvings: int = 0) -> Array:
    return np.array([seed, step, halvings, 1 << 16], np.int32)


WEIGHT_STEPS = [
    # residual bits, axis, live channels of total, groups, centred
    (8, 0, None, 1, False),
    (8, 0, (0, 2, 3), 1, True),
    (4, 0, None, 1, True),
    (4, 0, (1, 4), 1, False),
    (4, 3, None, 1, True),
    (0, 0, (0, 1, 4), 1, True),
    (0, 0, None, 2, True),
    (0, 3, None, 1, False),
]


@pytest.mark.parametrize("sample_exponent", [-40, -26, -22, -18, -10, 12])
@pytest.mark.parametrize(("bits", "axis", "channels", "groups", "centred"), WEIGHT_STEPS)
def test_weight_step(
    bits: int, axis: int, channels: tuple[int, ...] | None, groups: int, centred: bool, sample_exponent: int
) -> None:
    rng = np.random.default_rng(bits + axis + groups + sample_exponent % 100)
    total = 5
    shape = (1, 2, 3, total) if axis == 3 else (4, 2, 3, total if channels is None else len(channels))
    mean_size = shape[3] * groups
    base = tuple(int(b) for b in rng.integers(-14, -9, shape[axis]))
    grad, w = rng.integers(-(2**17), 2**17, shape), rng.integers(-127, 128, shape)
    limit = 1 << max(bits - 1, 0)
    res = rng.integers(-limit, limit, shape) if bits else np.zeros(shape, int)
    bias, mu = rng.integers(-1000, 1000, shape[axis]), rng.integers(-200, 200, mean_size)
    exponents, ctl = np.array([3, -2], np.int8), control(halvings=1)
    op = WeightStep(base, 1, bits, 9, axis, channels, 0 if channels is None else total, centred)
    state = [typed(w, "s8")] + ([typed(res, "s4" if bits == 4 else "s8")] if bits else [])
    extra = [typed(mu, "s16"), typed(bias, "s32")] if centred else []
    step = node(op, typed(grad, "s32"), *state, TensorType((1,), "s32"), typed(exponents, "s8"), typed(ctl, "s32"), *extra)
    arrays = [grad, w, *([res] if bits else []), np.array([sample_exponent]), exponents, ctl, *([mu, bias] if centred else [])]
    got = op.eval(step, *arrays)

    new_w, new_res, new_bias = w.copy(), res.copy(), bias.astype(object)
    for o, ky, kx, i in np.ndindex(shape):
        channel = i if axis == 3 else o
        k = base[channel] - (-2) - sample_exponent - bits + 1
        full = i if channels is None else channels[i]
        n = (i * 2 + ky) * 3 + kx if axis == 3 else ((o * 2 + ky) * 3 + kx) * (shape[3] if channels is None else total) + full
        v = int(grad[o, ky, kx, i])
        if 0 < k <= 31:
            r = 1 << (k - 1) if bits == 8 else random_number(5, 3, 9, n) & ((1 << k) - 1)
            u = (v + r) >> k
        else:
            u = rsh(v, k)
        moved = clamp((int(w[o, ky, kx, i]) << bits) + int(res[o, ky, kx, i]) - u, 127 << bits)
        new_w[o, ky, kx, i] = rsh(moved, bits)
        new_res[o, ky, kx, i] = moved - (int(new_w[o, ky, kx, i]) << bits)
        mean = int(mu[i + (o // (shape[0] // groups)) * shape[3] if groups > 1 else i])
        new_bias[channel] -= mean * int(new_w[o, ky, kx, i] - w[o, ky, kx, i])
    assert got[0].tolist() == new_w.tolist()
    if bits:
        assert got[1].tolist() == new_res.tolist()
        assert -(1 << (bits - 1)) <= new_res.min() <= new_res.max() < 1 << (bits - 1)
    if centred:
        assert got[-1].tolist() == [clamp(b, 2**30) for b in new_bias]


def test_stochastic_rounding_is_fair_and_differs_between_steps() -> None:
    """A gradient of a third of a unit moves a third of the weights, other ones at each step."""
    shape = (40, 1, 1, 30)
    grad, w = np.full(shape, 341), np.zeros(shape, int)
    op = WeightStep((10,) * 40, None, 0, 2)
    types = (typed(grad, "s32"), typed(w, "s8"), TensorType((1,), "s32"), TensorType((1,), "s8"), TensorType((4,), "s32"))
    moved = [op.eval(node(op, *types), grad, w, np.zeros(1, int), np.zeros(1), control(step=s))[0] for s in (0, 1)]
    assert {int(v) for m in moved for v in np.unique(m)} == {-1, 0}
    assert all(abs(-m.mean() - 341 / 1024) < 0.04 for m in moved)
    assert not np.array_equal(*moved)


@pytest.mark.parametrize("sample_exponent", [-60, -25, -20, 5])
def test_bias_step(sample_exponent: int) -> None:
    rng = np.random.default_rng(1)
    grad, bias = rng.integers(-(2**20), 2**20, 6), rng.integers(-(2**30), 2**30, 6)
    base = (-14, -12, -10, -13, -11, -9)
    op, exponents, ctl = BiasStep(base, 0), np.array([4], np.int8), control(halvings=2)
    types = (typed(grad, "s32"), typed(bias, "s32"), TensorType((1,), "s32"), typed(exponents, "s8"), typed(ctl, "s32"))
    (got,) = op.eval(node(op, *types), grad, bias, np.array([sample_exponent]), exponents, ctl)
    shifts = [b - 4 - sample_exponent + 2 for b in base]
    assert got.tolist() == [clamp(int(b) - rsh(int(g), k), 2**30) for b, g, k in zip(bias, grad, shifts, strict=True)]


def head_case() -> Iterator[Any]:
    rng = np.random.default_rng(2)
    yield rng.integers(-128, 128, (1, 1, 1, 5)).astype(np.int8)
    yield rng.integers(-32768, 32769, 3).astype(np.int32)
    yield rng.choice([-32767, -32000, 5, 32000, 32767], (5, 3)).astype(np.int16)
    yield rng.integers(-(2**20), 2**20, 3).astype(np.int32)


@pytest.mark.parametrize("halvings", [0, 3])
def test_head_step(halvings: int) -> None:
    x, g, weight, bias = head_case()
    scale, zero, rate = 0.03, -17, 0.4
    op = HeadUpdate(rate)
    types = (typed(x, "s8", Quant((scale,), zero)), typed(g, "s32"), typed(weight, "s16"), typed(bias, "s32"))
    got_w, got_b = op.eval(node(op, *types, TensorType((4,), "s32")), x, g, weight, bias, control(halvings=halvings))
    kw = -math.floor(math.log2(rate * scale * 2**12) + 0.5) + 15 + halvings
    kb = -math.floor(math.log2(rate * 2**12 / scale) + 0.5) + 15 + halvings
    for c, k in np.ndindex(5, 3):
        f = int(x[0, 0, 0, c]) - zero
        assert got_w[c, k] == clamp(int(weight[c, k]) - rsh(f * int(g[k]), kw), 32767)
    assert got_b.tolist() == [int(b) - rsh(int(v), kb) for b, v in zip(bias, g, strict=True)]


def test_head_gradient_and_the_exponent_of_the_sample() -> None:
    _, g, weight, _ = head_case()
    back, scaling = HeadInputGrad(), SampleScale((1, 1, 1, 5))
    (gf,) = back.eval(node(back, typed(weight, "s16"), typed(g, "s32")), weight, g)
    assert gf.tolist() == [sum(int(weight[c, k]) * int(g[k]) for k in range(3)) for c in range(5)]
    for array in (gf, np.array([1, 0, 0, 0, -1]), np.array([0, 16383, 16384, 1, 2])):
        a, e_s = scaling.eval(node(scaling, typed(gf, "s32")), array)
        k = 14 - max(abs(int(v)) for v in array).bit_length()
        assert int(e_s[0]) == -27 - k
        assert a.reshape(-1).tolist() == [rsh(int(v), -k) for v in array]
        assert 2**13 <= np.abs(a).max() <= 2**14


@pytest.mark.parametrize("factor", [(1.0,), (0.25,), (0.011, 0.5, 3e-5)])
def test_stored_gradients_are_rounded_and_their_clamped_elements_counted(factor: tuple[float, ...]) -> None:
    a = np.random.default_rng(3).integers(-(2**18), 2**18, (1, 4, 5, 3))
    exponents = np.array([3, 9], np.int8)
    op = GradQuantize(factor, 1)
    types = (typed(a, "s32", Quant((1.0,), exponent=0)), typed(exponents, "s8"))
    got, count = op.eval(node(op, *types), a, exponents)
    clamped = 0
    for index in np.ndindex(a.shape):
        m, sh = mult(factor[index[3] % len(factor)])
        v = rsh(int(a[index]), 6) if factor == (1.0,) else mbqm(int(a[index]), m, sh + 6)
        assert got[index] == clamp(v, 127)
        clamped += abs(v) > 127
    assert count.tolist() == [clamped]


def test_gradients_meet_at_the_exponent_of_the_sum() -> None:
    rng = np.random.default_rng(4)
    a, g = rng.integers(-(2**20), 2**20, (1, 2, 2, 3)), rng.integers(-127, 128, (1, 2, 2, 3))
    for e_a, e_g in ((2, 7), (7, 2), (0, 40)):
        exponents, op = np.array([e_a, e_g], np.int8), GradSum()
        types = (typed(a, "s32", Quant((1.0,), exponent=0)), typed(g, "s8", Quant((1.0,), exponent=1)), typed(exponents, "s8"))
        (got,) = op.eval(node(op, *types), a, g, exponents)
        want = [max(-INT32, min(INT32 - 1, int(v) + rsh(int(s), e_a - e_g))) for v, s in zip(a.ravel(), g.ravel(), strict=True)]
        assert got.ravel().tolist() == want


def test_the_mask_is_strict_at_both_ends() -> None:
    y = np.array([-128, -127, 0, 126, 127]).reshape(1, 1, 1, 5)
    a, op = np.full(y.shape, 9), GradMask()
    (got,) = op.eval(node(op, typed(a, "s32", Quant((1.0,))), typed(y, "s8")), a, y)
    assert got.ravel().tolist() == [0, 9, 9, 9, 0]


def test_residual_addition() -> None:
    rng = np.random.default_rng(5)
    a, b = (rng.integers(-128, 128, (1, 3, 3, 4)).astype(np.int8) for _ in range(2))
    qa, qb, out = Quant((0.03,), 4), Quant((0.07,), -9), Quant((0.05,), 11)
    op = Add(out)
    (got,) = op.eval(node(op, typed(a, "s8", qa), typed(b, "s8", qb)), a, b)
    f1, f2 = (math.floor(q.scale[0] / 0.05 * 2**15 + 0.5) for q in (qa, qb))
    sums = [rsh((int(p) - 4) * f1 + (int(q) + 9) * f2, 15) + 11 for p, q in zip(a.ravel(), b.ravel(), strict=True)]
    assert got.ravel().tolist() == [max(-128, min(127, s)) for s in sums]


def test_global_average_rounds_half_up() -> None:
    x = np.array([[-3, 5, 1], [-2, 5, 2], [0, 5, 1], [0, 6, 2]]).reshape(1, 2, 2, 3).astype(np.int8)
    type_ = typed(x, "s8", Quant((0.1,), 3))
    op = global_average(type_)
    (got,) = op.eval(node(op, type_), x)
    assert got.ravel().tolist() == [-1, 5, 2]


def test_halves_of_an_average_go_where_the_source_of_the_model_sends_them() -> None:
    x = np.array([[-3, -4, 1, 2], [-2, -3, 2, 3]]).reshape(1, 2, 1, 4).astype(np.int8)
    type_ = typed(x, "s8", Quant((0.1,), 3))
    wanted = {Ties.UP: [-2, -3, 2, 3], Ties.AWAY: [-3, -4, 2, 3], Ties.EVEN: [-2, -4, 2, 2], Ties.ODD: [-3, -3, 1, 3]}
    for ties, averages in wanted.items():
        op = AvgPool(Window((2, 1)), ties)
        (got,) = op.eval(node(op, type_), x)
        assert got.ravel().tolist() == averages, ties


def test_softmax_and_its_gradient() -> None:
    scale, logits = 0.021, np.array([-70_000, 10_000, 55_000, 54_000], np.int32)
    op = SoftmaxCrossEntropy(scale)
    p_label, g = op.eval(node(op, typed(logits, "s32"), TensorType((1,), "s32")), logits, np.array([3]))
    mantissa, exponent = math.frexp(scale * 2**-12 * math.log2(math.e) * 256)
    m, sh = round(mantissa * 2**15), 15 - exponent
    e = []
    for a in logits:
        d = min(((55_000 - int(a)) * m) >> sh, 7680)
        e.append(round(2 ** (-(d & 255) / 256) * 32768) >> (d >> 8))
    p = [(v << 15) // sum(e) for v in e]
    assert p_label.tolist() == [p[3]]
    assert g.tolist() == [p[0], p[1], p[2], p[3] - 32768]
    real = np.exp(logits * scale / 4096)
    assert np.allclose(np.array(p) / 32768, real / real.sum(), atol=2e-3)
