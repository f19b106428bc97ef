"""Facts of a build: where every byte and every multiply-accumulate goes, as nested JSON values."""

from __future__ import annotations

import re
from typing import Any

from mcugrad.build import Firmware
from mcugrad.program import Program


def facts(program: Program, firmware: Firmware) -> dict[str, Any]:
    """Bytes from the linked ELF, counts from the graph.

    sram: arena, parameters and the replay buffer are parts of static (.data + .bss without the reserved stack); stack is the
    worst case of the linked code; total = static + stack.  flash: total = code + constants (with the image of .data) + latents,
    the rest of the erase unit before them included.  Paths are relative to the folder.
    """
    elf = firmware.facts
    certificate = program.plan.certificate
    return {
        "model": program.name,
        "target": firmware.target.name,
        "classes": program.logits.type.elements,
        "macs": macs(program),
        "sram": {
            "arena": program.plan.arena,
            "parameters": program.state.total,
            "replay": program.replay_bytes,
            "static": elf.sram_static,
            "stack": elf.stack_bound,
            "total": elf.sram_total,
        },
        "flash": {
            "code": elf.flash_code,
            "constants": elf.flash_constants,
            "latents": elf.flash_latents,
            "total": elf.flash_total,
        },
        "plan": {
            "live_peak": certificate.live_peak,
            "lower_bound": certificate.lower_bound,
            "method": certificate.method,
            "peak_at": certificate.where,
            "alive_at_peak": [{"name": name, "bytes": size} for name, size in certificate.alive],
            "input_rows": program.input_rows,
            "steps": len(program.schedule),
        },
        "replay": replay_facts(program),
        "trainable": {"parameters": trainable(program), "names": [p.value.name for p in program.graph.mutable()]},
        "fingerprint": program.fingerprint,
        "elf": f"build/{firmware.elf.name}",
        "header": "model.h",
    }


def replay_facts(program: Program) -> dict[str, Any] | None:
    """The replay buffer: slots, samples learned from again per step, the value that is kept, its bytes, and bytes of flash from
    one to the next, 0 where they lie in SRAM; None without a buffer."""
    cut = program.cut
    if cut is None:
        return None
    replay = cut.replay
    kept = {"value": cut.value.name, "bytes": cut.value.type.nbytes, "pitch": cut.pitch}
    return {"slots": replay.slots, "per_step": replay.per_step, **kept}


def macs(program: Program) -> dict[str, int]:
    """Multiply-accumulates of the forward pass, and of everything else in a training step."""
    work = [(n.op.phase, n.op.work(n).macs) for n in program.graph.nodes]
    forward = sum(m for phase, m in work if phase == "forward")
    return {"forward": forward, "backward": sum(m for _, m in work) - forward}


UNCOUNTED = ("_residual", "_held", "_samples")


def trainable(program: Program) -> int:
    """Elements of the mutable parameters, residual bits and what steps of several samples hold not counted."""
    return sum(p.value.type.elements for p in program.graph.mutable() if not p.value.name.endswith(UNCOUNTED))


def layer_rows(program: Program) -> list[dict[str, Any]]:
    """One row per node of the program: what it is, its output, cost and memory; pieces of one node share a row."""
    rows: dict[tuple[str | None, str], dict[str, Any]] = {}
    for node in program.graph.nodes:
        value = node.outputs[0] if node.outputs else None
        name = re.sub(PIECE, "", value.name) if value and node.op.scratch_group else value.name if value else ""
        row = {
            "name": name,
            "op": node.op.name,
            "phase": node.op.phase,
            "output": str(value.type) if value else "",
            "macs": node.op.work(node).macs,
            "bytes": value.type.nbytes if value else 0,
            "offset": program.plan.offsets.get(value) if value else None,
            "origin": value.origin if value else "",
        }
        known = rows.setdefault((node.op.scratch_group, name or f"node {len(rows)}"), {**row, "macs": 0, "calls": 0})
        known["macs"] += row["macs"]
        known["calls"] += 1
    return list(rows.values())


PIECE = r"\.(to|from|sum)\d+(_\d+)?$"
"""What passes.recompute appends to the name of a value for each round."""
