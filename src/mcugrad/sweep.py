"""`mcugrad sweep`: every combination of schemes, learning rates and seeds, in parallel, resumable, in one results file."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from mcugrad.api import Request, head_outputs, read_samples
from mcugrad.compiler import host_program
from mcugrad.data import TEST, TRAIN, Dataset, calibration_samples, held_out
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.ir import Array
from mcugrad.loss import Loss
from mcugrad.memory.problem import state_layout
from mcugrad.metrics import measure
from mcugrad.prepare import CALIBRATION_SAMPLES, Prepared, default_rate, training_graph
from mcugrad.trainer import Course, Progress, learn, quiet, require_updates
from mcugrad.training.scheme import resolve

T = TypeVar("T", int, float)
RESULTS, SUMMARY = "results.jsonl", "sweep.json"
VALIDATION = 0.2  # share of the training split that chooses, and is not learned from
METRICS = {Loss.SOFTMAX: "accuracy", Loss.SIGMOID: "accuracy", Loss.MSE: "r2", Loss.AUTOENCODER: "mse"}
ERRORS = {"mse"}  # figures that are better when they are smaller

Held = tuple[Array, Array, Array | None]


@dataclass(frozen=True)
class Job:
    """One training run.  rate: None is the scheme's default."""

    scheme: str
    rate: float | None
    seed: int


def parse_jobs(schemes: str, rates: str, seeds: str) -> tuple[Job, ...]:
    """Every combination of "head,49kb", "1e-3,2e-3" or "default", and "0,3" or "0-4".

    Raises McugradError for what is none of these."""
    names = [name.strip() for name in schemes.split(",") if name.strip()]
    chosen = [None if r.strip() == "default" else _number(r, float, "--lr") for r in rates.split(",")]
    numbers: list[int] = []
    for part in seeds.split(","):
        first, _, last = part.partition("-")
        numbers += range(_number(first, int, "--seeds"), _number(last or first, int, "--seeds") + 1)
    if not names or not numbers:
        raise McugradError("a sweep needs at least one scheme and one seed: --schemes head,bias --seeds 0-2")
    for rate in chosen:
        Request("", rate=rate)
    return tuple(Job(*combination) for combination in dict.fromkeys(itertools.product(names, chosen, numbers)))


def _number(text: str, kind: Callable[[str], T], option: str) -> T:
    try:
        return kind(text.strip())
    except ValueError:
        raise McugradError(f"{option}: {text.strip()!r} is not a number; separate them by commas") from None


