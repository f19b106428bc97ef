"""Accuracy of on-device learning beside float fine-tuning of the same scheme: writes learning.json, prints a table.

    python benchmarks/learning.py                 # every run that learning.json does not hold yet
    python benchmarks/learning.py --table         # the table only
    python benchmarks/learning.py --models mcunet-5fps --sets flowers12 --seeds 0

Needs the extra `torch`, the models in ../shared/models/tiny_training and the sets in ../shared/data.  Learning rates
are numerics.md's, the same for both methods and tuned on neither.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import learning_device as device
from benchmarks import learning_float as fp32
from benchmarks.learning_data import SETS, Images, read
from benchmarks.learning_table import DEVICE, FLOAT, summary, table
from mcugrad.importers import load
from mcugrad.importers.mcunet import read_pickle
from mcugrad.ir import interpret
from mcugrad.prepare import Prepared, default_rate, prepare
from mcugrad.trainer import Course
from mcugrad.training.scheme import HEAD_ONLY, UpdateScheme, read_scheme, resolve

REPO = Path(__file__).resolve().parent.parent
SHARED = REPO.parent / "shared"
RESULTS = Path(__file__).with_suffix(".json")
MODELS = {"mcunet-5fps": "bias20", "mbv2-w0.35": "bias16"}  # and biases alone, as deep as the 49kb scheme's
PASSES = (  # scheme and seed, in the order in which they run
    *(("49kb", 0), ("head", 0), ("99kb", 0), ("bias", 0)),
    *(("49kb", 1), ("bias", 1), ("49kb", 2), ("bias", 2), ("head", 1), ("head", 2)),
)
COMPARED = 32  # test images on which float and integer features are compared


def schemes_of(model: str) -> dict[str, UpdateScheme]:
    bias = MODELS[model]
    alone = UpdateScheme(bias, model, biases=int(bias.removeprefix("bias")))
    return {"head": HEAD_ONLY, bias: alone, **{n: read_scheme(n, model) for n in ("49kb", "99kb")}}


@dataclass(frozen=True)
class Job:
    """One record to make."""

    model: str
    set: str
    scheme: str
    method: str
    seed: int

    def key(self) -> dict[str, Any]:
        return {"set": self.set, "model": self.model, "scheme": self.scheme, "method": self.method, "seed": self.seed}


class Bench:
    """A model on a set: everything its runs share, made when first needed."""

    def __init__(self, model: str, name: str, work: Path) -> None:
        self.model, self.name = model, name
        self.work = work / f"{model}-{name}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.path = SHARED / "models" / "tiny_training" / f"{model}.pkl"
        self.schemes = schemes_of(model)
        self.twins: dict[str, device.Twin] = {}

    @cached_property
    def images(self) -> Images:
        return read(self.name, SHARED / "data")

    @cached_property
    def whole(self) -> Prepared:
        return prepare(load(self.path), classes=self.images.classes, calibration=self.images.calibration())

    @cached_property
    def first(self) -> str:
        return device.first_updated(self.whole.graph, list(self.schemes.values()))

    @cached_property
    def tail(self) -> device.Tail:
        return device.tail(self.whole, self.first, self.images, self.work / "int8.npz")

    @cached_property
    def float_inputs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """What enters the block of the first updated layer, for training and test images."""
        net = self.net()
        return tuple(net.prefix(s.x, net.block_of(self.first)) for s in (self.images.train, self.images.test))  # type: ignore[return-value]

    def net(self) -> fp32.Net:
        return fp32.Net(read_pickle(self.path), self.images.classes)

    def rate(self, scheme: str) -> float:
        return default_rate(resolve(self.schemes[scheme], self.whole.graph), self.whole.graph)

    def course(self, seed: int) -> Course:
        return Course(epochs=SETS[self.name].epochs, seed=seed)

    def run(self, job: Job) -> dict[str, Any]:
        fields = self._on_device(job) if job.method == DEVICE else self._in_float(job)
        return {**job.key(), "epochs": SETS[self.name].epochs, "lr": self.rate(job.scheme), **fields}

    def _on_device(self, job: Job) -> dict[str, Any]:
        if job.scheme not in self.twins:
            scheme = self.schemes[job.scheme]
            self.twins[job.scheme] = device.twin(self.whole, scheme, self.tail.at, self.work / job.scheme)
        return device.run(self.twins[job.scheme], self.tail, self.images, self.course(job.seed))

    def _in_float(self, job: Job) -> dict[str, Any]:
        scheme, net, images = self.schemes[job.scheme], self.net(), self.images
        assert isinstance(scheme.biases, int)
        ratios = {name: update.ratio for name, update in scheme.weights.items()}
        what = fp32.trainable(read_pickle(self.path), ratios, scheme.biases)
        x, test = self.float_inputs
        first, course, rate = net.block_of(self.first), self.course(job.seed), self.rate(job.scheme)
        total = course.length(len(x))
        before = fp32.accuracy(net, test, images.test.y, first)
        losses, seconds = fp32.train(
            net, what, (x, images.train.y), course.order(images.train.y, total), first,
            lambda step: rate / 2 ** course.halvings(step, total),
        )  # fmt: skip
        return {
            "accuracy": {"before": before, "after": fp32.accuracy(net, test, images.test.y, first)},
            "steps": total,
            "loss_last_epoch": round(float(np.mean(losses[-len(x) :])), 4),
            "full_share": 1.0,
            "saturated": None,
            "seconds": round(seconds, 1),
        }

    def agreement(self) -> dict[str, Any]:
        """How near the fp32 network is to the integer one before training, and that the tail trains as the whole does."""
        chosen = np.random.default_rng(0).permutation(len(self.images.test.x))[:COMPARED]
        images = self.images.test.x[chosen]
        with torch.no_grad():
            ours = self.net().pooled(self.net().prefix(images, 0), 0).double().numpy()
        graph = load(self.path).graph
        x, out = self.whole.quantize(images), graph.outputs[0]
        q = [interpret(graph, {graph.inputs[0].name: x[i : i + 1]})[out].reshape(-1) for i in range(len(x))]
        quant = out.type.quant
        assert quant is not None
        theirs = (np.stack(q).astype(float) - quant.zero) * quant.scale[0]
        by_channel = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, theirs.T, strict=True) if a.std() and b.std()]
        return {
            "model": self.model,
            "set": self.name,
            "images": COMPARED,
            "feature_correlation": round(float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]), 4),
            "feature_correlation_within_channels": round(float(np.mean(by_channel)), 4),
            "feature_difference_lsb": round(float(np.abs(ours - theirs).mean() / quant.scale[0]), 3),
            "tail_equals_whole": self._same_as_whole(),
        }

    def _same_as_whole(self) -> dict[str, Any]:
        return device.same_as_whole(self.whole, self.tail, self.images, self.schemes["49kb"], self.work)


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """The most telling first, so that a benchmark cut short is still of use."""
    for model in args.models:
        for scheme, seed in PASSES:
            if seed in args.seeds:
                kind = MODELS[model] if scheme == "bias" else scheme
                for name in args.sets:
                    yield from (Job(model, name, kind, method, seed) for method in (DEVICE, FLOAT))


def stored() -> dict[str, Any]:
    if RESULTS.exists():
        found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
        return found
    return {"agreement": [], "runs": []}


def write(results: dict[str, Any]) -> None:
    lines = {k: ",\n".join("  " + json.dumps(row) for row in rows) for k, rows in results.items()}
    text = ",\n".join(f' "{k}": [\n{rows}\n ]' for k, rows in lines.items())
    temporary = RESULTS.with_suffix(".tmp")
    temporary.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")
    temporary.replace(RESULTS)


def missing(results: dict[str, Any], job: Job) -> bool:
    return not any(job.key().items() <= run.items() for run in results["runs"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=tuple(MODELS))
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=tuple(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=(0, 1, 2))
    parser.add_argument("--table", action="store_true", help="print the table of what is there and end")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / f"mcugrad-learning-{os.getuid()}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    benches: dict[tuple[str, str], Bench] = {}
    for job in () if args.table else jobs(args):
        results = stored()
        if not missing(results, job):
            continue
        bench = benches.setdefault((job.model, job.set), Bench(job.model, job.set, args.work))
        if not any((a["model"], a["set"]) == (job.model, job.set) for a in results["agreement"]):
            results["agreement"].append(bench.agreement())
            write(results)
            print(results["agreement"][-1], flush=True)
        results["runs"].append(bench.run(job))
        write(results)
        print(results["runs"][-1], flush=True)
    runs = stored()["runs"]
    print(table(runs) + "\n" + summary(runs))


if __name__ == "__main__":
    main()
