"""Data sets: what is read, and that every bad input says what, where and what to do."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcugrad import images, npz
from mcugrad.data import TEST, TRAIN, Dataset, calibration_samples, load_data
from mcugrad.errors import McugradError

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
Maker = Callable[..., Path]


def picture(seed: int, height: int = 12, width: int = 10, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """train: 3 cats and 3 dogs; test: 1 of each; every image 12 x 10 RGB."""
    for part, count in (("train", 3), ("test", 1)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                write_image(tmp_path / part / name / f"{i}.png", picture(10 * label + i))
    return tmp_path


@pytest.fixture
def flat_classes(tmp_path: Path) -> Path:
    """CLASS/*.png: 10 cats, 5 dogs."""
    for name, count in (("cat", 10), ("dog", 5)):
        for i in range(count):
            write_image(tmp_path / name / f"{i}.png", picture(i, 4, 4))
    return tmp_path


@pytest.fixture
def save(tmp_path: Path) -> Maker:
    """Writes arrays over a valid default (6 images 8x8x3 of 2 classes); None leaves a key out."""

    def write(**arrays: Any) -> Path:
        full: dict[str, Any] = {"x": np.stack([picture(i, 8, 8) for i in range(6)]), "y": np.arange(6) % 2}
        full |= arrays
        np.savez(tmp_path / "data.npz", **{key: value for key, value in full.items() if value is not None})
        return tmp_path / "data.npz"

    return write


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(McugradError) as caught:
        load_data(path, **options)
    return str(caught.value)


# Image folders


def test_folder_keeps_stored_split_classes_and_pixels(folder: Path) -> None:
    data = load_data(folder)
    assert data.x.shape == (8, 12, 10, 3) and data.x.dtype == np.uint8
    assert data.classes == ("cat", "dog") and data.notes == () and data.origin == str(folder)
    assert data.y.tolist() == [0, 0, 0, 1, 1, 1, 0, 1] and data.split.tolist() == [TRAIN] * 6 + [TEST] * 2
    np.testing.assert_array_equal(data.x[4], picture(11))
    assert len(data.train[0]) == 6 and data.test[1].tolist() == [0, 1]


def test_folder_is_resized_to_the_model_by_pillow_bilinear(folder: Path) -> None:
    data = load_data(folder, input_shape=(6, 6, 3))
    expected = Image.fromarray(picture(0)).resize((6, 6), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.x[0], np.asarray(expected))


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_gets_the_channels_the_model_wants(folder: Path, channels: int) -> None:
    write_image(folder / "train" / "cat" / "9.png", picture(3, channels=4 - channels))
    assert load_data(folder, input_shape=(8, 8, channels)).x.shape == (9, 8, 8, channels)


def test_grey_folder_has_one_channel(tmp_path: Path) -> None:
    assert load_data(write_image(tmp_path / "a" / "0.png", picture(0, channels=1)).parents[1]).x.shape == (1, 12, 10, 1)


def test_order_is_by_name_and_other_files_are_ignored(folder: Path) -> None:
    (folder / "train" / "cat" / ".hidden.png").write_bytes(b"no image")
    (folder / "train" / "cat" / "notes.txt").write_text("no image")
    write_image(folder / "train" / "cat" / "00.png", picture(77))
    np.testing.assert_array_equal(load_data(folder).x[1], picture(77))  # "0.png" < "00.png" < "1.png"
    np.testing.assert_array_equal(load_data(folder).x, load_data(folder).x)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(picture(0)).save(tmp_path / "a" / "0.png", exif=exif)
    np.testing.assert_array_equal(load_data(tmp_path).x[0], np.rot90(picture(0), -1))


def test_folder_without_split_is_split_by_class_and_says_so(flat_classes: Path) -> None:
    data = load_data(flat_classes)
    assert [int(((data.y == c) & (data.split == TEST)).sum()) for c in (0, 1)] == [2, 1]
    assert len(data.notes) == 1 and "20% of each class" in data.notes[0] and "seed 0" in data.notes[0]
    np.testing.assert_array_equal(data.split, load_data(flat_classes).split)
    assert any((load_data(flat_classes, seed=s).split != data.split).any() for s in range(1, 5))


def test_train_folder_alone_is_split(folder: Path) -> None:
    (folder / "test").rename(folder / "held_back")
    data = load_data(folder)
    assert (data.split == TEST).sum() == 2 and "no split" in data.notes[0]


def test_progress_counts_every_image(folder: Path) -> None:
    seen: list[tuple[int, int]] = []
    load_data(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(i, 8) for i in range(1, 9)]


def test_one_class_is_a_note(tmp_path: Path) -> None:
    for i in range(4):
        write_image(tmp_path / "only" / f"{i}.png", picture(i))
    assert any("only one class" in note for note in load_data(tmp_path).notes)


def test_unreadable_image_is_named(folder: Path) -> None:
    bad = folder / "train" / "dog" / "1.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n nonsense")
    assert str(bad) in refusal(folder) and "replace or remove" in refusal(folder)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif", "tif"])
def test_truncated_image_is_named(folder: Path, suffix: str) -> None:
    bad = write_image(folder / "train" / "dog" / f"9.{suffix}", picture(5, 64, 64))
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    assert str(bad) in refusal(folder, input_shape=(8, 8, 3))


def test_decompression_bombs_are_refused_before_decoding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = folder / "train" / "cat" / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(bomb)  # 200 million pixels in 25 kB
    assert "scale it down" in refusal(folder) and str(bomb) in refusal(folder)
    Image.new("1", (8_000, 8_000)).save(bomb)  # below Pillow's own limit
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    with pytest.raises(McugradError, match="64,000,000 pixels"):
        images.decode(bomb, None, None, None)


def test_deep_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "a" / "0.png")
    assert "over 8 bits" in refusal(tmp_path)


def test_mixed_sizes_need_the_models_size(folder: Path) -> None:
    odd = write_image(folder / "train" / "dog" / "9.png", picture(5, 6, 6))
    assert str(odd) in refusal(folder) and "[6, 6, 3], expected [12, 10, 3]" in refusal(folder)
    assert "expected [8, 8, 3]" in refusal(folder, input_shape=(8, 8, 3), resize=False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "train").rename(f / "x"), "no train/"),
        (lambda f: (f / "train" / "empty").mkdir(), "no images in this class folder"),
        (lambda f: (f / "test" / "bird").mkdir(), "a class without training images"),
    ],
)
def test_broken_folder_layouts(folder: Path, change: Callable[[Path], Any], words: str) -> None:
    change(folder)
    assert words in refusal(folder) and str(folder) in refusal(folder)


def test_folder_without_classes(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", picture(0))
    assert "no class folders" in refusal(tmp_path)


def test_folder_for_a_model_that_reads_no_images(folder: Path) -> None:
    assert "store the data as .npz" in refusal(folder, input_shape=(1024, 1, 1, 2))
    assert "store the data as .npz" in refusal(folder, input_shape=(8, 8, 4))


# .npz files


def test_npz_with_all_keys(save: Maker) -> None:
    split = np.array([0, 0, 0, 0, 1, 1])
    data = load_data(save(split=split, classes=np.array(["no", "yes"])), input_shape=(8, 8, 3))
    assert data.classes == ("no", "yes") and data.notes == ()
    assert data.y.dtype == np.int64 and data.split.dtype == np.uint8
    assert data.test[1].tolist() == [0, 1] and len(data.train[0]) == 4


def test_npz_without_split_or_classes(save: Maker) -> None:
    data = load_data(save(y=np.array([0, 0, 0, 2, 2, 2], np.uint8)))
    assert data.classes == ("0", "1", "2") and (data.split == TEST).sum() == 2
    assert "no split" in data.notes[0] and "1 of 3 classes have no training samples: 1" in data.notes[1]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.float16, np.float32, np.float64, ">i2", ">f4"])
def test_signals_of_any_shape_keep_their_values(save: Maker, dtype: Any) -> None:
    x = np.random.default_rng(0).integers(-100, 100, (6, 5, 7)).astype(dtype)
    data = load_data(save(x=x))
    assert data.x.dtype == (np.float32 if x.dtype.kind == "f" else x.dtype.newbyteorder("="))
    np.testing.assert_array_equal(data.x, x)


@pytest.mark.parametrize("shape", [(1024, 1, 1), (1, 1024, 1), (1024,)])
def test_axes_of_length_one_follow_the_model(save: Maker, shape: tuple[int, ...]) -> None:
    assert load_data(save(x=np.ones((6, 1024), np.int16)), input_shape=shape).x.shape == (6, *shape)


def test_grey_npz_images_need_no_channel_axis(save: Maker) -> None:
    assert load_data(save(x=np.zeros((6, 8, 8), np.uint8))).x.shape == (6, 8, 8, 1)


def test_npz_images_are_resized_and_noted(save: Maker) -> None:
    data = load_data(save(), input_shape=(16, 16, 1))
    assert data.x.shape == (6, 16, 16, 1) and "[8, 8, 3] to the model's [16, 16, 1]" in data.notes[0]
    expected = Image.fromarray(picture(0, 8, 8)).convert("L").resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(data.x[0, ..., 0], np.asarray(expected))


def test_missing_test_split_is_a_note(save: Maker) -> None:
    assert "accuracy cannot be measured" in load_data(save(split=np.zeros(6, int))).notes[0]


BAD_ARRAYS = [
    ({"x": None}, "no array 'x' (found: y)"),
    ({"y": None}, "no array 'y' (found: x)"),
    ({"x": np.full((6, 4), np.nan)}, "NaN or infinite values in 6 samples, first in sample 0"),
    ({"x": np.array([[0.0], [1e300]]), "y": np.arange(2)}, "first in sample 1"),
    ({"x": np.zeros((0, 8, 8, 3), np.uint8), "y": np.zeros(0, int)}, "not empty"),
    ({"x": np.zeros(6, np.uint8)}, "must be [samples, ...]"),
    ({"x": np.zeros((6, 8), np.int64)}, "store images as uint8"),
    ({"x": np.zeros((6, 8), np.complex64)}, "store images as uint8"),
    ({"x": np.full((6, 2), "a")}, "store images as uint8"),
    ({"x": np.array([[None]] * 6)}, "array 'x' cannot be read"),
    ({"y": np.arange(5)}, "y has shape [5] for 6 samples"),
    ({"y": np.eye(6)}, "one integer label per sample"),
    ({"y": np.arange(6) / 2}, "y is float64, not integers"),
    ({"y": np.array([0, 1, -3, 0, 1, 0])}, "label -3 of sample 2 is out of range"),
    ({"y": np.array([0, 1, 2**63, 0, 1, 0], np.uint64)}, "label 9223372036854775808 of sample 2"),
    ({"y": np.array([0, 1, 10**9, 0, 1, 0])}, "labels must be below 1000"),
    ({"y": np.array([0, 1, 5, 0, 1, 0]), "classes": np.array(["a", "b"])}, "the data names 2 classes"),
    ({"classes": np.array([1, 2])}, "store a list of names"),
    ({"classes": np.array(["a", None])}, "array 'classes' cannot be read"),
    ({"split": np.array([0, 1, 2, 0, 0, 0])}, "0 (train) or 1 (test)"),
    ({"split": np.zeros(5, int)}, "for each of the 6 samples"),
    ({"split": np.ones(6, int)}, "training split is empty"),
]


@pytest.mark.parametrize(("arrays", "words"), BAD_ARRAYS, ids=[words[:30] for _, words in BAD_ARRAYS])
def test_bad_arrays(save: Maker, arrays: dict[str, Any], words: str) -> None:
    path = save(**arrays)
    assert words in refusal(path) and str(path) in refusal(path)


def test_labels_beyond_the_model(save: Maker) -> None:
    assert "label 1 of sample 1 is out of range: the model has 1 classes" in refusal(save(), num_classes=1)


@pytest.mark.parametrize(
    ("x", "shape", "words"),
    [
        (np.zeros((6, 8, 8, 3), np.int8), (16, 16, 3), "int8 [8, 8, 3], the model's input is [16, 16, 3]"),
        (np.zeros((6, 8, 8, 2), np.uint8), (16, 16, 3), "uint8 [8, 8, 2]"),
        (np.zeros((6, 3, 8, 8), np.uint8), (8, 8, 3), "x.transpose(0, 2, 3, 1)"),
        (np.zeros((6, 100), np.float32), (10, 10, 1), "float32 [100]"),
    ],
)
def test_samples_that_do_not_fit_the_model(save: Maker, x: np.ndarray, shape: tuple[int, ...], words: str) -> None:
    assert words in refusal(save(x=x), input_shape=shape)


def test_resize_can_be_forbidden(save: Maker) -> None:
    assert "the model's input is [16, 16, 3]" in refusal(save(), input_shape=(16, 16, 3), resize=False)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "absent.npz")
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("x,y")
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("a.npy", "text.npz", "empty.npz"):
        assert "not an .npz file" in refusal(tmp_path / name)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    np.savez(tmp_path / "data.npz", x=np.array([[Trap()]]), y=np.zeros(1, int))
    assert "no Python objects" in refusal(tmp_path / "data.npz")
    assert not (tmp_path / "executed").exists()


def test_members_that_are_no_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("x", b"raw bytes")
        archive.writestr("y", b"raw bytes")
    assert "'x' is not an array" in refusal(tmp_path / "data.npz")


def test_oversized_archives_are_refused_unread(save: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save()
    monkeypatch.setattr(npz, "MAX_BYTES", 1000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("read"))
    assert "the limit is 1,000" in refusal(path)


def test_every_truncation_and_any_flipped_byte_is_handled(save: Maker) -> None:
    path = save(x=np.zeros((6, 4), np.int8))
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert str(path) in refusal(path)
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 200):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        try:
            assert isinstance(load_data(path), Dataset)
        except McugradError as error:
            assert str(path) in str(error)


# Calibration


def test_calibration_spreads_over_the_training_split(folder: Path) -> None:
    found = calibration_samples(folder, 2, (12, 10, 3))
    np.testing.assert_array_equal(found.x, np.stack([picture(0), picture(12)]))
    assert found.y is not None and found.y.tolist() == [0, 1]


def test_calibration_decodes_only_what_it_needs(folder: Path) -> None:
    (folder / "train" / "cat" / "1.png").write_bytes(b"broken")
    (folder / "cover.png").write_bytes(b"broken")
    assert len(calibration_samples(folder, 2).x) == 2


def test_calibration_from_a_flat_folder(tmp_path: Path) -> None:
    for i in range(5):
        write_image(tmp_path / f"{i}.png", picture(i))
    found = calibration_samples(tmp_path, 3, (6, 6, 3))
    assert found.y is None and found.x.shape == (3, 6, 6, 3)
    assert len(calibration_samples(tmp_path, 100).x) == 5


def test_calibration_from_an_unlabelled_npz(save: Maker) -> None:
    found = calibration_samples(save(y=None), 4, (16, 16, 3))
    assert found.y is None and found.x.shape == (4, 16, 16, 3) and "resized" in found.notes[0]


def test_calibration_leaves_test_samples_out(save: Maker) -> None:
    x = np.arange(6, dtype=np.int16)[:, None]
    found = calibration_samples(save(x=x, split=np.array([0, 1, 0, 1, 0, 1])), 6)
    assert found.x[:, 0].tolist() == [0, 2, 4] and found.y is not None and found.y.tolist() == [0, 0, 0]


def test_calibration_refusals(tmp_path: Path, save: Maker) -> None:
    with pytest.raises(McugradError, match="at least one sample"):
        calibration_samples(save(), 0)
    (tmp_path / "none").mkdir()
    with pytest.raises(McugradError, match="no images and no class folders"):
        calibration_samples(tmp_path / "none", 4)


# Real data, where a checkout has it


@pytest.mark.skipif(not SHARED.is_dir(), reason="the development data sets are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "shape", "counts"),
    [
        ("flowers12", (128, 128, 3), (720, 240)),
        ("vww01/data.npz", (96, 96, 3), (700, 300)),
        ("cwru_bearing/data.npz", (1024, 1, 1), (3368, 1103)),
        ("toycar_ad01/data.npz", (200, 128, 1), (72, 176)),
    ],
)
def test_real_sets(name: str, shape: tuple[int, ...], counts: tuple[int, int]) -> None:
    data = load_data(SHARED / name, input_shape=shape)
    assert data.x.shape == (sum(counts), *shape) and (len(data.train[1]), len(data.test[1])) == counts
