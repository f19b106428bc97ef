"""A memory plan without a build: modes, bytes and estimated instructions, and what each size of SRAM would cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mcugrad.errors import BudgetError
from mcugrad.fit import INPUT_MODES
from mcugrad.ir import Graph
from mcugrad.memory.modes import Block, Mode, Planned, Planner, Way
from mcugrad.memory.problem import state_layout
from mcugrad.program import Program, lower
from mcugrad.report.ledger import macs
from mcugrad.report.memory_map import draw_memory_map
from mcugrad.search.cost import scheduled_instructions
from mcugrad.targets import Target

REST = 2048
"""Bytes of SRAM for the stack and the shell, as most builds need them; a build says what they are."""

POINTS = 12  # caps that a front tries
KIB = 1024
Progress = Callable[[str, int, int], None]


class Plans:
    """Plans of a training graph for a target.

    name: the model's, for titles.  input_mode: auto, resident or rows."""

    def __init__(self, graph: Graph, name: str, target: Target, input_mode: str, seed: int = 0) -> None:
        self.graph, self.name, self.target = graph, name, target
        self.planner = Planner(graph, INPUT_MODES[input_mode], seed, target)
        self.fixed = state_layout(graph).total + REST

    def best(self) -> Planned:
        """The cheapest plan that the target's SRAM holds.  Raises BudgetError that says what would fit."""
        cap = self.target.sram - self.fixed
        try:
            return self.planner.plan(max(cap, 0))
        except BudgetError as error:
            needed = (error.needed or 0) + self.fixed
            raise BudgetError(
                f"{self.target.name}: about {needed:,} bytes of SRAM are needed, {needed - self.target.sram:,} more than the "
                f"{self.target.sram:,} it may use, {self.fixed - REST:,} of them for what learns. Give it that much "
                f"(--sram {-(-needed // KIB)}K), or let less learn: fewer residual bits (--residual-bits), a smaller --scheme; "
                f"`mcugrad search` finds one",
                needed,
            ) from None

    def program(self, planned: Planned) -> Program:
        scheduled = planned.scheduled
        return lower(scheduled.graph, scheduled.schedule, scheduled.plan, self.name)

    def describe(self, planned: Planned) -> dict[str, Any]:
        """The plan as nested JSON values; sizes in bytes."""
        program, certificate = self.program(planned), planned.scheduled.plan.certificate
        return {
            "model": self.name,
            "target": self.target.name,
            "sram": self.sram(planned),
            "plan": {
                "live_peak": certificate.live_peak,
                "lower_bound": certificate.lower_bound,
                "method": certificate.method,
                "peak_at": certificate.where,
                "alive_at_peak": [{"name": name, "bytes": size} for name, size in certificate.alive],
                "input_rows": planned.input_rows,
                "steps": len(planned.scheduled.schedule),
            },
            "modes": {
                "forward": [self._forward(b) for b in planned.blocks],
                "backward": [self._backward(w) for w in planned.ways if w.mode is not Mode.LAYERWISE],
            },
            "macs": macs(program),
            "instructions": scheduled_instructions(program, self.target),
        }

    def sram(self, planned: Planned) -> dict[str, int]:
        """Arena and parameters as planned; rest is what stack and shell usually need."""
        total = planned.arena + self.fixed
        sizes = {"arena": planned.arena, "parameters": self.fixed - REST, "rest": REST, "total": total}
        return {**sizes, "budget": self.target.sram}

    def _forward(self, block: Block) -> dict[str, Any]:
        nodes = self.graph.nodes
        names = nodes[block.start].outputs[0].name, nodes[block.stop - 1].outputs[0].name
        return {
            "layers": " .. ".join(names),
            "mode": block.mode.value,
            "rows": block.rounds or None,
            "channels": block.channels,
            "bytes": block.peak,
            "extra_calls": block.steps,
            "extra_instructions": block.extra,
        }

    def _backward(self, way: Way) -> dict[str, Any]:
        return {
            "layers": " .. ".join(_layer(self.graph, at, step) for at, step in ((way.start, 1), (way.stop - 1, -1))),
            "mode": way.mode.value,
            "rows": way.rows,
            "channels": way.channels,
            "bytes": way.own,
            "kept": way.saved,
            "extra_instructions": way.instructions,
        }

    def front(self, progress: Progress) -> list[dict[str, Any]]:
        """What each size of SRAM costs: plans from layerwise down to the smallest, none beaten in both by another."""
        plans = [self.planner.plan()]
        low, high = self.planner.floor(), plans[0].arena
        for i in range(1, POINTS + 1):
            progress("planning", i, POINTS)
            cap = round(high * (low / high) ** (i / POINTS))
            if cap < plans[-1].arena:
                try:
                    plans.append(self.planner.plan(cap))
                except BudgetError as error:
                    if (error.needed or 0) < plans[-1].arena:
                        plans.append(self.planner.plan(error.needed))
                    break
        points = [self._point(p) for p in plans]
        return [p for i, p in enumerate(points) if all(q["instructions"] > p["instructions"] for q in points[i + 1 :])]

    def _point(self, planned: Planned) -> dict[str, Any]:
        described = self.describe(planned)
        modes = sorted({m["mode"] for part in described["modes"].values() for m in part} or {Mode.LAYERWISE.value})
        return {
            "sram": described["sram"]["total"],
            "arena": planned.arena,
            "instructions": described["instructions"],
            "macs": sum(described["macs"].values()),
            "input_rows": planned.input_rows,
            "modes": modes,
        }


