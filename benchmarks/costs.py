"""Fits the cost model: instructions of every kernel from MACs, elements and calls, on each core, with its errors.

Layerwise builds say what whole nodes cost, streamed ones what a range of rows costs beyond its share, the smallest what its
chunks of channels and narrow layers cost.

python benchmarks/costs.py --write
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import reference
from benchmarks.calls import callee, traced
from benchmarks.models import DIGITS, FULL, IN_QEMU, SMALL, SMALLEST, STREAMED, TARGETS, Setting, compiled
from mcugrad.costs import DATA, OTHER, counts, kind
from mcugrad.errors import BudgetError
from mcugrad.ir import Node
from mcugrad.memory.schedule import Step

SRAM = 512  # KiB: the image resident
FITTED = (
    *(Setting(DIGITS, scheme, SRAM) for scheme in ("demo", "full")),
    *(Setting(reference.MODEL, scheme, SRAM) for scheme in ("49kb", "99kb", "148kb")),
    STREAMED,
    SMALL[1],
    SMALLEST,
    *FULL,
)
HELD_OUT = (*(Setting("mbv2-w0.35", scheme, SRAM) for scheme in ("49kb", "99kb")), SMALL[0], SMALL[3], SMALL[4])
STEPS = 3  # at most, until one runs to its end
FEWEST = 3  # calls from which factors are fitted; of fewer, those of MACs and calls alone
FEWEST_OF_A_KIND = 5
SIZES = [list(vars(OTHER)).index(n) for n in ("element", "input", "weight", "again", "joined", "rest")]


@dataclass(frozen=True)
class Call:
    """A node of a measured step; name: the kernel's, as costs.json has it, with the node's kind."""

    kernel: str
    name: str
    counts: tuple[int, ...]
    instructions: int


def measure(setting: Setting) -> list[Call]:
    """Every node of a full step.  Raises McugradError when the model is missing."""
    with tempfile.TemporaryDirectory() as folder:
        build = compiled(setting, Path(folder) / "model")
        with traced(build) as trace:
            for x, y in zip(build.prepared.x[:STEPS], build.prepared.y[:STEPS], strict=True):
                if trace.step(x, int(y)).progress == 0:
                    break
            calls = Counter(s.node for s in trace.steps if isinstance(s, Step))
            costs = {k: n for k, n in trace.costs().items() if isinstance(k, Node)}
    return [_call(node, calls[node], n) for node, n in costs.items()]


def _call(node: Node, calls: int, instructions: int) -> Call:
    kernel = callee(Step(node, 0, 1))
    return Call(kernel, ":".join(filter(None, (kernel, kind(node)))), counts(node, calls), instructions)


def measured(target: str) -> Iterator[tuple[str, list[Call]]]:
    """Name and nodes of every setting that fits on the core as it fits on a Cortex-M7."""
    for setting in (*FITTED, *HELD_OUT):
        try:
            yield setting.name, measure(replace(setting, target=target))
        except BudgetError as error:
            print(f"left out: {setting.name}: {error}")


def fit(calls: Sequence[Call]) -> dict[str, list[float]]:
    """Factors by kernel, and by kernel and kind where there are enough calls of it."""
    groups: dict[str, list[Call]] = {}
    for call in calls:
        for name in {call.kernel, call.name}:
            groups.setdefault(name, []).append(call)
    return {k: fit_one(own) for k, own in sorted(groups.items()) if ":" not in k or len(own) >= FEWEST_OF_A_KIND}


def fit_one(calls: Sequence[Call]) -> list[float]:
    """Factors of calls of one kind, none negative: least squares of the error over the square root of the instructions, so
    that neither the many small calls nor the few large ones decide alone."""
    weight = np.array([1 / max(c.instructions, 1) ** 0.5 for c in calls])
    rows = np.array([c.counts for c in calls], float) * weight[:, None]
    if len(calls) < FEWEST:
        rows[:, SIZES] = 0.0
    solution, _ = nnls(rows, np.array([c.instructions for c in calls]) * weight)
    return [float(f"{v:.4g}") for v in solution]


def predicted(call: Call, table: dict[str, list[float]]) -> float:
    return float(np.dot(table.get(call.name, table.get(call.kernel, list(vars(OTHER).values()))), call.counts))


def errors(calls: Iterable[Call], table: dict[str, list[float]]) -> dict[str, tuple[int, float, float]]:
    """(calls, mean, worst) relative error by kernel, calls of at least 1000 instructions."""
    found: dict[str, list[float]] = {}
    for call in calls:
        if call.instructions >= 1000:
            found.setdefault(call.kernel, []).append(abs(predicted(call, table) / call.instructions - 1))
    return {k: (len(e), float(np.mean(e)), max(e)) for k, e in sorted(found.items())}


def report(core: str, table: dict[str, list[float]], steps: dict[str, list[Call]]) -> None:
    """Errors by step and, for the held-out networks, by kernel."""
    print(f"{core}\n  {'step':52}{'measured':>14}{'predicted':>14}{'error':>8}")
    for name, calls in steps.items():
        real, model = sum(c.instructions for c in calls), sum(predicted(c, table) for c in calls)
        print(f"  {name:52}{real:>14,}{model:>14,.0f}{model / real - 1:>8.1%}")
    held, fitted = ([c for s in settings for c in steps.get(s.name, ())] for settings in (HELD_OUT, FITTED))
    head = f"{'calls':>8}{'mean':>8}{'worst':>8}"
    print(f"  {'kernel: fitted, then held out':34}{head}{head}")
    other = errors(held, table)
    for kernel, (n, mean, worst) in errors(fitted, table).items():
        line = "".join(f"{a:>8}{b:>8.1%}{c:>8.1%}" for a, b, c in [(n, mean, worst), *filter(None, [other.get(kernel)])])
        print(f"  {kernel:34}{line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", choices=(*TARGETS, *IN_QEMU), action="append", help="repeatable; default: all")
    parser.add_argument("--write", action="store_true", help=f"replace the factors in {DATA.name}")
    options = parser.parse_args()
    for target in options.target or (*TARGETS, *IN_QEMU):
        steps = dict(measured(target))
        table = fit([c for s in FITTED for c in steps.get(s.name, ())])
        report(target, table, steps)
        if options.write:
            known = json.loads(DATA.read_text(encoding="utf-8")) if DATA.exists() else {}
            known[target] = table
            DATA.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
