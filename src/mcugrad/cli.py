"""The command line: parse, call the API, print."""

from __future__ import annotations

import json
import re
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bar
from rich.table import Table

from mcugrad import __version__
from mcugrad.errors import BudgetError, McugradError

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)
err = Console(stderr=True, highlight=False)
out = Console(highlight=False)


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


def parse_bits(text: str) -> int:
    """0, 4 or 8."""
    if text not in ("0", "4", "8"):
        raise typer.BadParameter(f"{text!r} is not 0, 4 or 8")
    return int(text)


SIZE_HELP = "it may use, in bytes or as 256K, 1M (default: the target's)."
Model = Annotated[Path, typer.Argument(help="Model file: .onnx, .tflite, or a .pkl of the published int8 networks.")]
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
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate (default: by scheme).")]
Bits = Annotated[
    int | None,
    typer.Option("--residual-bits", parser=parse_bits, metavar="0|4|8", help="Extra bits per updated weight (default: 4)."),
]
InputMode = Annotated[Literal["auto", "resident", "rows"], typer.Option("--input", help="Is the input pulled row by row?")]
CompilerName = Annotated[Literal["zig", "gcc"], typer.Option("--compiler", help="gcc: arm-none-eabi-gcc.")]
On = Annotated[Literal["host", "vm", "qemu"], typer.Option(help="The same C here (fast), the virtual MCU, or QEMU.")]
SearchMethod = Annotated[
    Literal["fisher", "contribution", "evolution"], typer.Option(help="Gains by gradients, or by short trainings.")
]
Halving = Annotated[Literal["halving", "constant"], typer.Option(help="Halve the rate at 50, 75 and 90 % of the run, or not.")]
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


def run_folder(command: str, name: str, chosen: Path | None) -> Path:
    """The folder of this run: the chosen one, or a fresh one below runs/."""
    if chosen is not None:
        return chosen
    n = 1
    while (folder := Path("runs") / f"{command}-{name}-{n}").exists():
        n += 1
    return folder


def print_version(wanted: bool) -> None:
    if wanted:
        out.print(f"mcugrad {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=print_version, is_eager=True)
    ] = False,
) -> None:
    """Neural networks that learn on a microcontroller."""


@app.command()
def check(model: Model, as_json: Json = False, seed: NoSeed = 0) -> None:
    """What is supported in a model, and every blocker with its node and remedy."""
    from mcugrad import importers

    report = importers.check(model)
    if as_json:
        emit_json(report.to_dict())
    else:
        table = Table("layer", "kind", "output", "params", "MACs", title=escape(f"{report.name} ({report.format})"))
        for layer in report.layers:
            shape = escape(str(list(layer.output)))
            table.add_row(escape(layer.name), escape(layer.kind), shape, f"{layer.params:,}", f"{layer.macs:,}")
        out.print(table)
        out.print(f"{report.params:,} parameters (int8: about {report.params:,} bytes), {report.macs:,} MACs per inference")
        out.print(f"supported: {'yes' if report.ok else 'no'}")
    warn(report.notes)
    if report.ok:
        return
    for blocker in report.blockers:
        err.print(f"[red]blocker:[/red] {escape(str(blocker))}", soft_wrap=True)
    raise McugradError(f"{model} has {len(report.blockers)} blocker(s); see above for the remedies")


