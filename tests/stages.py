"""Stages and ends of random networks: every kind of fan-out, and every op in a network."""

from __future__ import annotations

from collections.abc import Callable

from mcugrad.ir import Value
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.functions import Elu, Gelu, HardSwish, LeakyRelu, Sigmoid, Silu, Tanh
from mcugrad.ops.lut import Lut
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool, global_average
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.softmax import PROBABILITY, Softmax
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample
from sketch import Sketch


def plain(s: Sketch, x: Value) -> Value:
    return s.conv(x, s.pick(3, 4, 5, 7), s.pick(1, 2, 3), s.pick(1, 1, 2), relu=s.pick(True, False))


def strided(s: Sketch, x: Value) -> Value:
    return s.conv(x, s.pick(3, 5), 3, 2, relu=True)


def grouped(s: Sketch, x: Value) -> Value:
    x = s.conv(x, 6, relu=False)
    groups = s.pick(2, 3, 6)
    return s.conv(x, groups * s.pick(1, 2), 3, s.pick(1, 2), groups)


def depthwise(s: Sketch, x: Value) -> Value:
    return s.depthwise(x, s.pick((3, 3), (3, 2), (5, 5)), s.pick(1, 2), s.pick(True, False))


def residual(s: Sketch, x: Value) -> Value:
    """An inverted bottleneck with its identity skip."""
    y = s.depthwise(s.conv(x, s.pick(5, 6, 9)), s.pick((3, 3), (5, 5)))
    if y.type.shape[1:3] != x.type.shape[1:3]:
        y = s.conv(x, 5)
    return s.add(s.conv(y, x.type.shape[3], relu=False), x)


def branch(s: Sketch, x: Value) -> Value:
    """An addition of two convolutions of one value."""
    outputs = s.pick(3, 5)
    return s.add(s.conv(x, outputs, 1), s.conv(x, outputs, 1, relu=False))


def double(s: Sketch, x: Value) -> Value:
    """A value added to itself."""
    y = s.conv(x, s.pick(3, 4))
    return s.add(y, y)


def triple(s: Sketch, x: Value) -> Value:
    """A value with three readers."""
    y = s.conv(x, s.pick(3, 5))
    a, b = s.conv(y, y.type.shape[3], relu=False), s.conv(y, y.type.shape[3])
    return s.add(s.add(a, b, "inner"), y)


def detour(s: Sketch, x: Value) -> Value:
    """The gradient of a clamp's input waits for the gradient of a convolution that hangs on the same addition."""
    y = s.conv(x, s.pick(3, 4), relu=False)
    c = s.clamp(y)
    return s.add(c, s.conv(y, y.type.shape[3], relu=False))


def clamped(s: Sketch, x: Value) -> Value:
    return s.clamp(s.conv(x, s.pick(3, 5), relu=False))


def max_pool(s: Sketch, x: Value) -> Value:
    y = s.conv(x, s.pick(3, 4))
    small = min(y.type.shape[1:3]) < 2
    window = Window((3, 3), (1, 1), (1, 1, 1, 1)) if small or s.pick(True, False) else Window((2, 2), (2, 2))
    return s.place(MaxPool(window), y, name=f"max_pool{s.count}")


def avg_pool(s: Sketch, x: Value) -> Value:
    y = s.conv(x, s.pick(3, 4))
    kernel = tuple(min(2, n) for n in y.type.shape[1:3])
    return s.place(AvgPool(Window((kernel[0], kernel[1]), s.pick((1, 1), (2, 2), (1, 2)))), y, name=f"avg_pool{s.count}")


def dilated(s: Sketch, x: Value) -> Value:
    dilation = s.pick((2, 1), (1, 2), (2, 2))
    top, left = dilation
    outputs = s.pick(3, 4)
    if s.pick(True, False):
        x = s.conv(x, outputs)
        window = Window((3, 3), (1, 1), (top, left, top, left), dilation)
        return s.layer(lambda out: DepthwiseConv2d(window, out), x, (1, 3, 3, outputs), 3, True)
    window = Window((3, 2), s.pick((1, 1), (2, 1)), (top, 0, top, left), dilation)
    return s.layer(lambda out: Conv2d(window, out), x, (outputs, 3, 2, x.type.shape[3]), 0, False)


def concatenated(s: Sketch, x: Value) -> Value:
    """Branches at different scales, as in SqueezeNet, and the input itself, as in DenseNet."""
    a, b = s.conv(x, s.pick(2, 3), 1), s.conv(x, s.pick(2, 5), 3)
    parts = (a, b) if a.type.shape[1:3] != x.type.shape[1:3] or s.pick(True, False) else (a, b, x)
    if b.type.shape[1:3] != a.type.shape[1:3]:
        parts = (a, s.conv(x, 2))
    return s.concat(3, *parts, tight=s.pick(True, False))


