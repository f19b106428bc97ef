"""What later classes make a network forget, and what a replay buffer keeps: writes continual.json, prints a table.

    python benchmarks/continual.py                # every run that continual.json does not hold yet
    python benchmarks/continual.py --table        # the table only

The last third of a set's classes comes only after the others have been learned, alone.  The device's arithmetic on the host
twin; splits are drawn again for each seed.  Needs the models in ../shared/models/tiny_training and the sets in ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.learning_device import without_prefix
from benchmarks.learning_runs import Bench
from benchmarks.markdown import table
from mcugrad.compiler import host_program, layerwise_program
from mcugrad.devices.host import Host
from mcugrad.ir import Graph
from mcugrad.prepare import training_graph
from mcugrad.replay import Replay
from mcugrad.trainer import accuracy, in_phases, learn, quiet

REPO = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_suffix(".json")
SHARED = REPO.parent / "shared"
MODEL = "mcunet-5fps"
SCHEMES = ("49kb", "last3")
SETS = ("flowers12", "cifar10")
SEEDS = (0, 1)
FIGURES = ("all", "old", "new", "forgetting")


@dataclass(frozen=True)
class Way:
    """How the later classes are learned.  buffer: KiB of past samples; replays: learned again per step; together: all
    classes come mixed; masked: outputs wait for their first sample; erase: the buffer is flash of such units, bytes."""

    title: str
    buffer: int = 0
    replays: int = 1
    together: bool = False
    masked: bool = False
    erase: int = 0


WAYS = (
    Way("no replay"),
    Way("64 KiB, 1 learned again per step", 64, 1),
    Way("64 KiB, 4 learned again per step", 64, 4),
    Way("128 KiB, 4 learned again per step", 128, 4),
    Way("all classes together, no phases", together=True),
    Way("no replay, outputs masked", masked=True),
    Way("128 KiB, 4 learned again per step, outputs masked", 128, 4, masked=True),
    Way("480 KiB of flash, 4 learned again per step", 480, 4, erase=4096),
)


def replay_of(way: Way, graph: Graph, classes: int) -> Replay | None:
    """As many slots as the way's buffer has room for, those of flash in SRAM too: the bits are the same.  None without one."""
    if not way.buffer:
        return None
    cut = layerwise_program(graph, MODEL, Replay(1)).cut
    assert cut is not None
    latent, room = cut.value.type.nbytes, way.buffer << 10
    if way.erase:
        return Replay(room // (-(-latent // way.erase) * way.erase), way.replays)
    slots = room // latent
    while Replay(slots).block_bytes(classes, latent) > room:
        slots -= 1
    return Replay(slots, way.replays)


def measure(name: str, scheme: str, way: Way, seed: int, bench: Bench, work: Path) -> dict[str, Any]:
    """One run: accuracies in percent at its end, forgetting in points, and slots of the buffer."""
    classes, split, what = bench.pool.classes, bench.splits(seed), bench.scheme(scheme)
    at = bench.cut(what)
    graph = training_graph(bench.whole, replace(what, masked=way.masked))
    if at is not None:
        graph = without_prefix(graph, at)
    replay = replay_of(way, graph, classes)
    _, library = host_program(graph, MODEL, work / f"{name}-{scheme}-{way.buffer}-{way.replays}-{way.masked}", replay)
    course = replace(bench.course(seed), new=tuple(range(classes - classes // 3, classes)))
    x, y = bench.inputs(at), bench.pool.y
    train, test = ((x[i], y[i]) for i in (split.train, split.test))
    row = {"set": name, "scheme": scheme, "way": way.title, "seed": seed, "slots": replay.slots if replay else 0}
    with Host.load(library) as device, Host.load(library) as twin:
        if way.together:
            learn(device, *train, replace(course, new=()))
            twin.write_params(device.read_params())
            return {**row, "all": round(100 * accuracy(twin, *test), 2)}
        _, found = in_phases(device, twin, train, test, course, quiet)
    last = {k: round(100 * v, 2) for k, v in found["phases"][-1]["accuracy"].items()}
    return {**row, **last, "forgetting": round(100 * found["forgetting"], 2)}


def rows(records: Iterable[Mapping[str, Any]]) -> list[list[str]]:
    """A row per set, scheme and way: means over the seeds."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for r in records:
        groups.setdefault((r["set"], r["scheme"], r["way"]), []).append(r)
    found = []
    for key, mine in groups.items():
        cells = (f"{mean(r[k] for r in mine):.1f}" if k in mine[0] else "-" for k in FIGURES)
        found.append([*key, str(mine[0]["slots"]), *cells, str(len(mine))])
    return found


def report(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The table as lines of Markdown."""
    heads = ("set", "scheme", "past samples", "kept", "accuracy", "old classes", "new classes", "forgotten", "seeds")
    return table(heads, rows(records), 3)


def stored(path: Path = RESULTS) -> list[dict[str, Any]]:
    """The runs that were made; none before any was."""
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


@cache
def bench_of(name: str, work: Path) -> Bench:
    """The network on a set, and the activations that never change."""
    return Bench(MODEL, name, SHARED, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the table of what is there and end")
    parser.add_argument("--work", type=Path, help="folder for activations kept between runs (default: a temporary one)")
    args = parser.parse_args()
    records = stored()
    with tempfile.TemporaryDirectory() as temporary:
        for name, scheme, way, seed in () if args.table else product(SETS, SCHEMES, WAYS, SEEDS):
            if any((r["set"], r["scheme"], r["way"], r["seed"]) == (name, scheme, way.title, seed) for r in records):
                continue
            bench = bench_of(name, args.work or Path(temporary))
            records.append(measure(name, scheme, way, seed, bench, Path(temporary)))
            RESULTS.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
            sys.stderr.write(f"{records[-1]}\n")
    sys.stdout.write("\n".join(report(records)) + "\n")


if __name__ == "__main__":
    main()
