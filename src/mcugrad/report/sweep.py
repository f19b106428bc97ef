"""The result of a sweep as a table for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_sweep(result: dict[str, Any], out: Console) -> None:
    """One row per scheme and rate, the best by validation first."""
    metric = result["best"]["metric"]
    heads = (f"validation {metric}", f"test {metric}")
    table = Table("scheme", "rate", "seeds", *heads, "state, bytes", title=escape(result["model"]))
    for row in result["rows"]:
        scores = (_score(row[part], metric) for part in ("validation", "test"))
        table.add_row(escape(row["scheme"]), f"{row['rate']:g}", str(row["seeds"]), *scores, f"{row['state_bytes']:,}")
    out.print(table)
    best = result["best"]
    score = _score(best["test"], metric)
    out.print(f"best by validation: {escape(best['scheme'])} at --lr {best['rate']:g}, {score} on the test split")
    out.print(
        f"{result['runs']} runs, {result['found_before']} of them found in {result['folder']}", soft_wrap=True, markup=False
    )


def _score(score: dict[str, float | None], metric: str) -> str:
    """Mean and standard deviation over seeds; accuracies in percent."""
    mean, sd = score["mean"] or 0.0, score["sd"]
    if metric != "accuracy":
        return f"{mean:.4g}" + ("" if sd is None else f" ± {sd:.2g}")
    return f"{100 * mean:.1f}" + ("" if sd is None else f" ± {100 * sd:.1f}") + " %"
