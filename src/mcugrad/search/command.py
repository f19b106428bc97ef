"""`mcugrad search`: from a model, data and a budget to a folder with a scheme, a Pareto front and the reasons."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mcugrad import __version__
from mcugrad.api import Request, head_outputs, input_shape, read_samples
from mcugrad.data import Dataset, calibration_samples
from mcugrad.errors import McugradError
from mcugrad.fit import INPUT_MODES, Line
from mcugrad.folder import fresh_folder
from mcugrad.importers import Imported, load
from mcugrad.loss import Loss
from mcugrad.prepare import CALIBRATION_SAMPLES, Prepared
from mcugrad.report.pareto import draw_pareto
from mcugrad.search.contribution import Trials, contribution
from mcugrad.search.evolution import evolve
from mcugrad.search.explain import layer_rows, scheme_toml
from mcugrad.search.importance import importance
from mcugrad.search.run import Budgeted, Found, Solver, head_cost, search
from mcugrad.search.solve import Choice, Limits, front, solve
from mcugrad.search.space import Gains, Progress, Space, bias_depths, fisher_gains, space
from mcugrad.trainer import quiet
from mcugrad.training.scheme import RESIDUAL_BITS

SOLVERS: Mapping[str, Solver] = {"fisher": solve, "contribution": solve, "evolution": evolve}
"""What chooses by each method; the last two share their gains."""

POINTS = 14  # of the Pareto front
SCHEME, RESULT, FRONT, PICTURE = "scheme.toml", "search.json", "pareto.json", "pareto.png"


@dataclass
class Clock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def search_request(
    request: Request,
    data: str | Path,
    *,
    instructions: int | None = None,
    method: str = "fisher",
    trials: int = 48,
    folder: str | Path = "search",
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Finds what to update within the request's budget and writes `folder`; the result as nested JSON values.

    The request's scheme and rate play no part; its residual bits, where given, are the only ones used.  instructions: of
    one training step, estimated; None: no limit.  trials: short trainings that contribution and evolution may spend.
    Raises McugradError for wrong input and BudgetError where not even the head can learn; then nothing is written."""
    if method not in SOLVERS:
        raise McugradError(f"unknown method {method!r}: use {', '.join(SOLVERS)}")
    target = request.budget.resolve()
    imported, clock, folder = load(request.model), Clock(), Path(folder)
    with clock.stage("preparing"):
        samples = _dataset(request, imported, Path(data), method)
        prepared = _prepared(request, imported, Path(data), samples)
    bits = RESIDUAL_BITS if request.residual_bits is None else (request.residual_bits,)
    job = Budgeted(prepared, Line(target, request.input_mode, request.compiler), instructions, bits, request.seed)
    with fresh_folder(folder) as work:
        with clock.stage("head"):
            head, fixed = head_cost(job)
        with clock.stage("memory"):
            depths = bias_depths(prepared, target, INPUT_MODES[request.input_mode], progress)
        with clock.stage("gains"):
            reached = sum(d.arena + d.state + fixed.sram <= target.sram for d in depths) - 1
            gains = _gains(job, samples if method != "fisher" else None, trials, reached, progress)
            where = space(prepared, gains, depths, target, bits)
        with clock.stage("solving and confirming"):
            found = search(job, where, head, fixed, SOLVERS[method], progress)
        with clock.stage("front"):
            points = _front(found, where, job)
        with clock.stage("reasons"):
            rows = layer_rows(found.choice, found.limits, request.seed, progress)
        result = _result(request, job, found, points, rows, method)
        result |= {"seconds": clock.seconds, "folder": str(folder), "notes": list(prepared.notes)}
        _write(work, result, found, job, method)
    return result


def _dataset(request: Request, imported: Imported, data: Path, method: str) -> Dataset | None:
    """The whole data set, where the method trains or the number of classes is not known."""
    if method == "fisher" and (request.classes is not None or _keeps_output(request)):
        return None
    return read_samples(request, imported, data, quiet)


def _keeps_output(request: Request) -> bool:
    return request.keep_head or Loss.named(request.loss) is Loss.AUTOENCODER


