"""The sets of the learning benchmark: every sample of a set, and splits that are drawn again for each seed.

Samples that must not be divided (twins of one tile, words of one speaker) stay together.  A fixed calibration part, always
in the training split, is what the networks are quantized and calibrated with, so that one build serves every split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.data import Calibration, load_data
from mcugrad.images import resize

Array = NDArray[Any]
CALIBRATION = 64
KNOWN_WORDS = 6  # of the keyword set: what its network has been trained on


@dataclass(frozen=True)
class TransferSet:
    """Sizes of the splits, epochs of a run, and what is special.  samples: of the whole pool, None: all."""

    train: int
    validation: int
    test: int
    epochs: int
    samples: int | None = None
    balanced: bool = False


SETS = {
    "flowers12": TransferSet(560, 120, 280, 6),
    "cifar10": TransferSet(1000, 500, 2000, 3, samples=3500),
    "trashnet128": TransferSet(1000, 400, 1120, 3),
    "vww01": TransferSet(560, 140, 300, 5),
    "magnetic_tile": TransferSet(800, 200, 344, 4, balanced=True),
    "speech_commands12": TransferSet(800, 300, 1200, 5),
    "cwru_bearing": TransferSet(600, 300, 1500, 5),
    "toycar_ad01": TransferSet(980, 245, 0, 5),
}


@dataclass(frozen=True, eq=False)
class Pool:
    """All samples of a set as the network reads them: x [N,H,W,C], y [N], group [N] of what must stay together."""

    name: str
    x: Array
    y: NDArray[np.int64]
    group: NDArray[np.int64]
    anchor: NDArray[np.int64]

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    def calibration(self) -> Calibration:
        return Calibration(self.x[self.anchor], self.y[self.anchor], self.name)


@dataclass(frozen=True, eq=False)
class Draw:
    """Indices into a pool."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def pool(name: str, shape: tuple[int, int, int], folder: Path) -> Pool:
    """The set in folder/name, at `shape` [H,W,C]."""
    read = _READ.get(name, _images)
    x, y, group = read(folder / name, shape)
    use = SETS[name]
    if use.samples is not None and use.samples < len(x):
        kept = np.sort(np.random.default_rng(0).permutation(len(x))[: use.samples])
        x, y, group = x[kept], y[kept], group[kept]
    group = np.unique(group, return_inverse=True)[1]
    whole = Pool(name, x, y.astype(np.int64), group, np.zeros(0, np.int64))
    return replace(whole, anchor=_anchor(whole))


def draw(data: Pool, seed: int) -> Draw:
    """A split of the pool into whole groups: the training part holds the calibration samples and is cut to its size last.

    Every class is divided in the same proportions, as far as groups allow."""
    use = SETS[data.name]
    rng = np.random.default_rng([seed, 77])
    wanted = np.array([use.train, use.validation, use.test], float)
    total = len(data.x)
    wanted *= min(1.0, total / wanted.sum())
    part = np.full(int(data.group.max()) + 1, -1)
    part[data.group[data.anchor]] = 0
    for k in rng.permutation(np.unique(data.y)):
        members = data.y == k
        have = np.array([(members & (part[data.group] == i)).sum() for i in range(3)], float)
        quota = wanted * members.sum() / total
        free, sizes = np.unique(data.group[members & (part[data.group] < 0)], return_counts=True)
        for g in free[np.lexsort((rng.random(len(free)), -sizes))]:
            short = (quota - have) / quota.clip(1e-9)
            part[g] = int(short.argmax())
            have[part[g]] += (members & (data.group == g)).sum()
    parts = [rng.permutation(np.flatnonzero(part[data.group] == i)) for i in range(3)]
    kept = parts[0][~np.isin(parts[0], data.anchor)]
    parts[0] = np.concatenate([data.anchor, kept])[: use.train]
    parts[1:] = [p[:n] for p, n in zip(parts[1:], (use.validation, use.test), strict=True)]
    return Draw(*(np.sort(p) for p in parts))


def _anchor(data: Pool) -> NDArray[np.int64]:
    """The same calibration samples in every draw: classes in turn, few groups."""
    rng = np.random.default_rng(5)
    queues = [list(rng.permutation(np.flatnonzero(data.y == k))) for k in np.unique(data.y)]
    chosen: list[int] = []
    while len(chosen) < CALIBRATION:
        for queue in queues:
            if queue and len(chosen) < CALIBRATION:
                chosen.append(int(queue.pop()))
    return np.sort(np.array(chosen, np.int64))


def _images(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    data = load_data(path)
    return resize(data.x, *shape), data.y, np.arange(len(data.x))


def _npz(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    with np.load(path / "data.npz") as file:
        x, y = file["x"], file["y"]
        group = file["group"] if "group" in file.files else np.arange(len(x))
    return resize(x, *shape), y, group


def _speech(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """The second half of the words, silence and unknown ones: what the network, trained on the first half, adapts to."""
    with np.load(path / "data.npz") as file:
        at = file["y"] >= KNOWN_WORDS
        speaker = np.unique(file["speaker"][at], return_inverse=True)[1]
        return file["x"][at].reshape(-1, *shape), file["y"][at] - KNOWN_WORDS, speaker


def _bearing(path: Path, shape: tuple[int, int, int]) -> tuple[Array, Array, Array]:
    """Loads 1 to 3: what the network, trained on load 0, adapts to."""
    with np.load(path / "data.npz") as file:
        at = file["load"] > 0
        return file["x"][at].reshape(-1, *shape), file["y"][at], np.arange(int(at.sum()))


_READ: dict[str, Callable[[Path, tuple[int, int, int]], tuple[Array, Array, Array]]] = {
    "vww01": _npz,
    "magnetic_tile": _npz,
    "speech_commands12": _speech,
    "cwru_bearing": _bearing,
}
