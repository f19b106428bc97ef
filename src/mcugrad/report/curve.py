"""Pictures of learning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from mcugrad.ir import Array
from mcugrad.trainer import HALVE_AT, Course, Learned

WINDOW = 64  # samples of a moving mean
SHOWN = 0.98  # share of the losses that the picture shows; the largest would flatten the rest
BLUE, PALE, ORANGE, GREY = "#1f4e9c", "#b8c4d6", "#c2703d", "#999999"


def learning_curve(learned: Learned, course: Course, path: Path) -> None:
    """Above, the loss of each sample before its update and its moving mean; below, the share of backward passes."""
    losses = np.array(learned.losses)
    window = min(WINDOW, max(1, len(losses) // 4))
    steps = np.arange(window - 1, len(losses))
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    above.plot(losses, ".", color=PALE, markersize=2.5, label="one sample, before its update")
    above.plot(steps, _smooth(losses, window), color=BLUE, label=f"mean of {window} samples")
    above.set(ylabel="loss", ylim=(0, 1.1 * float(np.quantile(losses, SHOWN))), title="Learning on the device")
    above.legend(loc="upper right", fontsize=8)
    below.plot(steps, _smooth(np.array(learned.progress) == 0, window), color=ORANGE)
    below.set(ylim=(0, 1.05), ylabel="backward\npasses", xlabel="training step (dotted: the rate is halved)")
    _mark_halvings((above, below), course, len(losses))
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _smooth(values: Array, window: int) -> Array:
    smooth: Array = np.convolve(values, np.ones(window) / window, "valid")
    return smooth


def _mark_halvings(axes: tuple[Any, ...], course: Course, total: int) -> None:
    for at in HALVE_AT[course.schedule]:
        for axis in axes:
            axis.axvline(at * total, color=GREY, linewidth=0.7, linestyle=":")
