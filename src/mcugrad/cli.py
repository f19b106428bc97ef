"""The command line: parse, call the API, print."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from mcugrad.errors import BudgetError, McugradError
from mcugrad.options import (
    Accumulate,
    Augmentation,
    Balanced,
    BiasBits,
    Bits,
    Calibrate,
    Classes,
    CompilerName,
    ExportTo,
    Flash,
    Graphs,
    Halving,
    InputMode,
    InputSize,
    Json,
    KeepHead,
    LossName,
    MaskUnseen,
    Model,
    NewClasses,
    NoSeed,
    On,
    Out,
    Pixels,
    Quantizer,
    Rate,
    ReplayIn,
    Replays,
    ReplaySlots,
    Scheme,
    SearchMethod,
    Seed,
    Skip,
    Sram,
    Target,
    Version,
    emit_json,
    err,
    out,
    parse_count,
    progress_bar,
    run_folder,
    tell,
    warn,
)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def root(version: Version = False) -> None:
    """Neural networks that learn on a microcontroller."""


@app.command()
def check(
    model: Model,
    data: Annotated[Path | None, typer.Option(help="Samples: error of each layer, and accuracy of float against int8.")] = None,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    as_json: Json = False,
    seed: NoSeed = 0,
) -> None:
    """What is supported in a model, every blocker with its remedy, its size, and the boards that would hold it."""
    from mcugrad import importers
    from mcugrad.report.check import describe_check, print_check
    from mcugrad.report.quantization import describe_quantization, print_quantization, require_data

    require_data(data, quantizer)
    report, imported = importers.examine(model)
    result = describe_check(report, imported)
    if imported is not None and data is not None:
        result["quantization"] = describe_quantization(imported, data, quantizer, preprocess)
    if as_json:
        emit_json(result)
    else:
        print_check(result, out)
        if "quantization" in result:
            print_quantization(result["quantization"], out)
    warn(report.notes)
    if report.ok:
        return
    for blocker in report.blockers:
        err.print(f"[red]blocker:[/red] {escape(str(blocker))}", soft_wrap=True)
    raise McugradError(f"{model} has {len(report.blockers)} blocker(s); see above for the remedies")


@app.command()
def plan(
    model: Model,
    output: Out = None,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Sram = None,
    flash: Flash = None,
    calibrate: Calibrate = None,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    residual_bits: Bits = None,
    bias_bits: BiasBits = None,
    accumulate: Accumulate = None,
    input_size: InputSize = None,
    input_mode: InputMode = "auto",
    pareto: Annotated[bool, typer.Option("--pareto", help="Also what each size of SRAM would cost in instructions.")] = False,
    build: Annotated[bool, typer.Option("--build", help="Build the firmware too, and report the bytes of its ELF.")] = False,
    compiler: CompilerName = "zig",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """How it would run in the memory it may use: modes, every byte over time, and an estimate of its cost."""
    from mcugrad.api import Request, plan_request
    from mcugrad.report.plan import print_plan

    request = Request(
        model, scheme, classes, keep_head, target, sram, flash, calibrate, None, residual_bits, input_mode, compiler, seed,
        quantizer=quantizer, preprocess=preprocess, bias_bits=bias_bits, input_size=input_size,
        accumulate=accumulate,
    )  # fmt: skip
    bar, show = progress_bar()
    with bar:
        folder = run_folder("plan", model.stem, output)
        result = plan_request(request, folder, front=pareto, confirm=build, progress=show)
    warn(result["notes"])
    tell(result, as_json, print_plan)


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
    bias_bits: BiasBits = None,
    accumulate: Accumulate = None,
    augment: Augmentation = None,
    input_size: InputSize = None,
    input_mode: InputMode = "auto",
    compiler: CompilerName = "zig",
    loss: LossName = "softmax",
    seed: Seed = 0,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    replay: ReplaySlots = None,
    replays: Replays = 1,
    replay_in: ReplayIn = "sram",
    mask_unseen: MaskUnseen = False,
    as_json: Json = False,
) -> None:
    """A folder of C99 and a linked firmware that infers and learns, checked against the memory it may use."""
    from mcugrad.api import Request, compile_request
    from mcugrad.report.build import print_facts

    request = Request(model, scheme, classes, keep_head, target, sram, flash, calibrate, lr, residual_bits, input_mode,
                      compiler, seed, loss, quantizer, preprocess, bias_bits, input_size, accumulate, augment,
                      replay, replays, mask_unseen, replay_in)  # fmt: skip
    bar, _ = progress_bar()
    with bar:
        bar.add_task("compiling", total=None)
        compiled = compile_request(request, run_folder("compile", model.stem, output))
    facts, notes = compiled.facts(), list(compiled.prepared.notes)
    warn(notes)
    if as_json:
        emit_json({**facts, "notes": notes, "folder": str(compiled.folder)})
    else:
        print_facts(facts, str(compiled.folder), out)


@app.command()
def train(
    model: Model,
    data: Annotated[Path, typer.Option(help="Image folder (train/CLASS/*, test/CLASS/*) or .npz with x, y, split.")],
    output: Out = None,
    on: On = "host",
    steps: Annotated[int | None, typer.Option(help="Training steps.", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set (default: 1).", min=1)] = None,
    schedule: Halving = "halving",
    skip: Skip = 0.95,
    balanced: Balanced = False,
    scheme: Scheme = "head",
    classes: Classes = None,
    keep_head: KeepHead = False,
    target: Target = "cortex-m7",
    sram: Sram = None,
    flash: Flash = None,
    calibrate: Calibrate = None,
    lr: Rate = None,
    residual_bits: Bits = None,
    bias_bits: BiasBits = None,
    accumulate: Accumulate = None,
    augment: Augmentation = None,
    input_size: InputSize = None,
    input_mode: InputMode = "auto",
    compiler: CompilerName = "zig",
    loss: LossName = "softmax",
    seed: Seed = 0,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    replay: ReplaySlots = None,
    replays: Replays = 1,
    replay_in: ReplayIn = "sram",
    mask_unseen: MaskUnseen = False,
    new_classes: NewClasses = None,
    as_json: Json = False,
) -> None:
    """Compiles, trains on a device and evaluates on held-out data."""
    from mcugrad.api import Request, train_request
    from mcugrad.report.build import print_training
    from mcugrad.trainer import Course

    if steps is not None and epochs is not None:
        raise typer.BadParameter("give --steps or --epochs, not both")
    request = Request(model, scheme, classes, keep_head, target, sram, flash, calibrate, lr, residual_bits, input_mode,
                      compiler, seed, loss, quantizer, preprocess, bias_bits, input_size, accumulate, augment,
                      replay, replays, mask_unseen, replay_in)  # fmt: skip
    course = Course(steps, epochs, schedule, skip, seed, balanced, new_classes or ())
    bar, show = progress_bar()
    with bar:
        result = train_request(request, data, course, on, run_folder("train", model.stem, output), show)
    warn(result["notes"])
    tell(result, as_json, print_training)


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
    loss: LossName = "softmax",
    seed: Seed = 0,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    as_json: Json = False,
) -> None:
    """Finds what to update within a budget: a scheme file, a Pareto front, and for each layer why."""
    from mcugrad.api import Request
    from mcugrad.report.search import print_search
    from mcugrad.search.command import search_request

    request = Request(model, "head", classes, keep_head, target, sram, flash, None, None, residual_bits, input_mode,
                      compiler, seed, loss, quantizer, preprocess)  # fmt: skip
    folder = run_folder("search", model.stem, output)
    bar, show = progress_bar()
    with bar:
        result = search_request(
            request, data, instructions=instructions, method=method, trials=trials, folder=folder, progress=show
        )
    warn(result["notes"])
    tell(result, as_json, print_search)


@app.command()
def sweep(
    model: Model,
    data: Annotated[Path, typer.Option(help="Labelled data: image folder (train/CLASS/*, test/CLASS/*) or .npz.")],
    output: Out = None,
    schemes: Annotated[
        str | None,
        typer.Option(help="Names or .toml files, as in bias,49kb (default: head,bias; of an autoencoder bias,full)."),
    ] = None,
    lr: Annotated[str, typer.Option("--lr", help="Learning rates, as in 1e-3,2e-3, or default.")] = "default",
    seeds: Annotated[str, typer.Option(help="As in 0,1,2 or 0-4.")] = "0-2",
    steps: Annotated[int | None, typer.Option(help="Training steps of a run.", min=1)] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set (default: 1).", min=1)] = None,
    schedule: Halving = "halving",
    skip: Skip = 0.95,
    balanced: Balanced = False,
    classes: Classes = None,
    keep_head: KeepHead = False,
    calibrate: Calibrate = None,
    quantizer: Quantizer = "minmax",
    preprocess: Pixels = None,
    residual_bits: Bits = None,
    loss: LossName = "softmax",
    jobs: Annotated[int | None, typer.Option(help="Processes (default: one per core).", min=1)] = None,
    ray: Annotated[str | None, typer.Option(help="Address of a Ray cluster to run on, or local.")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Trains every combination of schemes, learning rates and seeds in parallel; goes on where it was interrupted."""
    from mcugrad.api import Request
    from mcugrad.report.sweep import print_sweep
    from mcugrad.sweep import Sweep, parse_jobs, sweep
    from mcugrad.trainer import Course

    request = Request(model, "head", classes, keep_head, calibrate=calibrate, residual_bits=residual_bits,
                      quantizer=quantizer, preprocess=preprocess, loss=loss)  # fmt: skip
    plan = Sweep(request, data, Course(steps, epochs, schedule, skip, balanced=balanced))
    schemes = schemes or ("bias,full" if loss == "autoencoder" else "head,bias")  # an autoencoder has no head
    folder = output or Path("runs") / f"sweep-{model.stem}"
    bar, show = progress_bar()
    with bar:
        result = sweep(plan, parse_jobs(schemes, lr, seeds), folder, workers=jobs, ray=ray, progress=show)
    tell(result, as_json, print_sweep)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder written by `mcugrad train`.")],
    to: ExportTo = "onnx",
    output: Annotated[Path | None, typer.Option("-o", "--out", help="File to write (default: beside the run).")] = None,
    data: Annotated[Path | None, typer.Option(help="Samples to compare on (default: the run's own).")] = None,
    seed: NoSeed = 0,
    as_json: Json = False,
) -> None:
    """Writes the model with the weights it learned, and compares its predictions with the device's."""
    from mcugrad.exporters.command import export_run
    from mcugrad.report.export import print_export

    result = export_run(run, to, output, data)
    warn(result["notes"])
    tell(result, as_json, print_export)


@app.command()
def demo(output: Out = None, seed: Seed = 0, as_json: Json = False) -> None:
    """A digits network meets a changed sensor and learns it back inside a virtual Cortex-M7."""
    from mcugrad.demo import run_demo
    from mcugrad.report.demo import print_demo

    bar, show = progress_bar()
    with bar:
        result = run_demo(run_folder("demo", "digits", output), seed, show)
    tell(result, as_json, print_demo)


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
    tell(description, as_json, print_description)


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
