"""Gains by contribution analysis: short trainings of one layer, or of the biases of the last layers, at a time.

After Lin et al. (arXiv 2206.15472, section 3.2), who measure accuracy after a full fine-tuning of each.  Here a run is
short, and what counts is the loss of each sample before it is learned from, over the second half of the run: held-out data
without a split, and paired, because all runs see the same samples in the same order.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mcugrad.compiler import host_program
from mcugrad.devices.host import Host
from mcugrad.ir import Array
from mcugrad.prepare import Prepared, training_graph
from mcugrad.search.space import RATIOS, Gains, Progress, channels_of, least_depth, weight_data
from mcugrad.trainer import Course, learn
from mcugrad.training.scheme import Update, UpdateScheme, layers

STEPS = 400  # of a run; each sample is seen once
RATE = 1.5e-3  # of all runs
BITS = 8


@dataclass(frozen=True)
class Trials:
    """Short trainings of one network: int8 inputs x [N,H,W,C] and labels y [N], or targets [N,K], in the order of learning."""

    prepared: Prepared
    x: Array
    y: Array
    seed: int

    @staticmethod
    def of(prepared: Prepared, raw: Array, y: Array, seed: int) -> Trials:
        """At most STEPS samples of the training set, shuffled by the seed."""
        order = np.random.default_rng(seed).permutation(len(raw))[:STEPS]
        return Trials(prepared, prepared.quantize(raw[order]), prepared.targets.encode(y[order], len(order)), seed)

    def loss(self, scheme: UpdateScheme) -> float:
        """Mean loss before learning over the second half of a run from the initial parameters."""
        targets = self.prepared.targets
        graph = training_graph(self.prepared, scheme, rate=RATE / targets.power, seed=self.seed)
        score = targets.loss_of(self.prepared.graph)
        course = Course(steps=len(self.x), schedule="constant", skip=2.0, seed=self.seed)
        with tempfile.TemporaryDirectory() as folder:
            _, library = host_program(graph, self.prepared.name, Path(folder))
            with Host.load(library) as device:
                losses = learn(device, self.x, self.y, course, score=score, chance=targets.chance).losses
        return float(np.mean(losses[len(losses) // 2 :]))


def contribution(trials: Trials, runs: int, deepest: int, progress: Progress) -> Gains:
    """Decrease of the loss by each part, from at most `runs` trainings.

    deepest: how many of the last layers may be updated at all.  A quarter of the runs measures biases at evenly spaced
    depths, with lines between them; the others measure one weight each, from the last layer back, on top of the biases
    behind it.  A share r of the input channels is taken to bring sqrt(r) of the gain.  What was not measured gains nothing.
    """
    names = tuple(layers(trials.prepared.graph))
    least = least_depth(trials.prepared)
    depths = sorted({int(d) for d in np.linspace(least, max(deepest, least), max(2, runs // 4)).round()})
    measured = list(range(len(names) - 1, len(names) - 1 - min(deepest, runs - len(depths)), -1))
    total, done = len(depths) + len(measured), 0
    biased: dict[int, float] = {}
    for depth in depths:
        progress("short trainings", done, total)
        biased[depth] = trials.loss(UpdateScheme("trial", biases=depth))
        done += 1
    gains: dict[str, float] = {}
    for layer in measured:
        progress("short trainings", done, total)
        depth = len(names) - layer
        loss = trials.loss(UpdateScheme("trial", "", {names[layer]: Update(1.0, None, BITS)}, depth, centred=True))
        gains[names[layer]] = float(np.interp(depth, depths, [biased[d] for d in depths])) - loss
        done += 1
    progress("short trainings", total, total)
    return _gains(trials.prepared, names, biased, gains)


def _gains(prepared: Prepared, names: Sequence[str], biased: Mapping[int, float], measured: Mapping[str, float]) -> Gains:
    """What was measured as gains of parts; noise below zero counts as zero."""
    curve = np.maximum.accumulate([biased[min(biased)] - loss for _, loss in sorted(biased.items())])
    bias = {}
    for n in range(1, len(names) + 1):
        here, before = np.interp([n, n - 1], sorted(biased), curve)
        bias[names[-n]] = float(here - before)
    weight = {}
    for name, node in layers(prepared.graph).items():
        data = weight_data(prepared.graph, node)
        gain = max(measured.get(name, 0.0), 0.0)
        weight[name] = {r: gain * r**0.5 for r in RATIOS if channels_of(data, node, r) != ()}
    return Gains(weight, bias)
