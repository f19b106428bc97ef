"""How raw samples become a model's input."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mcugrad.data import Input, Layout, Preprocess, load_data, quantize
from mcugrad.errors import McugradError


def picture(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_pixels_become_int8_by_subtracting_128() -> None:
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    y = Preprocess(Input.INT8).apply(x)
    assert y.dtype == np.int8 and (y.astype(int) == x.astype(int) - 128).all()
    np.testing.assert_array_equal(Preprocess(Input.INT8).apply(y), y)
    np.testing.assert_array_equal(Preprocess(Input.INT8).quantized(x, 0.5, 7), y)


def test_float_mapping_per_channel_and_layout() -> None:
    p = Preprocess(Input.FLOAT, 1 / 255, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), Layout.NCHW)
    x = np.stack([picture(i, 4, 5) for i in range(2)])
    y = p.apply(x)
    assert y.shape == (2, 3, 4, 5) and y.dtype == np.float32
    np.testing.assert_allclose(y[1, 2], (x[1, :, :, 2] / 255 - 0.3) / 0.4, rtol=1e-6)


def test_preprocess_resizes_lazily_what_load_data_would_resize(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(picture(0, 12, 10)).save(tmp_path / "a" / "0.png")
    raw, resized = load_data(tmp_path), load_data(tmp_path, input_shape=(24, 24, 3))
    p = Preprocess(Input.INT8, size=(24, 24))
    np.testing.assert_array_equal(p.apply(raw.x), Preprocess(Input.INT8).apply(resized.x))


def test_quantized_equals_quantize_of_apply_across_chunks() -> None:
    p = Preprocess(Input.FLOAT, 1 / 255)
    x = np.random.default_rng(0).integers(0, 256, (150, 3, 3, 1), np.uint8)
    np.testing.assert_array_equal(p.quantized(x, 0.01, -100), quantize(p.apply(x), 0.01, -100))
    np.testing.assert_array_equal(p.quantized(x, 1 / 255, -128), Preprocess(Input.INT8).apply(x))
    assert p.quantized(x[:0], 1.0, 0).shape == (0, 3, 3, 1)


def test_quantize_rounds_half_to_even_and_clamps() -> None:
    x = np.array([0.25, 0.75, -0.25, 1e9, -1e9])
    assert quantize(x, 0.5, 1).tolist() == [1, 3, 1, 127, -128]
    for scale in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(McugradError, match="positive and finite"):
            quantize(x, scale, 0)


@pytest.mark.parametrize(
    "p",
    [
        Preprocess(Input.INT8),
        Preprocess(Input.FLOAT, 1 / 255, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), Layout.NCHW, (96, 128)),
    ],
)
def test_preprocess_survives_json(p: Preprocess) -> None:
    assert Preprocess.from_dict(json.loads(json.dumps(p.to_dict()))) == p


def test_preprocess_defaults_follow_model_and_data() -> None:
    assert Preprocess.default(np.dtype(np.uint8), quantized=True) == Preprocess(Input.INT8)
    assert Preprocess.default(np.dtype(np.uint8), quantized=False).scale == 1 / 255
    assert Preprocess.default(np.dtype(np.int16), quantized=False).scale == 1.0


@pytest.mark.parametrize(
    "change", [{"kind": "rgb"}, {"std": [0.0]}, {"mean": "a"}, {"size": [1]}, {"size": [0, 4]}, {"scale": None}, {"more": 1}]
)
def test_malformed_preprocessing_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(McugradError, match="preprocessing"):
        Preprocess.from_dict(Preprocess(Input.INT8).to_dict() | change)


@pytest.mark.parametrize(
    ("p", "x", "words"),
    [
        (Preprocess(Input.INT8), np.zeros((1, 4), np.float32), "reads uint8 images or int8"),
        (Preprocess(Input.FLOAT, mean=(0.0, 1.0)), np.zeros((1, 4, 4, 3)), "one per channel"),
        (Preprocess(Input.INT8, size=(8, 8)), np.zeros((1, 4, 4, 3), np.int8), "only uint8 images"),
    ],
)
def test_samples_that_do_not_suit_the_mapping(p: Preprocess, x: np.ndarray, words: str) -> None:
    with pytest.raises(McugradError, match=words):
        p.apply(x)
