"""What `check` answers without data: how large a model is, from where on it can be trained, which boards would hold it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mcugrad.costs import Costs
from mcugrad.errors import McugradError
from mcugrad.importers import Imported, Report
from mcugrad.ir import Graph
from mcugrad.loss import Loss
from mcugrad.memory.floor import smallest_peak
from mcugrad.memory.forward import Forward
from mcugrad.memory.problem import state_layout
from mcugrad.passes import TRAIN, run
from mcugrad.quant.assign import assign
from mcugrad.quant.observe import observe
from mcugrad.search.cost import constants
from mcugrad.targets.boards import BOARDS, Board
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head, attach_logits
from mcugrad.training.scheme import BUILT_IN, UpdateScheme, layers, resolve

SHELL = 1536  # bytes of SRAM beside arena and parameters: stack and link (three models on two cores: 1.3 KB)
CODE = 27 << 10  # bytes of flash that kernels and shell take at most (the same six builds: 17 to 27 KB)
DEFAULT_CLASSES = 10


@dataclass(frozen=True)
class Size:
    """Bytes that a firmware would need, estimated: SRAM with the most economical schedule, and flash."""

    sram: int
    flash: int


@dataclass(frozen=True)
class Trainable:
    """The last `layers` of `of` layers have gradients, from `first` on; reason: why no earlier one has."""

    layers: int
    of: int
    first: str
    reason: str = ""


@dataclass(frozen=True)
class Outlook:
    """What would become of a model: sizes for inference and with a head that learns, and how far training reaches.

    head is None where the features are too many for a head (an autoencoder's, for example)."""

    inference: Size
    head: Size | None
    trainable: Trainable

    def boards(self) -> Iterator[tuple[Board, bool, bool]]:
        """Each board, whether it holds the model for inference, and with a head that learns."""
        for board in BOARDS:
            sizes = (self.inference, self.head)
            inference, head = (s is not None and s.sram <= board.sram and s.flash <= board.flash for s in sizes)
            yield board, inference, head

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [{**asdict(b), "inference": i, "head": h} for b, i, h in self.boards()]
        return {**asdict(self), "boards": rows}


def outlook(imported: Imported) -> Outlook:
    """Sizes and reach of an imported model; a float one is quantized by one random sample, which changes no size."""
    graph = imported.graph
    if graph.inputs[0].type.quant is None:
        sample = np.random.default_rng(0).normal(size=graph.inputs[0].type.shape[1:])
        graph = assign(graph, observe(graph, [sample]))
    classes = DEFAULT_CLASSES if imported.classifier is None else max(len(imported.classifier.bias), 2)
    arena = smallest_peak(graph, input_rows=None)
    inference = Size(arena + SHELL, constants(graph) + CODE)
    try:
        with_head, loss = attach_head(graph, classes), Loss.SOFTMAX
        training = run(differentiate(with_head, TrainingPlan(resolve(BUILT_IN["head"], with_head))), TRAIN)
    except McugradError:
        return Outlook(inference, None, _reach(attach_logits(graph), Loss.AUTOENCODER))
    state, growth = state_layout(training).total, constants(training) - constants(graph)
    inference = replace(inference, flash=inference.flash + growth)
    arena = max(arena, Forward(training, False, Costs()).rest())  # a head changes nothing in the forward nodes before it
    head = Size(arena + state + SHELL, constants(training) + CODE)
    return Outlook(inference, head, _reach(with_head, loss))


def _reach(graph: Graph, loss: Loss) -> Trainable:
    """The longest run of last layers whose biases can be updated: bisection over differentiate."""
    names, reason = list(layers(graph)), ""
    low, high = 0, len(names)  # the last `low` layers can, more than `high` cannot
    while low < high:
        middle = high if not reason else (low + high + 1) // 2
        failed = _cannot(graph, middle, loss)
        if failed:
            reason, high = failed, middle - 1
        else:
            low = middle
    return Trainable(low, len(names), names[len(names) - low] if low else "", reason)


def _cannot(graph: Graph, count: int, loss: Loss) -> str:
    """Why the last `count` layers cannot be updated; '' if they can."""
    scheme = UpdateScheme("reach", biases=count, head=loss is Loss.SOFTMAX)
    try:
        differentiate(graph, TrainingPlan(resolve(scheme, graph), loss=loss))
    except McugradError as error:
        return str(error)
    return ""


def describe_check(report: Report, imported: Imported | None) -> dict[str, Any]:
    """The report as JSON values, with the outlook where the model could be imported."""
    result = report.to_dict()
    if imported is not None:
        with suppress(McugradError):
            result["outlook"] = outlook(imported).to_dict()
    return result


def print_check(result: dict[str, Any], out: Console) -> None:
    """Layers, sizes, reach of training and boards, for people."""
    table = Table("layer", "kind", "output", "params", "MACs", title=escape(f"{result['name']} ({result['format']})"))
    for layer in result["layers"]:
        shape = escape(str(list(layer["output"])))
        table.add_row(escape(layer["name"]), escape(layer["kind"]), shape, f"{layer['params']:,}", f"{layer['macs']:,}")
    out.print(table)
    out.print(
        f"{result['params']:,} parameters (int8: about {result['params']:,} bytes), {result['macs']:,} MACs per inference"
    )
    out.print(f"supported: {'yes' if result['ok'] else 'no'}")
    if "outlook" in result:
        _print_outlook(result["outlook"], out)


def _print_outlook(outlook: dict[str, Any], out: Console) -> None:
    reach = outlook["trainable"]
    if reach["layers"]:
        since = "" if reach["layers"] == reach["of"] else f", from {reach['first']} on"
        out.print(f"trainable: {reach['layers']} of {reach['of']} layers{since}", markup=False)
    else:
        out.print("trainable: the head alone" if outlook["head"] else "trainable: no")
    if reach["reason"]:
        out.print(f"  not earlier: {reach['reason']}", markup=False, soft_wrap=True)
    title, caption = "estimated, with the most economical schedule", "memories as in the makers' datasheets, which --json names"
    heads = ("board", "SRAM", "flash", "inference", "learning head")
    table = Table(*heads, title=title, caption=caption, min_width=80)
    for name, key in (("needed for inference", "inference"), ("with a learning head", "head")):
        if outlook[key]:
            table.add_row(f"[italic]{name}[/italic]", _kilo(outlook[key]["sram"]), _kilo(outlook[key]["flash"]), "", "")
    for row in outlook["boards"]:
        fits = ("fits" if row[key] else "too large" if outlook[key] else "-" for key in ("inference", "head"))
        table.add_row(row["name"], _kilo(row["sram"]), _kilo(row["flash"]), *fits)
    out.print(table)


def _kilo(size: int) -> str:
    return f"{-(-size // 1024):,} KiB"
