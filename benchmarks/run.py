"""Runs the sets of benchmarks and compares them with the ledger: a count that grew is an error."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from benchmarks import host, kernels, ledger, readme, reference, step
from benchmarks.ledger import Entry
from benchmarks.models import FAST, IN_QEMU, REFERENCE, RISCV, SLOW, Setting, lacking
from mcugrad.errors import McugradError

PICTURE = Path(__file__).with_name("step.png")
Job = tuple[str, Callable[[], Entry]]


def fast() -> Iterator[Job]:
    """What continuous integration measures: nothing outside the repository is needed."""
    yield from ((s.name, partial(whole_step, s)) for s in FAST)
    yield from kernels_on(kernels.TARGETS[0])


def everything() -> Iterator[Job]:
    """The fast set, the published networks where their files are, every core, and this machine's speed."""
    yield from fast()
    for target in (*kernels.TARGETS[1:], *IN_QEMU, RISCV):
        if missing := lacking(target):
            print(f"skipped: kernels on {target}: {missing} is not there")
        else:
            yield from kernels_on(target)
    for setting in SLOW:
        if setting.available:
            yield setting.name, partial(whole_step, setting)
        else:
            print(f"skipped: {setting.name}: {setting.missing} is not there")
    if REFERENCE.available:
        yield "host", partial(host.measure, reference.MODEL, reference.SCHEME)


def kernels_on(target: str) -> Iterator[Job]:
    return ((f"kernel/{s.name}/{target}", partial(kernels.measure, s, target)) for s in kernels.SHAPES)


def whole_step(setting: Setting) -> Entry:
    """Measures it and leaves its table, JSON and picture in runs/benchmarks."""
    measured = step.measure(setting)
    step.write(measured, step.OUT)
    return measured.entry


SETS = {"fast": fast, "all": everything}


def judge(known: dict[str, Entry], entry: Entry) -> list[str]:
    """Prints what changed; returns what got worse."""
    old = known.get(entry.name)
    if old is None:
        print("  not in the ledger yet: add it with --update")
        return []
    changed = ledger.changes(old, entry)
    for name, before, after in changed:
        print(f"  {name}: {before:,} -> {after:,} ({after / max(before, 1) - 1:+.1%})")
    return [f"{entry.name}: {name} rose from {b:,} to {a:,}" for name, b, a in changed if a > b]


def run(jobs: Iterable[Job], update: bool) -> int:
    """Measures everything; exit code 1 when something failed, or got worse and the ledger is not to be updated."""
    known, measured, worse, failed = ledger.read(), list[Entry](), list[str](), list[str]()
    start = time.monotonic()
    for name, measure in jobs:
        print(name, flush=True)
        try:
            entry = measure()
        except McugradError as error:
            failed.append(f"{name}: {error}")
            continue
        worse += judge(known, entry)
        measured.append(entry)
    print(f"{len(measured)} benchmarks in {time.monotonic() - start:.0f} s")
    if update:
        accept(measured)
    elif worse:
        print("worse than the ledger (accept with --update):", *worse, sep="\n  ", file=sys.stderr)
    if failed:
        print("failed:", *failed, sep="\n  ", file=sys.stderr)
    return int(bool(failed or (worse and not update)))


def accept(measured: list[Entry]) -> None:
    """Writes ledger, picture and the README's results."""
    ledger.update(measured)
    if any(e.name == REFERENCE.name for e in measured):
        shutil.copy(step.path(REFERENCE.name, step.OUT, ".png"), PICTURE)
    print(f"updated {ledger.LEDGER.name}" if readme.rewrite() else "README.md has no block for results")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("set", nargs="?", default="all", choices=SETS)
    parser.add_argument("--fast", dest="set", action="store_const", const="fast", help="the same as the set fast")
    parser.add_argument("--update", action="store_true", help="accept: write the ledger and the README's results")
    options = parser.parse_args()
    return run(SETS[options.set](), options.update)
