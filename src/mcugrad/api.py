"""What the commands do, as Python calls: from paths and options to a compiled or trained model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mcugrad.augment import parse_augment
from mcugrad.compiler import DEVICES, Budget, Compiled, compile_model
from mcugrad.data import Calibration, Dataset, calibration_samples, load_data
from mcugrad.errors import McugradError
from mcugrad.folder import fresh_folder
from mcugrad.importers import Imported, load
from mcugrad.loss import Loss
from mcugrad.prepare import CALIBRATION_SAMPLES, Prepared, prepare, training_graph
from mcugrad.preprocess import Preprocess
from mcugrad.replay import MOST_SLOTS, REPLAY_IN, Replay
from mcugrad.report.curve import learning_curve
from mcugrad.report.plan import Plans, write_front, write_plan
from mcugrad.targets import get_target
from mcugrad.trainer import TRAINING, Course, Progress, quiet, train
from mcugrad.training.scheme import (
    ACCUMULATE,
    BIAS_BITS,
    RESIDUAL_BITS,
    UpdateScheme,
    read_scheme,
    with_accumulation,
    with_bias_bits,
    with_residual_bits,
)


@dataclass(frozen=True)
class Request:
    """Everything that decides a build; sizes in bytes, None: the default of the target, the data or the scheme.

    model: a path, or what `mcugrad.load` gave; calibrate: a path.  scheme: a name or the path of a .toml file.
    rate: learning rate.  input_mode: auto, resident or rows.  compiler: zig or gcc.  loss: softmax, sigmoid, mse or
    autoencoder.  quantizer: minmax, percentile or mse.  preprocess: what raw samples go through (None: what the model says,
    or the usual).  accumulate: samples of one step.  augment: see `augment.parse_augment`.
    replay: past samples kept at the end of the frozen layers, "auto": as many as fit; replays: of them
    learned from again after each new sample; replay_in: sram or flash.  mask_unseen: outputs wait for their first sample.
    Raises McugradError for numbers out of range."""

    model: str | Path | Imported
    scheme: str = "head"
    classes: int | None = None
    keep_head: bool = False
    target: str = "cortex-m7"
    sram: int | None = None
    flash: int | None = None
    calibrate: str | Path | None = None
    rate: float | None = None
    residual_bits: int | None = None
    input_mode: str = "auto"
    compiler: str = "zig"
    seed: int = 0
    loss: str = "softmax"
    quantizer: str = "minmax"
    preprocess: Preprocess | None = None
    bias_bits: int | None = None
    input_size: int | None = None
    accumulate: int | None = None
    augment: str | None = None
    replay: int | Literal["auto"] | None = None
    replays: int = 1
    mask_unseen: bool = False
    replay_in: str = "sram"

    def __post_init__(self) -> None:
        Loss.named(self.loss)
        if self.rate is not None and not 0 < self.rate < 16:
            raise McugradError(f"--lr must be above 0 and below 16, got {self.rate}")
        if self.residual_bits is not None and self.residual_bits not in RESIDUAL_BITS:
            raise McugradError(f"--residual-bits must be 0, 4 or 8, got {self.residual_bits}")
        if self.bias_bits is not None and self.bias_bits not in BIAS_BITS:
            raise McugradError(f"--bias-bits must be 16 or 32, got {self.bias_bits}")
        if self.accumulate is not None and self.accumulate not in ACCUMULATE:
            raise McugradError(f"--accumulate must be between 1 and {ACCUMULATE[-1]}, got {self.accumulate}")
        if self.replay not in (None, "auto") and not 1 <= int(self.replay) <= MOST_SLOTS:
            raise McugradError(f"--replay must be auto or between 1 and {MOST_SLOTS}, got {self.replay}")
        if not 1 <= self.replays <= 64:
            raise McugradError(f"--replays must be between 1 and 64, got {self.replays}")
        if self.replay_in not in REPLAY_IN:
            raise McugradError(f"--replay-in must be one of {', '.join(REPLAY_IN)}, got {self.replay_in}")
        if self.replay_in != "sram" and self.replay is None:
            raise McugradError(f"--replay-in {self.replay_in} says where kept samples lie: add --replay auto to keep some")
        if not 0 <= self.seed < 1 << 32:
            raise McugradError(f"--seed must be between 0 and 2^32 - 1, got {self.seed}")

    @property
    def budget(self) -> Budget:
        slots = None if self.replay == "auto" else self.replay
        erase = get_target(self.target).flash_erase if self.replay_in == "flash" else 0
        replay = None if self.replay is None else Replay(slots, self.replays, erase)
        return Budget(self.target, self.sram, self.flash, self.input_mode, self.compiler, replay)

    def prepared(self, imported: Imported, classes: int | None, calibration: Calibration | None) -> Prepared:
        """The model quantized and with its head, as requested."""
        prepared = prepare(
            imported,
            classes=classes,
            keep_head=self.keep_head,
            calibration=calibration,
            seed=self.seed,
            loss=Loss.named(self.loss),
            quantizer=self.quantizer,
            preprocess=self.preprocess,
        )
        if self.augment is None:
            return prepared
        return replace(prepared, augment=parse_augment(self.augment, prepared.graph.inputs[0].type))

    def update_scheme(self, model: str) -> UpdateScheme:
        """The scheme with the requested bits."""
        scheme = read_scheme(self.scheme, model)
        scheme = scheme if self.residual_bits is None else with_residual_bits(scheme, self.residual_bits)
        scheme = scheme if self.bias_bits is None else with_bias_bits(scheme, self.bias_bits)
        scheme = scheme if self.accumulate is None else with_accumulation(scheme, self.accumulate)
        return replace(scheme, masked=True) if self.mask_unseen else scheme


def input_shape(imported: Imported) -> tuple[int, int, int]:
    """(H, W, C) of a model's input."""
    _, h, w, c = imported.graph.inputs[0].type.shape
    return h, w, c


