"""Small graphs of the losses beside softmax for the generic op tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mcugrad.ir import Graph, Quant, TensorType
from mcugrad.ops.example_grad import Sketch
from mcugrad.ops.losses import Logits, MeanSquaredError, SigmoidCrossEntropy, label_bits


def logits() -> Iterator[Graph]:
    for i, shape in enumerate(((1, 1, 1, 10), (1, 3, 2, 5), (1, 7))):
        s = Sketch(i)
        x = s.build.input("x", TensorType(shape, "s8", Quant((0.1,), -128 + 85 * i)))
        yield s.build.graph(s.build.add(Logits(), x, name="logits"))


def sigmoid_losses() -> Iterator[Graph]:
    """Logits near 0, far from it and at the ends of int32; one label and many."""
    sizes = ((4, 1 << 12, 0.02), (1, 1 << 16, 0.02), (40, 1 << 18, 0.01), (3, (1 << 31) - 1, 1e-6))
    for i, (labels, size, scale) in enumerate(sizes):
        s = Sketch(i)
        a = s.build.param("logits", TensorType((labels,), "s32"), s.rng.integers(-size, size, labels))
        target = s.constant("target", tuple(int(t) for t in s.rng.integers(0, 2, labels)), "s32")
        yield s.build.graph(s.build.add(SigmoidCrossEntropy(scale, label_bits(labels)), a, target, name="loss"))


def squared_errors() -> Iterator[Graph]:
    """A head near its target, beyond the limit and at the ends of int32; an output against numbers and against a sample."""
    for i, (outputs, size) in enumerate(((3, 1 << 12), (1, 1 << 16), (100, 1 << 14), (2, (1 << 31) - 1))):
        s = Sketch(i)
        a = s.build.param("logits", TensorType((outputs,), "s32"), s.rng.integers(-size, size, outputs))
        target = s.build.param("target", TensorType((outputs,), "s32"), s.rng.integers(-size, size, outputs))
        yield s.build.graph(s.build.add(MeanSquaredError(2e-5, outputs, True), a, target, name="loss"))
    for i, size in enumerate((1 << 15, 1 << 30)):
        s = Sketch(10 + i)
        a = s.build.param("logits", TensorType((30,), "s32"), s.rng.integers(-255, 256, 30))
        target = s.build.param("target", TensorType((30,), "s32"), s.rng.integers(-size, size, 30))
        yield s.build.graph(s.build.add(MeanSquaredError(0.05, 30, False), a, target, name="loss"))
    for i, scale in enumerate((0.05, 0.001, 3.0)):
        s = Sketch(20 + i)
        a = s.build.param("logits", TensorType((30,), "s32"), s.rng.integers(-255, 256, 30))
        x = s.random("x", (1, 2, 3, 5), "s8", Quant((scale,), 9))
        yield s.build.graph(s.build.add(MeanSquaredError(0.05, 30, False), a, x, name="loss"))
    s = Sketch(30)
    a = s.build.param("logits", TensorType((1,), "s32"), np.array([9]))
    yield s.build.graph(s.build.add(MeanSquaredError(0.05, 1, False), a, s.constant("target", (1152,), "s32"), name="loss"))
