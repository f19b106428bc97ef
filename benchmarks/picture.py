"""Where the instructions of a training step go: one bar per layer, split by phase."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

COLORS = {"forward": "#4878a8", "loss": "#999999", "backward": "#d8853c", "update": "#5a9e5a"}
MIN_SHARE = 0.002  # layers below this share of the step are drawn together


class Part(Protocol):
    """What is drawn: a part of a layer."""

    @property
    def layer(self) -> str: ...

    @property
    def phase(self) -> str: ...

    @property
    def instructions(self) -> int: ...


def by_layer(rows: Sequence[Part]) -> dict[str, dict[str, int]]:
    """Instructions by layer, in order of execution, and by phase; small layers together as "others"."""
    layers: dict[str, dict[str, int]] = {}
    for row in rows:
        phases = layers.setdefault(row.layer, dict.fromkeys(COLORS, 0))
        phases[row.phase] += row.instructions
    least = MIN_SHARE * sum(r.instructions for r in rows)
    small = [name for name, phases in layers.items() if sum(phases.values()) < least]
    if small:
        removed = [layers.pop(name) for name in small]
        layers["others"] = {p: sum(r[p] for r in removed) for p in COLORS}
    return layers


def draw(rows: Sequence[Part], title: str, path: Path) -> None:
    """Writes the PNG."""
    layers = by_layer(rows)
    names = list(layers)
    figure, axes = pyplot.subplots(figsize=(9, 1 + 0.19 * len(names)), layout="constrained")
    left = [0.0] * len(names)
    for phase, color in COLORS.items():
        widths = [layers[name][phase] / 1e6 for name in names]
        total = sum(r.instructions for r in rows if r.phase == phase) / 1e6
        axes.barh(names, widths, left=left, color=color, label=f"{phase} {total:.2f} M")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlabel("million instructions")
    axes.set_title(f"{title}: {sum(left):.2f} M instructions per step", fontsize=10)
    figure.legend(loc="outside lower center", ncols=len(COLORS))
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
