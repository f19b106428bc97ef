"""Where quantization hurts: signal to quantization noise of every value, so that a bad layer is found in a minute."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mcugrad.ir import Array, Graph, Value, interpret
from mcugrad.ops.conv2d import need_quant
from mcugrad.preprocess import quantize
from mcugrad.quant.assign import absorbed_clamps
from mcugrad.quant.observe import feed


@dataclass(frozen=True)
class LayerNoise:
    """Mean squares of the float value and of its error, both in the value's own units; errors of earlier layers included."""

    name: str
    origin: str
    signal: float
    noise: float

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise); infinite without noise."""
        if self.noise == 0:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal > 0 else -math.inf


def layer_noise(graph: Graph, quantized: Graph, samples: Iterable[Array]) -> tuple[LayerNoise, ...]:
    """One row per value of `quantized = assign(graph, ...)`, in order, the input first.

    samples: float arrays [H,W,C] as `Preprocess.apply` gives them.
    """
    pairs = _twins(graph, quantized)
    totals = np.zeros((len(pairs), 3))
    (quant,) = need_quant(quantized.inputs[0].type)
    for number, sample in enumerate(samples):
        x = feed(graph, sample, number)
        exact = interpret(graph, {graph.inputs[0].name: x}, "real")
        rounded = interpret(quantized, {quantized.inputs[0].name: quantize(x, quant.scale[0], quant.zero)})
        totals += [_squares(exact[twin], dequantize(rounded[value], value)) for value, twin in pairs]
    return tuple(
        LayerNoise(v.name, v.origin, signal / max(n, 1), noise / max(n, 1))
        for (v, _), (signal, noise, n) in zip(pairs, totals.tolist(), strict=True)
    )


def dequantize(q: Array, value: Value) -> Array:
    """Real numbers float64 of a per-tensor quantized value's contents."""
    (quant,) = need_quant(value.type)
    return quant.scale[0] * (q.astype(np.float64) - quant.zero)


def _squares(exact: Array, rounded: Array) -> tuple[float, float, int]:
    return float((exact**2).sum()), float(((exact - rounded) ** 2).sum()), exact.size


def _twins(graph: Graph, quantized: Graph) -> list[tuple[Value, Value]]:
    """Each quantized value with the float value it stands for: after the clamp, where the clamp was absorbed."""
    twins = {v.name: v for v in graph.inputs}
    clamps = absorbed_clamps(graph)
    for node in graph.nodes:
        clamp = clamps.get(node)
        twins[node.outputs[0].name] = clamp.outputs[0] if clamp else node.outputs[0]
    values = (*quantized.inputs, *(v for n in quantized.nodes for v in n.outputs))
    return [(v, twins[v.name]) for v in values]
