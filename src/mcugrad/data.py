"""Data sets for the commands: image folders and .npz files, checked when they are read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .errors import McugradError
from .images import MODES, decode, image_files, resize
from .loss import Loss
from .npz import TEST, TRAIN, Array, check_bytes, check_magic, class_names, groups, read_npz, samples, stored_split, targets
from .preprocess import Input, Layout, Preprocess, quantize

__all__ = [
    "TEST",
    "TRAIN",
    "Calibration",
    "Dataset",
    "Input",
    "Layout",
    "Preprocess",
    "calibration_samples",
    "load_data",
    "quantize",
]

TEST_FRACTION = 0.2

Shape = tuple[int, ...]
Progress = Callable[[int, int], None]  # samples decoded, samples in all


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples: x [N, ...] raw and channels-last, y int64 [N] or targets [N, K], split uint8 [N] (0 train, 1 test).

    x is uint8 (images), int8, int16 or float32; notes are warnings meant for the user.  group [N]: samples that are parts
    of one thing, such as windows of a recording, and are judged together.
    """

    x: Array
    y: Array
    split: NDArray[np.uint8]
    classes: tuple[str, ...]
    origin: str
    notes: tuple[str, ...] = ()
    group: NDArray[np.int64] | None = None

    @property
    def train(self) -> tuple[Array, Array]:
        """x and y of the training split, in stored order (folders are sorted by class: shuffle before streaming)."""
        return self.x[self.split == TRAIN], self.y[self.split == TRAIN]

    @property
    def test(self) -> tuple[Array, Array]:
        """x and y of the held-out split, in stored order."""
        return self.x[self.split == TEST], self.y[self.split == TEST]

    @property
    def test_group(self) -> NDArray[np.int64] | None:
        """Groups of the held-out split."""
        return None if self.group is None else self.group[self.split == TEST]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Samples x [N, ...] from which ranges are observed; y as in a Dataset, or None where the data has no labels."""

    x: Array
    y: Array | None
    origin: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Files:
    """An image folder before any image is decoded."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    splits: tuple[int, ...] | None
    classes: tuple[str, ...]


def load_data(
    path: str | Path,
    *,
    input_shape: Shape | None = None,
    resize: bool = True,
    num_classes: int | None = None,
    loss: Loss = Loss.SOFTMAX,
    seed: int = 0,
    progress: Progress | None = None,
) -> Dataset:
    """An image folder or an .npz as a Dataset whose samples have input_shape ([H, W, C], no batch axis).

    resize=False forbids changing an image's size or channels.  Without a stored split, a stratified 80/20 split is
    drawn from the seed and noted.  num_classes is the model's; labels beyond it are an error.  loss: what y must be.
    Raises McugradError, naming the place and the remedy, for anything that cannot be used.
    """
    path = _existing(path)
    notes: list[str] = []
    group = None
    if path.is_dir():
        _check_folder(loss, path)
        files = _scan(path)
        x = _decode_all(files.paths, input_shape, resize, progress)
        y = np.array(files.labels, np.int64)
        stored = None if files.splits is None else np.array(files.splits, np.uint8)
        classes = files.classes
    else:
        arrays = read_npz(path, required=("x",) if loss is Loss.AUTOENCODER else ("x", "y"))
        x, notes = _fit(samples(arrays["x"], path), input_shape, resize, path)
        y = targets(arrays.get("y"), len(x), loss, path)
        classes = class_names(arrays.get("classes"), y, path) if loss is Loss.SOFTMAX else ()
        stored = stored_split(arrays, len(x), path)
        group = groups(arrays.get("group"), len(x), path)
    if loss is Loss.SOFTMAX:
        _check_range(y, len(classes), num_classes, path)
    if stored is None:
        stored = stratified(y if y.ndim == 1 else np.zeros(len(y), np.int64), seed)
        notes.append(f"{path}: no split stored: {TEST_FRACTION:.0%} of each class held out with seed {seed}")
    if loss is Loss.SOFTMAX:
        notes += _complaints(y, stored, classes, path)
    return Dataset(x, y, stored, classes, str(path), tuple(notes), group)


