"""The whole training step, counted: memory, instructions by phase, and every layer, beside the reference.

python benchmarks/step.py --model mcunet-5fps --scheme 49kb --sram 256K --input resident
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import reference
from benchmarks.calls import callee, traced
from benchmarks.ledger import COMPILER, Entry
from benchmarks.models import DIGITS, ROOT, Setting, compiled
from benchmarks.picture import draw
from mcugrad.compiler import INPUT_MODES, Compiled
from mcugrad.devices.base import Counters
from mcugrad.devices.probe import Kind
from mcugrad.devices.virtual import kind_of
from mcugrad.errors import McugradError
from mcugrad.ir import Node, Value
from mcugrad.memory.schedule import Step
from mcugrad.program import Program
from mcugrad.training.scheme import layer_of

STEPS = 4  # the first moves only the zero head
SHELL_KINDS = (Kind.SHELL, Kind.SITE)
OUT = ROOT / "runs" / "benchmarks"


@dataclass(frozen=True)
class Row:
    """One node of the program: the layer it belongs to, its C function, MACs and instructions of one step."""

    name: str
    layer: str
    kernel: str
    phase: str
    output: str
    macs: int
    instructions: int


@dataclass(frozen=True)
class Run:
    """A full step: its counters, its nodes in order of execution, and instructions by C function."""

    counters: Counters
    rows: tuple[Row, ...]
    functions: dict[str, int]


@dataclass(frozen=True)
class Measured:
    """A setting's figures, its layers, and (instructions, bytes of code) by C function."""

    entry: Entry
    rows: tuple[Row, ...]
    functions: dict[str, tuple[int, int]]


def measure(setting: Setting) -> Measured:
    """Compiles and trains a few samples in the virtual MCU; the step with the most instructions counts.

    Raises McugradError when the model is missing or does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        build = compiled(setting, Path(folder) / "model")
        run, inference, stack = _run(build)
        counts = _instructions(run.counters, inference)
        figures = {**_memory(build, stack), "instructions": counts, "by_kernel": by_kernel(run.rows)}
        sizes = {f.name: f.size for f in build.firmware.facts.functions}
    settings = {
        "model": setting.network,
        "scheme": setting.scheme,
        "target": setting.target,
        "sram": setting.sram << 10,
        "input": setting.input_mode,
        "compiler": COMPILER,
    }
    functions = {name: (count, sizes.get(name, 0)) for name, count in run.functions.items()}
    return Measured(Entry(setting.name, "step", settings, figures), run.rows, functions)


def _run(build: Compiled) -> tuple[Run, int, int]:
    """The dearest full step, instructions of an inference, bytes of stack touched."""
    x, y = build.prepared.x, build.prepared.y
    best: Run | None = None
    with traced(build) as trace:
        trace.device.stack_used()
        for sample, label in zip(x[:STEPS], y[:STEPS], strict=True):
            full = trace.step(sample, int(label)).progress == 0
            counters = trace.counters
            if full and (best is None or counters.total > best.counters.total):
                rows = tuple(_row(k, n, build.program) for k, n in trace.costs().items())
                best = Run(counters, rows, trace.functions())
        trace.device.infer(x[0])
        inference, stack = trace.counters.total, trace.device.stack_used()
    if best is None:
        raise McugradError(f"none of {STEPS} steps ran to its end: every gradient of the head was zero")
    return best, inference, stack


def _memory(build: Compiled, stack: int) -> dict[str, Any]:
    facts, elf = build.facts(), build.firmware.facts
    kernels = sum(f.size for f in elf.functions if kind_of(f.name) not in SHELL_KINDS)
    plan = {k: facts["plan"][k] for k in ("live_peak", "lower_bound")}
    return {
        "macs": facts["macs"],
        "sram": {**facts["sram"], "stack_touched": stack},
        "flash": {**facts["flash"], "kernels": kernels},
        "plan": plan,
    }


def _instructions(counters: Counters, inference: int) -> dict[str, int]:
    return {
        "step": counters.total,
        "forward": counters.forward,
        "backward": counters.backward,
        "update": counters.update,
        "inference": inference,
    }


def _row(key: Node | Value, instructions: int, program: Program) -> Row:
    if isinstance(key, Value):
        return Row(key.name, key.name, "mcg_load_rows", "forward", str(key.type).split()[0], 0, instructions)
    name = key.outputs[0].name if key.outputs else key.op.name
    output = str(key.outputs[0].type).split()[0] if key.outputs else ""
    layer, kernel = _layer(key, program), callee(Step(key, 0, 1))
    return Row(name, layer, kernel, key.op.phase, output, key.op.work(key).macs, instructions)


def _layer(node: Node, program: Program) -> str:
    """The layer whose weight or bias the node reads, or else the value that it computes."""
    params = {p.value for p in program.graph.params}
    for value in node.inputs:
        if value in params and value.name.endswith(("_weight", "_bias")):
            return layer_of(value.name)
    return (node.outputs[0].name if node.outputs else node.op.name).split(".")[0]


def by_kernel(rows: tuple[Row, ...]) -> dict[str, dict[str, int]]:
    """MACs and instructions by C function."""
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        sums = found.setdefault(row.kernel, {"macs": 0, "instructions": 0})
        sums["macs"] += row.macs
        sums["instructions"] += row.instructions
    return found


def table(measured: Measured) -> str:
    """Figures, kernels and layers as text."""
    figures = measured.entry.figures
    sram, flash, counts = figures["sram"], figures["flash"], figures["instructions"]
    known = measured.entry.settings["model"] == reference.MODEL and measured.entry.settings["scheme"] == reference.SCHEME
    facts = [
        ("SRAM, static + stack", sram["total"], reference.SRAM),
        ("  arena", sram["arena"], 0),
        ("  parameters", sram["parameters"], 0),
        ("  stack (touched)", f"{sram['stack']:,} ({sram['stack_touched']:,})", 0),
        ("flash, constants", flash["constants"], reference.FLASH["constants"]),
        ("flash, code", flash["code"], reference.FLASH["code"]),
        ("  kernels", flash["kernels"], 0),
        ("step, instructions", counts["step"], reference.STEP["step"]),
        ("  forward", counts["forward"], reference.STEP["forward"]),
        ("  backward + update", counts["backward"] + counts["update"], reference.STEP["backward + update"]),
        ("  of it update", counts["update"], 0),
        ("inference", counts["inference"], 0),
    ]
    lines = [measured.entry.name, f"{'':24}{'mcugrad':>16}" + (f"{'reference':>16}" if known else "")]
    for what, ours, theirs in facts:
        mine = f"{ours:,}" if isinstance(ours, int) else ours
        lines.append(f"{what:24}{mine:>16}" + (f"{theirs:>16,}" if known and theirs else ""))
    parts = (_kernel_lines(figures["by_kernel"]), _function_lines(measured.functions), _layer_lines(measured.rows))
    return "\n".join([*lines, *(line for part in parts for line in ("", *part))])


def _kernel_lines(kernels: dict[str, dict[str, int]]) -> list[str]:
    lines = [f"{'kernel':32}{'MACs':>12}{'instructions':>14}{'per MAC':>9}"]
    for name, sums in sorted(kernels.items(), key=lambda item: -item[1]["instructions"]):
        lines.append(f"{name:32}{sums['macs']:>12,}{sums['instructions']:>14,}{_ratio(**sums):>9}")
    return lines


def _function_lines(functions: dict[str, tuple[int, int]]) -> list[str]:
    """The functions that take most, the link's left out."""
    total = sum(count for count, _ in functions.values())
    lines = [f"{'function':32}{'instructions':>14}{'share':>8}{'code bytes':>12}"]
    for name, (count, size) in sorted(functions.items(), key=lambda item: -item[1][0]):
        if count >= total / 1000 and kind_of(name) not in SHELL_KINDS:
            lines.append(f"{name:32}{count:>14,}{count / total:>8.1%}{size:>12,}")
    return lines


