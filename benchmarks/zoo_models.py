"""The models of the zoo: where each comes from, how it is fed, what it learns, and on which real data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.models import ROOT
from mcugrad.loss import Loss
from mcugrad.preprocess import Input, Preprocess

FILES = ROOT.parent / "shared" / "models"
INTEGER, REAL, PICKLE, TORCH = "TFLite int8", "TFLite float", "int8 pickle", "PyTorch"
MFCC = 0.584703  # scale of the keyword model's int8 features, zero point 83


@dataclass(frozen=True)
class Entry:
    """A row.  file: below the folder of models; builder: in its place one of tests/torch_models.py, trained on `own` for
    `epochs` first.  feed: how raw samples become the input, where the file does not say.  own: set on which the model's own
    head is scored (published: its accuracy in percent); an autoencoder is scored by the error of what it restores.

    learns: set that the training build adapts to, with its own head (keep_head) or a new one, in `steps` steps at
    the rate that a validation split chooses; scheme: a shipped one; None: biases of the last layers, and weights."""

    name: str
    file: str
    source: str
    own: str | None = None
    published: float | None = None
    feed: Preprocess | None = None
    learns: str | None = None
    keep_head: bool = False
    scheme: str | None = None
    biases: int = 6
    weights: Mapping[str, float] = field(default_factory=dict)
    steps: int = 1500
    loss: Loss = Loss.SOFTMAX
    builder: str | None = None
    epochs: int = 0

    @property
    def path(self) -> Path:
        return FILES / self.file


def _float(scale: float, mean: float = 0.0) -> Preprocess:
    return Preprocess(Input.FLOAT, scale=scale, mean=(mean,))


def _code(name: str, builder: str, own: str | None, feed: Preprocess, epochs: int = 0, **more: Any) -> Entry:
    return Entry(name, "", TORCH, own, feed=feed, builder=builder, epochs=epochs, **more)


VWW = {"conv22": 1.0, "conv24": 1.0, "conv26": 1.0}
RESNET = {"conv5": 1.0, "conv6": 1.0, "conv7": 1.0, "conv8": 1.0}
KEYWORDS = {"conv4": 1.0, "conv6": 1.0, "conv8": 1.0}
MIDDLE = {"conv5": 1.0, "conv6": 1.0, "conv7": 1.0, "conv8": 1.0}
MLPERF = "mlperf_tiny"
UNIT = _float(1 / 255)
IMAGENET = Preprocess(Input.FLOAT, scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

ENTRIES = (
    Entry("VWW MobileNetV1 0.25", f"{MLPERF}/vww_96_int8.tflite", INTEGER, "vww01", 85.2,
          learns="vww01", keep_head=True, biases=9, weights=VWW, steps=1400),
    Entry("VWW MobileNetV1 0.25", f"{MLPERF}/vww_96_float.tflite", REAL, "vww01", 85.3, _float(1 / 255),
          learns="vww01", keep_head=True, biases=9, weights=VWW, steps=1400),
    Entry("ResNet-8", f"{MLPERF}/pretrainedResnet_quant.tflite", INTEGER, "cifar10 clean", 85.0,
          learns="cifar10", keep_head=True, biases=5, weights=RESNET, steps=3000),
    Entry("ResNet-8", f"{MLPERF}/pretrainedResnet.tflite", REAL, "cifar10 clean", 85.5, _float(1.0),
          learns="cifar10", keep_head=True, biases=5, weights=RESNET, steps=3000),
    Entry("DS-CNN keywords", f"{MLPERF}/kws_ref_model.tflite", INTEGER, "kws01 mfcc", 90.2,
          learns="kws01 mfcc", keep_head=True, weights=KEYWORDS),
    Entry("DS-CNN keywords", f"{MLPERF}/kws_ref_model_float32.tflite", REAL, "kws01 mfcc", None,
          _float(MFCC, 83 * MFCC),
          learns="kws01 mfcc", keep_head=True, weights=KEYWORDS),
    Entry("anomaly autoencoder", f"{MLPERF}/ad01_int8.tflite", INTEGER, "toycar", loss=Loss.AUTOENCODER,
          learns="toycar", keep_head=True, biases=5, weights=MIDDLE, steps=5000),
    Entry("anomaly autoencoder", f"{MLPERF}/ad01_fp32.tflite", REAL, "toycar", 89.6, loss=Loss.AUTOENCODER,
          learns="toycar", keep_head=True, biases=5, weights=MIDDLE, steps=5000),
    Entry("streaming wake word", f"{MLPERF}/str_ww_ref_model.tflite", INTEGER,
          learns="speech commands, 30 frames", biases=8, steps=12000),
    Entry("micro_speech", "tflite_micro/micro_speech_quantized.tflite", INTEGER,
          learns="speech commands", biases=1, steps=12000),
    Entry("MicroNets VWW2", "wake_vision/wv_quality_micronets_vww2_50_50_INT8.tflite", INTEGER, "vww01",
          learns="vww01", biases=12, steps=4000),
    Entry("MCUNet-5FPS", "tiny_training/mcunet-5fps.pkl", PICKLE, "imagenette128", learns="flowers12", scheme="99kb"),
    Entry("MobileNetV2 0.35", "tiny_training/mbv2-w0.35.pkl", PICKLE, "imagenette128", learns="flowers12", scheme="99kb"),
    _code("ResNet-20", "resnet20", "cifar10 clean", IMAGENET, published=91.7, learns="cifar10", keep_head=True, biases=7,
          weights={"conv18": 1.0, "conv17": 1.0, "conv16": 1.0}, steps=3000),
    _code("MobileNetV2, small", "mobilenet_v2", "cifar10", UNIT, 6, learns="trashnet128", biases=8),
    _code("MobileNetV3-Small, small", "mobilenet_v3_small", "cifar10", UNIT, 6, learns="trashnet128", biases=6),
    _code("EfficientNet-Lite0, small", "efficientnet_lite0", "cifar10", UNIT, 6, learns="trashnet128", biases=8),
    _code("SqueezeNet, small", "squeezenet", "cifar10", UNIT, 20, learns="trashnet128", biases=6),
    _code("DenseNet, small", "densenet", "cifar10, 16x16", UNIT, 6, learns="trashnet128", biases=4),
    _code("1-D CNN, vibration", "vibration_1d", "bearing", _float(1 / 2048), 12, learns="bearing, loads 1-3",
          keep_head=True, biases=3, weights={"*": 1.0}, steps=3000),
    _code("MLP", "mlp", "digits", _float(1 / 16), 30, learns="digits, turned", keep_head=True,
          biases=2, weights={"*": 1.0}, steps=3000),
    _code("U-shaped autoencoder", "unet", None, UNIT, learns="magnetic tile, 16x16", loss=Loss.AUTOENCODER, keep_head=True,
          biases=4, weights={"*": 1.0}, steps=4000),
)  # fmt: skip