def calibration_samples(
    path: str | Path,
    n: int,
    input_shape: Shape | None = None,
    *,
    loss: Loss = Loss.SOFTMAX,
    resize: bool = True,
    progress: Progress | None = None,
) -> Calibration:
    """At most n samples, evenly spaced over the training split (over all where no split is stored).

    Besides what `load_data` reads, an .npz without labels and a flat folder of images will do.
    Raises McugradError as `load_data` does, and for n below 1.
    """
    if n < 1:
        raise McugradError(f"calibration needs at least one sample, got n = {n}")
    path = _existing(path)
    if path.is_dir():
        files = _scan(path) if _subfolders(path) else _flat(path)
        kept = _spread(None if files.splits is None else np.array(files.splits), len(files.paths), n)
        x = _decode_all([files.paths[i] for i in kept], input_shape, resize, progress)
        y = np.array(files.labels, np.int64)[kept] if files.labels else None
        return Calibration(x, y, str(path))
    arrays = read_npz(path, required=("x",))
    x = samples(arrays["x"], path)
    y = targets(arrays["y"], len(x), loss, path) if "y" in arrays else None
    kept = _spread(stored_split(arrays, len(x), path), len(x), n)
    x, notes = _fit(x[kept], input_shape, resize, path)
    return Calibration(x, None if y is None else y[kept], str(path), tuple(notes))


def _check_folder(loss: Loss, path: Path) -> None:
    if loss in (Loss.SIGMOID, Loss.MSE):
        raise McugradError(
            f"{path}: a folder of images holds one class per image: store the targets of --loss {loss.value} as .npz"
        )


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        return path
    check_magic(path)
    return path


# Image folders


def _scan(root: Path) -> _Files:
    """The files of train/CLASS and test/CLASS, or of CLASS alone, in order of split, class and name."""
    parts = [part for part in ("train", "test") if (root / part).is_dir()]
    if parts == ["test"]:
        raise McugradError(f"{root}: has test/ but no train/: put the training images in train/CLASS/")
    folders = [root / part for part in parts] or [root]
    classes = _subfolders(folders[0])
    if not classes:
        raise McugradError(f"{folders[0]}: no class folders: put the images of each class in a folder named after it")
    rows = [row for i, folder in enumerate(folders) for row in _class_files(folder, i, classes)]
    paths, labels, splits = zip(*rows, strict=True)
    return _Files(paths, labels, splits if len(folders) == 2 else None, classes)


def _class_files(folder: Path, split: int, classes: tuple[str, ...]) -> list[tuple[Path, int, int]]:
    """(file, label, split) of each image below folder; every class must have images in the first folder."""
    unknown = set(_subfolders(folder)) - set(classes)
    if unknown:
        raise McugradError(f"{folder / min(unknown)}: a class without training images: add them, or remove this folder")
    rows = []
    for label, name in enumerate(classes):
        files = image_files(folder / name) if (folder / name).is_dir() else []
        if not files and split == TRAIN:
            raise McugradError(f"{folder / name}: no images in this class folder: add some, or remove the folder")
        rows += [(file, label, split) for file in files]
    return rows


def _flat(root: Path) -> _Files:
    """The images directly in root, unlabelled."""
    files = image_files(root)
    if not files:
        raise McugradError(f"{root}: no images and no class folders: calibration needs some images like the model's input")
    return _Files(tuple(files), (), None, ())


