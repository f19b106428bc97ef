"""The real samples of the model zoo: in each model's own raw form, with a split."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import ROOT
from mcugrad.data import TEST, TRAIN, Calibration, Dataset, load_data
from mcugrad.errors import McugradError
from mcugrad.prepare import CALIBRATION_SAMPLES

DATA = ROOT.parent / "shared" / "data"
Array = NDArray[Any]

DIGITS = {"digits": 0, "digits, turned": 1}
LARGE = {
    "cifar10": (4000, 1000),
    "cifar10, 16x16": (4000, 1000),
    "imagenette128": (64, 200),
}  # how much of a set's training and test split is used
FRAMES, BANDS, HOP = 5, 128, 4  # windows of the anomaly benchmark: 5 frames of 128 bands, every fourth
FILES = {
    "vww01": "vww01/data.npz",
    "cifar10 clean": "cifar10/mlperf_ic01.npz",
    "kws01 mfcc": "speech_commands12/mlperf_kws01_mfcc.npz",
    "speech commands": "speech_commands12/data.npz",
    "speech commands, 30 frames": "speech_commands12/data.npz",
    "toycar": "toycar_ad01/data.npz",
    "bearing": "cwru_bearing/data.npz",
    "bearing, loads 1-3": "cwru_bearing/data.npz",
    "magnetic tile, 16x16": "magnetic_tile/data.npz",
    "cifar10": "cifar10",
    "flowers12": "flowers12",
    "trashnet128": "trashnet128",
    "cifar10, 16x16": "cifar10",
    "imagenette128": "imagenette128",
}


def place(name: str) -> Path:
    """Where a set lies.  Raises McugradError when it is not there."""
    path = DATA / FILES[name]
    if not path.exists():
        raise McugradError(f"{path} is not there: put the data beside the repository")
    return path


@cache
def samples(name: str, shape: tuple[int, int, int]) -> Dataset:
    """A labelled set for models that read `shape` [H,W,C]; where no split is stored, a fifth of each class is held out."""
    if name == "toycar":
        return windows()
    if name in DIGITS:
        return _digits(DIGITS[name], shape)
    path = place(name)
    if path.is_dir() or name not in _SHAPED:
        return _part(load_data(path, input_shape=shape), *LARGE.get(name, (None, None)))
    with np.load(path) as file:
        x, y, split, classes = _SHAPED[name](file)
    x = np.ascontiguousarray(x).reshape(len(x), *shape)
    return Dataset(x, y.astype(np.int64), split, tuple(str(c) for c in classes), str(path))


def _digits(turns: int, shape: tuple[int, int, int]) -> Dataset:
    """The 8x8 digits of scikit-learn (0 to 16), turned by that many quarters; every fifth is held out."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = np.rot90(x.reshape(-1, 8, 8), turns, (1, 2)).reshape(len(x), *shape).astype(np.int16)
    split = (np.arange(len(x)) % 5 == 0).astype(np.uint8)
    return Dataset(x, y.astype(np.int64), split, tuple(map(str, range(10))), "scikit-learn's digits")


def _part(data: Dataset, *sizes: int | None) -> Dataset:
    """The same evenly spaced samples of each split in every run."""
    kept = []
    for split, size in zip((TRAIN, TEST), sizes, strict=True):
        at = np.flatnonzero(data.split == split)
        kept.append(at if size is None else at[np.linspace(0, len(at) - 1, size).round().astype(int)])
    at = np.concatenate(kept)
    return data if len(at) == len(data.x) else replace(data, x=data.x[at], y=data.y[at], split=data.split[at])


def _frames(file: Any) -> tuple[Array, ...]:
    """Thirty of the forty-nine frames of a word, bands as channels: what the wake-word model reads."""
    return file["x"][:, 10:40, :, 0], file["y"], file["split"], file["classes"]


def _bearing(loads: tuple[int, ...]) -> Any:
    def read(file: Any) -> tuple[Array, ...]:
        chosen = np.isin(file["load"], loads)
        return file["x"][chosen], file["y"][chosen], file["split"][chosen], file["classes"]

    return read


_SHAPED = {
    "speech commands, 30 frames": _frames,
    "bearing": _bearing((0,)),
    "bearing, loads 1-3": _bearing((1, 2, 3)),
}


@cache
def machine_sounds() -> tuple[Array, Array, Array, Array]:
    """(windows float32 [N,640], file of each, anomalous or not per file, training file or not) of the toy cars."""
    with np.load(place("toycar")) as file:
        x, y, split = file["x"].astype(np.float32), file["y"], file["split"]
    starts = range(0, x.shape[1] - FRAMES + 1, HOP)
    windows = np.stack([x[:, i : i + FRAMES].reshape(len(x), FRAMES * BANDS) for i in starts], axis=1)
    return windows.reshape(-1, FRAMES * BANDS), np.repeat(np.arange(len(x)), windows.shape[1]), y, split == TRAIN


def windows() -> Dataset:
    """The toy cars for an autoencoder: all windows, grouped by file."""
    x, owner, anomalous, training = machine_sounds()
    split = np.where(training[owner], TRAIN, TEST).astype(np.uint8)
    y = anomalous[owner].astype(np.int64)
    return Dataset(x.reshape(len(x), 1, 1, -1), y, split, ("normal", "anomaly"), "toycar", group=owner)


def calibration(data: Dataset) -> Calibration:
    """Evenly spaced training samples, as the commands choose them."""
    x, y = data.train
    at = np.linspace(0, len(x) - 1, min(CALIBRATION_SAMPLES, len(x))).round().astype(int)
    return Calibration(x[at], y[at], data.origin)


def spread(x: Array, y: Array, count: int) -> tuple[Array, Array]:
    """At most `count` evenly spaced samples."""
    at = np.linspace(0, len(x) - 1, min(count, len(x))).round().astype(int)
    return x[at], y[at]
