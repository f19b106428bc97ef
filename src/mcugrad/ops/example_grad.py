"""Small backward graphs for the generic op tests: every producer and stage of a chain, every gradient and step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Builder, Graph, Op, Quant, TensorType, Value
from mcugrad.ops.add import GradNegate
from mcugrad.ops.backprop import Chain, ClampMask, GradQuantize, Stage
from mcugrad.ops.conv2d import Conv2dInputGrad, Conv2dWeightGrad, others
from mcugrad.ops.depthwise import DepthwiseInputGrad, DepthwiseWeightGrad
from mcugrad.ops.functions import Elu, Function, Sigmoid
from mcugrad.ops.hold import BIAS_BITS, WEIGHT_BITS, Hold
from mcugrad.ops.lut import LutGrad
from mcugrad.ops.mul import MulGrad
from mcugrad.ops.place import GradPlace
from mcugrad.ops.pool import AvgPoolGrad, MaxPoolGrad
from mcugrad.ops.reshape import GradLoad
from mcugrad.ops.softmax import PROBABILITY, SoftmaxGrad
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import BiasGrad, BiasStep, Update, WeightStep
from mcugrad.ops.upsample import UpsampleGrad
from mcugrad.quant.affine import log2_shift

Array = NDArray[Any]

RANGE = {"u1": (0, 2), "s4": (-8, 8), "s8": (-128, 128), "s16": (-300, 300), "s32": (-(1 << 14), 1 << 14)}
STEP = 7  # of the examples' control
LARGE, SMALL = (0, 2, 9, 8), (0, 1, 1, -1)  # exponents for producers that add up products, and for those that do not


@dataclass
class Sketch:
    """A graph in the making whose operands are seeded random parameters, so that every run sees the same numbers."""

    seed: int
    build: Builder = field(default_factory=Builder)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def random(self, name: str, shape: tuple[int, ...], dtype: str = "s8", quant: Quant | None = None) -> Value:
        """Uniform over the range of the type, its ends more often."""
        low, high = RANGE[dtype]
        data = np.clip(self.rng.integers(low - (high - low) // 16, high + (high - low) // 16, shape), low, high - 1)
        return self.build.param(name, TensorType(shape, dtype, quant), data)

    def constant(self, name: str, values: tuple[int, ...], dtype: str) -> Value:
        return self.build.param(name, TensorType((len(values),), dtype), np.array(values))

    def gradient(self, name: str, shape: tuple[int, ...], slot: int | None, scale: float = 1.0) -> Value:
        """A stored int8 gradient, in [-127, 127]."""
        data = np.clip(self.rng.integers(-140, 141, shape), -127, 127)
        return self.build.param(name, TensorType(shape, "s8", Quant((scale,), exponent=slot)), data)

    def weight(self, name: str, shape: tuple[int, ...], axis: int = 0) -> Value:
        data = np.clip(self.rng.integers(-140, 141, shape), -127, 127)
        scale = tuple(float(s) for s in self.rng.uniform(0.002, 0.02, shape[axis]))
        return self.build.param(name, TensorType(shape, "s8", Quant(scale, 0, axis)), data)


POINT = Window((1, 1))


@dataclass(frozen=True)
class Shape:
    """Input size, output channels and window of a layer."""

    height: int
    width: int
    inputs: int
    outputs: int
    window: Window = POINT
    groups: int = 1
    channels: tuple[int, ...] | None = None

    @property
    def x(self) -> tuple[int, ...]:
        return (1, self.height, self.width, self.inputs)

    @property
    def h(self) -> tuple[int, ...]:
        return (1, *self.window.output(self.height, self.width), self.outputs)

    @property
    def kept(self) -> int:
        return self.inputs // self.groups if self.channels is None else len(self.channels)


POINTWISE = (
    Shape(3, 4, 8, 6),
    Shape(2, 5, 7, 5),
    Shape(1, 1, 9, 1),
    Shape(2, 3, 13, 4, channels=(0, 3, 4, 9, 12)),
    Shape(5, 7, 5, 3, channels=(4,)),
)
SPATIAL = (
    Shape(5, 4, 3, 4, Window((3, 3), (1, 1), (1, 1, 1, 1))),
    Shape(6, 7, 4, 3, Window((3, 3), (2, 2), (0, 1, 1, 0))),
    Shape(7, 5, 5, 2, Window((2, 3), (2, 1), (1, 0, 0, 2)), channels=(1, 2)),
    Shape(4, 6, 6, 4, Window((3, 1), (1, 3), (2, 0, 2, 0)), groups=2),
    Shape(5, 5, 4, 4, Window((1, 1), (2, 2))),
    Shape(3, 3, 2, 2, Window((1, 1), (1, 1), (1, 1, 0, 1))),
    Shape(6, 7, 3, 4, Window((3, 2), (2, 1), (1, 3, 3, 0), (2, 3))),
    Shape(1, 13, 6, 4, Window((1, 3), (1, 1), (0, 4, 0, 0), (1, 2)), groups=2),
    Shape(1, 11, 5, 3, Window((1, 5), (1, 2), (0, 2, 0, 1)), channels=(0, 3)),
)
DEPTHWISE = (
    Shape(5, 6, 5, 5, Window((3, 3), (1, 1), (1, 1, 1, 1))),
    Shape(7, 6, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
    Shape(8, 8, 4, 4, Window((5, 5), (2, 2), (1, 1, 2, 2))),
    Shape(3, 4, 7, 7, Window((7, 7), (1, 1), (3, 3, 3, 3))),
    Shape(4, 9, 3, 3, Window((2, 3), (3, 2), (0, 2, 1, 1))),
    Shape(4, 4, 12, 12, Window((3, 3))),
    Shape(7, 6, 5, 5, Window((3, 2), (2, 1), (2, 3, 1, 0), (2, 3))),
    Shape(1, 14, 8, 8, Window((1, 5), (1, 1), (0, 2, 0, 2))),
    Shape(8, 8, 8, 8, Window((3, 3), (2, 2), (1, 1, 1, 1))),
)
POOLS = (
    Shape(4, 5, 6, 6, Window((4, 5))),
    Shape(6, 5, 3, 3, Window((2, 2), (2, 2))),
    Shape(5, 5, 2, 2, Window((3, 3), (1, 1))),
)


def convolution(s: Sketch, shape: Shape) -> tuple[Op, tuple[Value, ...]]:
    """Producer and operands of a convolution's input gradient at exponent slot 0."""
    kernel = shape.window.kernel
    values = [s.gradient("h", shape.h, 0), s.weight("weight", (shape.outputs, *kernel, shape.kept))]
    if shape.channels is not None:
        values.append(s.weight("rest", (shape.outputs, *kernel, len(others(shape.channels, shape.inputs)))))
    return Conv2dInputGrad(shape.window, shape.groups, shape.channels, shape.x), tuple(values)


