"""The results in README.md, generated from the ledger and the other JSON files beside it.

python benchmarks/readme.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import continual, host, kernels, learning_table, ledger, reference
from benchmarks.ledger import Entry
from benchmarks.markdown import Lines, table
from benchmarks.memory_tables import ladder_table, pytorch_table, same_bits_table
from benchmarks.models import FAST, REFERENCE, ROOT, SLOW, STREAMED
from benchmarks.zoo_table import zoo_table

README = ROOT / "README.md"
LEARNING = Path(__file__).with_name("learning.jsonl")
ZOO = Path(__file__).with_name("zoo.json")
LADDER, MEMORY, SAME_BITS = (Path(__file__).with_name(f"{name}.json") for name in ("ladder", "memory", "same_bits"))
STABILITY = Path(__file__).with_name("stability.json")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
CORES = {"cortex-m7": "M7", "cortex-m4": "M4", "cortex-m0plus": "M0+", "cortex-m55": "M55", "rv32imc": "rv32imc"}


def block(known: Mapping[str, Entry] | None = None, learning: Path = LEARNING, zoo: Path = ZOO) -> str:
    """What stands between the markers: a section for everything that has been measured."""
    entries = ledger.read() if known is None else known
    sections = [memory_and_step(entries), ladder_table(_read(LADDER)), pytorch_table(_read(MEMORY).get("peaks", ()))]
    sections += [other_builds(entries), same_bits_table(_read(SAME_BITS)), kernel_table(entries), speed(entries)]
    sections += [
        learning_tables(learning_table.read(learning)),
        long_runs(read_stability(STABILITY)),
        later_classes(continual.stored()),
        zoo_table(read_zoo(zoo)),
    ]
    return "\n\n".join("\n".join(s) for s in sections if s)


def memory_and_step(known: Mapping[str, Entry]) -> Lines:
    """The reference network: ours, image resident and image by rows, beside the released code."""
    ours = [known.get(REFERENCE.name), known.get(STREAMED.name)]
    if not ours[0]:
        return []
    columns = [e.figures for e in ours if e]
    heads = ["image in SRAM", f"image row by row, {STREAMED.sram} KiB"]
    rows: list[tuple[str, str, list[int]]] = [
        ("SRAM: static + worst stack, bytes", f"about {reference.SRAM:,}", [f["sram"]["total"] for f in columns]),
        ("of it learning state (parameters)", "", [f["sram"]["parameters"] for f in columns]),
        ("flash: constants, bytes", f"about {reference.FLASH['constants']:,}", [f["flash"]["constants"] for f in columns]),
        ("flash: code, bytes", f"about {reference.FLASH['code']:,}", [f["flash"]["code"] for f in columns]),
        ("instructions per training step", f"{reference.STEP['step']:,}", [f["instructions"]["step"] for f in columns]),
        ("forward", f"{reference.STEP['forward']:,}", [f["instructions"]["forward"] for f in columns]),
        ("backward + update", f"{reference.STEP['backward + update']:,}", [_learning(f) for f in columns]),
    ]
    return [
        "**One training step of MCUNet-5FPS** (published 49kb scheme, 128x128x3, 10 classes, batch 1) on a Cortex-M7.",
        "Bytes are those of the linked firmware, instructions are counted in the virtual MCU; both are exact and repeatable.",
        "",
        *table(["", "released code", *heads[: len(columns)]], ([n, r, *(f"{v:,}" for v in vs)] for n, r, vs in rows)),
        "",
        "![Instructions of one training step by layer](benchmarks/step.png)",
    ]


def _learning(figures: Mapping[str, Any]) -> int:
    return int(figures["instructions"]["backward"] + figures["instructions"]["update"])


def other_builds(known: Mapping[str, Entry]) -> Lines:
    """Other networks, schemes and cores, as far as they are measured still."""
    shown, current = (REFERENCE.name, STREAMED.name), {s.name for s in (*FAST, *SLOW)}
    found = [e for e in known.values() if e.kind == "step" and e.name not in shown and e.name in current]
    if not found:
        return []
    return ["**Other networks, schemes and cores**", "", *table(_BUILDS, map(_build, found), words=4)]


_BUILDS = [
    "network",
    "scheme",
    "core",
    "input, SRAM it may use",
    "SRAM, bytes",
    "flash, bytes",
    "instructions per step",
    "per inference",
]


def _build(entry: Entry) -> Lines:
    s, f = entry.settings, entry.figures
    counts = (f["sram"]["total"], f["flash"]["total"], f["instructions"]["step"], f["instructions"]["inference"])
    _, network, scheme, memory, _ = entry.name.split("/")
    return [network, scheme, CORES.get(s["target"], s["target"]), memory.replace("-", ", "), *(f"{c:,}" for c in counts)]


def kernel_table(known: Mapping[str, Entry]) -> Lines:
    """Instructions per MAC on the Cortex-M7, forward on the others."""
    others = [c for c in CORES if c != "cortex-m7" and any(f"kernel/{s.name}/{c}" in known for s in kernels.SHAPES)]
    measured = [s.name for s in kernels.SHAPES if f"kernel/{s.name}/cortex-m7" in known]
    rows = [_kernel(name, known, others) for name in measured]
    if not rows:
        return []
    heads = ["layer", "forward", "TinyEngine", "CMSIS-NN", *(CORES[c] for c in others)]
    cores = " and ".join(heads[4:])
    heads += ["input gradient", "TinyEngine (fp32)", "weight update", "TinyEngine (fp32)"]
    return [
        f"**Kernels**: instructions per multiply-accumulate on a Cortex-M7 (and forward on {cores}), whole calls with",
        "requantization; an update includes the weights' rounding. TinyEngine and CMSIS-NN were counted on an M7; the",
        "gradients of TinyEngine are those of its own layers of that kind, in floating point, not of exactly these shapes.",
        "",
        *table(heads, rows),
    ]


def _kernel(shape: str, known: Mapping[str, Entry], cores: Iterable[str]) -> Lines:
    def ours(part: str, target: str = "cortex-m7") -> str:
        entry = known.get(f"kernel/{shape}/{target}")
        return kernels.per_mac(entry, part) if entry else "-"

    def theirs(part: str) -> str:
        return reference.TINYENGINE.get((shape, part), "-")

    forward, gradient, update = kernels.PARTS[:3]
    others = [reference.CMSIS_NN.get((shape, forward), "-"), *(ours(forward, core) for core in cores)]
    return [shape, ours(forward), theirs(forward), *others, ours(gradient), theirs(gradient), ours(update), theirs(update)]


def speed(known: Mapping[str, Entry]) -> Lines:
    """The host twin's speed, which depends on the machine."""
    lines = []
    for entry in known.values():
        if entry.kind == "host":
            figures, what = entry.figures, f"{entry.settings['model']}, {entry.settings['scheme']}"
            ours = figures["steps_per_second"]
            infers = figures.get("inferences_per_second")
            beside = [
                f"{name}: {figures[key]:g} ({ours / figures[key]:.1f} times less)"
                for key, name in host.RATIOS.items()
                if key in figures
            ]
            lines.append(
                f"**Host twin** ({what}): {ours:g} training steps"
                + (f" or {infers:g} inferences" if infers else "")
                + " per second of processor time, one core of the measuring machine ([others](docs/guide/speed.md#host-twin))"
                + (f". The same scheme, batch 1, one thread: {'; '.join(beside)}." if beside else ".")
            )
    return lines


