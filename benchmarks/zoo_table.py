"""The model zoo as Markdown: one row per model, what was measured of it, and what its columns mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Row = Mapping[str, Any]

HEADS = ("model", "source", "parameters", "MACs", "agreement, %", "top-1, %", "QDQ, %", "top-1, %",
         "own task: published", "float", "int8", "SRAM, bytes", "flash, bytes", "instructions per step", "same bits",
         "adapts to", "rate", "before", "after")  # fmt: skip
WORDS = {"model", "source", "adapts to"}

TEXT = """
**Model zoo**: files of others and networks from code, imported, compared, and trained on real data with the device's
arithmetic. *small*: a network of that family for 32x32 or 16x16 images, trained for a minute before. Agreement: share of
outputs within 1 LSB, and of equal top classes, on 200 real samples: against LiteRT for int8 TFLite (1 LSB is a step of the
model's own output; where its int8 logits tie, each of the tied classes is its top class), else against onnxruntime on the
network exported in the device's own integers (`--to onnx-exact`; 1 LSB is 1/255 of the outputs' range). QDQ: the same for the
network exported with quantize/dequantize pairs (`--to onnx`), which onnxruntime adds and averages in float. Own task:
accuracy in percent as published, of the float model, and of the integer network (area under the curve for the autoencoder).
SRAM, flash and instructions belong to a training build on a Cortex-M7; same bits: host and virtual MCU after five steps.
Accuracies before and after adaptation are on held-out data; the rate is the one of five or more, each four times the next,
that was best on a fifth of the training samples, held out for that (while the best was at an edge, one more was tried);
*new*: the head is new, so that it starts at chance. The autoencoder learns on from the normal recordings: a lower error of
these is no larger area under the curve, and in float training it falls as well.
"""


def zoo_table(rows: Iterable[Row]) -> list[str]:
    """Lines of Markdown; none without rows."""
    cells = [_cells(row) for row in rows]
    if not cells:
        return []
    rule = "|".join(["", *("---" if h in WORDS else "---:" for h in HEADS), ""])
    return [
        *TEXT.strip().splitlines(),
        "",
        f"| {' | '.join(HEADS)} |",
        rule,
        *(f"| {' | '.join(row)} |" for row in cells),
    ]


def _cells(row: Row) -> list[str]:
    agreement, own = row.get("agreement"), row.get("own", {})
    build, learned = row.get("build"), row.get("adaptation")
    found = [row["model"], row["source"], f"{row['params']:,}", f"{row['macs']:,}"]
    restores = (learned or {}).get("metric") == "auc"  # an autoencoder has no classes
    for compared in (agreement, row.get("exported", {}).get("qdq")):
        if compared is None:
            found += ["-", "-"]
        else:
            found += [_percent(compared["within"]), "-" if restores else _percent(compared["top1"])]
    found += [
        "-" if own.get("published") is None else f"{own['published']:.1f}",
        *(_own(own, kind) for kind in ("float", "int8")),
    ]
    if build is None:
        found += ["-"] * 4
    else:
        found += [*(f"{build[name]:,}" for name in ("sram", "flash", "instructions")), "yes" if build["same_bits"] else "NO"]
    if learned is None:
        return [*found, "-", "-", "-", "-"]
    head = " (*new*)" if learned["head"] == "new" else " (AUC)" if learned["metric"] == "auc" else ""
    rate = f"{learned['rate']['rate']:.2g}" if "rate" in learned else "-"
    return [*found, f"{learned['set']}{head}", rate, _percent(learned["before"]), _percent(learned["after"])]


def _own(own: Row, kind: str) -> str:
    value = own.get(kind, own.get(f"auc_{kind}"))
    return "-" if value is None else _percent(value)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
