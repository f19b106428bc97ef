"""The published TFLite models on real data: integer forward, accuracy and training against LiteRT."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from mcugrad.data import Calibration
from mcugrad.importers import check, load
from mcugrad.ir import interpret
from mcugrad.prepare import prepare
from mcugrad.preprocess import Input, Preprocess
from mcugrad.quant.affine import clamp8
from mcugrad.training.head import attach_head
from tflite_models import Reference, fed, real, steps

SHARED = Path(__file__).resolve().parents[2] / "shared"
MODELS, DATA = SHARED / "models", SHARED / "data"
SAMPLES = 50

pytest.importorskip("ai_edge_litert", reason="LiteRT is the reference")
pytestmark = pytest.mark.skipif(not MODELS.is_dir() or not DATA.is_dir(), reason="the shared models are not beside the project")


@dataclass(frozen=True)
class Published:
    """features, logits: LiteRT's tensors; exact: least share of equal features; top: least agreement of the top class."""

    file: str
    features: int
    logits: int
    exact: float
    top: float


INT8 = {
    "vww": Published("mlperf_tiny/vww_96_int8.tflite", 86, 87, 0.999, 0.995),
    "resnet": Published("mlperf_tiny/pretrainedResnet_quant.tflite", 35, 36, 0.98, 0.98),
    "kws": Published("mlperf_tiny/kws_ref_model.tflite", 32, 33, 0.999, 0.995),
    "wake word": Published("mlperf_tiny/str_ww_ref_model.tflite", 28, 29, 0.99, 0.995),
    "micro speech": Published("tflite_micro/micro_speech_quantized.tflite", 2, 6, 0.999, 0.995),
}
FLOAT = {
    "vww": Published("mlperf_tiny/vww_96_float.tflite", 86, 87, 0, 1),
    "resnet": Published("mlperf_tiny/pretrainedResnet.tflite", 35, 36, 0, 1),
    "autoencoder": Published("mlperf_tiny/ad01_fp32.tflite", 29, 30, 0, 1),
}


