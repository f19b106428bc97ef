"""The command line: parse, call the API, print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

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

Model = Annotated[Path, typer.Argument(help="Model file: .onnx (float), or a .pkl of the published int8 networks.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, nothing else.")]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Scheme = Annotated[str, typer.Option(help="What to update: a .toml file, head, bias, full, or a shipped name such as 49kb.")]
Classes = Annotated[int | None, typer.Option(help="Classes of a new head (default: those of the data).")]
KeepHead = Annotated[bool, typer.Option("--keep-head", help="Start from the model's own classifier.")]
Target = Annotated[str, typer.Option(help="Core or board: cortex-m7, cortex-m4, cortex-m0plus ...")]
Size = Annotated[str | None, typer.Option(help="Bytes, or with K or M: 256K.")]
Calibrate = Annotated[Path | None, typer.Option(help="Data for activation ranges, gradient exponents and input means.")]
Rate = Annotated[float | None, typer.Option("--lr", help="Learning rate (default: by scheme).")]
Bits = Annotated[int | None, typer.Option("--residual-bits", help="Extra bits per updated weight: 0, 4 or 8 (default 4).")]
InputMode = Annotated[str, typer.Option("--input", help="auto, resident, or rows (pulled row by row).")]
CompilerName = Annotated[str, typer.Option("--compiler", help="zig, or gcc (arm-none-eabi-gcc).")]


def parse_size(text: str | None, what: str) -> int | None:
    """Bytes of "262144", "256K" or "1M".  Raises McugradError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)\s*([KkMm]?)i?[Bb]?", text.strip())
    if not match or int(match[1]) == 0:
        raise McugradError(f"--{what}: {text!r} is not a size; write bytes, or 256K, or 1M")
    return int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()]


def progress_bar() -> tuple[Bar, Callable[[str, int, int], None]]:
    """A bar on stderr, silent when stderr is not a terminal, and the callback that moves it."""
    bar = Bar(console=err, transient=True, disable=not sys.stderr.isatty())
    tasks: dict[str, Any] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    return bar, show


def warn(notes: Any) -> None:
    for note in notes:
        err.print(f"[yellow]note:[/yellow] {escape(note)}", soft_wrap=True)


def emit_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, default=str) + "\n")


def run_folder(command: str, name: str, chosen: Path | None) -> Path:
    """The folder of this run: the chosen one, or a fresh one below runs/."""
    if chosen is not None:
        return chosen
    n = 1
    while (folder := Path("runs") / f"{command}-{name}-{n}").exists():
        n += 1
    return folder


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Neural networks that learn on a microcontroller."""
    if version:
        out.print(f"mcugrad {__version__}")
        raise typer.Exit


@app.command()
def check(model: Model, as_json: Json = False) -> None:
    """What is supported in a model, and every blocker with its node and remedy."""
    from mcugrad import importers

    report = importers.check(model)
    if as_json:
        emit_json(report.to_dict())
    else:
        table = Table("layer", "kind", "output", "params", "MACs", title=f"{report.name} ({report.format})")
        for layer in report.layers:
            table.add_row(layer.name, layer.kind, str(list(layer.output)), f"{layer.params:,}", f"{layer.macs:,}")
        out.print(table)
        out.print(f"{report.params:,} parameters (int8: about {report.params:,} bytes), {report.macs:,} MACs per inference")
        warn(report.notes)
        for blocker in report.blockers:
            err.print(f"[red]blocker:[/red] {escape(str(blocker))}", soft_wrap=True)
        if report.ok:
            out.print("supported: yes")
    if not report.ok:
        raise McugradError(f"{model} has {len(report.blockers)} blocker(s); see above for the remedies")


@app.command("compile")
def compile_command(
    model: Model,
    output: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the result (default: runs/...).")] = None,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Size = None,
    flash: Size = None,
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
        model, scheme, classes, keep_head, target, parse_size(sram, "sram"), parse_size(flash, "flash"), calibrate, lr,
        residual_bits, input_mode, compiler, seed,
    )  # fmt: skip
    bar, _ = progress_bar()
    with bar:
        task = bar.add_task("compiling", total=None)
        compiled = compile_request(request, run_folder("compile", model.stem, output))
        bar.remove_task(task)
    facts = compiled.facts()
    if as_json:
        warn(compiled.prepared.notes)
        emit_json({**facts, "notes": list(compiled.prepared.notes), "folder": str(compiled.folder)})
        return
    warn(compiled.prepared.notes)
    print_facts(facts, str(compiled.folder))


def print_facts(facts: dict[str, Any], folder: str) -> None:
    """Memory and cost of a build, for people."""
    sram, flash = facts["sram"], facts["flash"]
    table = Table("", "bytes", title=f"{facts['model']} on {facts['target']}, {facts['classes']} classes")
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
    out.print(f"written to {folder}", soft_wrap=True)


@app.command()
def train(
    model: Model,
    data: Annotated[Path, typer.Option(help="Image folder (train/CLASS/*, test/CLASS/*) or .npz with x, y, split.")],
    output: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder (default: runs/...).")] = None,
    on: Annotated[str, typer.Option(help="host (same C, fast), vm (virtual MCU), or qemu.")] = "host",
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set (default 1).")] = None,
    schedule: Annotated[str, typer.Option(help="halving (at 50, 75, 90 %) or constant.")] = "halving",
    skip: Annotated[float, typer.Option(help="No backward pass from this probability on; above 1: never skip.")] = 0.95,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Size = None,
    flash: Size = None,
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

    request = Request(
        model, scheme, classes, keep_head, target, parse_size(sram, "sram"), parse_size(flash, "flash"), calibrate, lr,
        residual_bits, input_mode, compiler, seed,
    )  # fmt: skip
    bar, show = progress_bar()
    with bar:
        course = Course(steps, epochs, schedule, skip, seed)
        notes, result = train_request(request, data, course, on, run_folder("train", model.stem, output), show)
    warn(notes)
    if as_json:
        emit_json(result)
        return
    accuracy, instructions = result["accuracy"], result["instructions"]
    out.print(f"accuracy on held-out data: {accuracy['before']:.1%} before, {accuracy['after']:.1%} after")
    out.print(f"{result['steps']['total']} steps, {result['steps']['full']} with a backward pass")
    if instructions["step"] is not None:
        out.print(f"instructions: forward {instructions['forward']:,}, step {instructions['step']:,} at most")
    out.print(f"SRAM {result['sram']['total']:,} bytes; parameters {result['parameters_sha256'][:16]}...")
    out.print(f"written to {result['folder']}", soft_wrap=True)


@app.command()
def demo(
    output: Annotated[Path | None, typer.Option("-o", "--out", help="Run folder (default: runs/...).")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
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
    graph: Annotated[str | None, typer.Option(help="Print a graph as text: forward or training.")] = None,
    as_json: Json = False,
) -> None:
    """The graph as text, the memory certificate and the layer table."""
    from mcugrad.report.inspect import describe, graph_text, print_description

    if graph is not None:
        sys.stdout.write(graph_text(path, graph))
        return
    description = describe(path)
    if as_json:
        emit_json(description)
    else:
        print_description(description, out)


def main() -> None:
    """Entry point: exit code 1 for wrong input, 2 for a wrong command line, 3 when it does not fit."""
    try:
        app()
    except BudgetError as error:
        err.print(f"[red]does not fit:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(3)
    except McugradError as error:
        err.print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        sys.exit(1)