def _subfolders(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(f.name for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")))


def _decode_all(paths: Sequence[Path], shape: Shape | None, resize: bool, progress: Progress | None) -> Array:
    """Images one by one into uint8 [N, H, W, C]; without a shape, or with resize=False, all must have one shape."""
    if shape is not None and (len(shape) != 3 or shape[2] not in MODES):
        raise McugradError(
            f"{paths[0].parent}: the model's input {list(shape)} is no image [H, W, 1 or 3]: store the data as .npz"
        )
    wanted: tuple[int | None, ...] = shape if shape is not None and resize else (None, None, None)
    first = decode(paths[0], *wanted)
    expected = first.shape if shape is None else shape
    check_bytes(len(paths) * int(np.prod(expected)), paths[0].parent)
    x = np.empty((len(paths), *expected), np.uint8)
    for i, path in enumerate(paths):
        image = first if i == 0 else decode(path, *wanted)
        if image.shape != expected:
            raise McugradError(
                f"{path}: the image is {list(image.shape)}, expected {list(expected)}: "
                f"let the images be resized to the model's input, or make them alike"
            )
        x[i] = image
        if progress is not None:
            progress(i + 1, len(paths))
    return x


# Both


def _fit(x: Array, shape: Shape | None, resizable: bool, path: Path) -> tuple[Array, list[str]]:
    """x brought to shape by adding or dropping axes of length 1 or, for images, by resizing; and the notes about it."""
    image = x.dtype == np.uint8 and x.ndim in (3, 4)
    if image and x.ndim == 3:
        x = x[..., None]
    if shape is None or x.shape[1:] == shape:
        return x, []
    if _dense(x.shape[1:]) == _dense(shape):
        return x.reshape(len(x), *shape), []
    if image and resizable and len(shape) == 3 and x.shape[-1] in MODES and shape[-1] in MODES:
        check_bytes(len(x) * int(np.prod(shape)), path)
        return resize(x, *shape), [f"{path}: images resized from {list(x.shape[1:])} to the model's {list(shape)}"]
    hint = ""
    if x.ndim == 4 and len(shape) == 3 and x.shape[1] == shape[2]:
        hint = " (channels come last: x.transpose(0, 2, 3, 1))"
    raise McugradError(
        f"{path}: samples are {x.dtype} {list(x.shape[1:])}, the model's input is {list(shape)}: reshape x{hint}"
    )


def _dense(shape: Shape) -> Shape:
    return tuple(n for n in shape if n != 1)


def _check_range(y: NDArray[np.int64], stored: int, wanted: int | None, path: Path) -> None:
    limit = stored if wanted is None else min(stored, wanted)
    if y.max() >= limit:
        i = int(y.argmax())
        who = "the data names" if limit == stored else "the model has"
        raise McugradError(
            f"{path}: label {y[i]} of sample {i} is out of range: {who} {limit} classes (labels 0 to {limit - 1})"
        )


def stratified(y: NDArray[np.int64], seed: int, share: float = TEST_FRACTION) -> NDArray[np.uint8]:
    """TEST for a seeded share of each class (at least one sample where the class has two), else TRAIN."""
    rng = np.random.default_rng(seed)
    split = np.zeros(len(y), np.uint8)
    for label in np.unique(y):
        members = rng.permutation(np.flatnonzero(y == label))
        held = max(round(share * len(members)), min(1, len(members) - 1))
        split[members[:held]] = TEST
    return split


def held_out(y: Array, group: NDArray[np.int64] | None, seed: int, share: float = TEST_FRACTION) -> NDArray[np.uint8]:
    """TEST for a seeded share: of the groups [N] where there are any, of each class of labels y [N], or of targets y [N,K]."""
    if group is None:
        return stratified(y if y.ndim == 1 else np.zeros(len(y), np.int64), seed, share)
    names = np.unique(group)
    chosen = np.random.default_rng(seed).permutation(names)[: max(round(share * len(names)), min(1, len(names) - 1))]
    return np.where(np.isin(group, chosen), TEST, TRAIN).astype(np.uint8)


def _spread(split: Array | None, available: int, n: int) -> NDArray[np.int64]:
    """Indices of at most n training samples, evenly spaced in stored order."""
    kept = np.arange(available) if split is None else np.flatnonzero(split == TRAIN)
    return kept[np.linspace(0, len(kept) - 1, min(n, len(kept))).round().astype(np.int64)]


def _complaints(y: NDArray[np.int64], split: NDArray[np.uint8], classes: tuple[str, ...], path: Path) -> list[str]:
    """What a user should know though it is no error."""
    counts = np.bincount(y[split == TRAIN], minlength=len(classes))
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    notes = []
    if len(classes) == 1:
        notes.append(f"{path}: only one class: there is nothing to tell apart")
    if absent:
        notes.append(f"{path}: {len(absent)} of {len(classes)} classes have no training samples: {', '.join(absent[:5])}")
    if not (split == TEST).any():
        notes.append(f"{path}: no test samples: accuracy cannot be measured")
    return notes
