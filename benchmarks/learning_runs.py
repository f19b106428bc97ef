"""Runs of the learning benchmark: a network on a set, and everything that its runs share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import learning_device as device
from benchmarks import learning_float as fp32
from benchmarks import learning_reference as published
from benchmarks.learning_data import SETS, Draw, Pool, draw, pool
from benchmarks.learning_search import scheme_from, searched
from benchmarks.learning_table import METHODS
from mcugrad.devices.host import Host
from mcugrad.importers import load
from mcugrad.importers.mcunet import Model, read_pickle
from mcugrad.ir import Value
from mcugrad.prepare import Prepared, default_rate, prepare
from mcugrad.trainer import Course
from mcugrad.training.scheme import HEAD_ONLY, Update, UpdateScheme, layers, read_scheme, resolve, with_residual_bits

BIASES = {"mcunet-5fps": 20, "mbv2-w0.35": 16}  # as deep as the 49kb schemes' biases
SIZE = (128, 128, 3)
FASTEST = 4.0  # times the default rate: halved 0 to 3 times
NEVER = 2.0
AGREEING = 100  # steps over which a network's end is compared with the whole

Array = NDArray[Any]


class Chooses(ABC):
    """Runs of one rate, of which the best by validation is kept."""

    fastest = FASTEST

    @abstractmethod
    def scheme(self, name: str) -> UpdateScheme: ...

    @abstractmethod
    def rate(self, scheme: UpdateScheme) -> float: ...

    @abstractmethod
    def run(self, scheme: str, method: str, seed: int, variant: str, halvings: int) -> dict[str, Any]: ...

    def best(self, scheme: str, method: str, seed: int, variant: str, rates: tuple[int, ...]) -> dict[str, Any]:
        """The record of the rate with the best validation score among fastest * 2^-halvings."""
        runs = {h: self.run(scheme, method, seed, variant, h) for h in rates}
        chosen = max(rates, key=lambda h: runs[h]["validation"])
        tried = {str(h): runs[h]["validation"] for h in rates}
        return {"rate": self.rate(self.scheme(scheme)) / 2.0**chosen, "halvings": chosen, **runs[chosen], "tried": tried}


class Bench(Chooses):
    """A model on a set of images."""

    def __init__(self, model: str, name: str, shared: Path, work: Path) -> None:
        self.model, self.name, self.shared = model, name, shared
        self.path = shared / "models" / "tiny_training" / f"{model}.pkl"
        self.work = work / f"{model}-{name}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.found: dict[str, UpdateScheme] = {}
        self.splits = cache(lambda seed: draw(self.pool, seed))
        self.built = cache(self._built)
        self.inputs = cache(self._inputs)

    @cached_property
    def pool(self) -> Pool:
        return pool(self.name, SIZE, self.shared / "data")

    @cached_property
    def network(self) -> Model:
        return read_pickle(self.path)

    @cached_property
    def whole(self) -> Prepared:
        return prepare(load(self.path), classes=self.pool.classes, calibration=self.pool.calibration())

    @cached_property
    def shallow(self) -> str:
        """The first layer that any published scheme in the table updates."""
        schemes = [read_scheme(n, self.model) for n in ("49kb", "99kb")]
        return device.first_updated(self.whole.graph, schemes)

    def scheme(self, name: str) -> UpdateScheme:
        if name in self.found:
            return self.found[name]
        names = list(layers(self.whole.graph))
        if name == "last3":
            return UpdateScheme(name, self.model, {n: Update() for n in names[-3:]}, 3)
        if name == "bias":
            return UpdateScheme(name, self.model, biases=BIASES[self.model])
        return HEAD_ONLY if name == "head" else read_scheme(name, self.model)

    def has(self, name: str) -> bool:
        return name in self.found

    def know(self, found: Iterable[dict[str, Any]]) -> None:
        self.found |= {scheme.name: scheme for scheme in map(scheme_from, found)}

    def search(self, sizes: Iterable[str]) -> list[dict[str, Any]]:
        return searched(self.whole, {name: read_scheme(name, self.model) for name in sizes})

    def grid(self, method: str) -> tuple[int, ...]:
        """Halvings of the fastest rate; the device rule, for which most steps are too small, is given larger ones."""
        return (-3, -1, 1) if method == METHODS[3] else (0, 1, 2, 3)

    def rate(self, scheme: UpdateScheme) -> float:
        return self.fastest * default_rate(resolve(scheme, self.whole.graph), self.whole.graph)

    def run(self, scheme: str, method: str, seed: int, variant: str, halvings: int) -> dict[str, Any]:
        if method == METHODS[0]:
            return self._on_device(scheme, seed, variant, halvings)
        return self._in_torch(scheme, method, seed, halvings)

    def course(self, seed: int) -> Course:
        use = SETS[self.name]
        return Course(epochs=use.epochs, seed=seed, balanced=use.balanced)

    def scores(self, split: Draw, guess: Callable[[NDArray[np.int64]], NDArray[np.int64]]) -> dict[str, float]:
        parts = {"validation": split.validation, "test": split.test}
        return {name: self.score(guess(at), self.pool.y[at]) for name, at in parts.items()}

    def score(self, guesses: NDArray[np.int64], y: NDArray[np.int64]) -> float:
        """Accuracy; where classes are imbalanced, its mean over the classes."""
        right = guesses == y
        if not SETS[self.name].balanced:
            return round(float(right.mean()), 5)
        return round(float(np.mean([right[y == k].mean() for k in np.unique(y)])), 5)

    # the device's arithmetic

    def cut(self, scheme: UpdateScheme) -> Value | None:
        """Where the network is cut; None: this scheme updates layers before the common cut."""
        names = list(layers(self.whole.graph))
        first = device.first_updated(self.whole.graph, [scheme])
        if names.index(first) < names.index(self.shallow):
            return None
        return device.cut_before(self.whole.graph, self.shallow)

    def _inputs(self, at: Value | None) -> Array:
        if at is None:
            return self.whole.quantize(self.pool.x)
        kept = self.work / "int8.npy"
        if not kept.exists():
            np.save(kept, device.activations(self.whole, at, self.pool.x, self.work / "prefix"))
        return np.load(kept)

    def _built(self, scheme: str, bits: int | None, centred: bool | None) -> tuple[device.Twin, Value | None]:
        what = self.scheme(scheme)
        rate = self.rate(what)
        if bits is not None:
            what = with_residual_bits(what, bits)
        if centred is not None:
            what = replace(what, centred=centred)
        at = self.cut(what)
        return device.twin(self.whole, what, at, self.work / f"{scheme}-{bits}-{centred}", rate), at

    def _on_device(self, scheme: str, seed: int, variant: str, halvings: int) -> dict[str, Any]:
        bits = {"F0": 0, "F8": 8}.get(variant)
        made, at = self.built(scheme, bits, {"centred": True, "not centred": False}.get(variant))
        x, y, split = self.inputs(at), self.pool.y, self.splits(seed)
        course = self.course(seed)
        if variant == "never skips":
            course = replace(course, skip=NEVER)
        head = device.HEADS.get(variant)

        def score(twin: Host) -> dict[str, float]:
            return self.scores(split, lambda at: twin.infer_many(x[at]).argmax(1))

        return device.run(made, halvings, x[split.train], y[split.train], course, score, head)

    def agreement(self) -> dict[str, Any]:
        """That the network's end learns, from stored activations, what the whole network learns."""
        at = self.splits(0).train[:AGREEING]
        scheme = self.scheme("49kb")
        cut = self.cut(scheme)
        assert cut is not None, "the 49kb scheme learns behind the common cut"
        return device.same_as_whole(self.whole, cut, self.pool.x[at], self.pool.y[at], scheme, self.work)

    # PyTorch

    @cached_property
    def float_inputs(self) -> torch.Tensor:
        kept = self.work / "float.pt"
        net = fp32.Net(self.network, self.pool.classes)
        if not kept.exists():
            torch.save(net.prefix(self.pool.x, net.block_of(self.shallow)), kept)
        return torch.load(kept, weights_only=True)  # type: ignore[no-any-return]

    def _trainable(self, scheme: UpdateScheme) -> fp32.Trainable:
        names = [layer.name for layer in self.network.layers()]
        weights = dict.fromkeys(names, scheme.weights["*"]) if "*" in scheme.weights else scheme.weights
        assert isinstance(scheme.biases, int)
        return fp32.trainable(self.network, {n: u.ratio for n, u in weights.items()}, min(scheme.biases, len(names)))

    def _torch_inputs(self, method: str, whole: bool) -> torch.Tensor:
        """What the network's blocks from the first that learns on read [N,C,H,W]: images as float or int8 values."""
        if method == METHODS[1] and not whole:
            return self.float_inputs
        q = torch.from_numpy(self.inputs(None if whole else self.cut(self.scheme("head")))).permute(0, 3, 1, 2).contiguous()
        return q.float() * self.network.blocks[0].layers[0].x.scale[0] if method == METHODS[1] else q

    def _in_torch(self, scheme: str, method: str, seed: int, halvings: int) -> dict[str, Any]:
        what, split, course, y = self.scheme(scheme), self.splits(seed), self.course(seed), self.pool.y
        whole = self.cut(what) is None
        x, learns = self._torch_inputs(method, whole), self._trainable(what)
        first = 0 if whole else fp32.Net(self.network, 2).block_of(self.shallow)
        total, rate = course.length(len(split.train)), self.rate(what) / 2.0**halvings
        data, order = (x[split.train], y[split.train]), course.order(y[split.train], total)
        slower = [rate / 2 ** course.halvings(step, total) for step in range(total)]
        if method == METHODS[1]:
            net = fp32.Net(self.network, self.pool.classes)
            losses, seconds = fp32.train(net, learns, data, order, first, slower.__getitem__)
            scores = self.scores(split, lambda at: fp32.guesses(net, x[at], first))
        else:
            simulated, losses, seconds = published.train(
                self.network, learns, method, data, order, first, slower.__getitem__, self.pool.classes, seed
            )
            scores = self.scores(split, lambda at: published.guesses(simulated, x[at], first))
        mean = float(np.mean(losses[-len(split.train) :]))
        return {**scores, "steps": total, "loss_last_epoch": round(mean, 4), "seconds": round(seconds, 1)}
