"""Small models that have learned, for tests of exports, and what they hold."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import mcugrad
from mcugrad import Course, Request
from mcugrad.exporters.learned import Learned, canonical
from mcugrad.graphfile import load_graph
from mcugrad.program import inference_graph
from onnx_models import residual_net
from tflite_models import RELU, SAME
from tflite_models import Net as TfliteNet

Array = NDArray[Any]

SCHEME = """
biases = 7
bias_bits = 16
residual_bits = 4
[weights]
conv1 = 0.5
conv3 = { channels = [1, 4, 5, 11] }
conv5 = 1.0
"""
CLASSES = 3


def blobs(shape: tuple[int, ...], n: int = 90) -> dict[str, Any]:
    """Images whose brightness tells the class."""
    y = np.arange(n) % CLASSES
    x = np.random.default_rng(0).integers(0, 80, (n, *shape)) + 80 * y.reshape(-1, *[1] * len(shape))
    return {
        "x": x.astype(np.uint8),
        "y": y,
        "split": (np.arange(n) >= 60).astype(np.uint8),
        "classes": ["dark", "grey", "bright"],
    }


def residual_run(folder: Path) -> Path:
    net, output = residual_net()
    net.save(folder / "net.onnx", output)
    np.savez(folder / "data.npz", **blobs((17, 13, 3)))
    (folder / "part.toml").write_text(SCHEME, encoding="utf-8")
    request = Request(folder / "net.onnx", str(folder / "part.toml"), rate=0.1)
    mcugrad.train(request, folder / "data.npz", Course(steps=60, skip=2.0), folder=folder / "run")
    return folder / "run"


def tflite_net(kind: str) -> tuple[TfliteNet, int]:
    """Convolution, depthwise, residual addition, mean, classifier and softmax."""
    net = TfliteNet((1, 9, 8, 3), kind, scale=1.0, zero=-128)
    first = net.conv(net.input, 6, stride=2, act=RELU, zero=-128)
    second = net.conv(first, 0, multiplier=1, act=RELU, zero=-128)
    scale = None if kind == "FLOAT32" else net.step(second) * 1.3
    x = net.add(first, net.conv(second, 6, 1), RELU, scale=scale, zero=-128)
    x = net.conv(x, 12, padding=SAME, act=RELU, zero=-128)
    return net, net.softmax(net.dense(net.mean(x, [1, 2]), 5))


def tflite_run(folder: Path, kind: str) -> Path:
    net, output = tflite_net(kind)
    net.save(folder / "net.tflite", output)
    np.savez(folder / "data.npz", **blobs((9, 8, 3)))
    request = Request(folder / "net.tflite", "full", rate=0.002)
    mcugrad.train(request, folder / "data.npz", Course(steps=60, skip=2.0), folder=folder / "run")
    return folder / "run"


def weights(learned: Learned) -> dict[str, Array]:
    return {p.value.name: p.data for p in learned.graph.params}


def initial(run: Path) -> dict[str, Array]:
    """Parameters of the canonical graph before learning."""
    return {p.value.name: p.data for p in canonical(inference_graph(load_graph(run / "network.npz"))).params}


def copied(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    return to
