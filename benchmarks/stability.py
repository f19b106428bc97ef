"""100,000 training steps on the host twin without drift, overflow or divergence: writes stability.json, prints a table.

    python benchmarks/stability.py                # every run that stability.json does not hold yet
    python benchmarks/stability.py --table        # the table only
    python benchmarks/stability.py --runs full/constant --work FOLDER   # goes on from the last mark reached there
    python benchmarks/stability.py --core         # the first steps of the first run once more, in the virtual MCU

Needs the models in ../shared/models/tiny_training and the set in ../shared/data.  No sample is skipped, so that every
step has a backward pass; a constant rate is the hard case, because nothing damps what would drift.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mcugrad.compiler import Budget, compile_model, host_program
from mcugrad.data import Calibration, load_data
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.devices.host import Host
from mcugrad.images import resize
from mcugrad.importers import load
from mcugrad.ir import Array
from mcugrad.ops.head import Head, weight_limit
from mcugrad.prepare import CALIBRATION_SAMPLES, Prepared, prepare, training_graph
from mcugrad.program import Program
from mcugrad.quant.affine import BIAS_LIMIT
from mcugrad.trainer import Course, loss_of, stored_gradients
from mcugrad.training.scheme import read_scheme

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared"
RESULTS = Path(__file__).with_suffix(".json")
MODEL, SET = "mcunet-5fps", "cifar10"
SIZE, TRAIN, TEST = (128, 128, 3), 2000, 1000  # pixels, images of the set's own splits
MARKS = (1_000, 3_000, 10_000, 30_000, 100_000)
CORE, CORE_SRAM, CORE_STEPS = "cortex-m7", 96 << 10, 100
WINDOW = 1_000  # last steps over which loss and clamped gradients are counted
CHUNK = 500

# The rules of the verdict, each about the last mark unless it says otherwise.
SATURATED = 0.001  # numerics.md: a larger share of clamped gradient elements is unhealthy
DROP = 0.03  # accuracy may fall so far below its best mark: two standard errors of 1,000 test images
RISE = 0.1  # and the training loss may rise so far above its value at 10,000 steps
CLAMPED = 0.01  # share of the weights that may have come to stand at +-127
ROOM = 2  # every bias stays below its limit by this factor


@dataclass(frozen=True, eq=False)
class Images:
    """Images uint8 [N,H,W,C] and labels [N] to learn from and to test on."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array

    def calibration(self) -> Calibration:
        """Evenly spaced training images, as the commands choose them."""
        at = np.linspace(0, len(self.x) - 1, CALIBRATION_SAMPLES).round().astype(int)
        return Calibration(self.x[at], self.y[at], SET)


def read() -> Images:
    """The same seeded choice of the set's images in every run."""
    data, found = load_data(SHARED / "data" / SET), []
    for (x, y), size in ((data.train, TRAIN), (data.test, TEST)):
        chosen = np.sort(np.random.default_rng(0).permutation(len(x))[:size])
        found += [resize(x[chosen], *SIZE), y[chosen]]
    return Images(*found)


@dataclass(frozen=True)
class Run:
    """A scheme and how its rate goes; adapt: the exponents of the gradients follow the data."""

    scheme: str
    schedule: str
    adapt: bool = False
    rate: float | None = None
    model: str = MODEL

    @property
    def name(self) -> str:
        parts = [self.scheme, self.schedule, *(["adapt"] if self.adapt else []), *([f"lr {self.rate:g}"] if self.rate else [])]
        return "/".join([*([self.model] if self.model != MODEL else []), *parts])


RUNS = (
    Run("49kb", "halving"),
    Run("49kb", "constant"),
    Run("49kb", "constant", adapt=True),
    Run("full", "halving"),
    Run("full", "constant"),
    Run("full", "constant", adapt=True),
    Run("49kb", "constant", rate=6e-3),
    Run("full", "constant", rate=2e-3),
    Run("full", "constant", model="mbv2-w0.35"),
)


