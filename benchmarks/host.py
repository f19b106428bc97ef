"""Steps per second of the host twin on one core, beside PyTorch's float fine-tuning of the same scheme at batch 1.

python benchmarks/host.py --model mcunet-5fps --scheme 49kb
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
RATE = 1e-3
Step = Callable[[int], None]


def measure(model: str, scheme: str) -> Entry:
    """Whole training steps per second: from the image to the last update, no sample skipped.

    Raises McugradError when the model is missing."""
    setting = Setting(model, scheme)
    steps: dict[str, Step] = {}
    if model != DIGITS and importlib.util.find_spec("torch"):
        steps["pytorch_steps_per_second"] = pytorch(model, scheme)
    with tempfile.TemporaryDirectory() as folder:
        build = compiled(setting, Path(folder) / "model")
        with Host.load(build.host_library) as device:
            steps["steps_per_second"] = twin(build, device)
            figures = fastest(steps)
    settings = {"model": setting.network, "scheme": scheme, "compiler": COMPILER, "machine_dependent": True}
    return Entry(f"host/{setting.network}/{scheme}", "host", settings, figures)


def twin(build: Compiled, device: Host) -> Step:
    """A training step of the generated C on this machine."""
    x, y = build.prepared.x[:SAMPLES], build.prepared.y[:SAMPLES].astype(np.int32)
    device.set_control(skip=NEVER_SKIP)

    def step(i: int) -> None:
        device.train_many(x[i : i + 1], y[i : i + 1])

    return step


def pytorch(model: str, scheme: str) -> Step:
    """A training step of learning_float.py on one thread, a whole image at batch 1."""
    import torch

    from benchmarks import learning_float as fp32
    from mcugrad.importers.mcunet import read_pickle

    torch.set_num_threads(1)
    network, what = read_pickle(model_file(model)), read_scheme(scheme, model_file(model).stem)
    if not isinstance(what.biases, int):
        raise McugradError(f"the scheme {scheme} lists its biases by name; the float twin counts them from the end")
    net = fp32.Net(network, CLASSES)
    ratios = {name: update.ratio for name, update in what.weights.items()}
    sgd = fp32.Sgd(net, fp32.trainable(network, ratios, what.biases))
    x, y = torch.randn(SAMPLES, 3, 128, 128), torch.arange(SAMPLES) % CLASSES

    def step(i: int) -> None:
        sgd.step(torch.nn.functional.cross_entropy(net.logits(x[i : i + 1], 0), y[i : i + 1]), RATE)

    return step


def fastest(steps: Mapping[str, Step]) -> dict[str, float]:
    """Steps per second of processor time by name, each in its fastest run; runs take turns, so that load hits all alike."""
    best = dict.fromkeys(steps, 0.0)
    for _ in range(RUNS):
        for name, step in steps.items():
            step(0)
            count, start = 0, time.process_time()
            while (elapsed := time.process_time() - start) < SECONDS:
                step(count % SAMPLES)
                count += 1
            best[name] = max(best[name], round(count / elapsed, 1))
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
