"""The demo's result as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

ROWS = (
    ("original sensor, as delivered", "original_sensor"),
    ("changed sensor, as delivered", "changed_sensor"),
    ("changed sensor, head trained", "head_only"),
    ("changed sensor, sparse update in the virtual MCU", "sparse"),
    ("ceiling: every layer fine-tuned in float", "float_full"),
    ("control: sparse update on shuffled labels", "shuffled_labels"),
)


def print_demo(result: dict[str, Any], out: Console) -> None:
    """Accuracy, cost, and the equality of host and MCU."""
    table = Table("network", "accuracy", title="A digits network meets a changed sensor")
    for label, key in ROWS:
        table.add_row(label, f"{result['accuracy'][key]:.1%}")
    out.print(table)
    sram, flash, steps = result["sram"], result["flash"], result["steps"]
    cost = Table("on a Cortex-M7", "", title="What the sparse update costs")
    cost.add_row("SRAM (.data + .bss + worst stack)", f"{sram['total']:,} bytes")
    cost.add_row("flash (code + constants)", f"{flash['total']:,} bytes")
    cost.add_row("instructions per training step", f"{result['instructions']['step']:,} at most")
    cost.add_row("training steps", f"{steps['total']:,}, {steps['full']:,} with a backward pass")
    out.print(cost)
    hashes = result["hashes"]
    same = "equal" if hashes["equal"] else "NOT EQUAL"
    out.print(f"learned parameters on host and MCU: {same} (sha256 {hashes['mcu'][:16]}...)")
    out.print(f"pictures and firmware: {result['folder']}", soft_wrap=True)