def state_of(program: Program, first: Mapping[str, Array], block: bytes) -> dict[str, Any]:
    """Where weights, biases, head and exponents stand; first: the parameters before any step."""
    now = program.unpack_state(block)
    limit = next(weight_limit(n.inputs[0].type) for n in program.graph.nodes if isinstance(n.op, Head))
    weights = [n for n in now if n.endswith("_weight") and n != "head_weight"]
    clamped = [sum(int((abs(p[n].astype(int)) == 127).sum()) for n in weights) for p in (first, now)]
    size = max(sum(now[n].size for n in weights), 1)
    biases = [now[n] for n in now if n.endswith("_bias")]
    exponents = now.get("exponents")
    return {
        "weights_clamped": round((clamped[1] - clamped[0]) / size, 5),
        "largest_bias": round(max(float(abs(b.astype(float)).max()) for b in biases) / BIAS_LIMIT, 6),
        "head_clamped": round(float((abs(now["head_weight"].astype(int)) >= limit).mean()), 5),
        "exponents_moved": None if exponents is None else (exponents.astype(int) - first["exponents"]).tolist(),
        "parameters_sha256": program.state_hash(block),
    }


class Watch:
    """A run, looked at when it reaches each mark."""

    def __init__(self, program: Program, device: Host, course: Course, marks: tuple[int, ...] = MARKS) -> None:
        self.program, self.device, self.course, self.marks = program, device, course, marks
        self.first = program.unpack_state(device.read_params())
        self.elements = stored_gradients(program)

    def rows(self, x: Array, y: Array, test_x: Array, test_y: Array, kept: Path | None = None) -> list[dict[str, Any]]:
        """What was seen at each mark; x int8 [N,H,W,C], y [N].

        kept: a file that holds the last mark reached, from which a run that was cut short goes on."""
        total = self.marks[-1]
        order = self.course.order(y, total)
        found = self._resumed(kept)
        start = found[-1]["step"] if found else 0
        self.device.set_control(seed=self.course.seed, step=start, skip=NEVER_SKIP)
        window = np.zeros((0, 3))
        for at in range(start, total, CHUNK):
            self.device.set_control(halvings=self.course.halvings(at, total))
            chosen = order[at : at + CHUNK]
            results = self.device.train_many(x[chosen], y[chosen].astype(np.int32))
            seen = np.array([(loss_of(r.p_label), r.saturated, r.progress == 0) for r in results])
            window = np.concatenate([window, seen])[-WINDOW:]
            if at + CHUNK in self.marks:
                found.append({"step": at + CHUNK, **self.look(window, test_x, test_y)})
                if kept is not None:
                    kept.write_text(json.dumps({"marks": found, "state": self.device.read_params().hex()}), encoding="utf-8")
        return found

    def _resumed(self, kept: Path | None) -> list[dict[str, Any]]:
        """The marks that were reached, the device as it was at the last of them."""
        if kept is None or not kept.exists():
            return []
        last = json.loads(kept.read_text(encoding="utf-8"))
        self.device.write_params(bytes.fromhex(last["state"]))
        found: list[dict[str, Any]] = last["marks"]
        return found

    def look(self, window: Array, test_x: Array, test_y: Array) -> dict[str, Any]:
        seen, right = self.device.evaluate(test_x, test_y.astype(np.int32))
        return {
            "loss": round(float(window[:, 0].mean()), 4),
            "accuracy": right / seen,
            "saturated": float(f"{window[:, 1].sum() / max(self.elements * window[:, 2].sum(), 1):.3g}"),
            **state_of(self.program, self.first, self.device.read_params()),
        }


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """The rules that a run breaks; none: stable."""
    last = rows[-1]
    middle = next((r for r in rows if r["step"] == 10_000), rows[0])
    best = max(r["accuracy"] for r in rows)
    rules = (
        (last["accuracy"] >= best - DROP, f"accuracy fell from {best:.3f} to {last['accuracy']:.3f}"),
        (last["loss"] <= middle["loss"] + RISE, f"loss rose from {middle['loss']:.2f} to {last['loss']:.2f}"),
        (max(r["saturated"] for r in rows) <= SATURATED, f"{max(r['saturated'] for r in rows):.2%} of gradients clamped"),
        (last["weights_clamped"] <= CLAMPED, f"{last['weights_clamped']:.2%} of weights came to +-127"),
        (last["largest_bias"] * ROOM <= 1, f"a bias reached {last['largest_bias']:.2f} of its limit"),
    )
    return [broken for holds, broken in rules if not holds]