@app.command("compile")
def compile_command(
    model: Model,
    output: Out = None,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Sram = None,
    flash: Flash = None,
    calibrate: Calibrate = None,
    lr: Rate = None,
    residual_bits: Bits = None,
    input_mode: InputMode = "auto",
    compiler: CompilerName = "zig",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """A folder of C99 and a linked firmware that infers and learns, checked against the memory it may use."""
    from mcugrad.api import Request, compile_request

    request = Request(
        model, scheme, classes, keep_head, target, sram, flash, calibrate, lr, residual_bits, input_mode, compiler, seed
    )
    bar, _ = progress_bar()
    with bar:
        bar.add_task("compiling", total=None)
        compiled = compile_request(request, run_folder("compile", model.stem, output))
    facts, notes = compiled.facts(), list(compiled.prepared.notes)
    warn(notes)
    if as_json:
        emit_json({**facts, "notes": notes, "folder": str(compiled.folder)})
    else:
        print_facts(facts, str(compiled.folder))


def print_facts(facts: dict[str, Any], folder: str) -> None:
    """Memory and cost of a build, for people."""
    sram, flash = facts["sram"], facts["flash"]
    table = Table("", "bytes", title=escape(f"{facts['model']} on {facts['target']}, {facts['classes']} classes"))
    for name in ("arena", "parameters", "static", "stack", "total"):
        table.add_row(f"SRAM {name}", f"{sram[name]:,}")
    for name in ("code", "constants", "total"):
        table.add_row(f"flash {name}", f"{flash[name]:,}")
    out.print(table)
    plan, macs = facts["plan"], facts["macs"]
    out.print(
        f"arena: live peak {plan['live_peak']:,}, order-independent lower bound {plan['lower_bound']:,} ({plan['method']})"
    )
    out.print(f"MACs: forward {macs['forward']:,}, backward and update {macs['backward']:,}")
    out.print(f"written to {folder}", soft_wrap=True, markup=False)


@app.command()
def train(
    model: Model,
    data: Annotated[Path, typer.Option(help="Image folder (train/CLASS/*, test/CLASS/*) or .npz with x, y, split.")],
    output: Out = None,
    on: On = "host",
    steps: Annotated[int | None, typer.Option(help="Training steps.", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set (default: 1).", min=1)] = None,
    schedule: Halving = "halving",
    skip: Annotated[float, typer.Option(help="No backward pass from this probability on; above 1: never skip.")] = 0.95,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Sram = None,
    flash: Flash = None,
    calibrate: Calibrate = None,
    lr: Rate = None,
    residual_bits: Bits = None,
    input_mode: InputMode = "auto",
    compiler: CompilerName = "zig",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Compiles, trains on a device and evaluates on held-out data."""
    from mcugrad.api import Request, train_request
    from mcugrad.trainer import Course

    if steps is not None and epochs is not None:
        raise typer.BadParameter("give --steps or --epochs, not both")
    request = Request(
        model, scheme, classes, keep_head, target, sram, flash, calibrate, lr, residual_bits, input_mode, compiler, seed
    )
    course = Course(steps, epochs, schedule, skip, seed)
    bar, show = progress_bar()
    with bar:
        result = train_request(request, data, course, on, run_folder("train", model.stem, output), show)
    warn(result["notes"])
    if as_json:
        emit_json(result)
    else:
        print_training(result)


def print_training(result: dict[str, Any]) -> None:
    """What learning brought and cost, for people."""
    accuracy, instructions, steps = result["accuracy"], result["instructions"], result["steps"]
    out.print(f"accuracy on held-out data: {accuracy['before']:.1%} before, {accuracy['after']:.1%} after")
    out.print(f"{steps['total']:,} steps, {steps['full']:,} with a backward pass; {result['samples_per_second']:,} per second")
    if instructions["forward"] is not None:
        out.print(f"instructions: inference {instructions['forward']:,}, step {instructions['step_mean']:,} on average")
    if instructions["step"] is not None:
        out.print(f"instructions: step with its backward pass {instructions['step']:,} at most")
    out.print(f"SRAM {result['sram']['total']:,} bytes; parameters {result['parameters_sha256'][:16]}...")
    out.print(f"written to {result['folder']}", soft_wrap=True, markup=False)


@app.command()
def search(
    model: Model,
    data: Annotated[Path, typer.Option(help="Labelled data: image folder (train/CLASS/*, test/CLASS/*) or .npz.")],
    output: Out = None,
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Sram = None,
    flash: Flash = None,
    instructions: Annotated[
        int | None, typer.Option(parser=parse_count, metavar="N", help="Instructions of a training step, as in 60M.")
    ] = None,
    method: SearchMethod = "fisher",
    trials: Annotated[int, typer.Option(help="Short trainings that contribution and evolution may spend.", min=4)] = 48,
    residual_bits: Bits = None,
    input_mode: InputMode = "auto",
    compiler: CompilerName = "zig",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Finds what to update within a budget: a scheme file, a Pareto front, and for each layer why."""
    from mcugrad.api import Request
    from mcugrad.report.search import print_search
    from mcugrad.search.command import search_request

    request = Request(
        model, "head", classes, keep_head, target, sram, flash, None, None, residual_bits, input_mode, compiler, seed
    )
    folder = run_folder("search", model.stem, output)
    bar, show = progress_bar()
    with bar:
        result = search_request(
            request, data, instructions=instructions, method=method, trials=trials, folder=folder, progress=show
        )
    warn(result["notes"])
    if as_json:
        emit_json(result)
    else:
        print_search(result, out)


@app.command()
def demo(output: Out = None, seed: Seed = 0, as_json: Json = False) -> None:
    """A digits network meets a changed sensor and learns it back inside a virtual Cortex-M7."""
    from mcugrad.demo import run_demo
    from mcugrad.report.demo import print_demo

    bar, show = progress_bar()
    with bar:
        result = run_demo(run_folder("demo", "digits", output), seed, show)
    if as_json:
        emit_json(result)
    else:
        print_demo(result, out)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A folder that mcugrad made, or a model file.")],
    graph: Graphs = None,
    as_json: Json = False,
    seed: NoSeed = 0,
) -> None:
    """The graph as text, the memory certificate and the layer table."""
    from mcugrad.report.inspect import describe, graph_text, print_description

    if graph is not None:
        text = graph_text(path, graph)
        if as_json:
            emit_json({"graph": text})
        else:
            sys.stdout.write(text)
        return
    description = describe(path)
    if as_json:
        emit_json(description)
    else:
        print_description(description, out)


def main() -> None:
    """Entry point: exit code 1 for wrong input, 2 for a wrong command line, 3 when it does not fit."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds, so that nothing half-written stays
    try:
        app()
    except BudgetError as error:
        stop("does not fit", str(error), 3)
    except McugradError as error:
        stop("error", str(error), 1)
    except OSError as error:
        stop("error", f"{error.filename or 'the system'}: {error.strerror or error}", 1)


def stop(kind: str, message: str, code: int) -> None:
    err.print(f"[red]{kind}:[/red] {escape(message)}", soft_wrap=True)
    sys.exit(code)
