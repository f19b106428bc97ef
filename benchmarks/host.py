"""Steps per second of the host twin on one core, beside PyTorch's float fine-tuning of the same scheme at batch 1.

python benchmarks/host.py --model mcunet-5fps --scheme 49kb
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
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

RUNS = 3  # the fastest counts: what else runs on the machine only slows
SECONDS = 2.0  # of each run, about
RATE = 1e-3


def measure(model: str, scheme: str) -> Entry:
    """Whole training steps per second: from the image to the last update, no sample skipped.

    Raises McugradError when the model is missing."""
    setting = Setting(model, scheme)
    with tempfile.TemporaryDirectory() as folder:
        figures = {"steps_per_second": twin(compiled(setting, Path(folder) / "model"))}
    if model != DIGITS and importlib.util.find_spec("torch"):
        figures["pytorch_steps_per_second"] = pytorch(model, scheme)
    settings = {"model": setting.network, "scheme": scheme, "compiler": COMPILER, "machine_dependent": True}
    return Entry(f"host/{setting.network}/{scheme}", "host", settings, figures)


def twin(build: Compiled) -> float:
    """Steps per second of the generated C on this machine."""
    x, y = build.prepared.x, build.prepared.y.astype(np.int32)
    with Host.load(build.host_library) as device:
        device.set_control(skip=NEVER_SKIP)
        return fastest(lambda i: device.train_many(x[i : i + 1], y[i : i + 1]), len(x))


def pytorch(model: str, scheme: str) -> float:
    """Steps per second of learning_float.py on one thread, whole images at batch 1."""
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
    x, y = torch.randn(8, 3, 128, 128), torch.arange(8) % CLASSES

    def step(i: int) -> None:
        sgd.step(torch.nn.functional.cross_entropy(net.logits(x[i : i + 1], 0), y[i : i + 1]), RATE)

    return fastest(step, len(x))


def fastest(step: Callable[[int], object], samples: int) -> float:
    """Calls of step(i), i below `samples`, per second, in the fastest of a few runs."""
    step(0)
    best = 0.0
    for _ in range(RUNS):
        count, start = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < SECONDS:
            step(count % samples)
            count += 1
        best = max(best, count / elapsed)
    return round(best, 1)


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
