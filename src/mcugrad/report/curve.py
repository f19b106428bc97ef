"""Pictures of learning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mcugrad.trainer import HALVE_AT, Course, Learned

WINDOW = 64


def learning_curve(learned: Learned, course: Course, path: Path) -> None:
    """Loss per sample before its update, smoothed over WINDOW steps, and the share of steps that ran a backward pass."""
    losses = np.array(learned.losses)
    window = min(WINDOW, max(1, len(losses) // 4))
    kernel = np.ones(window) / window
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    steps = np.arange(len(losses))
    axes.plot(steps, losses, ".", color="#b8c4d6", markersize=2, label="one sample, before its update")
    axes.plot(steps[window - 1 :], np.convolve(losses, kernel, "valid"), color="#1f4e9c", label=f"mean of {window} samples")
    if course.schedule == "halving":
        for at in HALVE_AT:
            axes.axvline(at * len(losses), color="#999999", linewidth=0.7, linestyle=":")
    axes.set(xlabel="training step (dotted: the rate is halved)", ylabel="loss", ylim=(0, None), title="Learning on the device")
    share = axes.twinx()
    ran = np.convolve(np.array(learned.progress) == 0, kernel, "valid")
    share.plot(steps[window - 1 :], ran, color="#c2703d", linewidth=1, label="steps with a backward pass")
    share.set(ylabel="share of steps with a backward pass", ylim=(0, 1.02))
    handles = [*axes.get_legend_handles_labels()[0], *share.get_legend_handles_labels()[0]]
    axes.legend(handles, [str(h.get_label()) for h in handles], loc="upper right", fontsize=8)
    figure.savefig(path, dpi=110)
