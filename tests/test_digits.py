"""The demo's data and its pretrained network."""

import sys
from importlib.resources import files

import numpy as np
import onnx
import onnxruntime
import pytest

from mcugrad.data import TEST
from mcugrad.digits import PREPROCESS, digits
from mcugrad.errors import McugradError

ASSET = files("mcugrad") / "assets" / "digits.onnx"


def accuracy(sensor: str, seed: int) -> float:
    session = onnxruntime.InferenceSession(ASSET.read_bytes(), providers=["CPUExecutionProvider"])
    x, y = digits(sensor, seed).test
    pixels = np.moveaxis(PREPROCESS.apply(x), -1, 1)
    logits = [session.run(None, {"image": image[None]})[0][0] for image in pixels]
    return float((np.argmax(logits, axis=1) == y).mean())


def test_both_sensors_see_the_same_digits_in_the_same_split() -> None:
    original, changed = digits("original"), digits("changed", seed=3)
    assert original.x.shape == changed.x.shape == (1797, 16, 16, 1) and original.x.dtype == np.uint8
    np.testing.assert_array_equal(original.y, changed.y)
    np.testing.assert_array_equal(original.split, changed.split)
    assert np.bincount(original.y[original.split == TEST]).tolist() == [54] * 10


def test_the_seed_draws_the_noise_and_nothing_else() -> None:
    a, b, c = digits("changed", 1), digits("changed", 1), digits("changed", 2)
    np.testing.assert_array_equal(a.x, b.x)
    difference = a.x.astype(int) - c.x
    assert difference.any() and abs(difference.mean()) < 0.5


def test_unknown_sensor_is_refused() -> None:
    with pytest.raises(McugradError, match="no sensor 'radar': choose one of original, changed"):
        digits("radar")


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(McugradError, match=r"pip install 'mcugrad\[demo\]'"):
        digits()


def test_asset_is_small_plain_and_self_contained() -> None:
    assert len(ASSET.read_bytes()) < 100_000
    model = onnx.load_from_string(ASSET.read_bytes())
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} == {
        "Add",
        "Clip",
        "Constant",
        "Conv",
        "Flatten",
        "Gemm",
        "GlobalAveragePool",
    }
    assert all(not tensor.external_data for tensor in model.graph.initializer)


def test_the_changed_sensor_breaks_the_pretrained_network() -> None:
    assert accuracy("original", 1) > 0.97
    assert 0.35 < accuracy("changed", 1) < 0.7