def _prepared(request: Request, imported: Imported, data: Path, samples: Dataset | None) -> Prepared:
    loss = Loss.named(request.loss)
    calibration = calibration_samples(request.calibrate or data, CALIBRATION_SAMPLES, input_shape(imported), loss=loss)
    if calibration.y is None and loss is not Loss.AUTOENCODER:
        raise McugradError(
            f"{calibration.origin}: has no labels, and how much a layer would learn depends on them: label the data"
        )
    classes = None if _keeps_output(request) else request.classes or (head_outputs(samples) if samples else None)
    return request.prepared(imported, classes, calibration)


def _gains(job: Budgeted, samples: Dataset | None, trials: int, deepest: int, progress: Progress) -> Gains:
    """By short trainings on the samples, or by Fisher information where there are none."""
    if samples is None:
        return fisher_gains(importance(job.prepared, seed=job.seed), job.prepared.graph)
    return contribution(Trials.of(job.prepared, *samples.train, job.seed), trials, deepest, progress)


def _front(found: Found, where: Space, job: Budgeted) -> list[dict[str, Any]]:
    """The best predicted schemes from the head alone to twice the budget, cheapest first, each better than the last."""
    low, high = where.depths[0].arena + where.depths[0].state, 2 * (found.limits.sram or 0)
    caps = [int(c) for c in np.geomspace(low, max(high, low + 1), POINTS)]
    points: list[dict[str, Any]] = []
    for _, choice in front(where, caps, Limits(None, found.limits.flash, found.limits.instructions), job.seed):
        point = _point(choice, choice.sram + found.fixed.sram)
        if not points or point["gain"] > points[-1]["gain"]:
            points.append(point)
    return points


def _point(choice: Choice, sram: int) -> dict[str, Any]:
    return {
        "sram": sram,
        "gain": round(choice.gain, 6),
        "instructions": choice.instructions,
        "biases": choice.depth.biases,
        "layers": len(choice.options),
        "weights": {o.name: {"ratio": o.ratio, "residual_bits": o.bits} for o in choice.options},
    }


def _result(
    request: Request, job: Budgeted, found: Found, points: list[dict[str, Any]], rows: list[dict[str, Any]], method: str
) -> dict[str, Any]:
    target, choice = job.line.target, found.choice
    return {
        "model": job.prepared.name,
        "target": target.name,
        "method": method,
        "seed": request.seed,
        "budget": {"sram": target.sram, "flash": target.flash, "instructions": job.instructions},
        "chosen": {**_point(choice, found.cost.sram), **asdict(found.cost), "arena": choice.arena, "parameters": choice.state},
        "head": asdict(found.head),
        "rounds": [
            {**_point(c, cost.sram), **asdict(cost), "predicted_sram": c.sram + found.fixed.sram, "fits": fits}
            for c, cost, fits in found.rounds
        ],
        "layers": rows,
        "pareto": points,
    }


def _write(work: Path, result: dict[str, Any], found: Found, job: Budgeted, method: str) -> None:
    name = job.prepared.name
    (work / SCHEME).write_text(scheme_toml(found.choice, name, _provenance(found, job, method)), encoding="utf-8")
    (work / FRONT).write_text(json.dumps(result["pareto"], indent=1), encoding="utf-8")
    (work / RESULT).write_text(json.dumps(result, indent=1), encoding="utf-8")
    title = f"{name} on {job.line.target.name}: what memory buys"
    draw_pareto(result["pareto"], result["chosen"], job.line.target.sram, work / PICTURE, title)


def _provenance(found: Found, job: Budgeted, method: str) -> list[str]:
    target, cost = job.line.target, found.cost
    allowed = "any number" if job.instructions is None else f"{job.instructions:,}"
    return [
        f"Found by mcugrad search {__version__}, method {method}, seed {job.seed}, for {target.name}.",
        f"Predicted gain: {found.choice.gain:.1%} of updating everything with 8 residual bits.",
        f"SRAM at least {cost.sram:,} of {target.sram:,} bytes, flash {cost.flash:,} of {target.flash:,}.",
        f"About {cost.instructions:,} instructions per training step, allowed: {allowed}.",
    ]
