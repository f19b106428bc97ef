"""Steps and inferences per second of the host twin on one core, beside PyTorch at batch 1 on one thread: float fine-tuning
of the same scheme (learning_float.py), and quantized training as its authors simulate it (host_simulator.py).

python benchmarks/host.py --model mcunet-5fps --scheme 49kb
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import reference
from benchmarks.ledger import COMPILER, Entry
from benchmarks.models import CLASSES, DIGITS, Setting, compiled, model_file
from mcugrad.compiler import Compiled
from mcugrad.devices.base import NEVER_SKIP
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.training.scheme import read_scheme

RUNS = 5  # the fastest counts: what else runs on the machine only slows
SECONDS = 1.0  # of processor time in each run, about
SAMPLES = 8
TWIN_SAMPLES = 64  # in one call of the twin
RATE = 1e-3
RATIOS = {"pytorch_steps_per_second": "PyTorch, float", "simulator_steps_per_second": "PyTorch, simulated int8"}


@dataclass(frozen=True)
class Work:
    """Something to repeat: run(i) does `count` of it, i counts the calls."""

    run: Callable[[int], None]
    count: int = 1


def measure(model: str, scheme: str) -> Entry:
    """Whole training steps and inferences per second: from the image to the last update, no sample skipped.

    Raises McugradError when the model is missing."""
    setting = Setting(model, scheme)
    work: dict[str, Work] = {}
    if model != DIGITS and importlib.util.find_spec("torch"):
        work |= pytorch(model, scheme)
    with tempfile.TemporaryDirectory() as folder:
        build = compiled(setting, Path(folder) / "model")
        with Host.load(build.host_library) as device:
            figures = fastest(work | twin(build, device))
    settings = {"model": setting.network, "scheme": scheme, "compiler": COMPILER, "machine_dependent": True}
    return Entry(f"host/{setting.network}/{scheme}", "host", settings, figures)


def twin(build: Compiled, device: Host) -> dict[str, Work]:
    """The generated C on this machine, as the trainer calls it: many samples at a time."""
    repeats = -(-TWIN_SAMPLES // len(build.prepared.x))
    x, y = build.prepared.x, build.prepared.y.astype(np.int32)
    x, y = np.concatenate([x] * repeats)[:TWIN_SAMPLES], np.concatenate([y] * repeats)[:TWIN_SAMPLES]
    device.set_control(skip=NEVER_SKIP)

    def train(_: int) -> None:
        device.train_many(x, y)

    def infer(_: int) -> None:
        device.infer_many(x)

    return {"steps_per_second": Work(train, len(x)), "inferences_per_second": Work(infer, len(x))}


def pytorch(model: str, scheme: str) -> dict[str, Work]:
    """Training steps on one thread, a whole image at batch 1."""
    import torch

    from benchmarks import host_simulator as simulator
    from benchmarks import learning_float as fp32
    from mcugrad.importers.mcunet import read_pickle

    torch.set_num_threads(1)
    network, what = read_pickle(model_file(model)), read_scheme(scheme, model_file(model).stem)
    if not isinstance(what.biases, int):
        raise McugradError(f"the scheme {scheme} lists its biases by name; the float twin counts them from the end")
    ratios = {name: update.ratio for name, update in what.weights.items()}
    learns = fp32.trainable(network, ratios, what.biases)
    net, simulated = fp32.Net(network, CLASSES), simulator.Net(network, CLASSES)
    sgd, scaled = fp32.Sgd(net, learns), simulator.Sgd(simulated, learns)
    q = torch.from_numpy(np.random.default_rng(0).integers(-128, 128, (SAMPLES, 3, network.size, network.size)))
    x, pixels, y = q.float() * net.input_scale, q.float(), torch.arange(SAMPLES) % CLASSES

    def step(i: int) -> None:
        i %= SAMPLES
        sgd.step(torch.nn.functional.cross_entropy(net.logits(x[i : i + 1], 0), y[i : i + 1]), RATE)

    def simulate(i: int) -> None:
        i %= SAMPLES
        scaled.step(torch.nn.functional.cross_entropy(simulated.logits(pixels[i : i + 1]), y[i : i + 1]), RATE)

    return {"pytorch_steps_per_second": Work(step), "simulator_steps_per_second": Work(simulate)}


def fastest(work: Mapping[str, Work]) -> dict[str, float]:
    """How often per second of processor time, by name, each in its fastest run; runs take turns, so that load hits all
    alike."""
    best = dict.fromkeys(work, 0.0)
    for _ in range(RUNS):
        for name, w in work.items():
            w.run(0)
            calls, start = 0, time.process_time()
            while (elapsed := time.process_time() - start) < SECONDS:
                w.run(calls)
                calls += 1
            best[name] = max(best[name], round(calls * w.count / elapsed, 1))
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=reference.MODEL, help=f"{DIGITS}, the name of a published network, or a path")
    parser.add_argument("--scheme", default=reference.SCHEME)
    options = parser.parse_args()
    try:
        entry = measure(options.model, options.scheme)
    except McugradError as error:
        print(error, file=sys.stderr)
        return 1
    for name, rate in entry.figures.items():
        print(f"{entry.name}  {name.replace('_', ' ')}: {rate}")
    for name, what in RATIOS.items():
        if name in entry.figures:
            print(f"{entry.name}  times {what}: {entry.figures['steps_per_second'] / entry.figures[name]:.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
