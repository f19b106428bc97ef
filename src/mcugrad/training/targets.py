"""From what the user knows of a sample to the integers that the loss reads, and from logits back to the user's units."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.ir import Array, Graph
from mcugrad.loss import Loss
from mcugrad.ops.losses import MeanSquaredError
from mcugrad.training.losses import ending

FLAT = 1e-12  # a smaller spread of an output's targets counts as none


@dataclass(frozen=True, eq=False)
class Targets:
    """How the targets of one graph are written.

    step: real value of one logit.  fraction: bits of a number behind the logit's point.  mean, spread: float64 [K], what a
    new head's numbers are brought to zero mean and unit variance with; 0 and 1 for everything else.  power: mean square, in
    real units, of what an output is to become, which a learning rate is to be divided by; 1 where it is normalised."""

    loss: Loss
    outputs: int
    step: float
    fraction: int
    mean: Array
    spread: Array
    power: float = 1.0

    @staticmethod
    def of(graph: Graph, loss: Loss, y: Array | None = None) -> Targets:
        """For a graph that ends in logits; y: float [N,K] numbers that calibration samples are to become."""
        end, outputs = ending(loss, graph), graph.outputs[0].type.elements
        op = end.op
        step = op.scale if isinstance(op, MeanSquaredError) else op.feature_scale * 2.0**-12
        fraction = op.fraction if isinstance(op, MeanSquaredError) else 0
        mean, spread = np.zeros(outputs), np.ones(outputs)
        power = 1.0
        if isinstance(op, MeanSquaredError) and y is not None and y.shape[1:] == (outputs,):
            deviation = y.std(axis=0)
            if op.head:
                mean, spread = y.mean(axis=0), np.where(deviation > FLAT, deviation, 1.0)
            elif (deviation > FLAT).any():
                power = float((deviation**2).mean())
        return Targets(loss, outputs, step, fraction, mean, spread, power)

    def encode(self, y: Array | None, n: int) -> Array:
        """int32 [N] labels, or [N,K].  Raises McugradError when there are not K numbers for each sample."""
        if self.loss is Loss.AUTOENCODER or y is None:
            return np.zeros(n, np.int32)
        if self.loss is Loss.SOFTMAX:
            return y.astype(np.int32)
        if y.shape != (n, self.outputs):
            raise McugradError(f"the model has {self.outputs} outputs, the targets are {list(y.shape)} for {n} samples")
        if self.loss is Loss.SIGMOID:
            return y.astype(np.int32)
        units = (y - self.mean) / self.spread / self.step * 2.0**self.fraction
        limits = np.iinfo(np.int32)
        return np.clip(np.rint(units), limits.min, limits.max).astype(np.int32)

    def decode(self, logits: Array) -> Array:
        """float64 [N,K] in the user's units: numbers, or logits for a sigmoid."""
        return np.asarray(logits * self.step * self.spread + self.mean)

    @property
    def chance(self) -> float | None:
        """The loss of a guess; None: that among the classes, 0: unknown, as where the loss begins."""
        return {Loss.SOFTMAX: None, Loss.SIGMOID: math.log(2)}.get(self.loss, 0.0)

    def loss_of(self, graph: Graph) -> Callable[[int], float]:
        """The loss that the score of a step stands for; a new head's squared error is that of its normalised numbers."""
        return ending(self.loss, graph).loss_of

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: y = (logit * step) * spread + mean."""
        return {
            "loss": self.loss.value,
            "step": self.step,
            "fraction": self.fraction,
            "mean": self.mean.tolist(),
            "spread": self.spread.tolist(),
        }
