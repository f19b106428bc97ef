"""The arrays of an .npz data set, read without unpickling and checked one by one."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import McugradError
from .loss import Loss

TRAIN, TEST = 0, 1
MAX_CLASSES = 1000
MAX_BYTES = 4 << 30
ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
KEYS = ("x", "y", "split", "classes", "group")

Array = NDArray[Any]


def check_magic(path: Path) -> None:
    """Raises McugradError unless path is a file that begins as an .npz does."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError as error:
        raise McugradError(f"{path}: no such file or folder: give an .npz file or an image folder") from error
    except OSError as error:
        raise McugradError(f"{path}: cannot be opened ({error.strerror}): check its permissions") from error
    if magic not in ZIP_MAGICS:
        raise McugradError(f"{path}: not an .npz file: write one with numpy.savez(file, x=..., y=...)")


def read_npz(path: Path, required: Iterable[str]) -> dict[str, Array]:
    """The arrays x, y, split and classes, as far as they are stored; never unpickles."""
    try:
        with zipfile.ZipFile(path) as archive:
            check_bytes(sum(member.file_size for member in archive.infolist()), path)
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in required if key not in file.files]
            if missing:
                found = ", ".join(sorted(file.files)) or "nothing"
                raise McugradError(f"{path}: no array '{missing[0]}' (found: {found}): store it with numpy.savez")
            return {key: _array(file, key, path) for key in KEYS if key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise McugradError(f"{path}: not a readable .npz file ({error}): write it again") from error


def samples(x: Array, path: Path) -> Array:
    """x in one of the dtypes of a Dataset, finite and not empty."""
    if x.ndim < 2 or x.size == 0:
        raise McugradError(f"{path}: x has shape {list(x.shape)}: it must be [samples, ...] and not empty")
    x = x.astype(x.dtype.newbyteorder("="), copy=False)
    if x.dtype in (np.uint8, np.int8, np.int16):
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise McugradError(f"{path}: x is {x.dtype}: store images as uint8, signals as int8, int16 or float32")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
    if bad.any():
        raise McugradError(
            f"{path}: x has NaN or infinite values in {bad.sum()} samples, first in sample {bad.argmax()}: remove them"
        )
    return x


def labels(y: Array, n: int, path: Path) -> NDArray[np.int64]:
    """y as int64 [n]; raises McugradError unless it holds one integer from 0 up for each sample."""
    if y.shape != (n,):
        rows = y.ndim == 2 and len(y) == n
        more = " (y.argmax(axis=1) of one-hot rows; --loss sigmoid or mse for several numbers each)" if rows else ""
        raise McugradError(f"{path}: y has shape {list(y.shape)} for {n} samples: give one integer label per sample{more}")
    if not np.issubdtype(y.dtype, np.integer):
        raise McugradError(f"{path}: y is {y.dtype}, not integers: store class numbers from 0, y.astype(numpy.int64)")
    if y.max() > np.iinfo(np.int64).max or y.min() < 0:
        i = int(y.argmax() if y.min() >= 0 else y.argmin())
        raise McugradError(f"{path}: label {y[i]} of sample {i} is out of range: number the classes from 0")
    return y.astype(np.int64)


def targets(y: Array | None, n: int, loss: Loss, path: Path) -> Array:
    """What samples are to become under a loss: labels int64 [n], 0 or 1 each int64 [n,K], numbers float64 [n,K].

    An autoencoder needs none; labels, where there are some, tell normal (0) from not.  Raises McugradError for others."""
    if y is None:
        return np.zeros(n, np.int64)
    if loss in (Loss.SOFTMAX, Loss.AUTOENCODER):
        return labels(y, n, path)
    rows = y.reshape(n, -1) if len(y) == n and y.ndim in (1, 2) else y
    if rows.ndim != 2 or rows.shape[0] != n or not rows.size:
        raise McugradError(f"{path}: y has shape {list(y.shape)} for {n} samples: give [samples, outputs]")
    if loss is Loss.SIGMOID:
        if rows.dtype != np.bool_ and not np.isin(rows, (0, 1)).all():
            raise McugradError(f"{path}: y must hold 0 or 1 for each label of each sample: --loss sigmoid tells labels apart")
        return rows.astype(np.int64)
    if not np.issubdtype(rows.dtype, np.number) or not np.isfinite(rows.astype(np.float64)).all():
        raise McugradError(f"{path}: y is {rows.dtype} and must hold finite numbers, [samples, outputs]")
    return rows.astype(np.float64)


def groups(numbers: Array | None, n: int, path: Path) -> NDArray[np.int64] | None:
    """int64 [n]: what each sample is a part of, such as a recording; None where the data does not say."""
    if numbers is None:
        return None
    if numbers.shape != (n,) or not np.issubdtype(numbers.dtype, np.integer):
        raise McugradError(f"{path}: group is {numbers.dtype} {list(numbers.shape)}: give one whole number per sample")
    return numbers.astype(np.int64)


def class_names(names: Array | None, y: NDArray[np.int64], path: Path) -> tuple[str, ...]:
    """The stored names, or "0", "1", ... up to the largest label."""
    if names is None:
        if y.max() >= MAX_CLASSES:
            raise McugradError(
                f"{path}: label {y.max()} of sample {y.argmax()} is out of range: without 'classes', the names, "
                f"labels must be below {MAX_CLASSES}"
            )
        return tuple(str(i) for i in range(int(y.max()) + 1))
    if names.ndim != 1 or names.size == 0 or names.dtype.kind not in "US":
        raise McugradError(f"{path}: classes is {names.dtype} {list(names.shape)}: store a list of names, one per class")
    return tuple(n.decode("utf-8", "replace") if isinstance(n, bytes) else str(n) for n in names.tolist())


def stored_split(arrays: dict[str, Array], n: int, path: Path) -> NDArray[np.uint8] | None:
    """split as uint8 [n], None where it is not stored; raises McugradError unless it is 0 or 1 with some 0."""
    split = arrays.get("split")
    if split is None:
        return None
    if split.shape != (n,) or not np.isin(split, (TRAIN, TEST)).all():
        raise McugradError(f"{path}: split {list(split.shape)} must hold 0 (train) or 1 (test) for each of the {n} samples")
    if not (split == TRAIN).any():
        raise McugradError(f"{path}: the training split is empty: mark training samples with 0 in split")
    return split.astype(np.uint8)


def check_bytes(size: int, path: Path) -> None:
    """Raises McugradError if size, in bytes, is more than a data set may occupy in memory."""
    if size > MAX_BYTES:
        raise McugradError(f"{path}: {size:,} bytes of data, the limit is {MAX_BYTES:,}: use fewer or smaller samples")


def _array(file: Any, key: str, path: Path) -> Array:
    try:
        value = file[key]
    except Exception as error:  # numpy, zipfile and zlib each raise their own on a damaged or pickled member
        raise McugradError(f"{path}: array '{key}' cannot be read ({error}): store plain arrays, no Python objects") from error
    if not isinstance(value, np.ndarray):
        raise McugradError(f"{path}: '{key}' is not an array: write the file with numpy.savez")
    return value