def stacked(s: Sketch, x: Value) -> Value:
    """Rows or columns of two layers after each other."""
    outputs = s.pick(3, 4)
    a, b = s.conv(x, outputs), s.conv(x, outputs, relu=False)
    return s.conv(s.concat(s.pick(1, 2), a, b, tight=False), 3, 2, 2)


def padded(s: Sketch, x: Value) -> Value:
    """Padding of a map and of channels, then a part of it."""
    y = s.place(Pad((1, 0, 1), (0, 2, 1), s.pick(0.0, 0.3)), s.conv(x, 3), name=f"pad{s.count}")
    height, width, channels = y.type.shape[1:]
    return s.place(Slice((0, 1, 0), (height - 1, width - 1, channels - 1)), y, name=f"slice{s.count}")


def sliced(s: Sketch, x: Value) -> Value:
    """Two halves of the channels take different ways, as in ShuffleNet."""
    y = s.conv(x, 6, relu=False)
    height, width = y.type.shape[1:3]
    left = s.place(Slice((0, 0, 0), (height, width, 2)), y, name=f"left{s.count}")
    right = s.place(Slice((0, 0, 2), (height, width, 4)), y, name=f"right{s.count}")
    return s.concat(3, left, s.conv(right, 3), tight=False)


def transposed(s: Sketch, x: Value) -> Value:
    y = s.conv(x, 4)
    return s.conv(s.place(Transpose(s.pick((0, 2, 1, 3), (0, 3, 1, 2))), y, name=f"transpose{s.count}"), 3)


def upsampled(s: Sketch, x: Value) -> Value:
    """Down and up again, with a skip over it where the sizes allow, as in a U-shaped network."""
    y = s.place(Upsample(s.pick((2, 2), (2, 1))), s.conv(x, 3, 3, 2), name=f"upsample{s.count}")
    z = s.conv(y, 3)
    return s.concat(3, z, x, tight=False) if z.type.shape[1:3] == x.type.shape[1:3] else z


def curved(s: Sketch, x: Value) -> Value:
    """A function by table; its gradient, and that of a skip, at one value."""
    y = s.conv(x, s.pick(3, 5), relu=False)
    function = s.pick(HardSwish(), LeakyRelu(0.1), Elu(), Gelu(), Silu(), Tanh(), Sigmoid())
    out = function.quant or s.fit([function.value(r) for r in s.reals(y)], relu=s.pick(True, False))
    z = s.place(Lut(function, out), y, name=f"lut{s.count}")
    return s.add(z, y) if s.pick(True, False) else z


def squeezed(s: Sketch, x: Value) -> Value:
    """Squeeze and excite."""
    y = s.conv(x, s.pick(4, 6))
    channels = y.type.shape[3]
    gate = s.place(global_average(y.type), y, name=f"squeeze{s.count}")
    gate = s.conv(s.conv(gate, 2), channels, relu=False)
    return s.mul(y, s.place(Lut(Sigmoid(), Sigmoid.quant), gate, name=f"gate{s.count}"))


def products(s: Sketch, x: Value) -> Value:
    """Products and differences of layers, and with constants."""
    y = s.conv(x, s.pick(3, 4), relu=False)
    other = s.conv(x, y.type.shape[3], relu=False)
    z = s.mul(y, s.pick(other, y, s.constant(y.type.shape), s.conv(y, 1)))
    return s.sub(z, s.pick(y, other, s.constant(z.type.shape)))


def attended(s: Sketch, x: Value) -> Value:
    """A layer weighted by a softmax over the channels of another."""
    y = s.conv(x, s.pick(3, 4, 5), relu=False)
    scores = s.conv(x, y.type.shape[3], relu=False)
    return s.mul(y, s.place(Softmax(PROBABILITY), scores, name=f"softmax{s.count}"))


STAGES: tuple[Callable[[Sketch, Value], Value], ...] = (
    plain,
    residual,
    strided,
    branch,
    depthwise,
    double,
    grouped,
    triple,
    max_pool,
    clamped,
    avg_pool,
    detour,
    dilated,
    concatenated,
    stacked,
    padded,
    sliced,
    transposed,
    upsampled,
    curved,
    squeezed,
    products,
)


def pooled(s: Sketch, x: Value) -> Value:
    return s.place(global_average(x.type), x, name="features")


def pooled_residual(s: Sketch, x: Value) -> Value:
    """A residual addition feeds the pool."""
    return pooled(s, residual(s, x))


def flattened(s: Sketch, x: Value) -> Value:
    y = s.conv(x, 3)
    return s.place(Reshape((1, 1, 1, y.type.elements)), y, name="features")


def direct(s: Sketch, x: Value) -> Value:
    """The head reads a convolution's map as it stands."""
    return s.conv(x, 3, relu=False)


TAILS: tuple[Callable[[Sketch, Value], Value], ...] = (pooled, pooled_residual, flattened, direct)