def perform(run: Run, whole: Prepared, images: Images, work: Path) -> dict[str, Any]:
    """Builds the twin and runs it to the last mark."""
    scheme = replace(read_scheme(run.scheme, run.model), adapt=run.adapt)
    graph = training_graph(whole, scheme, rate=run.rate)
    folder = work / run.name.replace("/", "-").replace(" ", "")
    program, library = host_program(graph, whole.name, folder)
    x, test = whole.quantize(images.x), whole.quantize(images.test_x)
    with Host.load(library) as device:
        watch = Watch(program, device, Course(steps=MARKS[-1], schedule=run.schedule))
        rows = watch.rows(x, images.y, test, images.test_y, folder / "last_mark.json")
    return {"run": run.name, "set": SET, **asdict(run), "broken": verdict(rows), "marks": rows}


def on_the_core(run: Run, whole: Prepared, images: Images, work: Path) -> dict[str, Any]:
    """The first steps in the virtual MCU, under a plan that streams rows, and on the host: are the parameters the same?"""
    scheme = replace(read_scheme(run.scheme, run.model), adapt=run.adapt)
    budget = Budget(CORE, sram=CORE_SRAM, flash=1 << 20, input_mode="rows")
    build = compile_model(whole, scheme, work / "core", budget, rate=run.rate)
    course = Course(steps=MARKS[-1], schedule=run.schedule)
    chosen = course.order(images.y, MARKS[-1])[:CORE_STEPS]
    x, found = whole.quantize(images.x[chosen]), []
    for kind in ("host", "vm"):
        with build.device(kind) as device:
            device.set_control(seed=course.seed, step=0, halvings=course.halvings(0, MARKS[-1]), skip=NEVER_SKIP)
            for sample, label in zip(x, images.y[chosen], strict=True):
                device.train_step(sample, int(label))
            found.append(build.program.state_hash(device.read_params()))
    same = found[0] == found[1]
    return {"steps": CORE_STEPS, "core": CORE, "sram": build.firmware.facts.sram_total, "same_bits": same}


def table(results: list[dict[str, Any]]) -> str:
    """One row per run and mark."""
    heads = ("run", "steps", "loss", "accuracy", "clamped gradients", "weights come to 127", "largest bias", "verdict")
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * 6 + "---|"]
    for result in results:
        for row in result["marks"]:
            last = row is result["marks"][-1]
            told = ("; ".join(result["broken"]) or "stable") if last else ""
            cells = (f"{row['step']:,}", f"{row['loss']:.3f}", f"{100 * row['accuracy']:.1f}", f"{row['saturated']:.2e}")
            rest = (f"{row['weights_clamped']:.2%}", f"{row['largest_bias']:.1e}", told)
            lines.append(f"| {' | '.join((result['run'], *cells, *rest))} |")
    return "\n".join(lines)


def stored() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    return found


def write(results: list[dict[str, Any]]) -> None:
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def network(model: str, images: Images) -> Prepared:
    imported = load(SHARED / "models" / "tiny_training" / f"{model}.pkl")
    return prepare(imported, classes=int(images.y.max()) + 1, calibration=images.calibration())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", nargs="+", choices=[r.name for r in RUNS], default=[r.name for r in RUNS])
    parser.add_argument("--table", action="store_true", help="print the table of what is there and end")
    parser.add_argument("--core", action="store_true", help="only the first run's first steps, in the virtual MCU")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"mcugrad-stability-{os.getuid()}")
    args = parser.parse_args()
    known = {r["run"] for r in stored()}
    wanted = [] if args.table or args.core else [r for r in RUNS if r.name in args.runs and r.name not in known]
    images = read() if wanted or args.core else None
    for run in wanted if images is not None else ():
        results = [*stored(), perform(run, network(run.model, images), images, args.work)]
        write(results)
        sys.stderr.write(f"{run.name}: {results[-1]['broken'] or 'stable'}\n")
    if args.core and images is not None:
        results = stored()
        first = next(r for r in results if r["run"] == RUNS[0].name)
        whole = network(RUNS[0].model, images)
        first["virtual_mcu"] = on_the_core(RUNS[0], whole, images, args.work)
        write(results)
    sys.stdout.write(table(stored()) + "\n")


if __name__ == "__main__":
    main()