@dataclass(frozen=True)
class Sweep:
    """What all runs share.  request: its scheme, rate and seed play no part.  data: path of a labelled set."""

    request: Request
    data: Path
    course: Course

    def key(self, job: Job) -> str:
        """Names a run: what it learns from, in which way, and what it tries.

        A file is known by its path, size and time of change, so that a result is never taken for another file's."""
        paths = (self.request.model, self.data, *((job.scheme,) if job.scheme.endswith(".toml") else ()))
        request = replace(self.request, scheme="head", rate=None, seed=0)
        course = replace(self.course, seed=0)
        facts = [str(asdict(request)), str(asdict(course)), str(asdict(job)), *(_stamp(Path(p)) for p in paths)]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]

    def run(self, job: Job) -> dict[str, Any]:
        """Trains once on the host twin; what came of it, as JSON values.  Raises McugradError for wrong input."""
        prepared, data = _shared(self.request, self.data)
        scheme = replace(self.request, scheme=job.scheme).update_scheme(prepared.name)
        usual = default_rate(resolve(scheme, prepared.graph), prepared.graph) / prepared.targets.power
        rate = usual if job.rate is None else job.rate
        graph = training_graph(prepared, scheme, rate=rate)
        (x, y), held, test = _parts(prepared, data, job.seed)
        course, targets = replace(self.course, seed=job.seed), prepared.targets
        with tempfile.TemporaryDirectory() as folder:
            program, library = host_program(graph, prepared.name, Path(folder))
            require_updates(program, job.scheme)
            with Host.load(library) as device:
                encoded, score = targets.encode(y, len(x)), targets.loss_of(prepared.graph)
                learned = learn(device, x, encoded, course, score=score, chance=targets.chance)
                found = {"validation": measure(device, prepared, *held), "test": measure(device, prepared, *test)}
                state = device.read_params()
        return {
            **asdict(job),
            "rate": rate,
            "key": self.key(job),
            "metric": METRICS[targets.loss],
            "scores": {part: figures[METRICS[targets.loss]] for part, figures in found.items()},
            "loss": float(np.mean(learned.losses[-len(learned.losses) // 4 :])),
            "steps": len(learned.losses),
            "full_steps": learned.full_steps,
            "state_bytes": state_layout(graph).total,
            "parameters_sha256": program.state_hash(state),
        }


def _stamp(path: Path) -> str:
    """Path, size and time of change of a file, or of everything below a folder."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        facts = file.stat() if file.exists() else None
        digest.update(f"{file}\0{facts.st_size if facts else 0}\0{facts.st_mtime_ns if facts else 0}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1)
def _shared(request: Request, path: Path) -> tuple[Prepared, Dataset]:
    """The prepared network and its data, read once per process."""
    imported = load(request.model)
    data = read_samples(request, imported, path, quiet)
    shape = data.x.shape[1:]
    calibration = calibration_samples(request.calibrate or path, CALIBRATION_SAMPLES, shape, loss=Loss.named(request.loss))
    own = request.keep_head or Loss.named(request.loss) is Loss.AUTOENCODER
    classes = None if own else request.classes or head_outputs(data)
    return request.prepared(imported, classes, calibration), data


def _parts(prepared: Prepared, data: Dataset, seed: int) -> tuple[tuple[Array, Array], Held, Held]:
    """(x, y) to learn from, and (x, y, group) to choose by and to report on.  Raises McugradError where one is empty."""
    (x, y), (test_x, test_y) = data.train, data.test
    group = None if data.group is None else data.group[data.split == TRAIN]
    held = held_out(y, group, seed, VALIDATION) == TEST if len(y) else np.zeros(0, bool)
    if not held.any() or held.all() or not len(test_x):
        raise McugradError(f"{data.origin}: a sweep needs samples to learn from, to choose by and to test on, in that order")
    return (
        (prepared.quantize(x[~held]), y[~held]),
        (prepared.quantize(x[held]), y[held], None if group is None else group[held]),
        (prepared.quantize(test_x), test_y, data.test_group),
    )


def sweep(
    plan: Sweep, jobs: Sequence[Job], folder: Path, *, workers: int | None = None, ray: str | None = None,
    progress: Progress = quiet,
) -> dict[str, Any]:  # fmt: skip
    """Runs every job that `folder`'s results do not hold yet; all results and the best choice, as JSON values.

    workers: processes (None: one per core).  ray: address of a Ray cluster to run on instead ("local" starts one here).
    A result is one line, written when its run ends: an interrupted sweep goes on where it stopped.  Raises McugradError
    for wrong input, with what has been found kept."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS
    known = {r["key"]: r for r in read_results(path)}
    keys = [plan.key(job) for job in jobs]
    todo = [job for job, key in zip(jobs, keys, strict=True) if key not in known]
    run = _on_ray(plan, todo, ray) if ray is not None else _in_processes(plan, todo, workers or os.cpu_count() or 1)
    progress("training", len(jobs) - len(todo), len(jobs))
    with path.open("a", encoding="utf-8") as file:
        for done, result in enumerate(run, 1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            known[result["key"]] = result
            progress("training", len(jobs) - len(todo) + done, len(jobs))
    rows = summary([known[key] for key in keys])
    result = {"model": str(plan.request.model), "data": str(plan.data), "rows": rows, "best": rows[0], "folder": str(folder)}
    result |= {"runs": len(jobs), "found_before": len(jobs) - len(todo)}
    (folder / SUMMARY).write_text(json.dumps(result, indent=1), encoding="utf-8")
    return result


def read_results(path: Path) -> list[dict[str, Any]]:
    """The runs in a results file; a last line that was cut off is dropped from the file.

    Raises McugradError when another line is not a result."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]), encoding="utf-8")
        lines = lines[:-1]
    found = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            found.append({"key": entry["key"], "scores": entry["scores"], **entry})
        except (ValueError, KeyError, TypeError):
            raise McugradError(
                f"{path}, line {number}: not a result of a sweep; remove the line, or choose another -o"
            ) from None
    return found


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per scheme and rate, means over seeds with their standard deviations, best validation score first."""
    rows = []
    ordered = sorted(results, key=lambda r: (r["scheme"], r["rate"]))
    for (scheme, rate), group in itertools.groupby(ordered, key=lambda r: (r["scheme"], r["rate"])):
        runs = list(group)
        scores = {part: [r["scores"][part] for r in runs] for part in ("validation", "test")}
        spread = {part: {"mean": float(np.mean(a)), "sd": float(np.std(a, ddof=1)) if len(a) > 1 else None}
                  for part, a in scores.items()}  # fmt: skip
        facts = {"metric": runs[0]["metric"], "state_bytes": runs[0]["state_bytes"]}
        rows.append({"scheme": scheme, "rate": rate, "seeds": len(runs), **spread, **facts})
    return sorted(rows, key=lambda r: r["validation"]["mean"] * (1 if r["metric"] in ERRORS else -1))


def _in_processes(plan: Sweep, jobs: Sequence[Job], workers: int) -> Iterator[dict[str, Any]]:
    """Results as they come, from fresh processes: what a job leaves behind cannot reach the next."""
    if not jobs:
        return
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn"), initializer=_die_quietly)
    try:
        for future in as_completed([pool.submit(plan.run, job) for job in jobs]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _run(plan: Sweep, job: Job) -> dict[str, Any]:
    return plan.run(job)


def _die_quietly() -> None:
    """Ctrl-C ends a worker without a word: the parent has the word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _on_ray(plan: Sweep, jobs: Sequence[Job], address: str) -> Iterator[dict[str, Any]]:
    """Results as they come, from the workers of a Ray cluster, which need mcugrad and the same paths."""
    try:
        import ray
    except ImportError:
        raise McugradError("--ray needs Ray: pip install 'mcugrad[ray]'") from None
    try:
        ray.init(None if address == "local" else address, log_to_driver=False, configure_logging=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise McugradError(
            f"no Ray cluster at {address}: {error}; start one with `ray start --head`, or use --ray local"
        ) from None
    try:
        remote = ray.remote(num_cpus=1)(_run)
        waiting = [remote.remote(plan, job) for job in jobs]
        while waiting:
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    finally:
        ray.shutdown()