def _read(path: Path) -> Mapping[str, Any]:
    """Empty when the file is missing."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def read_zoo(path: Path) -> list[Mapping[str, Any]]:
    """The rows of the model zoo, in its order; none before anything was measured."""
    return list(json.loads(path.read_text(encoding="utf-8")).values()) if path.exists() else []


def learning_tables(records: list[dict[str, Any]]) -> Lines:
    """Accuracies, what was claimed, and one change at a time; nothing before anything was measured."""
    if not records:
        return []
    changes = learning_table.ablations(records)
    return [
        "**Accuracy on held-out images**, percent (magnetic_tile: mean over its classes), and in brackets the number of seeds;",
        "training, validation and test images are drawn again for each. Arithmetic of the device unless said, batch 1.",
        "[How it was measured, and what does not hold](docs/guide/learning.md).",
        "",
        *learning_table.scores(records),
        "",
        "**Accuracy on signals** (six new words after six others; a bearing under three loads after another; AUC of a",
        "fourth toy car after three), the float runs in PyTorch:",
        "",
        *learning_table.signal_scores(records),
        "",
        "Differences between runs of the same network, set and split, pooled:",
        "",
        *learning_table.claims(records),
        *(["", *changes] if len(changes) > 2 else []),
    ]


def later_classes(records: list[dict[str, Any]]) -> Lines:
    """What a replay buffer keeps of what later classes make a network forget; nothing before anything was measured."""
    if not records:
        return []
    return [
        "**Classes that come later**: the last third of a set's classes is learned after the others, alone. Percent right",
        "on held-out images of MCUNet-5FPS, and how much of that on the old classes is forgotten, with a buffer of past",
        "activations ([replay](docs/guide/continual.md)).",
        "",
        *continual.report(records),
    ]


def read_stability(path: Path) -> list[Mapping[str, Any]]:
    """The long runs, in their order; none before anything was measured."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def long_runs(runs: Iterable[Mapping[str, Any]]) -> Lines:
    """Each long run at its end, and its loss and accuracy on the way."""
    runs = list(runs)
    rows = [_long_run(run) for run in runs]
    if not rows:
        return []
    cores = [c for run in runs if (c := run.get("virtual_mcu")) is not None]
    again = [
        f"The first {c['steps']:,} steps of the first run once more in the virtual MCU, in {c['sram']:,} bytes of SRAM: "
        f"{'the same bits' if c['same_bits'] else 'OTHER bits'}."
        for c in cores
    ]
    return [
        "**100,000 training steps** of MCUNet-5FPS at batch 1 on the host twin (2,000 images of CIFAR-10, no sample skipped):",
        "test accuracy in percent and training loss after 10,000 and 100,000 steps, and the largest share of gradient elements",
        "clamped in the 1,000 steps before any look at the run. Constant: the rate never falls. What counts as stable is",
        "written in `benchmarks/stability.py`.",
        "",
        *table(["scheme, rate", "accuracy", "at the end", "loss", "at the end", "clamped", "verdict"], rows),
        *(["", *again] if again else []),
    ]


def _long_run(run: Mapping[str, Any]) -> Lines:
    marks = run["marks"]
    two = (next(m for m in marks if m["step"] == 10_000), marks[-1])
    clamped = max(m["saturated"] for m in marks)
    figures = [*(f"{100 * m['accuracy']:.1f}" for m in two), *(f"{m['loss']:.3f}" for m in two), f"{clamped:.1e}"]
    return [run["run"].replace("/", ", "), *figures, "; ".join(run["broken"]) or "stable"]


def current() -> str | None:
    """What stands between the markers; None without a README that has them."""
    text = README.read_text(encoding="utf-8") if README.exists() else ""
    _, begin, rest = text.partition(BEGIN)
    inside, end, _ = rest.partition(END)
    return inside.strip("\n") if begin and end else None


def rewrite() -> bool:
    """Puts the block into the README; False when it has no markers."""
    if current() is None:
        return False
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    README.write_text(f"{before}{BEGIN}\n{block()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.exit(0 if rewrite() else f"{README.name} has no line {BEGIN} ... {END}")
