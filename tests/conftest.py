"""Fixtures of more than one file: a command as a user runs it, and models that have learned."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import CLASSES, Answer, Run, blobs, write_model
from learned_runs import residual_run, tflite_run
from mcugrad import cli


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Runs `mcugrad ARGUMENTS` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(signal, "signal", lambda *_: None)

    def command(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["mcugrad", *map(str, arguments)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        return Answer(code, *capsys.readouterr())

    return command


@pytest.fixture(scope="session")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.onnx and data.npz."""
    folder = tmp_path_factory.mktemp("input")
    write_model(folder / "model.onnx")
    np.savez(folder / "data.npz", **blobs())
    return folder


@pytest.fixture
def build(here: Path) -> tuple[object, ...]:
    return ("compile", here / "model.onnx", "--classes", CLASSES, "--calibrate", here / "data.npz")


@pytest.fixture
def train(here: Path) -> tuple[object, ...]:
    return ("train", here / "model.onnx", "--data", here / "data.npz")


@pytest.fixture(scope="session")
def onnx_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a float ONNX model with partly updated weights."""
    return residual_run(tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def int8_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tflite_run(tmp_path_factory.mktemp("int8"), "INT8")


@pytest.fixture(scope="session")
def uint8_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tflite_run(tmp_path_factory.mktemp("uint8"), "UINT8")


@pytest.fixture(scope="session")
def float_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tflite_run(tmp_path_factory.mktemp("float"), "FLOAT32")
