"""What each technique brings: the same training step with one more of them at a time, measured on linked firmware.

The techniques are those of the product, left out here by composing its line by hand: fewer passes, a memory problem without
merges or overlaps, every node whole.  Fusion always stays: a gradient of int32 values has no kernel that stores it.

python benchmarks/ladder.py
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import reference
from benchmarks.models import Setting, prepared
from benchmarks.same_bits import STEPS, learn
from mcugrad.build import Firmware, build
from mcugrad.costs import Costs
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit import c as emit
from mcugrad.fit import Line
from mcugrad.ir import Graph, rebuild
from mcugrad.memory import problem
from mcugrad.memory.forward import Forward
from mcugrad.memory.schedule import Schedule, arrange, layerwise
from mcugrad.memory.solve import solve
from mcugrad.passes import TRAIN, Pass
from mcugrad.passes.train import fuse_chains, fuse_updates, one_bit_masks, prune, update_early
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Program, lower
from mcugrad.targets import get_target

RESULTS = Path(__file__).with_name("ladder.json")
ROOMY = 1 << 20  # bytes of SRAM where nothing limits a rung
BASE = Setting(reference.MODEL, reference.SCHEME, residual_bits=4)


def updates_last(graph: Graph) -> Graph:
    """Every update after the whole backward pass; not across an early end of the step, which decides what is learned."""
    stop = max((i for i, n in enumerate(graph.nodes) if not n.outputs), default=-1)
    late = [i > stop and n.op.phase == "update" for i, n in enumerate(graph.nodes)]
    delayed = {v for n, is_late in zip(graph.nodes, late, strict=True) if is_late for v in n.outputs}
    for i, node in enumerate(graph.nodes):
        if delayed & set(node.inputs):
            late[i] = True
            delayed.update(node.outputs)
    return rebuild(graph, (n for when in (False, True) for n, x in zip(graph.nodes, late, strict=True) if x is when))


@dataclass(frozen=True)
class Rung:
    """One more technique.  rows: the frozen first layers run in rows, the image pulled; sram: bytes within which the product
    plans everything itself, the backward pass too.  bias_bits: instead of 32."""

    name: str
    passes: Sequence[Pass] = TRAIN
    rows: bool = True
    in_place: bool = True
    overlaps: bool = True
    sram: int | None = None
    bias_bits: int = 32


FUSED = (prune, fuse_chains, fuse_updates)
MASKED = (prune, one_bit_masks, fuse_chains, fuse_updates, update_early)
RUNGS = (
    Rung("sparse backward pass, updates after it", (*FUSED, updates_last), rows=False, in_place=False, overlaps=False),
    Rung("frozen first layers and image in rows", (*FUSED, updates_last), in_place=False, overlaps=False),
    Rung("each update as early as possible", (*FUSED, update_early), in_place=False, overlaps=False),
    Rung("clamp masks of one bit", MASKED, in_place=False, overlaps=False),
    Rung("only the channels that learn are kept", in_place=False, overlaps=False),
    Rung("in place", overlaps=False),
    Rung("sliding overlaps"),
    Rung("longer runs of rows, at more calls", sram=80 << 10),
    Rung("biases as int16 beside their first values", sram=70 << 10, bias_bits=16),
    Rung("backward pass in rows, values computed again", sram=66 << 10, bias_bits=16),
)


def built(rung: Rung, network: Prepared, folder: Path) -> tuple[Program, Firmware]:
    """Its firmware.  Raises McugradError when it does not fit."""
    setting = replace(BASE, bias_bits=None if rung.bias_bits == 32 else rung.bias_bits)
    graph = training_graph(network, setting.update_scheme, passes=rung.passes)
    if rung.sram is not None:
        return Line(get_target(setting.target, sram=rung.sram), "rows", "zig").fit(graph, network.name, folder)
    schedule = in_rows(graph) if rung.rows else layerwise(graph)
    memory = problem.build(graph, schedule, in_place=rung.in_place)
    program = lower(graph, schedule, solve(memory if rung.overlaps else replace(memory, overlaps=())), network.name)
    emit.write(program, folder)
    return program, build(folder, get_target(setting.target, sram=ROOMY))


def in_rows(graph: Graph) -> Schedule:
    """The forward pass as far in rows as is nearly free, the image pulled."""
    blocks = next(iter(Forward(graph, rows=True, costs=Costs()).candidates(ROOMY)))
    return arrange(graph, [b.segment for b in blocks], input_rows=True)


def measure(rung: Rung, network: Prepared) -> dict[str, Any]:
    """Bytes of the linked firmware, instructions of the last of 20 steps in the virtual MCU, the hash after them."""
    with tempfile.TemporaryDirectory() as folder:
        program, firmware = built(rung, network, Path(folder))
        with VirtualMcu.load(firmware) as device:
            _, learned = learn(device, program, network)
            counters = device.counters()
    facts = firmware.facts
    sizes = {"sram": facts.sram_total, "arena": program.plan.arena, "parameters": program.state.total}
    return {"name": rung.name, **sizes, "instructions": counters.total, "bias_bits": rung.bias_bits, "hash": learned}


def main() -> int:
    if BASE.missing:
        print(f"{BASE.missing} is not there", file=sys.stderr)
        return 1
    network, rungs = prepared(BASE.model), []
    for rung in RUNGS:
        rungs.append(measure(rung, network))
        print(json.dumps(rungs[-1]), flush=True)
    result = {"setting": BASE.name, "steps": STEPS, "reference_sram": reference.SRAM, "rungs": rungs}
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    hashes = {(r["bias_bits"], r["hash"]) for r in rungs}
    return int(len(hashes) > len({r["bias_bits"] for r in rungs}))


if __name__ == "__main__":
    sys.exit(main())
