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