@cache
def pixels(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(x uint8, y) of real samples for a model."""
    file = {
        "vww": "vww01/data.npz",
        "resnet": "cifar10/mlperf_ic01.npz",
        "kws": "speech_commands12/mlperf_kws01_mfcc.npz",
        "wake word": "speech_commands12/data.npz",
        "micro speech": "speech_commands12/data.npz",
    }[name]
    with np.load(DATA / file) as data:
        spread = np.linspace(0, len(data["x"]) - 1, 4 * SAMPLES).astype(int)
        x, y = data["x"][spread], data["y"][spread].astype(np.int64)
    return (x[:, :30, :, 0] if name == "wake word" else x), y


def inputs(name: str) -> NDArray[np.int8]:
    x, _ = pixels(name)
    return x if x.dtype == np.int8 else (x ^ np.uint8(0x80)).view(np.int8)


@pytest.mark.parametrize("file", sorted(p.relative_to(MODELS) for p in MODELS.rglob("*.tflite")), ids=lambda p: p.stem)
def test_check_passes(file):
    report = check(MODELS / file)
    assert report.ok and report.macs > 100_000


@pytest.mark.parametrize("name", INT8)
def test_integer_features_and_top_class_are_those_of_litert(name):
    model = INT8[name]
    imported, reference = load(MODELS / model.file), Reference(MODELS / model.file)
    own = imported.classifier
    head = attach_head(imported.graph, len(own.bias), own.weight, own.bias)
    found, same = [], 0
    for x in inputs(name)[:SAMPLES]:
        reference.run(x)
        found.append(np.abs(steps(imported, x).reshape(-1) - reference.steps(model.features).reshape(-1)))
        logits = interpret(head, fed(imported, x))[head.outputs[0]]
        theirs = reference[model.logits].reshape(-1)
        same += theirs[logits.argmax()] == theirs.max()  # int8 logits may tie
    assert np.concatenate(found).max() <= 1
    assert (np.concatenate(found) == 0).mean() >= model.exact
    assert same / SAMPLES >= model.top


def test_deep_network_with_padded_channels_stays_close():
    """MicroNets VWW2: 53 layers, 11 additions and a 2x2 average whose ties round up."""
    from mcugrad.images import resize

    path = MODELS / "wake_vision" / "wv_quality_micronets_vww2_50_50_INT8.tflite"
    imported, reference = load(path), Reference(path)
    found = []
    for x in resize(pixels("vww")[0][:SAMPLES], 50, 50, 1):
        reference.run(x)
        found.append(np.abs(steps(imported, x).reshape(-1) - reference.steps(184).reshape(-1)))
    assert (np.concatenate(found) <= 1).mean() >= 0.995


@pytest.mark.parametrize("name", FLOAT)
def test_float_features_are_those_of_litert(name):
    model = FLOAT[name]
    imported, reference = load(MODELS / model.file), Reference(MODELS / model.file)
    x = windows(2)[0][:5] if name == "autoencoder" else pixels(name)[0][:5].astype(np.float32) / 255
    for sample in x:
        reference.run(sample)
        want = reference[model.features].reshape(-1)
        np.testing.assert_allclose(real(imported, sample).reshape(-1), want, atol=1e-3 * np.abs(want).max(), rtol=1e-3)


@pytest.mark.parametrize(("name", "expected"), [("vww", 0.852), ("resnet", 0.85), ("kws", 0.902)])
def test_accuracy_of_the_published_integer_models(name, expected):
    """The published figures within the error of 200 samples; the whole sets give 85.4, 85.5 and 90.1 %."""
    assert accuracy(prepare(load(MODELS / INT8[name].file), keep_head=True), name) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("name", "scale", "expected"), [("vww", 1 / 255, 0.853), ("resnet", 1.0, 0.855)])
def test_accuracy_of_the_published_float_models_after_calibration(name, scale, expected):
    from dataclasses import replace

    imported = replace(load(MODELS / FLOAT[name].file), preprocess=Preprocess(Input.FLOAT, scale=scale))
    x, y = pixels(name)
    prepared = prepare(imported, keep_head=True, calibration=Calibration(x[:32], y[:32], name))
    assert accuracy(prepared, name) == pytest.approx(expected, abs=0.06)


def accuracy(prepared, name):
    x, y = pixels(name)
    (image,), (logits,) = prepared.graph.inputs, prepared.graph.outputs
    answers = [interpret(prepared.graph, {image.name: q[None]})[logits].argmax() for q in prepared.quantize(x)]
    return np.mean(np.array(answers) == y)


def windows(each):
    """(x float32 [N,640], file of each, anomalous or not per file): windows of 5 frames, every `each`-th file."""
    with np.load(DATA / "toycar_ad01" / "data.npz") as data:
        x, y = data["x"][::each].astype(np.float32), data["y"][::each]
    frames = np.stack([x[:, i : i + 5].reshape(len(x), -1) for i in range(0, 196, 16)], 1)
    return frames.reshape(-1, 640), np.repeat(np.arange(len(x)), frames.shape[1]), y


def test_anomaly_score_of_the_integer_autoencoder():
    """Reconstruction error by file: AUC 0.896 is published for the float model on all windows."""
    imported = load(MODELS / "mlperf_tiny" / "ad01_int8.tflite")
    (image,) = imported.graph.inputs
    scale, zero = image.type.quant.scale[0], image.type.quant.zero
    x, owner, anomalous = windows(4)
    own, step = imported.classifier, imported.graph.outputs[0].type.quant.scale[0]
    errors = []
    for sample in x:
        q = clamp8(np.rint(sample / scale) + zero).astype(np.int8)
        restored = steps(imported, q).reshape(-1) * step @ own.weight + own.bias
        errors.append(np.mean((restored - sample) ** 2))
    scores = np.bincount(owner, errors) / np.bincount(owner)
    assert roc_auc_score(anomalous, scores) > 0.83


@pytest.mark.parametrize("scheme", ["head", "full"])
def test_training_the_published_resnet_lowers_the_loss(tmp_path, scheme):
    """Its image is 0..255: read as such, the first layer diverges at once under `full`."""
    from mcugrad.api import Request, train_request
    from mcugrad.trainer import Course

    request = Request(MODELS / INT8["resnet"].file, scheme, keep_head=True, sram=1 << 20)
    course = Course(steps=120, skip=2.0)
    result = train_request(request, DATA / "cifar10" / "mlperf_ic01.npz", course, "host", tmp_path / "run")
    losses = result["losses"]
    assert np.mean(losses[-40:]) < np.mean(losses[:40])
    assert result["accuracy"]["after"] > 0.7