def _layer_lines(rows: tuple[Row, ...]) -> list[str]:
    total = sum(r.instructions for r in rows)
    head = f"{'value':26}{'kernel':28}{'phase':10}{'output':18}{'MACs':>11}{'instructions':>13}{'per MAC':>9}{'share':>7}"
    return [head] + [
        f"{r.name:26}{r.kernel:28}{r.phase:10}{r.output:18}{r.macs:>11,}{r.instructions:>13,}"
        f"{_ratio(r.macs, r.instructions):>9}{r.instructions / total:>7.1%}"
        for r in rows
    ]


def _ratio(macs: int, instructions: int) -> str:
    return f"{instructions / macs:.2f}" if macs else ""


def write(measured: Measured, out: Path) -> None:
    """NAME.txt, NAME.json and NAME.png in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    name = measured.entry.name
    functions = {n: {"instructions": count, "code": size} for n, (count, size) in measured.functions.items()}
    layers = [vars(r) for r in measured.rows]
    details = {"name": name, "figures": measured.entry.figures, "functions": functions, "layers": layers}
    path(name, out, ".txt").write_text(table(measured) + "\n", encoding="utf-8")
    path(name, out, ".json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
    draw(measured.rows, name.removeprefix("step/"), path(name, out, ".png"))


def path(name: str, out: Path, suffix: str) -> Path:
    """The file of a setting in `out`."""
    return out / (name.removeprefix("step/").replace("/", "-") + suffix)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=DIGITS, help=f"{DIGITS}, the name of a published network, or a path")
    parser.add_argument("--scheme", default="demo")
    parser.add_argument("--sram", default="256K", help="KiB, as in 256K")
    parser.add_argument("--input", default="resident", choices=INPUT_MODES)
    parser.add_argument("--target", default="cortex-m7")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the table, its JSON and a picture")
    options = parser.parse_args()
    setting = Setting(options.model, options.scheme, int(options.sram.rstrip("K")), options.input, options.target)
    try:
        measured = measure(setting)
    except McugradError as error:
        print(error, file=sys.stderr)
        return 1
    print(table(measured))
    write(measured, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
