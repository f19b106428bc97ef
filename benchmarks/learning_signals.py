"""Runs of the learning benchmark on what is not images: keywords, vibration and machine sounds.

Each network is trained here on one part of a set and adapts to another: six words and six others; a bearing under one load
and under three others; three toy cars and a fourth, heard for the first time.  The float yardstick is the same network in
PyTorch; both choose among the same five rates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import learning_device as device
from benchmarks import signal_networks as networks
from benchmarks.learning_data import CALIBRATION, KNOWN_WORDS, SETS, Draw, Pool, draw, pool
from benchmarks.learning_float import EASY
from benchmarks.learning_runs import Chooses
from benchmarks.learning_table import METHODS, UNTRAINED
from mcugrad.data import Calibration
from mcugrad.devices.host import Host
from mcugrad.importers import Imported, load
from mcugrad.loss import Loss
from mcugrad.metrics import auc, reconstruction_errors
from mcugrad.prepare import Prepared, default_rate, prepare
from mcugrad.preprocess import Input, Preprocess
from mcugrad.trainer import Course
from mcugrad.training.scheme import HEAD_ONLY, Update, UpdateScheme, layers, read_scheme, resolve

Array = NDArray[Any]
CARS, CAR_TRAIN, CAR_VALIDATION = 4, 20, 5  # machines; normal recordings that are learned from, and that choose a rate
WINDOW, HOP = 5, 4  # frames of a window of the autoencoder, and from one to the next


@dataclass(frozen=True)
class Task:
    """A network and how it is fed.  sample: its input in PyTorch; shape: [H,W,C] on the device."""

    build: Callable[[int], nn.Sequential]
    sample: tuple[int, ...]
    shape: tuple[int, int, int]
    scale: float
    epochs: int
    keep_head: bool = False
    mean: float = 0.0
    loss: Loss = Loss.SOFTMAX

    @property
    def preprocess(self) -> Preprocess:
        return Preprocess(Input.FLOAT, scale=self.scale, mean=(self.mean,))


TASKS = {
    "speech_commands12": Task(networks.keywords, (1, 49, 40), (49, 40, 1), 1 / 64, 30, mean=2.0),
    "cwru_bearing": Task(networks.vibration, (1, 1024), (1, 1024, 1), 1 / 2048, 12, keep_head=True),
    "toycar_ad01": Task(networks.sounds, (640,), (1, 1, 640), 1 / 8, 30, keep_head=True, mean=-4.0, loss=Loss.AUTOENCODER),
}
SIGNALS = {"ds-cnn": "speech_commands12", "cnn-1d": "cwru_bearing", "autoencoder": "toycar_ad01"}
SCHEMES = ("head", "bias", "last3", "full")


@dataclass(frozen=True, eq=False)
class Fold:
    """What a network was trained on (y: None for itself), and the pool that it adapts to with one split of it."""

    number: int
    known_x: Array
    known_y: NDArray[np.int64] | None
    pool: Pool
    split: Draw


def fold(name: str, seed: int, folder: Path) -> Fold:
    """The data of a seed."""
    if name == "toycar_ad01":
        return _cars(seed, folder / name / "data.npz")
    with np.load(folder / name / "data.npz") as file:
        known = file["load"] == 0 if name == "cwru_bearing" else file["y"] < KNOWN_WORDS
        x, y = file["x"][known], file["y"][known].astype(np.int64)
    new = pool(name, TASKS[name].shape, folder)
    return Fold(0, x.reshape(-1, *TASKS[name].shape), y, new, draw(new, seed))


def _cars(seed: int, path: Path) -> Fold:
    """One machine is new; of its normal recordings some are learned from, some choose the rate, the rest is tested on."""
    with np.load(path) as file:
        x, y, machine = file["x"].astype(np.float32), file["y"].astype(np.int64), file["machine_id"]
    starts = range(0, x.shape[1] - WINDOW + 1, HOP)
    windows = np.stack([x[:, i : i + WINDOW].reshape(len(x), -1) for i in starts], axis=1)
    new = np.unique(machine)[seed % CARS]
    known = windows[(machine != new) & (y == 0)].reshape(-1, 1, 1, windows.shape[2])
    mine = machine == new
    normal = np.random.default_rng([seed, 77]).permutation(np.flatnonzero(y[mine] == 0))
    owner = np.repeat(np.arange(int(mine.sum())), len(starts))
    parts = np.split(normal, [CAR_TRAIN, CAR_TRAIN + CAR_VALIDATION])
    parts[2] = np.concatenate([parts[2], np.flatnonzero(y[mine] != 0)])
    split = Draw(*(np.flatnonzero(np.isin(owner, part)) for part in parts))
    flat = windows[mine].reshape(-1, 1, 1, windows.shape[2])
    data = Pool("toycar_ad01", flat, y[mine][owner], owner, split.train[:: len(split.train) // CALIBRATION][:CALIBRATION])
    return Fold(seed % CARS, known, None, data, split)


class Signals(Chooses):
    """A network for signals on its set."""

    def __init__(self, name: str, shared: Path, work: Path) -> None:
        self.name, self.task = name, TASKS[name]
        self.work = work / f"signals-{name}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.fold = cache(lambda seed: fold(name, seed, shared / "data"))
        self.imported = cache(self._imported)
        self.prepared = cache(self._prepared)

    fastest = 32.0

    def grid(self, _method: str) -> tuple[int, ...]:
        """Halvings of the fastest rate."""
        return (0, 1, 2, 3, 4)

    def _module(self, seed: int) -> nn.Sequential:
        data = self.fold(seed)
        fed = self._fed(data.known_x)
        return networks.pretrained(self.task.build, fed, data.known_y, self.task.epochs, self.work / f"known-{data.number}.pt")

    def _imported(self, number: int) -> Imported:
        found = load(self._module(number), torch.zeros(1, *self.task.sample))
        return replace(found, preprocess=self.task.preprocess)

    def _prepared(self, number: int) -> Prepared:
        data, task = self.fold(number), self.task
        some = Calibration(
            data.pool.x[data.pool.anchor], None if data.known_y is None else data.pool.y[data.pool.anchor], self.name
        )
        classes = None if task.keep_head else data.pool.classes
        return prepare(self.imported(number), classes=classes, keep_head=task.keep_head, calibration=some, loss=task.loss)

    def _fed(self, x: Array) -> Tensor:
        """Samples [N,H,W,1] as PyTorch reads them."""
        return torch.from_numpy(self.task.preprocess.apply(x)).reshape(len(x), *self.task.sample)

    def scheme(self, name: str) -> UpdateScheme:
        if name == "last3":
            names = list(layers(self.prepared(0).graph))
            return UpdateScheme(name, "", {n: Update() for n in names[-3:]}, 3)
        return HEAD_ONLY if name in ("head", UNTRAINED) else read_scheme(name)

    def rate(self, scheme: UpdateScheme) -> float:
        prepared = self.prepared(0)
        default = default_rate(resolve(scheme, prepared.graph), prepared.graph)
        return self.fastest * default / prepared.targets.power

    def run(self, scheme: str, method: str, seed: int, variant: str, halvings: int) -> dict[str, Any]:
        run = self._on_device if method == METHODS[0] else self._in_torch
        return run(scheme, seed, halvings)

    def _course(self, seed: int) -> Course:
        return Course(epochs=SETS[self.name].epochs, seed=seed)

    def _scores(self, data: Fold, judge: Callable[[NDArray[np.int64]], Array]) -> dict[str, float]:
        """judge: classes of samples, or an autoencoder's squared errors.

        An autoencoder is tested by its AUC over recordings; its rate is chosen by the error of normal ones, negated."""
        at = data.split.validation, data.split.test
        if self.task.loss is Loss.SOFTMAX:
            return {
                k: round(float((judge(i) == data.pool.y[i]).mean()), 5) for k, i in zip(("validation", "test"), at, strict=True)
            }
        errors, (_, first, owner) = judge(at[1]), np.unique(data.pool.group[at[1]], return_index=True, return_inverse=True)
        anomalous = data.pool.y[at[1]][first] != 0
        files = np.bincount(owner, errors) / np.bincount(owner)
        return {"validation": round(-float(judge(at[0]).mean()), 5), "test": round(auc(files, anomalous), 5)}

    # the device's arithmetic

    def _on_device(self, scheme: str, seed: int, halvings: int) -> dict[str, Any]:
        data, what = self.fold(seed), self.scheme(scheme)
        prepared = self.prepared(data.number)
        x = prepared.quantize(data.pool.x)
        y = prepared.targets.encode(data.pool.y, len(x))
        made = device.twin(prepared, what, None, self.work / f"{scheme}-{data.number}", self.rate(what))

        def score(twin: Host) -> dict[str, float]:
            def judge(at: NDArray[np.int64]) -> Array:
                if self.task.loss is Loss.SOFTMAX:
                    return np.asarray(twin.infer_many(x[at]).argmax(1))
                return reconstruction_errors(twin, prepared, x[at])

            return self._scores(data, judge)

        losses = prepared.targets.loss_of(prepared.graph), prepared.targets.chance
        return device.run(made, halvings, x[data.split.train], y[data.split.train], self._course(seed), score, None, losses)

    # PyTorch

    def _learns(self, module: nn.Sequential, scheme: UpdateScheme) -> list[nn.Parameter]:
        """The parameters that the scheme updates, in the float network."""
        graph = self.prepared(0).graph
        selection, parts = resolve(scheme, graph), networks.weighted(module)
        names = list(layers(graph))
        found = []
        for name, part in zip(names, parts, strict=False):
            assert part.bias is not None and part.weight.numel() == layers(graph)[name].inputs[1].type.elements, name
            found += [part.weight] * (name in selection.weights) + [part.bias] * (name in selection.biases)
        head = parts[len(names) :]
        return [p.requires_grad_(True) for p in (*found, *(p for part in head for p in part.parameters()))]

    def _loss(self, found: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(found, y) if self.task.loss is Loss.SOFTMAX else functional.mse_loss(found, x)

    def _in_torch(self, scheme: str, seed: int, halvings: int) -> dict[str, Any]:
        data, task, what = self.fold(seed), self.task, self.scheme(scheme)
        module, course, x = self._module(data.number), self._course(seed), self._fed(data.pool.x)
        if not task.keep_head:
            module[-1] = nn.Linear(networks.weighted(module)[-1].weight.shape[1], data.pool.classes)
            nn.init.zeros_(module[-1].weight), nn.init.zeros_(module[-1].bias)
        y, total = torch.from_numpy(data.pool.y), course.length(len(data.split.train)) * (scheme != UNTRAINED)
        order = data.split.train[course.order(data.pool.y[data.split.train], total)]
        learns, rate = self._learns(module, what), self.rate(what) / 2.0**halvings
        for step, i in enumerate(order.tolist()):
            loss = self._loss(module(x[i : i + 1]), x[i : i + 1], y[i : i + 1])
            if task.loss is not Loss.SOFTMAX or float(loss.detach()) > EASY:
                gradients = torch.autograd.grad(loss, learns)
                with torch.no_grad():
                    for parameter, gradient in zip(learns, gradients, strict=True):
                        parameter.sub_(gradient, alpha=rate / 2.0 ** course.halvings(step, total))

        @torch.no_grad()
        def judge(at: NDArray[np.int64]) -> Array:
            found = module(x[at])
            return (found.argmax(1) if task.loss is Loss.SOFTMAX else ((found - x[at]) ** 2).mean(1)).numpy()

        return {**self._scores(data, judge), "steps": total}
