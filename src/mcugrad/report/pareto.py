"""A picture of what more memory would gain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

KIB = 1024


def draw_pareto(front: Sequence[dict[str, Any]], chosen: dict[str, Any], budget: int, path: Path, title: str) -> None:
    """Writes a PNG: predicted gain against SRAM, the budget (bytes) and the chosen scheme.

    front: points with sram (bytes), gain (share of updating everything) and layers (updated weights), cheapest first;
    chosen: the same of the scheme that was confirmed."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x, y = [p["sram"] / KIB for p in front], [100 * p["gain"] for p in front]
    axes.plot(x, y, "o-", color="#1f4e9c", linewidth=1, markersize=4, label="best scheme by prediction")
    axes.axvline(budget / KIB, color="#999999", linestyle=":", linewidth=1)
    axes.annotate("budget", (budget / KIB, 0), xytext=(4, 4), textcoords="offset points", color="#777777", fontsize=8)
    axes.plot(
        [chosen["sram"] / KIB], [100 * chosen["gain"]], "*", color="#c2703d", markersize=14, label="chosen: its firmware fits"
    )
    for i in range(1, len(front), max(1, len(front) // 6)):
        _label(axes, x[i], y[i], f"{front[i]['layers']} weights, {front[i]['biases']} biases", left=x[i] > (x[0] + x[-1]) / 2)
    axes.set(xlabel="SRAM of the firmware, KiB", ylabel="predicted gain, % of updating everything", ylim=(0, None), title=title)
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})


def _label(axes: Any, x: float, y: float, text: str, left: bool) -> None:
    """Text beside a point, on the side where there is room."""
    offset, side = ((-6, 6), "right") if left else ((7, -9), "left")
    axes.annotate(text, (x, y), xytext=offset, textcoords="offset points", ha=side, fontsize=7, color="#555555")
