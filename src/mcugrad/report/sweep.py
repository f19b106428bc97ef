"""The result of a sweep as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_sweep(result: dict[str, Any], out: Console) -> None:
    """One row per scheme and rate, the best by validation first."""
    table = Table("scheme", "rate", "seeds", "validation", "test", "state, bytes", title=escape(result["model"]))
    for row in result["rows"]:
        scores = (_score(row[part]) for part in ("validation", "test"))
        table.add_row(escape(row["scheme"]), f"{row['rate']:g}", str(row["seeds"]), *scores, f"{row['state_bytes']:,}")
    out.print(table)
    best = result["best"]
    out.print(
        f"best by validation: {escape(best['scheme'])} at --lr {best['rate']:g}, {best['test']['mean']:.1%} on the test split"
    )
    out.print(
        f"{result['runs']} runs, {result['found_before']} of them found in {result['folder']}", soft_wrap=True, markup=False
    )


def _score(score: dict[str, float | None]) -> str:
    """Mean and standard deviation over seeds."""
    spread = "" if score["sd"] is None else f" ± {100 * score['sd']:.1f}"
    return f"{100 * (score['mean'] or 0):.1f}{spread}"
