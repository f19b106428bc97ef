"""What was measured of memory as Markdown: the ladder of techniques, PyTorch beside us, bits that stay the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.markdown import Lines, table


def ladder_table(found: Mapping[str, Any]) -> Lines:
    """One row per technique; none before it was measured."""
    if not found:
        return []
    rungs = found["rungs"]
    heads = ["each with those above it", "SRAM, bytes", "arena", "instructions per step", "of the released code's SRAM"]
    rows = [_rung(r, found["reference_sram"]) for r in rungs]
    return [
        "**The ladder**: MCUNet-5FPS, 49kb scheme with 4 residual bits, one technique more per row. SRAM is that of the linked",
        f"firmware (static + worst stack); the released code needs about {found['reference_sram']:,} bytes.",
        f"Hash of the parameters after {found['steps']} steps in the virtual MCU: {_hashes(rungs)}.",
        "",
        *table(heads, rows),
    ]


def _rung(rung: Mapping[str, Any], reference: int) -> list[str]:
    numbers = [f"{rung[key]:,}" for key in ("sram", "arena", "instructions")]
    return [rung["name"], *numbers, f"{rung['sram'] / reference:.0%}"]


def _hashes(rungs: Sequence[Mapping[str, Any]]) -> str:
    """Are they the same in all rows that keep biases alike?"""
    kinds = {
        bits: {r["hash"] for r in rungs if r["bias_bits"] == bits} for bits in dict.fromkeys(r["bias_bits"] for r in rungs)
    }
    words = (f"{'the same' if len(h) == 1 else 'NOT the same'} in all rows of int{bits} biases" for bits, h in kinds.items())
    return ", ".join(words)


def pytorch_table(peaks: Sequence[Mapping[str, Any]]) -> Lines:
    """Peaks of PyTorch beside our SRAM, bytes and how many times as much; none before they were measured."""
    if not peaks:
        return []
    heads = ["network", "scheme", "live tensors", "process beyond the library", "whole process", "ours: SRAM of the firmware"]
    return [
        "**Memory of training beside PyTorch** (fp32, batch 1, the same network and scheme): bytes, and how many times ours.",
        "",
        *table(heads, map(_peak, peaks), words=2),
    ]


def _peak(peak: Mapping[str, Any]) -> list[str]:
    ours = peak["ours"]
    theirs = [f"{peak[key]:,} ({peak[key] / ours:,.0f}x)" for key in ("tensors", "training", "process")]
    return [peak["model"], peak["scheme"], *theirs, f"{ours:,}"]


def same_bits_table(found: Mapping[str, Any]) -> Lines:
    """Builds in little memory and their twins with room to spare; none before they were compared."""
    if not found:
        return []
    heads = ["build", "SRAM, bytes", "with room", "steps", "same hash"]
    rows = [_pair(name, result) for name, result in found.items()]
    return [
        "**The same bits in less memory**: hash of the parameters after some steps of the lean build, in the virtual MCU and",
        "on the host, and of the same network planned with room to spare.",
        "",
        *table(heads, rows),
    ]


def _pair(name: str, result: Mapping[str, Any]) -> list[str]:
    words = name.removeprefix("step/").replace("/", ", ")
    sizes = [f"{result['sram']:,}", f"{result['layerwise_sram']:,}", str(result["steps"])]
    return [words, *sizes, "yes" if result["equal"] else "NO"]
