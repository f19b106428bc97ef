"""Where quantization hurts: signal to quantization noise of every value, so that a bad layer is found in a minute."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcugrad.ir import Array, Graph, Value, interpret
from mcugrad.ops.conv2d import need_quant
from mcugrad.preprocess import quantize
from mcugrad.quant.assign import absorbed_clamps
from mcugrad.quant.observe import feed


@dataclass(frozen=True)
class LayerNoise:
    """Mean squares of the float value and of its errors, all in the value's own units.

    noise: errors of earlier layers included.  own: of this layer alone, its inputs exact but for their rounding."""

    name: str
    origin: str
    signal: float
    noise: float
    own: float

    @property
    def sqnr_db(self) -> float:
        """10 log10(signal / noise); infinite without noise."""
        return decibel(self.signal, self.noise)

    @property
    def own_db(self) -> float:
        """The same for the layer's own noise."""
        return decibel(self.signal, self.own)


def decibel(signal: float, noise: float) -> float:
    """10 log10(signal / noise); infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def layer_noise(graph: Graph, quantized: Graph, samples: Iterable[Array]) -> tuple[LayerNoise, ...]:
    """One row per value of `quantized = assign(graph, ...)`, in order, the input first.

    samples: float arrays [H,W,C] as `Preprocess.apply` gives them.
    """
    pairs = _twins(graph, quantized)
    totals = np.zeros((len(pairs), 4))
    alone = _Alone(quantized, dict(pairs))
    (quant,) = need_quant(quantized.inputs[0].type)
    for number, sample in enumerate(samples):
        x = feed(graph, sample, number)
        exact = interpret(graph, {graph.inputs[0].name: x}, "real")
        rounded = interpret(quantized, {quantized.inputs[0].name: quantize(x, quant.scale[0], quant.zero)})
        for row, (value, twin) in enumerate(pairs):
            want = exact[twin]
            both = dequantize(rounded[value], value), dequantize(alone.value(value, exact), value)
            totals[row] += [(want**2).sum(), *(((want - got) ** 2).sum() for got in both), want.size]
    return tuple(
        LayerNoise(v.name, v.origin, *(float(s) / max(n, 1) for s in squares))
        for (v, _), (*squares, n) in zip(pairs, totals.tolist(), strict=True)
    )


class _Alone:
    """Each value as its node computes it from inputs that are exact but for their own rounding."""

    def __init__(self, quantized: Graph, twins: Mapping[Value, Value]) -> None:
        self.nodes, self.twins = quantized.producers(), twins
        self.data = {p.value: p.data for p in quantized.params}

    def value(self, value: Value, exact: Any) -> Array:
        """Its contents; exact: what the float graph computed."""
        node = self.nodes.get(value)
        if node is None:
            return self._rounded(value, exact)
        arrays = [self.data[v] if v in self.data else self._rounded(v, exact) for v in node.inputs]
        return node.op.eval(node, *arrays)[node.outputs.index(value)]

    def _rounded(self, value: Value, exact: Any) -> Array:
        (quant,) = need_quant(value.type)
        return quantize(exact[self.twins[value]], quant.scale[0], quant.zero)


def dequantize(q: Array, value: Value) -> Array:
    """Real numbers float64 of a per-tensor quantized value's contents."""
    (quant,) = need_quant(value.type)
    return quant.scale[0] * (q.astype(np.float64) - quant.zero)


def _twins(graph: Graph, quantized: Graph) -> list[tuple[Value, Value]]:
    """Each quantized value with the float value it stands for: after the clamp, where the clamp was absorbed."""
    twins = {v.name: v for v in graph.inputs}
    clamps = absorbed_clamps(graph)
    for node in graph.nodes:
        clamp = clamps.get(node)
        twins[node.outputs[0].name] = clamp.outputs[0] if clamp else node.outputs[0]
    values = (*quantized.inputs, *(v for n in quantized.nodes for v in n.outputs))
    return [(v, twins[v.name]) for v in values]
