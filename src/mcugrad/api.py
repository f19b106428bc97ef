"""What the commands do, as Python calls: from paths and options to a compiled or trained model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mcugrad.compiler import DEVICES, Budget, Compiled, compile_model
from mcugrad.data import Calibration, calibration_samples, load_data
from mcugrad.errors import McugradError
from mcugrad.importers import Imported, load
from mcugrad.prepare import CALIBRATION_SAMPLES, prepare
from mcugrad.trainer import Course, Progress, quiet, train
from mcugrad.training.scheme import RESIDUAL_BITS, UpdateScheme, read_scheme


@dataclass(frozen=True)
class Request:
    """Everything that decides a build; sizes in bytes, None: the default of the target, the data or the scheme."""

    model: Path
    scheme: str = "head"
    classes: int | None = None
    keep_head: bool = False
    target: str = "cortex-m7"
    sram: int | None = None
    flash: int | None = None
    calibrate: Path | None = None
    rate: float | None = None
    residual_bits: int | None = None
    input_mode: str = "auto"
    compiler: str = "zig"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rate is not None and not 0 < self.rate < 16:
            raise McugradError(f"--lr must be above 0 and below 16, got {self.rate}")
        if self.residual_bits is not None and self.residual_bits not in RESIDUAL_BITS:
            raise McugradError(f"--residual-bits must be 0, 4 or 8, got {self.residual_bits}")
        if not 0 <= self.seed < 1 << 32:
            raise McugradError(f"--seed must be between 0 and 2^32 - 1, got {self.seed}")

    @property
    def budget(self) -> Budget:
        return Budget(self.target, self.sram, self.flash, self.input_mode, self.compiler)

    def update_scheme(self, model: str) -> UpdateScheme:
        """The scheme with the requested residual bits."""
        scheme = read_scheme(self.scheme, model)
        return scheme if self.residual_bits is None else with_residual_bits(scheme, self.residual_bits)


def with_residual_bits(scheme: UpdateScheme, bits: int) -> UpdateScheme:
    """The scheme with the same residual bits everywhere."""
    weights = {name: replace(update, residual_bits=bits) for name, update in scheme.weights.items()}
    return replace(scheme, weights=weights, residual_bits=bits)


def input_shape(imported: Imported) -> tuple[int, int, int]:
    """(H, W, C) of a model's input."""
    _, h, w, c = imported.graph.inputs[0].type.shape
    return h, w, c


def compile_request(request: Request, folder: Path) -> Compiled:
    """Imports, quantizes, plans, prints and builds into `folder`.

    Raises McugradError for wrong input (nothing is written then) and BudgetError when it does not fit."""
    request.budget.resolve()
    imported = load(request.model)
    calibration = _calibration(request.calibrate, imported)
    return _compile(request, imported, calibration, request.classes, folder)


def _calibration(path: Path | None, imported: Imported) -> Calibration | None:
    return None if path is None else calibration_samples(path, CALIBRATION_SAMPLES, input_shape(imported))


def _compile(
    request: Request, imported: Imported, calibration: Calibration | None, classes: int | None, folder: Path
) -> Compiled:
    scheme = request.update_scheme(imported.name)
    prepared = prepare(imported, classes=classes, keep_head=request.keep_head, calibration=calibration, seed=request.seed)
    return compile_model(prepared, scheme, folder, request.budget, rate=request.rate, seed=request.seed)


def train_request(
    request: Request, data: Path, course: Course, on: str, folder: Path, progress: Progress = quiet
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Compiles, trains and evaluates; (notes, result).  Calibration data defaults to the training data.

    Raises McugradError for wrong input and BudgetError when it does not fit."""
    if on not in DEVICES:
        raise McugradError(f"--on {on}: use {', '.join(DEVICES)}")
    request.budget.resolve()
    imported = load(request.model)
    shape = input_shape(imported)
    known = imported.classifier.bias.shape[0] if request.keep_head and imported.classifier else request.classes
    samples = load_data(
        data,
        input_shape=shape,
        num_classes=known,
        seed=request.seed,
        progress=lambda done, all_: progress("reading", done, all_),
    )
    calibration = _calibration(request.calibrate or data, imported)
    classes = None if request.keep_head else request.classes or len(samples.classes)
    compiled = _compile(request, imported, calibration, classes, folder)
    result = train(compiled, samples, course, on, progress)
    notes = tuple(dict.fromkeys((*compiled.prepared.notes, *samples.notes)))
    return notes, {**result, "folder": str(folder), "device": on, "seed": request.seed, "notes": list(notes)}
