"""How well the device learns, beside float fine-tuning and the published algorithm: writes learning.jsonl, prints tables.

    python benchmarks/learning.py                 # every run that learning.jsonl does not hold yet
    python benchmarks/learning.py --table         # the tables only
    python benchmarks/learning.py --models mcunet-5fps --sets flowers12 --seeds 0

Splits are drawn again for each seed.  A rate is chosen per network, set, scheme and method among four, on the validation
part of seed 0; float fine-tuning and the reference's algorithm take the device's, which is the same step in real units
(signals: float has a rate of its own).
Each record is appended as soon as it is there, so that several processes may work side by side.  Needs the
extra `torch`, the models in ../shared/models/tiny_training and the sets in ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.learning_data import SETS
from benchmarks.learning_runs import Bench
from benchmarks.learning_signals import SCHEMES, SIGNALS, TASKS, Signals
from benchmarks.learning_table import METHODS, UNTRAINED, tables
from mcugrad.loss import Loss

REPO = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_suffix(".jsonl")
SHARED = REPO.parent / "shared"
IMAGES = ("flowers12", "cifar10", "trashnet128", "vww01", "magnetic_tile")
PUBLISHED = {"mcunet-5fps": ("49kb", "74kb", "99kb"), "mbv2-w0.35": ("49kb", "73kb", "99kb")}
MODELS = [*PUBLISHED, *SIGNALS]
DEVICE, FLOAT, REFERENCE, RULE = METHODS[:4]


@dataclass(frozen=True)
class Job:
    """One record to make: a scheme's name with a variant of the device's arithmetic, if any, by a method."""

    model: str
    set: str
    scheme: str
    method: str
    seed: int
    variant: str = ""

    def key(self) -> dict[str, Any]:
        return dict(vars(self))


VARIANTS = ("F0", "F8", "centred", "never skips", "random head")


SAME_RATE = tuple(m for m in METHODS if m not in (DEVICE, RULE))
ABLATED = "mcunet-5fps"
FEW = 3  # seeds of the columns that are not compared pairwise with all others


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """The most telling first, so that a benchmark cut short is still of use."""
    yield from signals(args)
    for seeds in filter(None, (args.seeds[:1], args.seeds[1:FEW], args.seeds[FEW:])):
        few = max(seeds) < FEW
        for model in (m for m in args.models if m in PUBLISHED):
            small, middle, large = PUBLISHED[model]
            columns = [(small, DEVICE), ("head", DEVICE), (large, DEVICE)]
            if few or model == ABLATED:
                columns += [(small, FLOAT), (small, REFERENCE)]
            columns += [("bias", DEVICE), ("last3", DEVICE), (middle, DEVICE), ("full", DEVICE)]
            if few and model == ABLATED:
                columns += [(small, RULE), (large, FLOAT)]
            if few:
                columns += [(f"searched-{small}", DEVICE), (f"searched-{large}", DEVICE)]
            for scheme, method in columns:
                for name in (n for n in args.sets if n in IMAGES):
                    yield from (Job(model, name, scheme, method, seed) for seed in seeds)
    yield from ablations(args)


def signals(args: argparse.Namespace) -> Iterator[Job]:
    """Networks for signals, each on its own set: the device and float under every scheme."""
    for model, name in SIGNALS.items():
        if model in args.models and name in args.sets:
            task = TASKS[name]
            for seed in args.seeds:
                if task.keep_head:
                    yield Job(model, name, UNTRAINED, FLOAT, seed)
                for scheme in SCHEMES[task.loss is Loss.AUTOENCODER :]:
                    yield from (Job(model, name, scheme, method, seed) for method in (DEVICE, FLOAT))


def ablations(args: argparse.Namespace) -> Iterator[Job]:
    """One change at a time, on one network's small scheme (centring: also on the full update)."""
    model = ABLATED
    if model not in args.models:
        return
    small = PUBLISHED[model][0]
    sets = [s for s in args.sets if s in IMAGES[:3]]
    for seed in args.seeds[:3]:
        for name in sets:
            yield from (Job(model, name, small, DEVICE, seed, variant) for variant in VARIANTS)
            yield Job(model, name, "full", DEVICE, seed, "not centred")
            yield from (Job(model, name, small, method, seed) for method in METHODS[4:])
    for seed in args.seeds[:1]:
        yield from (Job(model, name, "full", FLOAT, seed) for name in sets)


def stored() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def store(record: dict[str, Any]) -> None:
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def find(records: list[dict[str, Any]], **fields: Any) -> dict[str, Any] | None:
    return next((r for r in records if all(r.get(k) == v for k, v in fields.items())), None)


def bench_of(model: str, name: str, work: Path, records: list[dict[str, Any]]) -> Bench | Signals:
    """A network on a set.  Of images, once for each: the end that the runs train stands for the whole network.

    Raises SystemExit where it does not."""
    if model in SIGNALS:
        return Signals(name, SHARED, work)
    bench = Bench(model, name, SHARED, work)
    if find(records, kind="agreement", model=model, set=name) is None:
        record = {"kind": "agreement", "model": model, "set": name, **bench.agreement()}
        if not record["equal"]:
            sys.exit(f"{model} on {name}: the network's end does not learn what the whole network learns")
        store(record)
        records.append(record)
    return bench


def run(job: Job, bench: Bench | Signals, records: list[dict[str, Any]]) -> None:
    """Makes a job's record, where the one that chose its rate is there."""
    if isinstance(bench, Bench) and job.scheme.startswith("searched") and not bench.has(job.scheme):
        _search(job, bench, records)
    same_rate = isinstance(bench, Bench) and job.method in SAME_RATE
    first = find(records, **{**job.key(), "seed": 0, "variant": ""})
    rates = bench.grid(job.method)
    if same_rate:
        first = find(records, **{**job.key(), "method": DEVICE, "seed": 0, "variant": ""})
    if job.seed != 0 or job.variant or same_rate:
        if first is None:
            return
        rates = (first["halvings"],)
    record = {**job.key(), **bench.best(job.scheme, job.method, job.seed, job.variant, rates)}
    store(record)
    records.append(record)
    print(f"{job.model} {job.set} {job.scheme} {job.variant} {job.method} seed {job.seed}: {record['test']:.3f}", flush=True)


def _search(job: Job, bench: Bench, records: list[dict[str, Any]]) -> None:
    """The searched schemes of a network and a set, made once."""
    known = find(records, kind="search", model=job.model, set=job.set)
    if known is None:
        known = {"kind": "search", "model": job.model, "set": job.set, "found": bench.search(PUBLISHED[job.model][::2])}
        store(known)
        records.append(known)
    bench.know(known["found"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--work", type=Path, help="folder for what is kept between runs (default: a temporary one)")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    records = stored()
    if not args.table:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as temporary:
            benches: dict[tuple[str, str], Bench | Signals] = {}
            for job in jobs(args):
                if find(records, **job.key()) is None:
                    place = (job.model, job.set)
                    if place not in benches:
                        benches[place] = bench_of(*place, args.work or Path(temporary), records)
                    run(job, benches[place], records)
    print(tables(records))


if __name__ == "__main__":
    main()
