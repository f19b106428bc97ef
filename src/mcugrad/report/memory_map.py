"""A picture of the arena over time: which bytes hold what while a program runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from mcugrad.ir import Graph
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.certificate import live_bytes
from mcugrad.memory.modes import Scheduled
from mcugrad.memory.schedule import LoadRows, Step
from mcugrad.report.ledger import PIECE

COLOURS = {
    "input": "#aab4c4",
    "forward": "#86aed6",
    "loss": "#c79bbd",
    "backward": "#f29272",
    "update": "#7cc076",
    "scratch": "#d4d4d4",
}
RING_HATCH, RING_EDGE = "///", "#1d3557"
BOUND = "#444444"
LABELS = 40  # largest buffers that carry their name
FIGURE_PX = (1300, 600)  # of the axes, about
LETTER_PX = (6.2, 12)  # of a label
KIB = 1024


def draw_memory_map(program: Scheduled, path: Path, title: str = "") -> Path:
    """Writes a PNG: one rectangle per buffer (time x addresses), its colour the phase that writes it.

    title: what the program is, the first words of the picture's title.  Returns `path`.
    """
    figure = Figure(figsize=(13, 7), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    times = _times(program)
    phases = _phases(program.graph)
    for buffer, offset in program.plan.placed:
        _draw(axes, buffer, offset, times, phases)
    _label_largest(axes, program, times)
    _draw_live(axes, program, times)
    _draw_phases(axes, program, times)
    _finish(axes, program, times, title)
    figure.legend(handles=_legend(program), loc="outside lower center", ncols=10, fontsize=8, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _times(program: Scheduled) -> list[float]:
    """Where each step begins on the time axis, and where all end: what runs in rows is as wide as its nodes are many."""
    keys = [_part(step) for step in program.schedule]
    nodes: dict[int | str | None, set[object]] = {}
    for key, step in zip(keys, program.schedule, strict=True):
        nodes.setdefault(key, set()).add(step.outputs[0].name.rpartition(".")[0] if isinstance(key, str) else step.outputs)
    steps = Counter(keys)
    times = [0.0]
    for key in keys:
        times.append(times[-1] + (1 if key is None else 2 * len(nodes[key]) / steps[key]))
    return [*times, times[-1] + 1]


def _part(step: Step | LoadRows) -> int | str | None:
    """The segment or rounds that a step is part of."""
    return step.node.op.scratch_group if isinstance(step, Step) and step.segment is None else step.segment


def _phases(graph: Graph) -> dict[str, str]:
    """Phase of each value by name: that of the node that writes it."""
    return {v.name: "input" for v in graph.inputs} | {v.name: n.op.phase for n in graph.nodes for v in n.outputs}


def _phase(buffer: Buffer, phases: dict[str, str]) -> str:
    return phases[buffer.values[0].name] if buffer.values else "scratch"


def _draw(axes: Any, buffer: Buffer, offset: int, times: list[float], phases: dict[str, str]) -> None:
    ring = buffer.ring_rows is not None
    start, stop = times[buffer.first], times[buffer.last + 1]
    axes.add_patch(
        Rectangle(
            (start, offset / KIB),
            stop - start,
            buffer.size / KIB,
            facecolor=COLOURS[_phase(buffer, phases)],
            edgecolor=RING_EDGE if ring else "white",
            linewidth=0.4,
            hatch=RING_HATCH if ring else None,
        )
    )


def _label_largest(axes: Any, program: Scheduled, times: list[float]) -> None:
    """Names and sizes of the largest rectangles, along the side that has room for them."""
    placed = program.plan.placed
    by_area = sorted(placed, key=lambda p: -p[0].size * (times[p[0].last + 1] - times[p[0].first]))
    for buffer, offset in by_area[:LABELS]:
        start, stop = times[buffer.first], times[buffer.last + 1]
        rows = f", {buffer.ring_rows} rows" if buffer.ring_rows is not None else ""
        text = f"{re.sub(PIECE, '', buffer.name)}: {buffer.size:,} B{rows}"
        width, height = (stop - start) / times[-1] * FIGURE_PX[0], buffer.size / program.plan.arena * FIGURE_PX[1]
        long = len(text) * LETTER_PX[0]
        for side, other, turn in ((width, height, 0), (height, width, 90)):
            if side >= long and other >= LETTER_PX[1]:
                middle = (start + stop) / 2, (offset + buffer.size / 2) / KIB
                axes.text(*middle, text, ha="center", va="center", fontsize=7, rotation=turn, clip_on=True, zorder=6)
                break


def _draw_live(axes: Any, program: Scheduled, times: list[float]) -> None:
    steps = len(program.schedule)
    live = live_bytes([b for b, _ in program.plan.placed], steps, program.plan.overlaps) / KIB
    axes.stairs(live, times, color="white", linewidth=2.6, zorder=3, baseline=None)
    axes.stairs(live, times, color="black", linewidth=1.2, zorder=4, baseline=None)
    certificate = program.plan.certificate
    axes.axhline(certificate.lower_bound / KIB, color=BOUND, linewidth=0.9, linestyle=":", zorder=3)
    middle = (times[certificate.step] + times[certificate.step + 1]) / 2
    axes.plot(middle, certificate.live_peak / KIB, marker="v", color="black", markersize=7, zorder=5, clip_on=False)


def _draw_phases(axes: Any, program: Scheduled, times: list[float]) -> None:
    """A strip under the arena in the colours of the phases that run."""
    top = program.plan.arena / KIB
    for index, step in enumerate(program.schedule):
        colour = COLOURS[_running(step)]
        box = (times[index], -0.035 * top), times[index + 1] - times[index], 0.025 * top
        axes.add_patch(Rectangle(*box, facecolor=colour, linewidth=0))


def _running(step: Step | LoadRows) -> str:
    return step.node.op.phase if isinstance(step, Step) else "input"


def _finish(axes: Any, program: Scheduled, times: list[float], title: str) -> None:
    certificate = program.plan.certificate
    top = program.plan.arena / KIB
    axes.set_xlim(0, times[-1])
    axes.set_ylim(-0.04 * top, 1.04 * top)
    axes.set_xticks([])
    axes.set_xlabel(f"time: {len(program.schedule)} kernel calls (row-streamed ones narrower); the strip shows the phase")
    axes.set_ylabel("address in the arena (KiB)")
    where = certificate.where if len(certificate.where) < 60 else f"{certificate.where[:57]}..."
    heading = f"{title}: " if title else ""
    axes.set_title(
        f"{heading}arena {program.plan.arena:,} B, live peak {certificate.live_peak:,} B at {where}\n"
        f"lower bound of any order {certificate.lower_bound:,} B, placed by {certificate.method}",
        fontsize=11,
        loc="left",
    )
    axes.spines[["top", "right"]].set_visible(False)


def _legend(program: Scheduled) -> Sequence[Any]:
    phases = _phases(program.graph)
    used = {_phase(b, phases) for b, _ in program.plan.placed} | {_running(s) for s in program.schedule}
    handles: list[Any] = [Patch(facecolor=COLOURS[p], label=p) for p in COLOURS if p in used]
    if program.plan.ring_rows:
        handles.append(Patch(facecolor=COLOURS["forward"], edgecolor=RING_EDGE, hatch=RING_HATCH, label="ring of rows"))
    live = Line2D([], [], color="black", linewidth=1.2, label="live bytes")
    return [*handles, live, Line2D([], [], color=BOUND, linewidth=0.9, linestyle=":", label="lower bound")]
