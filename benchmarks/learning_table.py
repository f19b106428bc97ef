"""Markdown of the learning benchmark: means over seeds, and differences paired by seed."""

from __future__ import annotations

from statistics import mean
from typing import Any

DEVICE, FLOAT = "int8 device arithmetic", "float PyTorch"

Run = dict[str, Any]


def after(run: Run) -> float:
    """Accuracy after training in percent."""
    return 100 * float(run["accuracy"]["after"])


def select(runs: list[Run], **fields: Any) -> list[Run]:
    return [r for r in runs if all(r[k] == v for k, v in fields.items())]


def differences(runs: list[Run]) -> list[float]:
    """Integer minus float accuracy in points, for each seed that both have."""
    floats = {r["seed"]: after(r) for r in runs if r["method"] == FLOAT}
    return [after(r) - floats[r["seed"]] for r in runs if r["method"] == DEVICE and r["seed"] in floats]


def table(runs: list[Run]) -> str:
    """One row per model, set and scheme."""
    lines = [
        "| model | set | scheme | lr | steps | int8 device | float PyTorch | int - float, per seed | n |"
        " loss of last epoch, int / float | full steps | saturated per step |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    keys = sorted({(r["model"], r["set"], r["scheme"]) for r in runs}, key=_order)
    return "\n".join([*lines, *(_row(*key, select(runs, **dict(zip(("model", "set", "scheme"), key)))) for key in keys)])  # noqa: B905


def _order(key: tuple[str, str, str]) -> tuple[str, str, int]:
    """Models and sets by name, schemes from the smallest to the largest."""
    *where, scheme = key
    rank = {"head": 0, "49kb": 2, "99kb": 3}.get(scheme, 1)
    return where[0], where[1], rank


def _row(model: str, name: str, scheme: str, runs: list[Run]) -> str:
    ints, floats = (select(runs, method=m) for m in (DEVICE, FLOAT))
    paired = differences(runs)
    losses = " / ".join(_mean([r["loss_last_epoch"] for r in part], 3) for part in (ints, floats))
    cells = [
        model, name, scheme, f"{runs[0]['lr']:g}", str(runs[0]["steps"]),
        _mean([after(r) for r in ints], 1), _mean([after(r) for r in floats], 1),
        f"**{mean(paired):+.1f}** ({', '.join(f'{d:+.1f}' for d in paired)})" if paired else "-",
        f"{len(ints)} / {len(floats)}", losses,
        _mean([100 * r["full_share"] for r in ints], 0) + " %", _mean([r["saturated"] / r["steps"] for r in ints], 2),
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _mean(values: list[float], digits: int) -> str:
    return f"{mean(values):.{digits}f}" if values else "-"


def summary(runs: list[Run]) -> str:
    """Integer minus float by scheme over everything that is paired, and what the schemes gain over the head alone."""
    lines = ["", "| scheme | int - float: mean | worst pair | pairs | int: gain over head only |", "|---|---|---|---|---|"]
    for scheme in dict.fromkeys(r["scheme"] for r in runs):
        groups = dict.fromkeys((r["model"], r["set"]) for r in select(runs, scheme=scheme))
        paired, gains = [], []
        for model, name in groups:
            part = select(runs, model=model, set=name, scheme=scheme)
            paired += differences(part)
            heads = select(runs, model=model, set=name, scheme="head", method=DEVICE, seed=0)
            gains += [after(r) - after(heads[0]) for r in select(part, method=DEVICE, seed=0) if heads]
        if paired:
            gain = f"{mean(gains):+.1f}" if gains else "-"
            lines.append(f"| {scheme} | {mean(paired):+.2f} | {min(paired):+.1f} | {len(paired)} | {gain} |")
    return "\n".join(lines)
