"""The ledger: one committed line per measured set of facts, and what counts as a regression against it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

LEDGER = Path(__file__).with_name("ledger.jsonl")
TOLERANCE = 0.01  # share by which a count may grow unnoticed
SLACK = 64  # instructions or bytes that it always may
UNCOUNTED = frozenset({"macs", "by_kernel"})  # no cost, and parts of a sum that is compared
COMPILER = f"zig {version('ziglang')}"


@dataclass(frozen=True)
class Entry:
    """`figures` are nested integers: instructions, bytes, MACs.  kind "host": seconds of one machine, never compared."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    figures: Mapping[str, Any]

    def line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def read(path: Path = LEDGER) -> dict[str, Entry]:
    """Entries by name; none when the file is missing."""
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {e.name: e for e in (Entry(**json.loads(line)) for line in lines)}


def update(entries: Iterable[Entry], path: Path = LEDGER) -> None:
    """Adds the entries, in place of those with the same names; lines are sorted by name."""
    known = read(path) | {e.name: e for e in entries}
    path.write_text("".join(known[name].line() + "\n" for name in sorted(known)), encoding="utf-8")


def changes(old: Entry, new: Entry) -> list[tuple[str, int, int]]:
    """(figure, before, after) of every count that differs by more than the tolerance."""
    if new.kind == "host":
        return []
    before, after = dict(leaves(old.figures)), dict(leaves(new.figures))
    shared = [k for k in after if k in before and not UNCOUNTED & set(k.split("."))]
    return [(k, before[k], after[k]) for k in shared if abs(after[k] - before[k]) > max(TOLERANCE * before[k], SLACK)]


def leaves(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, number) of every figure."""
    for key, value in figures.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
