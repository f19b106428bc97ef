"""The result of a search as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_search(result: dict[str, Any], out: Console) -> None:
    """The chosen scheme, its cost, and for each layer why it is in or out."""
    chosen, budget = result["chosen"], result["budget"]
    table = Table(
        "layer", "weight gain", "bias gain", "updated", "why", title=escape(f"{result['model']} on {result['target']}")
    )
    for row in result["layers"]:
        parts = [f"{row['ratio']:g}, F = {row['residual_bits']}"] if row["ratio"] else []
        parts += ["bias"] if row["bias"] else []
        gains = (f"{row['weight_gain']:.2%}", f"{row['bias_gain']:.2%}")
        table.add_row(escape(row["name"]), *gains, "; ".join(parts), escape(row["reason"]))
    out.print(table)
    out.print(f"predicted gain: {chosen['gain']:.1%} of updating everything; biases of the last {chosen['biases']} layers")
    allowed = "" if budget["instructions"] is None else f" of {budget['instructions']:,}"
    out.print(
        f"SRAM: at least {chosen['sram']:,} of {budget['sram']:,} bytes; flash {chosen['flash']:,} of {budget['flash']:,}"
    )
    out.print(f"about {chosen['instructions']:,}{allowed} instructions per training step")
    out.print(f"found in {sum(result['seconds'].values()):.0f} s; written to {result['folder']}", soft_wrap=True, markup=False)
