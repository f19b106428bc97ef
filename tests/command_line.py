"""What tests of the commands share: a small model and its data, the answer of a command, how it is started."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnx_models import Net

# A shell that runs tests in the background makes them ignore Ctrl-C, and so would what they start.
_HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = (sys.executable, "-c", f"{_HEED}; from mcugrad.cli import main; main()")
CLASSES = 3


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def words(self) -> str:
        """stderr without the frames and line breaks that a terminal's width brings."""
        return re.sub(r"[\s│╭╮╰╯─]+", " ", self.err)

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Answer]


def write_model(path: Path) -> Path:
    """Two convolutions, pool, classifier: 1x6x6 in, three classes out."""
    net = Net((1, 1, 6, 6))
    x = net.relu6(net.conv("x", 1, 4, strides=[2, 2], pads=[1, 1, 1, 1]))
    x = net.op("Relu", net.conv(x, 4, 6, 1))
    return net.save(path, net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), 6, CLASSES))


def blobs(n: int = 60) -> dict[str, Any]:
    """Images whose brightness tells the class."""
    y = np.arange(n) % CLASSES
    x = np.random.default_rng(0).integers(0, 60, (n, 6, 6, 1)) + 80 * y[:, None, None, None]
    return {"x": x.astype(np.uint8), "y": y, "split": (np.arange(n) >= 2 * n // 3).astype(np.uint8)}


def made(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}
