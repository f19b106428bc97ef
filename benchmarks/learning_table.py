"""Markdown of the learning benchmark: means over seeds, and paired differences pooled over networks and sets.

A pair is two runs of the same network, set, seed and therefore split.  Intervals are Student's t at 95 percent: over all
pairs, and, since splits of one set share samples, over the mean of each network and set, which is the wider and safer one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Run = Mapping[str, Any]
Column = tuple[str, str, str]  # scheme, method, variant
INT, FLOAT, REFERENCE, RULE, ZERO, PLAIN = METHODS = (
    "int8 device", "float", "reference", "device rule", "zero head", "no QAS",
)  # fmt: skip
SMALL, LARGE = "49kb", "99kb"
UNTRAINED = "untrained"  # as it came, with its own head
COLUMNS: tuple[tuple[str, Column], ...] = (
    ("head only", ("head", INT, "")),
    ("biases", ("bias", INT, "")),
    ("last 3 layers", ("last3", INT, "")),
    ("49kb", (SMALL, INT, "")),
    ("74kb (MbV2: 73kb)", ("middle", INT, "")),
    ("99kb", (LARGE, INT, "")),
    ("searched at 49kb's SRAM", (f"searched-{SMALL}", INT, "")),
    ("searched at 99kb's SRAM", (f"searched-{LARGE}", INT, "")),
    ("full update", ("full", INT, "")),
    ("float, 49kb", (SMALL, FLOAT, "")),
    ("float, 99kb", (LARGE, FLOAT, "")),
    ("reference, 49kb", (SMALL, REFERENCE, "")),
    ("its device rule, 49kb", (SMALL, RULE, "")),
)
MIDDLE = ("74kb", "73kb")
SIGNAL_SCHEMES = ("head", "bias", "last3", "full")
SIGNALS: tuple[tuple[str, Column], ...] = (
    ("as it came", (UNTRAINED, FLOAT, "")),
    *(
        (f"{title}{other}", (scheme, method, ""))
        for title, scheme in (("head only", "head"), ("biases", "bias"), ("last 3 layers", "last3"), ("full update", "full"))
        for other, method in (("", INT), (", float", FLOAT))
    ),
)
SIGNAL_SETS = ("speech_commands12", "cwru_bearing", "toycar_ad01")
CLAIMS: tuple[tuple[str, str, tuple[tuple[Column, Column], ...]], ...] = (
    ("integer - float, 49kb", "at least -0.5", (((SMALL, INT, ""), (SMALL, FLOAT, "")),)),
    ("integer - float, 99kb", "at least -0.5", (((LARGE, INT, ""), (LARGE, FLOAT, "")),)),
    ("integer - float, signals, every scheme", "at least -0.5", tuple(((s, INT, ""), (s, FLOAT, "")) for s in SIGNAL_SCHEMES)),
    (
        "integer - float, everything",
        "at least -0.5",
        tuple(((s, INT, ""), (s, FLOAT, "")) for s in (SMALL, LARGE, *SIGNAL_SCHEMES)),
    ),
    ("integer - reference's algorithm, 49kb", "at least 2", (((SMALL, INT, ""), (SMALL, REFERENCE, "")),)),
    ("integer, 99kb - reference's algorithm, 49kb (more SRAM)", "", (((LARGE, INT, ""), (SMALL, REFERENCE, "")),)),
    ("integer - reference's device rule, 49kb", "", (((SMALL, INT, ""), (SMALL, RULE, "")),)),
    ("searched - published 49kb, same SRAM", "at least 0", (((f"searched-{SMALL}", INT, ""), (SMALL, INT, "")),)),
    ("searched - published 99kb, same SRAM", "at least 0", (((f"searched-{LARGE}", INT, ""), (LARGE, INT, "")),)),
    ("49kb - head only", "", (((SMALL, INT, ""), ("head", INT, "")),)),
    ("full update - 99kb", "", ((("full", INT, ""), (LARGE, INT, "")),)),
)
ABLATIONS: tuple[tuple[str, Column, Column], ...] = (
    ("F = 0 instead of 4", (SMALL, INT, "F0"), (SMALL, INT, "")),
    ("F = 8 instead of 4", (SMALL, INT, "F8"), (SMALL, INT, "")),
    ("centred weight gradients, 49kb", (SMALL, INT, "centred"), (SMALL, INT, "")),
    ("full update without centring", ("full", INT, "not centred"), ("full", INT, "")),
    ("easy samples not skipped", (SMALL, INT, "never skips"), (SMALL, INT, "")),
    ("random int16 head instead of zero", (SMALL, INT, "random head"), (SMALL, INT, "")),
    ("reference's algorithm, zero head instead of random", (SMALL, ZERO, ""), (SMALL, REFERENCE, "")),
    ("the same without QAS", (SMALL, PLAIN, ""), (SMALL, ZERO, "")),
)


@dataclass(frozen=True)
class Pooled:
    """Differences in points: mean, half the width of both intervals (None for fewer than two), pairs, networks x sets."""

    mean: float
    half: float | None
    half_clustered: float | None
    pairs: int
    clusters: int


def read(path: Path) -> list[dict[str, Any]]:
    """The records of learning.jsonl; none where there is no such file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def points(runs: Iterable[Run], column: Column) -> dict[tuple[str, str], dict[int, float]]:
    """Test score in percent by (network, set) and seed; 'middle' stands for the scheme between 49kb and 99kb."""
    scheme, method, variant = column
    names = MIDDLE if scheme == "middle" else (scheme,)
    found: dict[tuple[str, str], dict[int, float]] = {}
    for r in runs:
        if r.get("scheme") in names and (r["method"], r["variant"]) == (method, variant):
            found.setdefault((r["model"], r["set"]), {})[r["seed"]] = 100 * float(r["test"])
    return found


