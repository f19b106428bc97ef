"""A picture of the arena over time: which bytes hold what while a step runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from mcugrad.ir import Graph
from mcugrad.memory.certificate import live_bytes
from mcugrad.memory.modes import Scheduled
from mcugrad.memory.problem import Buffer

COLOURS = {
    "input": "#8d99ae",
    "forward": "#4c78a8",
    "loss": "#b279a2",
    "backward": "#e4572e",
    "update": "#54a24b",
    "scratch": "#d4d4d4",
}
RING_HATCH = "///"
LABELS = 24  # largest buffers that carry their name
KIB = 1024


def draw_memory_map(program: Scheduled, path: Path, title: str = "") -> Path:
    """Writes a PNG: one rectangle per buffer (steps x addresses), its colour the phase that writes it.

    title: what the program is, the first words of the picture's title.  Returns `path`.
    """
    figure = Figure(figsize=(13, 7), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    phases = _phases(program.graph)
    for buffer, offset in program.plan.placed:
        _draw(axes, buffer, offset, phases)
    _label_largest(axes, program)
    _draw_live(axes, program)
    _draw_phases(axes, program)
    _finish(axes, program, title)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _phases(graph: Graph) -> dict[str, str]:
    """Phase of each value by name: that of the node that writes it."""
    return {v.name: "input" for v in graph.inputs} | {v.name: n.op.phase for n in graph.nodes for v in n.outputs}


def _phase(buffer: Buffer, phases: dict[str, str]) -> str:
    return phases[buffer.values[0].name] if buffer.values else "scratch"


def _draw(axes: Any, buffer: Buffer, offset: int, phases: dict[str, str]) -> None:
    colour = COLOURS[_phase(buffer, phases)]
    axes.add_patch(
        Rectangle(
            (buffer.first, offset / KIB),
            buffer.last + 1 - buffer.first,
            buffer.size / KIB,
            facecolor=colour,
            edgecolor="white" if buffer.ring_rows is None else "#1d3557",
            linewidth=0.4,
            hatch=None if buffer.ring_rows is None else RING_HATCH,
            alpha=0.9,
        )
    )


def _label_largest(axes: Any, program: Scheduled) -> None:
    """Names and sizes inside the largest rectangles that have room for them."""
    steps, arena = len(program.schedule) + 1, program.plan.arena
    by_area = sorted(program.plan.placed, key=lambda p: -p[0].size * (p[0].last + 1 - p[0].first))
    for buffer, offset in by_area[:LABELS]:
        width, height = (buffer.last + 1 - buffer.first) / steps, buffer.size / arena
        ring = f" ({buffer.ring_rows} rows)" if buffer.ring_rows is not None else ""
        text = f"{buffer.name}{ring}\n{buffer.size:,} B"
        across = max(map(len, text.split("\n"))) * 0.006
        flat = width >= across and height >= 0.035
        if flat or (height >= across * 1.9 and width >= 0.02):
            x, y = buffer.first + (buffer.last + 1 - buffer.first) / 2, (offset + buffer.size / 2) / KIB
            turn = 0 if flat else 90
            axes.text(x, y, text, ha="center", va="center", fontsize=7, rotation=turn, color="black", clip_on=True)


def _draw_live(axes: Any, program: Scheduled) -> None:
    steps = len(program.schedule)
    live = live_bytes([b for b, _ in program.plan.placed], steps) / KIB
    axes.step(range(steps + 1), live, where="post", color="black", linewidth=1.1, zorder=3)
    certificate = program.plan.certificate
    axes.axhline(certificate.lower_bound / KIB, color="#444444", linewidth=0.9, linestyle=":", zorder=3)
    axes.plot(certificate.step + 0.5, certificate.live_peak / KIB, marker="v", color="black", markersize=7, zorder=4)


def _draw_phases(axes: Any, program: Scheduled) -> None:
    """A strip under the time axis in the colours of the phases that run."""
    top = program.plan.arena / KIB
    for index, step in enumerate(program.schedule):
        node = getattr(step, "node", None)
        colour = COLOURS["input" if node is None else node.op.phase]
        axes.add_patch(Rectangle((index, -0.035 * top), 1, 0.025 * top, facecolor=colour, linewidth=0))


def _finish(axes: Any, program: Scheduled, title: str) -> None:
    certificate, steps = program.plan.certificate, len(program.schedule)
    top = program.plan.arena / KIB
    axes.set_xlim(0, steps + 1)
    axes.set_ylim(-0.04 * top, 1.06 * top)
    axes.set_xlabel("step of the schedule (one kernel call each; the strip shows the phase)")
    axes.set_ylabel("address in the arena (KiB)")
    where = certificate.where if len(certificate.where) < 60 else f"{certificate.where[:57]}..."
    heading = f"{title}: " if title else ""
    axes.set_title(
        f"{heading}arena {program.plan.arena:,} B, live peak {certificate.live_peak:,} B at {where}\n"
        f"lower bound of any order {certificate.lower_bound:,} B, placed by {certificate.method}",
        fontsize=11,
        loc="left",
    )
    axes.legend(handles=_legend(axes, program), loc="upper right", ncols=4, fontsize=8, framealpha=0.92)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(axes: Any, program: Scheduled) -> Sequence[Any]:
    phases = _phases(program.graph)
    used = dict.fromkeys(_phase(b, phases) for b, _ in program.plan.placed)
    handles: list[Any] = [Patch(facecolor=COLOURS[p], label=p) for p in COLOURS if p in used]
    if program.plan.ring_rows:
        handles.append(Patch(facecolor=COLOURS["forward"], edgecolor="#1d3557", hatch=RING_HATCH, label="ring of rows"))
    return [*handles, *_line_handles()]


def _line_handles() -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color="black", linewidth=1.1, label="live bytes"),
        Line2D([], [], color="#444444", linewidth=0.9, linestyle=":", label="lower bound"),
    ]