def _layer(graph: Graph, at: int, step: int) -> str:
    """Name of the forward value whose gradient the first chain from node `at` on makes last."""
    while not any(v.name.endswith(".h.0") for v in graph.nodes[at].outputs):
        at += step
    return [v.name for v in graph.nodes[at].outputs if v.name.endswith(".h.0")][-1].removesuffix(".h.0")


def write_plan(plans: Plans, planned: Planned, folder: Path) -> dict[str, Any]:
    """The plan's facts, also in plan.json; the picture of memory over time in memory.png."""
    described = plans.describe(planned)
    draw_memory_map(planned.scheduled, folder / "memory.png", f"{plans.name}, {plans.target.name}")
    (folder / "plan.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    return described


def write_front(plans: Plans, front: list[dict[str, Any]], folder: Path) -> None:
    """pareto.json and pareto.png."""
    (folder / "pareto.json").write_text(json.dumps(front, indent=1), encoding="utf-8")
    draw_front(front, plans.target.sram, folder / "pareto.png", f"{plans.name} on {plans.target.name}")


def draw_front(front: list[dict[str, Any]], budget: int, path: Path, title: str) -> None:
    """Writes a PNG: estimated instructions of a training step against SRAM, and the budget (bytes)."""
    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x, y = [p["sram"] / KIB for p in front], [p["instructions"] / 1e6 for p in front]
    axes.step(x, y, where="pre", color="#1f4e9c", linewidth=0.8, alpha=0.5)
    colours = {"layerwise": "#777777", "rows": "#86aed6", "recompute": "#f2b134", "recompute, rows": "#c2403d"}
    colours |= {"narrow": "#8e6bbf", "channels": "#3c8d5a"}
    for mode, colour in colours.items():
        points = [(a, b) for a, b, p in zip(x, y, front, strict=True) if leading_mode(p) == mode]
        if points:
            axes.plot(*zip(*points, strict=True), "o", color=colour, markersize=7, label=f"up to: {mode}")
    for a, b, point in zip(x, y, front, strict=True):
        axes.annotate(f"{point['sram'] / KIB:.0f}K", (a, b), xytext=(0, 8), textcoords="offset points", ha="center", fontsize=7)
    axes.axvline(budget / KIB, color="#999999", linestyle=":", linewidth=1)
    axes.annotate("budget", (budget / KIB, min(y)), xytext=(4, -2), textcoords="offset points", color="#777777", fontsize=8)
    axes.set(xscale="log", xlabel="SRAM, KiB", ylabel="instructions of a training step, millions (estimated)", title=title)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.margins(y=0.12)
    axes.grid(alpha=0.25, which="both")
    axes.legend(loc="upper right", fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})


def leading_mode(point: dict[str, Any]) -> str:
    """The strongest mode that a plan uses."""
    order = [m.value for m in Mode]
    return max((str(mode) for mode in point["modes"]), key=order.index)


def print_plan(result: dict[str, Any], out: Console) -> None:
    """Memory, modes and certificate, for people."""
    out.print(_mode_table(result) if any(result["modes"].values()) else "everything runs layer by layer")
    sram, plan, work = result["sram"], result["plan"], result["macs"]
    how = "of the linked firmware" if result.get("firmware") else f"{sram['rest']:,} of them usual for stack and shell"
    parts = f"arena {sram['arena']:,}, parameters {sram['parameters']:,}"
    out.print(f"SRAM: {parts}, total {sram['total']:,} of {sram['budget']:,} bytes ({how})")
    bound = f"live peak {plan['live_peak']:,}, order-independent lower bound {plan['lower_bound']:,} ({plan['method']})"
    out.print(f"arena: {bound}; input {'pulled row by row' if plan['input_rows'] else 'resident'}")
    alive = ", ".join(f"{a['name']} {a['bytes']:,}" for a in plan["alive_at_peak"][:6])
    out.print(f"alive at the peak, {plan['peak_at']}: {alive}", markup=False)
    counts = f"forward {work['forward']:,}, backward and update {work['backward']:,}"
    out.print(f"MACs: {counts}; about {result['instructions']:,} instructions")
    for point in result.get("pareto", ()):
        millions = point["instructions"] / 1e6
        out.print(f"  {point['sram']:>9,} bytes  {millions:7.1f} M instructions  {', '.join(point['modes'])}")
    out.print(f"written to {result['folder']}", soft_wrap=True, markup=False)


def _mode_table(result: dict[str, Any]) -> Table:
    """What does not run layer by layer."""
    title = escape(f"{result['model']} on {result['target']}")
    table = Table("part", "mode", "bytes alive", "kept", "extra instructions", title=title)
    for block in result["modes"]["forward"]:
        row = (f"{block['bytes']:,}", "", f"{block['extra_instructions']:,} ({block['extra_calls']:,} calls)")
        table.add_row(f"forward {block['layers']}", _rounds(block), *row)
    for way in result["modes"]["backward"]:
        row = (f"{way['bytes']:,}", f"{way['kept']:,}", f"{way['extra_instructions']:,}")
        table.add_row(f"backward {way['layers']}", _rounds(way), *row)
    return table


def _rounds(part: dict[str, Any]) -> str:
    return str(part["mode"]) if part["rows"] is None else f"{part['mode']} ({part['rows']} a round)"
