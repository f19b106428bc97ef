"""What a compiled folder or a model file holds, for people and as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mcugrad import importers
from mcugrad.compiler import REPORT
from mcugrad.errors import McugradError
from mcugrad.trainer import TRAINING

GRAPHS = ("forward", "training")


def describe(path: Path) -> dict[str, Any]:
    """The report of a folder, or layers and graph of a model file.  Raises McugradError for anything else."""
    if not path.is_dir():
        model = importers.load(path)
        return {**model.report.to_dict(), "graph": str(model.graph)}
    try:
        report: dict[str, Any] = json.loads((path / REPORT).read_text(encoding="utf-8"))
    except OSError:
        raise McugradError(f"{path} holds no {REPORT}: give a folder written by `mcugrad compile`, or a model file") from None
    except ValueError:
        raise McugradError(f"{path / REPORT} is damaged: compile again") from None
    if (path / TRAINING).exists():
        report["training"] = json.loads((path / TRAINING).read_text(encoding="utf-8"))
    return report


def graph_text(path: Path, stage: str) -> str:
    """The graph at a stage, as text."""
    if stage not in GRAPHS:
        raise McugradError(f"--graph {stage}: use {' or '.join(GRAPHS)}")
    if not path.is_dir():
        return str(importers.load(path).graph)
    try:
        return (path / f"graph-{stage}.txt").read_text(encoding="utf-8")
    except OSError:
        raise McugradError(f"{path} holds no graph-{stage}.txt: give a folder written by `mcugrad compile`") from None


def print_description(report: dict[str, Any], out: Console) -> None:
    """Certificate and layer table of a folder, or the graph of a model."""
    if "graph" in report:
        out.print(report["graph"], markup=False)
        return
    if "plan" not in report:
        out.print(json.dumps(report, indent=1), markup=False)
        return
    table = Table("value", "op", "phase", "type", "MACs", "offset", title=f"{report['model']} on {report['target']}")
    for row in report["layers"]:
        offset = "" if row["offset"] is None else f"{row['offset']:,}"
        table.add_row(row["name"], row["op"], row["phase"], row["output"].replace("[", "\\["), f"{row['macs']:,}", offset)
    out.print(table)
    plan, sram = report["plan"], report["sram"]
    out.print(f"arena {sram['arena']:,} bytes; live peak {plan['live_peak']:,} at {plan['peak_at']}; "
              f"order-independent lower bound {plan['lower_bound']:,}; solved by {plan['method']}")  # fmt: skip
    for item in plan["alive_at_peak"][:8]:
        out.print(f"  alive at the peak: {item['name']} {item['bytes']:,}", markup=False)