def depthwise(s: Sketch, shape: Shape) -> tuple[Op, tuple[Value, ...]]:
    values = s.gradient("h", shape.h, 0), s.weight("weight", (1, *shape.window.kernel, shape.inputs), 3)
    return DepthwiseInputGrad(shape.window, shape.x), values


def average(s: Sketch, shape: Shape, wide: bool = False) -> tuple[Op, tuple[Value, ...]]:
    g = s.random("g", shape.h, "s32", Quant((1.0,))) if wide else s.gradient("g", shape.h, 0)
    return AvgPoolGrad(shape.window, shape.x), (g,)


def maximum(s: Sketch, shape: Shape) -> tuple[Op, tuple[Value, ...]]:
    x = s.build.param("x", TensorType(shape.x, "s8", Quant((0.1,))), s.rng.integers(-3, 4, shape.x))
    return MaxPoolGrad(shape.window), (s.gradient("g", shape.h, 0), x)


def load(s: Sketch, shape: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return GradLoad(), (s.gradient("g", shape, 0),)


def placed(s: Sketch, corner: tuple[int, int, int], shape: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return GradPlace(corner, shape), (s.gradient("g", (1, 4, 5, 6), 0),)


def upsampled(s: Sketch, factor: tuple[int, int]) -> tuple[Op, tuple[Value, ...]]:
    return UpsampleGrad(factor), (s.gradient("g", (1, 6, 4, 5), 0),)


def looked_up(s: Sketch, function: Function, shape: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return LutGrad(function, Quant((0.03,), -5)), (s.gradient("g", shape, 0), s.random("x", shape, "s8", Quant((0.04,), 9)))


def shared_out(s: Sketch, shape: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return SoftmaxGrad(), (s.gradient("g", shape, 0), s.random("y", shape, "s8", PROBABILITY))


def negated(s: Sketch, shape: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return GradNegate(), (s.gradient("g", shape, 0),)


def gated(s: Sketch, shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[Op, tuple[Value, ...]]:
    return MulGrad(shape), (s.gradient("g", (1, 4, 3, 6), 0), s.random("x", other, "s8", Quant((0.04,), -100)))


FACTORS = (
    ((1, 4, 3, 6), (1, 4, 3, 6)),
    ((1, 4, 3, 6), (1, 1, 1, 6)),
    ((1, 1, 1, 6), (1, 4, 3, 6)),
    ((1, 4, 3, 1), (1, 4, 3, 6)),
    ((1, 4, 3, 6), (1, 4, 3, 1)),
    ((1, 1, 3, 1), (1, 4, 3, 6)),
)


PLACES = (((0, 0, 2), (1, 4, 5, 3)), ((-1, -2, 0), (1, 6, 8, 6)), ((1, -1, -3), (1, 2, 7, 16)))


def chain(s: Sketch, producer: tuple[Op, tuple[Value, ...]], stages: str, exponents: tuple[int, ...]) -> Graph:
    """A chain of `producer` with stages in words of letters: a(dd), m(ask by int8), b(it mask), p(lain), c(hannels), t(ensor),
    f(orward pass's multipliers serve those of the channels).

    Exponent slots: 0 the producer's, 1 of added gradients, 2 of plain outputs, 3 of multiplied ones."""
    op, values = producer
    (acc,) = op.infer(*(v.type for v in values))
    slots = s.constant("exponents", exponents, "s8")
    operands: list[Value] = []
    out: list[Stage] = []
    scale = acc.quant.scale[0] if acc.quant else 1.0
    for word in stages.split():
        if "a" in word:
            operands.append(s.gradient(f"add{len(out)}", acc.shape, 1, scale))
        if "m" in word or "b" in word:
            operands.append(s.random(f"mask{len(out)}", acc.shape, "u1" if "b" in word else "s8"))
        factors = s.rng.uniform(0.4, 1.1, acc.shape[-1] if "c" in word else 1)
        store = "p" in word or "c" in word or "t" in word
        factor = (1.0,) if "p" in word else tuple(float(f) for f in factors.astype(np.float32))
        forward = tuple(float(s.rng.uniform(0.3, 3)) * f for f in factor) if "f" in word else ()
        quantize = GradQuantize(factor, 2 if "p" in word else 3, forward) if store else None
        out.append(Stage("a" in word, "m" in word or "b" in word, quantize))
    outputs = s.build.add(Chain(op, len(values), tuple(out)), *values, slots, *operands, name="g")
    return s.build.graph(outputs)


def chains() -> Iterator[Graph]:
    """Each producer under several chains, each kind of stage under each producer at least once."""
    words = ("c", "mcf", "ap mc", "a bp mcf", "bt", "amp abc", "t", "a mt p")
    producers = [(convolution, shape, LARGE) for shape in (*POINTWISE, *SPATIAL)]
    producers += [(depthwise, shape, LARGE) for shape in DEPTHWISE]
    producers += [(make, shape, SMALL) for make in (average, maximum) for shape in POOLS]
    for i, (make, shape, exponents) in enumerate(producers):
        s = Sketch(i)
        yield chain(s, make(s, shape), words[i % len(words)], exponents)
    s = Sketch(100)
    yield chain(s, average(s, POOLS[0], wide=True), "bp mc", LARGE)
    for i, loaded in enumerate(((1, 3, 3, 5), (17,))):
        s = Sketch(200 + i)
        yield chain(s, load(s, loaded), "amp bc", (0, -3, 1, 1))
    for i, (corner, region) in enumerate(PLACES):
        s = Sketch(400 + i)
        yield chain(s, placed(s, corner, region), ("mc", "t", "ap mc")[i], SMALL)
    for i, factor in enumerate(((2, 2), (3, 1), (1, 4))):
        s = Sketch(500 + i)
        yield chain(s, upsampled(s, factor), ("bc", "mc", "amp abc")[i], SMALL)
    for i, (function, form) in enumerate(((Sigmoid(), (1, 3, 2, 7)), (Elu(0.7), (1, 13)))):
        s = Sketch(600 + i)
        yield chain(s, looked_up(s, function, form), ("ap mc", "t")[i], LARGE)
    for i, form in enumerate(((1, 3, 2, 7), (1, 13))):
        s = Sketch(700 + i)
        yield chain(s, negated(s, form), ("ap mc", "t")[i], SMALL)
    for i, form in enumerate(((1, 3, 2, 7), (1, 13), (1, 2, 2, 1))):
        s = Sketch(900 + i)
        yield chain(s, shared_out(s, form), ("mcf", "t", "ap mc")[i], LARGE)
    for i, (wanted, other) in enumerate(FACTORS):
        s = Sketch(800 + i)
        yield chain(s, gated(s, wanted, other), words[i], LARGE)
    for i, extremes in enumerate(((-60, 60, -128, -128), (60, -60, 127, 127), (127, 100, -128, -128), (0, 1, 31, 32))):
        s = Sketch(300 + i)
        yield chain(s, convolution(s, POINTWISE[1]), "ap mc", extremes)


def clamp_masks() -> Iterator[Graph]:
    """Rows of whole bytes, and rows that end inside one; the last has what is just inside and just outside at every bit."""
    for i, shape in enumerate(((1, 3, 4, 6), (1, 5, 3, 7), (1, 2, 1, 1))):
        s = Sketch(400 + i)
        x = s.build.input("x", TensorType(shape, "s8", Quant((0.1,))))
        yield s.build.graph(s.build.add(ClampMask(), x, name="mask"))
    s = Sketch(403)
    edges = np.array([(127, -128, 126, -127)[(i + i // 15) % 4] for i in range(60)]).reshape(1, 4, 3, 5)
    x = s.build.param("x", TensorType(edges.shape, "s8", Quant((0.1,))), edges)
    yield s.build.graph(s.build.add(ClampMask(), x, name="mask"))


def control(s: Sketch, halvings: int = 0) -> Value:
    return s.constant("control", (0x1234567 + s.seed, STEP, halvings, 32769), "s32")


def rates(s: Sketch, base: int, spread: int, n: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """n shifts near `base`: any, or (of every other seed) those of weight scales; then the forward pass's scales, too."""
    if s.seed % 2:
        return tuple(int(v) for v in s.rng.integers(base - spread, base + spread + 1, n)), ()
    scales = 2.0 ** s.rng.uniform(-spread / 2, spread / 2, n)
    return tuple(base + log2_shift(f**-2) for f in scales), tuple(0.003 * f for f in scales)


def accumulator(s: Sketch, hold: Hold | None, shape: tuple[int, ...], count: int) -> tuple[Value, ...]:
    """What is held for a parameter of that shape, as after `count` samples, and their number."""
    if hold is None:
        return ()
    most = count * hold.most + (1 << hold.fraction >> 1)
    held = s.build.param("held", TensorType(shape, hold.dtype), s.rng.integers(-most, max(most, 1), shape))
    return held, s.constant("count", (count,), "s32")


def bias_update(
    seed: int,
    shape: tuple[int, ...],
    base: int,
    halvings: int = 0,
    dtype: str = "s32",
    hold: Hold | None = None,
    count: int = 0,
) -> Graph:
    s = Sketch(seed)
    h = s.gradient("h", shape, 0)
    bases, forward = rates(s, base, 3, shape[-1])
    bias = s.random("bias", shape[-1:], dtype)
    rest = s.constant("e_s", (-30,), "s32"), s.constant("exponents", (9,), "s8"), control(s, halvings)
    held = accumulator(s, hold, shape[-1:], count)
    new = s.build.add(Update(BiasGrad(), 1, BiasStep(bases, 0, hold, forward)), h, bias, *rest, *held, name="new")
    return s.build.graph(new, tuple(zip((bias, *held[:1]), new, strict=True)))


def weight_update(
    seed: int,
    shape: Shape,
    bits: int,
    base: int,
    centred: bool,
    separate: bool = False,
    hold: Hold | None = None,
    count: int = 0,
) -> Graph:
    """The update of a convolution's weight, or of a depthwise one (`separate`), with `bits` of residual."""
    s = Sketch(seed)
    window, axis = shape.window, 3 if separate else 0
    quant = Quant((0.02,), -11)
    x, h = s.random("x", shape.x, "s8", quant), s.gradient("h", shape.h, 0)
    mu = (
        [s.constant("mu", tuple(int(v) for v in s.rng.integers(-120, 121, shape.kept * shape.groups)), "s16")]
        if centred
        else []
    )
    form = (1, *window.kernel, shape.inputs) if separate else (shape.outputs, *window.kernel, shape.kept)
    old = [s.weight("weight", form, axis)]
    old += [s.random("residual", form, f"s{bits}")] if bits else []
    rest = [s.constant("e_s", (-31,), "s32"), s.constant("exponents", (20,), "s8"), control(s, seed % 3)]
    bias = [s.random("bias", (shape.outputs,), "s16" if seed % 2 else "s32")] if centred else []
    grad = DepthwiseWeightGrad(window) if separate else Conv2dWeightGrad(window, shape.groups, shape.channels)
    bases, forward = rates(s, base, 4, form[axis])
    total = shape.inputs // shape.groups
    step = WeightStep(bases, 0, bits, 3 + seed, axis, shape.channels, total, centred, hold, forward=forward)
    held = accumulator(s, hold, form, count)
    operands = (x, h, *mu, *old, *rest, *mu, *bias, *held)
    new = s.build.add(Update(grad, 2 + len(mu), step), *operands, name="new")
    return s.build.graph(new, tuple(zip((*old, *bias, *held[:1]), new, strict=True)))


def updates() -> Iterator[Graph]:
    """Biases, and each gradient with each step: the usual shift, one beyond 31 and one to the left."""
    yield bias_update(1, (1, 3, 5, 7), -15)
    yield bias_update(2, (1, 1, 1, 1), -35, 2)
    yield bias_update(3, (1, 19, 17, 6), 12)
    yield bias_update(4, (1, 5, 3, 9), -15, dtype="s16")
    yield bias_update(5, (1, 3, 3, 4), -26, dtype="s16")
    kinds = [(bits, centred, base) for base in (2, 2, 24, 2, -25) for bits in (8, 4, 0) for centred in (False, True)]
    layers = [(shape, False) for shape in (*POINTWISE, *SPATIAL)] + [(shape, True) for shape in DEPTHWISE]
    for i, (shape, separate) in enumerate(layers):
        for j in range(3):
            bits, centred, base = kinds[(5 * i + 7 * j) % len(kinds)]
            yield weight_update(100 + 3 * i + j, shape, bits, base, centred, separate)
    yield from held_updates(layers)


def held_updates(layers: list[tuple[Shape, bool]]) -> Iterator[Graph]:
    """Steps of several samples: inside of a step and at its end, the usual shares and such that clamp."""
    for i, samples in enumerate((2, 5, 256)):
        for j, dtype in enumerate(BIAS_BITS):
            hold = Hold(samples, BIAS_BITS[dtype], dtype)
            for count in (0, samples - 1):
                yield bias_update(6 + 2 * i + j, (1, 3, 5, 7), -20 if samples == 5 else -15, 0, dtype, hold, count)
    kinds = [(bits, centred, base) for base in (2, -8, 24) for bits in (8, 4, 0) for centred in (False, True)]
    for i, (shape, separate) in enumerate(layers):
        bits, centred, base = kinds[5 * i % len(kinds)]
        samples = (2, 5, 256)[i % 3]
        hold = Hold(samples, WEIGHT_BITS - bits)
        yield weight_update(300 + i, shape, bits, base, centred, separate, hold, samples - 1)
        if i % 4 == 0:
            yield weight_update(300 + i, shape, bits, base, centred, separate, hold, samples - 2)
