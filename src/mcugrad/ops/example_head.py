"""Small graphs of the classifier and the loss for the generic op tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mcugrad.ir import Graph, Quant, TensorType, Value
from mcugrad.ops.example_grad import STEP, Sketch
from mcugrad.ops.head import UNSEEN, Head, HeadInputGrad, HeadUpdate, weight_limit
from mcugrad.ops.loss import SampleScale, SoftmaxCrossEntropy, StopIfEasy, StopIfZero

SIZES = ((5, 3), (16, 12), (1, 2), (33, 1), (160, 7))  # features, classes
QUANT = Quant((0.013,), -77)


def classifier(s: Sketch, features: int, classes: int) -> tuple[Value, Value, Value]:
    """Features, weight and bias."""
    x = s.random("x", (1, 1, 1, features), "s8", QUANT)
    limit = weight_limit(x.type)
    data = np.clip(s.rng.integers(-limit - 4000, limit + 4001, (features, classes)), -limit, limit)
    weight = s.build.param("weight", TensorType((features, classes), "s16"), data)
    return x, weight, s.random("bias", (classes,), "s32")


def residue(s: Sketch, classes: int) -> Value:
    """A gradient of the logits (Q15): all but one entry are probabilities, and their sum is near 0."""
    p = s.rng.dirichlet(np.ones(classes)) * 32768
    p[s.rng.integers(classes)] -= 32768
    return s.build.param("g", TensorType((classes,), "s32"), np.floor(p))


def heads() -> Iterator[Graph]:
    for i, size in enumerate(SIZES):
        s = Sketch(i)
        yield s.build.graph(s.build.add(Head(), *classifier(s, *size), name="logits"))


def head_input_grads() -> Iterator[Graph]:
    for i, size in enumerate(SIZES):
        s = Sketch(i)
        _, weight, _ = classifier(s, *size)
        yield s.build.graph(s.build.add(HeadInputGrad(), weight, residue(s, size[1]), name="gf"))


def head_updates() -> Iterator[Graph]:
    """The usual rate, one that rounds everything away and one that saturates."""
    for i, size in enumerate(SIZES):
        for j, rate in enumerate((1.5e-3, 1e-12, 1e5)):
            s = Sketch(10 * i + j)
            x, weight, bias = classifier(s, *size)
            control = s.constant("control", (s.seed, STEP, j, 32769), "s32")
            new = s.build.add(HeadUpdate(rate), x, residue(s, size[1]), weight, bias, control, name="new")
            yield s.build.graph(new, ((weight, new[0]), (bias, new[1])))
            for count in (0, 6):
                yield held_head_update(size, rate, 10 * i + j, count)
    yield from meetings()


def meetings() -> Iterator[Graph]:
    """A sample of an output that was not seen before, beside one that still is not."""
    for rate in (1.5e-3, 1e-12):
        s = Sketch(3)
        x, weight, bias = unseen_classifier(s)
        g = s.build.param("g", TensorType((4,), "s32"), np.array([9000, -32768, 0, 23768]))
        control = s.constant("control", (s.seed, STEP, 0, 32769), "s32")
        new = s.build.add(HeadUpdate(rate), x, g, weight, bias, control, name="new")
        yield s.build.graph(new, ((weight, new[0]), (bias, new[1])))
    yield held_head_update((6, 4), 1.5e-3, 3, 6, unseen=True)


def unseen_classifier(s: Sketch) -> tuple[Value, Value, Value]:
    """Six features and four outputs, the second and third unseen."""
    x = s.random("x", (1, 1, 1, 6), "s8", QUANT)
    weight = s.build.param("weight", TensorType((6, 4), "s16"), s.rng.integers(-9, 10, (6, 4)) * (1, 0, 0, 1))
    return x, weight, s.build.param("bias", TensorType((4,), "s32"), np.array([55, UNSEEN, UNSEEN, -70]))


def held_head_update(size: tuple[int, ...], rate: float, seed: int, count: int, unseen: bool = False) -> Graph:
    """The same as one of the seven samples of a step."""
    s = Sketch(seed)
    x, weight, bias = unseen_classifier(s) if unseen else classifier(s, *size)
    control, op = s.constant("control", (s.seed, STEP, seed % 3, 32769), "s32"), HeadUpdate(rate, samples=7)
    most = [count * h.most + (1 << h.fraction >> 1) for h in op.holds]
    old = (weight, bias)
    held = [
        s.build.param(f"{v.name}_held", TensorType(v.type.shape, h.dtype), s.rng.integers(-m, m, v.type.shape))
        for v, h, m in zip(old, op.holds, most, strict=True)
    ]
    counted = s.constant("count", (count,), "s32")
    new = s.build.add(op, x, residue(s, size[1]), *old, control, *held, counted, name="new")
    return s.build.graph(new, tuple(zip((*old, *held), new, strict=True)))


def losses() -> Iterator[Graph]:
    """Logits near each other, far apart, equal, at the ends of int32, and one class alone."""
    spread = ((4, 1 << 12, 0.02), (10, 1 << 20, 0.02), (7, 1, 0.5), (2, (1 << 31) - 1, 1e-6), (1, 1 << 10, 0.1), (5, 99, 64.0))
    for i, (classes, size, scale) in enumerate(spread):
        s = Sketch(i)
        data = s.rng.integers(-size, size, classes)
        logits = s.build.param("logits", TensorType((classes,), "s32"), data)
        label = s.constant("label", (int(s.rng.integers(classes)),), "s32")
        yield s.build.graph(s.build.add(SoftmaxCrossEntropy(scale), logits, label, name="loss"))
    for wanted in (0, 1):
        for seen in ((-500, 900, 1300), (UNSEEN - 1, UNSEEN - 9, -(1 << 31)), (UNSEEN, UNSEEN, UNSEEN)):
            s = Sketch(wanted)
            data = np.array([seen[0], UNSEEN, *seen[1:]])
            logits = s.build.param("logits", TensorType((4,), "s32"), data)
            label = s.constant("label", (wanted,), "s32")
            yield s.build.graph(s.build.add(SoftmaxCrossEntropy(0.02), logits, label, name="loss"))


def stops_if_easy() -> Iterator[Graph]:
    for i, (p, skip) in enumerate(((31129, 31130), (31130, 31130), (32768, 32769), (0, 0))):
        s = Sketch(i)
        control = s.constant("control", (1, STEP, 0, skip), "s32")
        s.build.add(StopIfEasy(), s.constant("p_label", (p,), "s32"), control)
        yield s.build.graph(())


def stops_if_zero() -> Iterator[Graph]:
    for i, values in enumerate(((0, 0, 0), (0, 0, -1), (0,), (5, 0))):
        s = Sketch(i)
        s.build.add(StopIfZero(), s.constant("gf", values, "s32"))
        yield s.build.graph(())


def sample_scales() -> Iterator[Graph]:
    """Scaled up, kept, scaled down, and nothing to scale."""
    for i, size in enumerate((3, 1 << 13, 1 << 29, (1 << 31) - 1, 0)):
        s = Sketch(i)
        data = s.rng.integers(-size, size + 1, 9)
        gf = s.build.param("gf", TensorType((9,), "s32"), data)
        yield s.build.graph(s.build.add(SampleScale((1, 1, 1, 9)), gf, name="scaled"))
