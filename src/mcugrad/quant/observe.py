"""Ranges of the activations of a float graph over calibration samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.ir import Array, Graph, Value, interpret
from mcugrad.preprocess import Preprocess


@dataclass(frozen=True)
class Range:
    """Real values [low, high] that an activation takes."""

    low: float
    high: float


BINS = 4096
TAIL = 1e-4  # share of elements that a percentile range leaves out at each end
TRIES = 20  # fractions of each end that the search for the smallest error tries
LEVELS = 255  # steps of an int8 activation

Ranges = Mapping[str, Range]  # by value name


class Observer(Protocol):
    """Sees the arrays of one value, sample by sample, and settles on a range."""

    def update(self, array: Array) -> None:
        """One more sample's float64 array, NHWC."""

    def range(self) -> Range:
        """The range to represent."""


class MinMax:
    """The smallest and the largest element ever seen."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf

    def update(self, array: Array) -> None:
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))

    def range(self) -> Range:
        return Range(self.low, self.high)


class Histogram:
    """Counts of all elements seen, in bins around zero whose width doubles when an element lies outside."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.reach = 0.0  # bins cover [-reach, reach]

    def update(self, array: Array) -> None:
        largest = float(np.abs(array).max())
        if self.reach == 0.0:
            self.reach = largest
        while largest > self.reach > 0:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(merged, BINS // 4)
            self.reach *= 2
        places = (np.asarray(array).reshape(-1) / self.reach + 1) * (BINS / 2) if self.reach else np.full(array.size, BINS / 2)
        self.counts += np.bincount(np.minimum(places.astype(np.int64), BINS - 1), minlength=BINS)

    @property
    def centres(self) -> Array:
        """Middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach


class Percentile:
    """Leaves out the rarest elements: TAIL of them at each end."""

    def __init__(self) -> None:
        self.histogram, self.ends = Histogram(), MinMax()

    def update(self, array: Array) -> None:
        self.histogram.update(array)
        self.ends.update(array)

    def range(self) -> Range:
        share = self.histogram.counts.cumsum() / self.histogram.counts.sum()
        width = 2 * self.histogram.reach / BINS
        low = float(self.histogram.centres[np.searchsorted(share, TAIL, side="right")]) - width / 2
        high = float(self.histogram.centres[np.searchsorted(share, 1 - TAIL)]) + width / 2
        return Range(max(low, self.ends.low), min(high, self.ends.high))


class MeanSquares(Percentile):
    """The range whose int8 quantization has the smallest mean squared error, clipping included, over a grid of ranges."""

    def range(self) -> Range:
        low, high = min(self.ends.low, 0.0), max(self.ends.high, 0.0)
        fractions = np.linspace(0.3, 1.0, TRIES)
        pairs = [(low * a, high * b) for a in (fractions if low < 0 else (1.0,)) for b in (fractions if high > 0 else (1.0,))]
        low, high = min(pairs, key=self._error)
        return Range(low, high)

    def _error(self, ends: tuple[float, float]) -> float:
        seen = self.histogram.counts > 0
        x, weight = self.histogram.centres[seen], self.histogram.counts[seen]
        scale = (ends[1] - ends[0]) / LEVELS or 1.0
        zero = round(-128 - ends[0] / scale)
        q = np.clip(np.rint(x / scale) + zero, -128, 127)
        return float((weight * ((q - zero) * scale - x) ** 2).sum())


QUANTIZERS: Mapping[str, Callable[[], Observer]] = {"minmax": MinMax, "percentile": Percentile, "mse": MeanSquares}
"""Ways to choose the range of an activation, by the names that people know."""


def observe(graph: Graph, samples: Iterable[Array], observer: Callable[[], Observer] = MinMax) -> dict[str, Range]:
    """Range of the input and of every node's output of a float graph.

    samples: float arrays [H,W,C] (or [C] for a vector input), as `Preprocess.apply` gives them.  Raises McugradError for
    an empty set, a sample of another shape, and for values that are not finite, naming the node.
    """
    observers: dict[str, Observer] = {}
    for number, sample in enumerate(samples):
        result = interpret(graph, {graph.inputs[0].name: feed(graph, sample, number)}, "real")
        for value in (*graph.inputs, *(v for n in graph.nodes for v in n.outputs)):
            array = result[value]
            if not np.isfinite(array).all():
                raise McugradError(f"calibration sample {number}: {_place(value)} is not finite; check data and weights")
            observers.setdefault(value.name, observer()).update(array)
    if not observers:
        raise McugradError("calibration needs at least one sample, got none: give --calibrate an .npz or folder with data")
    return {name: o.range() for name, o in observers.items()}


def feed(graph: Graph, sample: Array, number: int) -> Array:
    """float64 [1,H,W,C] of one sample for the graph's input; raises McugradError when its shape does not fit."""
    shape = graph.inputs[0].type.shape
    x = np.asarray(sample, np.float64)
    if x.shape != shape[1:] and not (x.ndim == 1 and shape[:3] == (1, 1, 1) and x.size == shape[3]):
        raise McugradError(
            f"calibration sample {number} has shape {list(x.shape)}, the model reads {list(shape[1:])}: resize the data"
        )
    return x.reshape(shape)


def image_range(preprocess: Preprocess) -> Range:
    """What uint8 pixels become under a float preprocessing, the extremes over its channels."""
    mean, std = np.array(preprocess.mean), np.array(preprocess.std)
    ends = [(pixel * preprocess.scale - mean) / std for pixel in (0, 255)]
    return Range(float(np.min(ends)), float(np.max(ends)))


def _place(value: Value) -> str:
    return f"{value.name} ({value.origin})" if value.origin else value.name