def pooled(runs: list[Run], *columns: tuple[Column, Column]) -> Pooled | None:
    """Left minus right of each pair of columns, paired by network, set and seed; None without a pair."""
    found: dict[tuple[str, str], list[float]] = {}
    for left, right in columns:
        a, b = points(runs, left), points(runs, right)
        for key in a.keys() & b.keys():
            found.setdefault(key, []).extend(a[key][s] - b[key][s] for s in sorted(a[key].keys() & b[key].keys()))
    groups = [g for _, g in sorted(found.items()) if g]
    everything = [d for g in groups for d in g]
    if not everything:
        return None
    return Pooled(mean(everything), half_width(everything), half_width([mean(g) for g in groups]), len(everything), len(groups))


def half_width(values: list[float]) -> float | None:
    """Half of Student's 95 percent interval of the mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5


def tables(records: list[Run]) -> str:
    """All tables."""
    return "\n".join(
        [*scores(records), "", *signal_scores(records), "", *claims(records), "", *ablations(records), "", *searches(records)]
    )


def scores(records: list[Run]) -> list[str]:
    """Mean test score and number of seeds on images: a row per network and set."""
    return _scores([r for r in records if "test" in r and r["set"] not in SIGNAL_SETS], COLUMNS)


def signal_scores(records: list[Run]) -> list[str]:
    """The same for networks that read signals."""
    return _scores([r for r in records if "test" in r and r["set"] in SIGNAL_SETS], SIGNALS)


def _scores(runs: list[Run], columns: Iterable[tuple[str, Column]]) -> list[str]:
    kept = [(title, points(runs, column)) for title, column in columns]
    kept = [(title, found) for title, found in kept if found]
    keys = sorted({key for _, found in kept for key in found})
    lines = ["| network | set |" + "".join(f" {title} |" for title, _ in kept), "|---|---|" + "---:|" * len(kept)]
    for key in keys:
        cells = (f" {mean(f[key].values()):.1f} ({len(f[key])}) |" if key in f else " - |" for _, f in kept)
        lines.append(f"| {key[0]} | {key[1]} |{''.join(cells)}")
    return lines


def claims(records: list[Run]) -> list[str]:
    """What must hold, and what came out."""
    runs = [r for r in records if "test" in r]
    lines = [
        "| difference in points | goal | mean | 95 %, over pairs | 95 %, over networks and sets | pairs | networks and sets |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    rows = ((title, goal, pooled(runs, *columns)) for title, goal, columns in CLAIMS)
    return [*lines, *(_row([title, goal or "-"], p) for title, goal, p in rows if p)]


def ablations(records: list[Run]) -> list[str]:
    """One change at a time."""
    runs = [r for r in records if "test" in r]
    lines = [
        "| change | points | 95 %, over pairs | 95 %, over networks and sets | pairs | networks and sets |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    rows = ((title, pooled(runs, (left, right))) for title, left, right in ABLATIONS)
    return [*lines, *(_row([title], p) for title, p in rows if p)]


def _row(heads: list[str], p: Pooled) -> str:
    halves = ("-" if h is None else f"{p.mean - h:+.2f} to {p.mean + h:+.2f}" for h in (p.half, p.half_clustered))
    return f"| {' | '.join([*heads, f'{p.mean:+.2f}', *halves, str(p.pairs), str(p.clusters)])} |"


def searches(records: list[Run]) -> list[str]:
    """What was searched: one row per network, set and budget."""
    lines = [
        "| network | set | SRAM of | allowed, bytes | found, bytes | biases | weights: share / residual bits | seconds |",
        "|---|---|---|---:|---:|---:|---|---:|",
    ]
    for r in records:
        if r.get("kind") == "search":
            for f in r["found"]:
                weights = ", ".join(f"{k} {ratio:g}/{bits}" for k, (ratio, bits) in f["weights"].items())
                cells = [r["model"], r["set"], f["as_large_as"], f"{f['sram_allowed']:,}", f"{f['sram']:,}"]
                lines.append(f"| {' | '.join([*cells, str(f['biases']), weights, str(f['seconds'])])} |")
    return lines
