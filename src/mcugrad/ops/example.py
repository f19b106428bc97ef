"""Small graphs of one node for the generic op tests, and inputs for them: odd shapes, edges, saturation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Builder, Graph, Op, Quant, TensorType, Value
from mcugrad.ops.spatial import Window

Array = NDArray[Any]

SPREAD = 60  # wanted standard deviation of an int8 output
PRODUCT = 5400  # standard deviation of a product of two int8 numbers


def activation(height: int, width: int, channels: int, zero: int = -3, scale: float = 0.05) -> TensorType:
    return TensorType((1, height, width, channels), "s8", Quant((scale,), zero))


def around(middle: float, n: int) -> tuple[float, ...]:
    """n unequal numbers about `middle`, for per-channel scales."""
    return tuple(middle * 1.25 ** (i % 7 - 3) for i in range(n))


def weights(*shape: int, axis: int | None = None) -> TensorType:
    """A weight; per-channel scales along `axis`."""
    return TensorType(shape, "s8", Quant((0.01,) if axis is None else around(0.01, shape[axis]), 0, axis))


def vector(n: int, dtype: str = "s32") -> TensorType:
    return TensorType((n,), dtype)


def filled(inputs: int, zero: int) -> Quant:
    """Quantization of the output of a layer of `activation` and `weights` whose sums have `inputs` terms."""
    return Quant((0.05 * 0.01 * PRODUCT * inputs**0.5 / SPREAD,), zero)


COARSE = Quant((0.0006,), 1)  # of an output that mostly saturates: its requantization multiplies by about 1


def single(op: Op, **inputs: TensorType) -> Graph:
    """A graph of one node; the names of the inputs choose their contents in `feeds`."""
    build = Builder()
    outputs = build.add(op, *(build.input(name, type_) for name, type_ in inputs.items()), name="out")
    return build.graph(outputs)


@dataclass(frozen=True)
class ConvCase:
    """Operands of a convolution."""

    x: TensorType
    weight: TensorType
    rest: TensorType | None
    window: Window
    groups: int
    channels: tuple[int, ...] | None
    y_zero: int

    @property
    def terms(self) -> int:
        return self.window.kernel[0] * self.window.kernel[1] * self.x.shape[3] // self.groups


def conv_cases() -> Iterator[ConvCase]:
    """1x1, square and oblong kernels, stride 2 with asymmetric padding, padding wider than the map, groups, segments,
    dilation, one row."""
    square, odd = Window((3, 3), (2, 2), (0, 0, 1, 1)), Window((2, 5), (1, 2), (1, 2, 0, 3))
    wide = Window((3, 3), (1, 1), (2, 2, 2, 2))
    yield _conv_case(3, 3, 5, 7, Window((1, 1)), zeros=(-128, 127))
    yield _conv_case(1, 1, 33, 10, Window((1, 1)), zeros=(127, -128), axis=0)
    yield _conv_case(4, 3, 8, 6, Window((1, 1), (2, 2)), axis=0)
    yield _conv_case(6, 5, 3, 5, square, zeros=(-128, -128), axis=0)
    yield _conv_case(7, 6, 4, 4, Window((3, 3), (1, 1), (1, 1, 1, 1)))
    yield _conv_case(5, 8, 5, 3, odd, zeros=(127, 0))
    yield _conv_case(2, 1, 3, 2, wide)
    yield _conv_case(5, 4, 6, 4, square, groups=2, axis=0)
    yield _conv_case(4, 4, 6, 9, Window((1, 1)), groups=3)
    yield _conv_case(3, 5, 11, 5, Window((1, 1)), channels=(1, 2, 7), axis=0)
    yield _conv_case(4, 3, 16, 4, Window((1, 1)), channels=(0, 3, 4, 5, 9, 10, 11, 15))
    yield _conv_case(5, 5, 7, 6, square, channels=(6, 0, 3, 2, 5), axis=0, zeros=(-128, 3))
    yield _conv_case(7, 6, 4, 3, Window((3, 2), (2, 1), (1, 2, 2, 1), (2, 3)), axis=0)
    yield _conv_case(6, 7, 6, 4, Window((2, 3), (1, 1), (0, 1, 2, 4), (2, 2)), groups=2, zeros=(-128, 5))
    yield _conv_case(1, 14, 5, 4, Window((1, 3), (1, 1), (0, 8, 0, 0), (1, 4)), channels=(0, 2), axis=0)
    yield _conv_case(1, 23, 3, 6, Window((1, 7), (1, 3), (0, 3, 0, 2)), axis=0)
    yield _conv_case(3, 5, 16, 4, Window((1, 1)), axis=0)  # these slide into their input
    yield _conv_case(3, 5, 392, 5, Window((1, 1)), axis=0)  # a strip of these is smaller
    yield _conv_case(4, 3, 43, 3, Window((3, 3), (1, 1), (1, 1, 1, 1)), axis=0)
    yield _conv_case(2, 5, 390, 5, Window((1, 1)), channels=tuple(range(1, 390, 3)), axis=0)


def _conv_case(
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    window: Window,
    groups: int = 1,
    channels: tuple[int, ...] | None = None,
    axis: int | None = None,
    zeros: tuple[int, int] = (5, -7),
) -> ConvCase:
    live = inputs // groups if channels is None else len(channels)
    weight = weights(outputs, *window.kernel, live, axis=axis)
    rest = None if channels is None else weights(outputs, *window.kernel, inputs - live, axis=axis)
    return ConvCase(activation(height, width, inputs, zeros[0]), weight, rest, window, groups, channels, zeros[1])


def depthwise_cases() -> Iterator[tuple[TensorType, Window, TensorType, int]]:
    """(x, window, weight, zero point of y)."""
    for height, width, channels, window, zeros, axis in (
        (6, 7, 5, Window((3, 3), (1, 1), (1, 1, 1, 1)), (-128, 127), 3),
        (7, 6, 8, Window((3, 3), (2, 2), (0, 0, 1, 1)), (127, -128), None),
        (6, 9, 4, Window((5, 5), (2, 2), (1, 2, 2, 2)), (3, 4), 3),
        (8, 8, 9, Window((7, 7), (1, 1), (3, 3, 3, 3)), (-5, 0), 3),
        (3, 2, 6, Window((5, 5), (1, 1), (2, 2, 2, 2)), (-128, -128), 3),
        (4, 9, 7, Window((2, 4), (1, 3), (0, 1, 1, 2)), (0, 0), None),
        (5, 4, 2, Window((3, 3), (1, 1), (1, 1, 1, 1)), (9, -9), 3),
        (3, 3, 1, Window((1, 1)), (9, -9), None),
        (6, 5, 5, Window((3, 3), (1, 1), (1, 1, 1, 1)), (9, -9), 3),
        (3, 5, 6, Window((1, 1)), (9, -9), None),
        (9, 11, 4, Window((7, 7), (2, 2), (3, 2, 3, 3)), (-8, 3), 3),
        (5, 9, 5, Window((3, 9), (1, 1), (1, 4, 1, 4)), (0, 1), 3),
        (4, 10, 4, Window((3, 3), (1, 3), (1, 1, 1, 1)), (0, 1), None),
        (2, 1, 4, Window((3, 3), (1, 1), (2, 2, 2, 2)), (6, 7), None),
        (9, 8, 5, Window((3, 3), (2, 1), (3, 2, 1, 2), (3, 2)), (-128, 3), 3),
        (1, 19, 6, Window((1, 9), (1, 2), (0, 4, 0, 4)), (6, 7), 3),
        (1, 12, 4, Window((1, 2), (1, 1), (0, 4, 0, 0), (1, 4)), (6, 7), 3),
        (6, 7, 12, Window((3, 3), (1, 1), (1, 1, 1, 1)), (-128, 127), 3),  # these may run in place
        (7, 5, 4, Window((5, 5), (1, 1), (4, 0, 0, 4)), (127, -1), 3),
        (3, 4, 8, Window((7, 7), (1, 1), (3, 3, 3, 3)), (-5, 0), None),
        (9, 10, 4, Window((2, 4), (1, 1), (0, 2, 1, 1)), (7, 8), 3),
        (2, 3, 8, Window((1, 1)), (9, -9), 3),
        (7, 6, 8, Window((3, 3), (1, 1), (1, 1, 1, 1)), (9, -9), 3),
    ):
        yield activation(height, width, channels, zeros[0]), window, weights(1, *window.kernel, channels, axis=axis), zeros[1]


def pool_cases() -> Iterator[tuple[TensorType, Window]]:
    yield activation(7, 5, 3, zero=-128), Window((7, 5))
    yield activation(6, 6, 5, zero=127), Window((2, 2), (2, 2))
    yield activation(7, 6, 4), Window((3, 3), (2, 2))
    yield activation(1, 4, 9), Window((1, 3), (1, 1))
    yield activation(6, 7, 5), Window((3, 3), (2, 2), (1, 1, 0, 1))
    yield activation(3, 4, 6, zero=-128), Window((3, 2), (1, 1), (2, 1, 2, 0))


_RANGES = {"weight": (-127, 127), "rest": (-127, 127), "bias": (-(1 << 30), 1 << 30), "sum": (-(1 << 29), 1 << 29)}
_FULL = {"u1": (0, 1), "s4": (-8, 7), "s8": (-128, 127), "s16": (-32768, 32767), "s32": (-(1 << 31), (1 << 31) - 1)}


def feeds(graph: Graph, rng: np.random.Generator) -> dict[str, Array]:
    """Contents for the inputs by name: the range of the name or of the dtype, its edges over-represented."""
    return {value.name: _feed(value, rng) for value in graph.inputs}


def _feed(value: Value, rng: np.random.Generator) -> Array:
    type_ = value.type
    low, high = _RANGES.get(value.name, _FULL[type_.dtype])
    reach = 10.0 ** rng.uniform(3, 9.5) if type_.dtype == "s32" else np.inf  # sums of all magnitudes
    inner = rng.integers(int(max(low, -reach)), int(min(high, reach)) + 1, type_.shape)
    edges = rng.choice([low, low + 1, min(max(0, low), high), high - 1, high], type_.shape)
    return np.where(rng.random(type_.shape) < rng.choice([0.0, 0.2]), edges, inner)
