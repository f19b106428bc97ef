"""Learning under each loss from files, as a user starts it: figures improve, the virtual MCU learns the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mcugrad.api import Request, train_request
from mcugrad.data import Calibration
from mcugrad.errors import McugradError
from mcugrad.importers import load
from mcugrad.importers.model import Imported
from mcugrad.ir import interpret
from mcugrad.loss import Loss
from mcugrad.metrics import auc
from mcugrad.ops.losses import Logits
from mcugrad.own_output import own_output
from mcugrad.prepare import prepare
from mcugrad.trainer import Course
from onnx_models import Net

N = 90


def images(seed: int = 0) -> Any:
    """Two channels, each dark or bright; float [N,6,6,2] and which are bright."""
    rng = np.random.default_rng(seed)
    bright = rng.integers(0, 2, (N, 2))
    return (rng.normal(0, 0.2, (N, 6, 6, 2)) + bright[:, None, None]).astype(np.float32), bright


def network(path: Path, outputs: int, relu: bool = True) -> Path:
    """A convolution, a pool and a fully connected layer."""
    net = Net((1, 2, 6, 6), seed=3)
    x = net.conv("x", 2, 8)
    x = net.op("Flatten", net.op("GlobalAveragePool", net.op("Relu", x) if relu else x))
    return net.save(path, net.gemm(x, 8, outputs))


def mlp(path: Path) -> Path:
    """An autoencoder of 12 numbers."""
    net = Net((1, 12), seed=5)
    return net.save(path, net.gemm(net.op("Relu", net.gemm("x", 12, 6)), 6, 12))


def store(path: Path, x: Any, y: Any, **more: Any) -> Path:
    np.savez(path, x=x, y=y, split=(np.arange(len(x)) >= 2 * len(x) // 3).astype(np.uint8), **more)
    return path


def numbers() -> Any:
    x, _ = images(1)
    return x, np.stack([30 * x[..., 0].mean(axis=(1, 2)) - 200, x[..., 1].mean(axis=(1, 2))], axis=1)


def low_rank() -> Any:
    """12 numbers that lie on a plane, apart from the anomalies at the end; labels, and groups of three."""
    rng = np.random.default_rng(2)
    x = rng.normal(0, 1, (N, 2)) @ rng.normal(0, 1, (2, 12))
    anomaly = np.arange(N) >= N - 15
    x[anomaly] += rng.normal(0, 1.5, (15, 12))
    return x.astype(np.float32), anomaly.astype(np.int64)


def train(folder: Path, model: Path, data: Path, **options: Any) -> dict[str, Any]:
    course = Course(epochs=options.pop("epochs", 6))
    request = Request(model, sram=1 << 20, flash=1 << 20, **options)
    return train_request(request, data, course, options.pop("on", "host"), folder / "run")


def test_labels_that_are_each_true_or_not(tmp_path: Path) -> None:
    data = store(tmp_path / "data.npz", *images())
    result = train(tmp_path, network(tmp_path / "net.onnx", 5), data, loss="sigmoid", scheme="full", rate=0.01, epochs=20)
    assert result["metrics"] == ["accuracy", "exact"] and result["loss"] == "sigmoid"
    assert result["exact"]["after"] > 0.9 > result["exact"]["before"]


def test_numbers_by_a_new_head_in_units_of_their_own(tmp_path: Path) -> None:
    data = store(tmp_path / "data.npz", *numbers())
    result = train(tmp_path, network(tmp_path / "net.onnx", 5), data, loss="mse", rate=0.05, epochs=30)
    assert result["r2"]["after"] > 0.9 > result["r2"]["before"]
    assert result["mse"]["after"] < 0.1 * result["mse"]["before"]


def test_numbers_by_the_model_s_own_output(tmp_path: Path) -> None:
    """The last layer is int8 and learns as all others."""
    x, y = numbers()
    data = store(tmp_path / "data.npz", x, y[:, 1:])
    result = train(tmp_path, network(tmp_path / "net.onnx", 1), data, loss="mse", keep_head=True, scheme="full", rate=0.02)
    assert result["mse"]["after"] < 0.5 * result["mse"]["before"]
    assert "head_weight" not in (tmp_path / "run" / "graph-training.txt").read_text()


def test_an_autoencoder_learns_the_normal_and_tells_anomalies(tmp_path: Path) -> None:
    x, y = low_rank()
    data = store(tmp_path / "data.npz", x, y, group=np.arange(N) // 3)
    result = train(tmp_path, mlp(tmp_path / "net.onnx"), data, loss="autoencoder", scheme="full", rate=0.02, epochs=20)
    assert result["metrics"] == ["mse", "auc"]
    assert result["mse"]["after"] < 0.5 * result["mse"]["before"]
    assert result["auc"]["after"] > 0.9


@pytest.mark.parametrize("loss", ["sigmoid", "autoencoder"])
def test_the_virtual_mcu_learns_the_same_bits(tmp_path: Path, loss: str) -> None:
    found = []
    for on in ("host", "vm"):
        folder = tmp_path / on
        folder.mkdir()
        x, y = images() if loss == "sigmoid" else low_rank()
        model = network(folder / "net.onnx", 5) if loss == "sigmoid" else mlp(folder / "net.onnx")
        data = store(folder / "data.npz", x, y)
        request = Request(model, "full", loss=loss, rate=0.01)
        found.append(train_request(request, data, Course(steps=12), on, folder / "run")["parameters_sha256"])
    assert found[0] == found[1]


WRONG: dict[str, tuple[str, Callable[[], Any], str]] = {
    "labels that are no bits": ("sigmoid", lambda: np.arange(N), "y must hold 0 or 1"),
    "numbers that are none": ("mse", lambda: np.full((N, 2), np.nan), "must hold finite numbers"),
    "a target too few": ("mse", lambda: np.zeros((N - 1, 2)), "give \\[samples, outputs\\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_targets_that_do_not_fit_the_loss_are_refused(tmp_path: Path, case: str) -> None:
    loss, make, message = WRONG[case]
    data = store(tmp_path / "data.npz", images()[0], make())
    with pytest.raises(McugradError, match=message):
        train(tmp_path, network(tmp_path / "net.onnx", 5), data, loss=loss)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_images_has_no_targets(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    with pytest.raises(McugradError, match=r"store the targets of --loss mse as \.npz"):
        train(tmp_path, network(tmp_path / "net.onnx", 5), tmp_path / "images", loss="mse")


def classified(imported: Imported, x: Any) -> Any:
    """What the float features and the classifier beside them give."""
    assert imported.classifier is not None
    features = interpret(imported.graph, {imported.graph.inputs[0].name: x[None]}, "real")[imported.graph.outputs[0]]
    return features.reshape(-1) @ imported.classifier.weight + imported.classifier.bias


def test_a_model_with_its_last_layer_back_in_place_computes_what_its_classifier_did(tmp_path: Path) -> None:
    imported = load(network(tmp_path / "net.onnx", 4))
    whole = own_output(imported, None)
    assert whole.classifier is None
    for x in images()[0][:3]:
        y = interpret(whole.graph, {whole.graph.inputs[0].name: x[None]}, "real")[whole.graph.outputs[0]]
        assert y.reshape(-1) == pytest.approx(classified(imported, x), rel=1e-5, abs=1e-6)


def test_a_prepared_model_that_keeps_its_output_ends_in_its_logits(tmp_path: Path) -> None:
    x, y = images()
    calibration = Calibration(x[:32], None, "images")
    imported = load(network(tmp_path / "net.onnx", 2))
    prepared = prepare(imported, keep_head=True, loss=Loss.MSE, calibration=calibration)
    assert isinstance(prepared.graph.nodes[-1].op, Logits)
    for sample in x[:5]:
        logits = interpret(prepared.graph, {prepared.graph.inputs[0].name: prepared.quantize(sample[None])})
        found = prepared.targets.decode(logits[prepared.graph.outputs[0]])
        assert found == pytest.approx(classified(imported, sample), abs=4 * prepared.targets.step)
    assert y.shape == (N, 2)


def test_auc_counts_pairs_and_ties_by_half() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.4
    pairs = [(p > n) + 0.5 * (p == n) for p in scores[positive] for n in scores[~positive]]
    assert auc(scores, positive) == pytest.approx(np.mean(pairs))