def compile_request(request: Request, folder: str | Path) -> Compiled:
    """Imports, quantizes, plans, prints and builds into `folder`.

    Raises McugradError for wrong input (nothing is written then) and BudgetError when it does not fit."""
    request.budget.resolve()
    imported = load(request.model, size=request.input_size)
    calibration = _calibration(request.calibrate, imported, Loss.named(request.loss))
    return _compile(request, imported, calibration, request.classes, Path(folder))


def plan_request(
    request: Request, folder: str | Path, *, front: bool = False, confirm: bool = False, progress: Progress = quiet
) -> dict[str, Any]:
    """Plans without building: how every part runs, every byte, estimated instructions; into `folder`.

    front: also what each size of SRAM would cost.  confirm: builds too, and reports the ELF's bytes.  Raises McugradError
    for wrong input and BudgetError when it does not fit; then nothing is written."""
    imported = load(request.model, size=request.input_size)
    target = request.budget.resolve()
    scheme = request.update_scheme(imported.name)
    calibration = _calibration(request.calibrate, imported, Loss.named(request.loss))
    prepared = request.prepared(imported, request.classes, calibration)
    graph = training_graph(prepared, scheme, rate=request.rate, seed=request.seed)
    plans = Plans(graph, prepared.name, target, request.input_mode, request.seed)
    with fresh_folder(Path(folder)) as work:
        points = plans.front(progress) if front else []
        if front:
            write_front(plans, points, work)
        result = write_plan(plans, plans.best(), work)
        if confirm:
            built = compile_model(prepared, scheme, work / "firmware", request.budget, rate=request.rate, seed=request.seed)
            facts = built.facts()
            result = {**result, "sram": {**facts["sram"], "rest": 0, "budget": target.sram}, "firmware": facts["elf"]}
    found = {**result, "scheme": scheme.name, "notes": list(prepared.notes), "folder": str(folder)}
    return {**found, "pareto": points} if front else found


def _calibration(path: str | Path | None, imported: Imported, loss: Loss) -> Calibration | None:
    return None if path is None else calibration_samples(path, CALIBRATION_SAMPLES, input_shape(imported), loss=loss)


def _compile(
    request: Request, imported: Imported, calibration: Calibration | None, classes: int | None, folder: Path
) -> Compiled:
    scheme = request.update_scheme(imported.name)
    prepared = request.prepared(imported, classes, calibration)
    return compile_model(prepared, scheme, folder, request.budget, rate=request.rate, seed=request.seed)


def train_request(
    request: Request,
    data: str | Path,
    course: Course | None = None,
    on: str = "host",
    folder: str | Path = "run",
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Compiles, trains and evaluates into `folder`; the result as nested JSON values.

    Calibration data defaults to the training data, `course` to one epoch.  Raises McugradError for wrong input and
    BudgetError when it does not fit; then nothing is written."""
    if on not in DEVICES:
        raise McugradError(f"--on {on}: use {', '.join(DEVICES)}")
    request.budget.resolve()
    data, folder, course = Path(data), Path(folder), course or Course(seed=request.seed)
    imported = load(request.model, size=request.input_size)
    samples = read_samples(request, imported, data, progress)
    calibration = _calibration(request.calibrate or data, imported, Loss.named(request.loss))
    if calibration is not None and calibration.x.dtype != samples.x.dtype:
        raise McugradError(
            f"{calibration.origin} holds {calibration.x.dtype}, {data} holds {samples.x.dtype}: calibrate with samples of the "
            "kind it learns from"
        )
    classes = None if request.keep_head else request.classes or head_outputs(samples)
    with fresh_folder(folder) as work:
        compiled = _compile(request, imported, calibration, classes, work)
        result, learned = train(compiled, samples, course, on, progress)
        learning_curve(learned, course, work / "learning.png")
        names = list(samples.classes) if len(samples.classes) == compiled.prepared.classes else []
        notes = dict.fromkeys((*compiled.prepared.notes, *samples.notes, *result["notes"]))
        result = {**result, "folder": str(folder), "device": on, "seed": request.seed, "classes": names, "notes": list(notes)}
        (work / TRAINING).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def head_outputs(samples: Dataset) -> int:
    """Outputs that a new head needs: classes, or the numbers of a target.  Raises McugradError for a single class."""
    if samples.y.ndim == 2:
        return int(samples.y.shape[1])
    if len(samples.classes) == 1:
        raise McugradError(f"{samples.origin}: all samples have the same label, there is nothing to tell apart: add others")
    return len(samples.classes)


def read_samples(request: Request, imported: Imported, data: Path, progress: Progress) -> Dataset:
    """The data set, its labels in the range of the head."""
    known = imported.classifier.bias.shape[0] if request.keep_head and imported.classifier else request.classes

    def show(done: int, total: int) -> None:
        progress("reading", done, total)

    shape, loss = input_shape(imported), Loss.named(request.loss)
    return load_data(data, input_shape=shape, num_classes=known, loss=loss, seed=request.seed, progress=show)
