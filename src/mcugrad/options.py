"""What the commands share: their options as types, progress, notes and where results go."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar

from mcugrad import __version__
from mcugrad.errors import McugradError
from mcugrad.preprocess import Preprocess, parse

err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


def print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"mcugrad {__version__}")
        raise typer.Exit


def parse_size(text: str) -> int:
    """Bytes of "262144", "256K" or "1M"."""
    match = re.fullmatch(r"(\d+)\s*([KkMm]?)i?[Bb]?", text.strip())
    if not match or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a size; write bytes, or 256K, or 1M")
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()]


def parse_count(text: str) -> int:
    """A number such as 60000000, 60M or 60k."""
    match = re.fullmatch(r"(\d+)\s*([KkMmGg]?)", text.strip())
    if not match or int(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is not a number; write it out, or as 60M")
    return int(match[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[match[2].lower()]


def parse_preprocess(text: str) -> Preprocess:
    """See `preprocess.parse`."""
    try:
        return parse(text)
    except McugradError as error:
        raise typer.BadParameter(str(error).removeprefix("--preprocess ")) from None


def parse_bits(text: str) -> int:
    """0, 4 or 8."""
    if text not in ("0", "4", "8"):
        raise typer.BadParameter(f"{text!r} is not 0, 4 or 8")
    return int(text)


def parse_replay(text: str) -> int | Literal["auto"]:
    """A number of samples, or auto."""
    if text == "auto":
        return "auto"
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither auto nor a number of samples")
    return int(text)


def parse_labels(text: str) -> tuple[int, ...]:
    """Class numbers such as 8,9."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise typer.BadParameter(f"{text!r} is not a list of class numbers such as 8,9")
    return tuple(sorted({int(k) for k in text.split(",")}))


Version = Annotated[bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)]
SIZE_HELP = "it may use, in bytes or as 256K, 1M (default: the target's)."
Model = Annotated[Path, typer.Argument(help="A .onnx, .tflite or .pt2 (torch.export) model, or a .pkl of the published ones.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Folder of the result (default: a new one in runs/).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0, max=(1 << 32) - 1)]
NoSeed = Annotated[int, typer.Option("--seed", help="Accepted as everywhere; nothing here is random.")]
Scheme = Annotated[str, typer.Option(help="What to update: head, bias, full, a shipped name such as 49kb, or a .toml file.")]
Classes = Annotated[int | None, typer.Option(help="Classes of the new head.")]
KeepHead = Annotated[bool, typer.Option("--keep-head", help="Start from the model's own classifier.")]
Target = Annotated[str, typer.Option(help="Core or board: cortex-m7, cortex-m4, cortex-m0plus ...")]
Sram = Annotated[int | None, typer.Option(parser=parse_size, metavar="SIZE", help=f"SRAM {SIZE_HELP}")]
Flash = Annotated[int | None, typer.Option(parser=parse_size, metavar="SIZE", help=f"Flash {SIZE_HELP}")]
Calibrate = Annotated[Path | None, typer.Option(help="Data for activation ranges, gradient exponents and input means.")]
Quantizer = Annotated[
    Literal["minmax", "percentile", "mse"], typer.Option(help="How a float model's activation ranges are chosen.")
]
Pixels = Annotated[
    Preprocess | None,
    typer.Option(
        "--preprocess",
        parser=parse_preprocess,
        metavar="HOW",
        help="0..1, -1..1, imagenet, or scale=1/255,mean=0.5 ...",
    ),
]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate (default: by scheme).")]
Bits = Annotated[
    int | None,
    typer.Option("--residual-bits", parser=parse_bits, metavar="0|4|8", help="Extra bits per updated weight (default: 4)."),
]
BiasBits = Annotated[
    int | None,
    typer.Option(
        "--bias-bits", metavar="16|32", help="SRAM of a bias that learns; 16: a delta to the one in flash (default: 32)."
    ),
]
Augmentation = Annotated[
    str | None,
    typer.Option("--augment", metavar="HOW", help="What training does to samples: flip,shift=8,brightness=16,contrast=16."),
]
Accumulate = Annotated[
    int | None, typer.Option("--accumulate", metavar="N", help="Samples whose gradients make one step (default: 1).")
]
InputSize = Annotated[
    int | None, typer.Option("--input-size", help="Pixels per side of the input, for published networks (default: theirs).")
]
InputMode = Annotated[Literal["auto", "resident", "rows"], typer.Option("--input", help="Is the input pulled row by row?")]
CompilerName = Annotated[Literal["zig", "gcc"], typer.Option("--compiler", help="gcc: arm-none-eabi-gcc.")]
LossName = Annotated[
    Literal["softmax", "sigmoid", "mse", "autoencoder"],
    typer.Option("--loss", help="One class, labels each on its own, numbers, or the sample itself."),
]
On = Annotated[Literal["host", "vm", "qemu"], typer.Option(help="The same C here (fast), the virtual MCU, or QEMU.")]
SearchMethod = Annotated[
    Literal["fisher", "contribution", "evolution"], typer.Option(help="Gains by gradients, or by short trainings.")
]
Halving = Annotated[
    Literal["halving", "cosine", "constant"],
    typer.Option(help="Halve the rate at 50, 75 and 90 % of the run, in the steps nearest to a cosine, or never."),
]
Skip = Annotated[float, typer.Option(help="No backward pass from this probability on; above 1: never skip.")]
Balanced = Annotated[bool, typer.Option("--balanced", help="Learn from every class equally often, however rare it is.")]
ReplaySlots = Annotated[
    Any,
    typer.Option(
        "--replay", parser=parse_replay, metavar="N|auto", help="Keep so many past samples and learn from them again."
    ),
]
MaskUnseen = Annotated[
    bool, typer.Option("--mask-unseen", help="Outputs that no sample has reached get no probability and learn nothing.")
]
Replays = Annotated[int, typer.Option(help="Kept samples to learn from again after each new one.", min=1, max=64)]
ReplayIn = Annotated[Literal["sram", "flash"], typer.Option("--replay-in", help="Where kept samples lie.")]
NewClasses = Annotated[
    Any,
    typer.Option(
        "--new-classes", parser=parse_labels, metavar="K,...", help="These come only once all others have been learned."
    ),
]
ExportTo = Annotated[
    Literal["onnx", "onnx-exact", "tflite", "torch", "graph"],
    typer.Option(help="onnx: QDQ; onnx-exact: the device's own integers; graph: the training graph, for a viewer."),
]
Graphs = Annotated[Literal["forward", "training"] | None, typer.Option("--graph", help="Print this graph as text.")]


def progress_bar() -> tuple[Bar, Callable[[str, int, int], None]]:
    """A bar on stderr, silent when stderr is not a terminal, and the callback that moves it."""
    bar = Bar(console=err, transient=True, disable=not sys.stderr.isatty())
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    return bar, show


def warn(notes: Iterable[str]) -> None:
    for note in notes:
        err.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)


def emit_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1) + "\n")


def tell(result: Any, as_json: bool, show: Callable[[Any, Console], None]) -> None:
    """A result for programs or for people."""
    if as_json:
        emit_json(result)
    else:
        show(result, out)


def run_folder(command: str, name: str, chosen: Path | None) -> Path:
    """The folder of this run: the chosen one, or a fresh one below runs/."""
    if chosen is not None:
        return chosen
    n = 1
    while (folder := Path("runs") / f"{command}-{name}-{n}").exists():
        n += 1
    return folder
