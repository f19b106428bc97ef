"""A build and a training run as tables for people."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_facts(facts: dict[str, Any], folder: str, out: Console) -> None:
    """Memory and cost of a build, for people."""
    sram, flash = facts["sram"], facts["flash"]
    table = Table("", "bytes", title=escape(f"{facts['model']} on {facts['target']}, {facts['classes']} classes"))
    for name in ("arena", "parameters", *(("replay",) if facts["replay"] else ()), "static", "stack", "total"):
        table.add_row(f"SRAM {name}", f"{sram[name]:,}")
    for name in ("code", "constants", *(("latents",) if flash.get("latents") else ()), "total"):
        table.add_row(f"flash {name}", f"{flash[name]:,}")
    out.print(table)
    plan, macs = facts["plan"], facts["macs"]
    out.print(
        f"arena: live peak {plan['live_peak']:,}, order-independent lower bound {plan['lower_bound']:,} ({plan['method']})"
    )
    if facts["replay"]:
        kept = facts["replay"]
        place = f", in slots of {kept['pitch']:,} bytes of flash" if kept["pitch"] else ""
        out.print(f"replay: {kept['slots']} samples of {kept['bytes']:,} bytes each, as {kept['value']}{place}")
    out.print(f"MACs: forward {macs['forward']:,}, backward and update {macs['backward']:,}")
    out.print(f"written to {folder}", soft_wrap=True, markup=False)


def print_training(result: dict[str, Any], out: Console) -> None:
    """What learning brought and cost, for people."""
    instructions, steps = result["instructions"], result["steps"]
    for name in result["metrics"]:
        before, after = (_figure(name, result[name][when]) for when in ("before", "after"))
        out.print(f"{name} on held-out data: {before} before, {after} after")
    for phase in result.get("phases", ()):
        found = ", ".join(f"{name} {_figure('accuracy', value)}" for name, value in phase["accuracy"].items())
        out.print(f"after learning the {phase['learned']} classes: {found}")
    if "forgetting" in result:
        out.print(f"forgetting: {100 * result['forgetting']:.1f} points of the old classes' accuracy")
    out.print(f"{steps['total']:,} steps, {steps['full']:,} with a backward pass; {result['samples_per_second']:,} per second")
    if instructions["forward"] is not None:
        out.print(f"instructions: inference {instructions['forward']:,}, step {instructions['step_mean']:,} on average")
    if instructions["step"] is not None:
        out.print(f"instructions: step with its backward pass {instructions['step']:,} at most")
    if "wear" in result:
        worn = result["wear"]
        out.print(
            f"flash: {worn['writes']:,} latents written ({worn['expected_writes']:,} expected of {worn['samples']:,} samples), "
            f"a unit erased {worn['most_erased']:,} times at most"
        )
    out.print(f"SRAM {result['sram']['total']:,} bytes; parameters {result['parameters_sha256'][:16]}...")
    out.print(f"written to {result['folder']}", soft_wrap=True, markup=False)


def _figure(name: str, value: float) -> str:
    """A share as a percentage, other figures as they are."""
    return f"{value:.1%}" if name in ("accuracy", "exact") else f"{value:.4g}"
