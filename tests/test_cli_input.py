"""Wrong input ends with 1, a message that says what to do, and nothing half-written."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from command_line import Run, blobs, made
from onnx_models import Net


@pytest.fixture
def bad(tmp_path: Path, here: Path) -> Path:
    """A folder of files that are wrong in one way each."""
    folder = tmp_path / "bad"
    folder.mkdir()
    model, data = (here / "model.onnx").read_bytes(), blobs()
    files = {"empty.onnx": b"", "text.onnx": b"hello", "short.onnx": model[: len(model) // 2], "evil.pkl": b"cos\nsystem\n"}
    files |= {"broken.npz": (here / "data.npz").read_bytes()[:200], "text.npz": b"hello", "scheme.toml": b"biases = ["}
    files |= {"layer.toml": b"[weights]\nconv9 = 1.0\n", "key.toml": b"bias = 1\n"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    net = Net((1, 1, 6, 6))
    net.save(folder / "erf.onnx", net.op("Erf", net.conv("x", 1, 4), name="act"))
    nan = data["x"].astype(np.float32)
    nan[7, 0, 0, 0] = np.nan
    variants = {
        "nan": {"x": nan},
        "none": {"x": data["x"][:0], "y": data["y"][:0], "split": data["split"][:0]},
        "label": {"y": np.where(np.arange(60) == 5, 7, data["y"])},
        "negative": {"y": data["y"] - 1},
        "float_y": {"y": data["y"] + 0.5},
        "few_y": {"y": data["y"][:9]},
        "one_hot": {"y": np.eye(3, dtype=np.int64)[data["y"]]},
        "one_label": {"y": np.zeros(60, np.int64)},
        "shape": {"x": np.zeros((60, 5, 6, 7), np.float32)},
        "floats": {"x": data["x"] / np.float32(255)},
        "test_only": {"split": np.ones(60, np.uint8)},
        "train_only": {"split": np.zeros(60, np.uint8)},
        "pickled": {"y": np.array([{}] * 60, dtype=object)},
    }
    for name, change in variants.items():
        np.savez(folder / f"{name}.npz", **{**data, **change})
    with zipfile.ZipFile(folder / "other.npz", "w") as file, io.BytesIO() as text:
        file.writestr("notes.txt", text.getvalue())
    return folder


WRONG = [
    ("check nowhere.onnx", "nowhere.onnx: cannot be read (No such file or directory)"),
    ("check bad", "bad: cannot be read (Is a directory)"),
    ("check bad/empty.onnx", "the file is empty"),
    ("check bad/text.onnx", "text.onnx"),
    ("check bad/short.onnx", "short.onnx"),
    ("check bad/evil.pkl", "evil.pkl"),
    ("check bad/nan.npz", "nan.npz: this is data, not a model"),
    ("check bad/erf.onnx", "blocker: act (Erf): Erf is not supported; replace it"),
    ("compile bad/erf.onnx --classes 3 --calibrate DATA", "erf.onnx cannot be imported, 1 thing stands in the way"),
    ("compile MODEL --classes 3", "is a float model: give calibration data (--calibrate)"),
    ("compile MODEL --calibrate DATA", "how many classes? Give --classes N"),
    ("compile MODEL --calibrate DATA --classes 1", "between 2 and 4096 classes, got 1"),
    ("compile MODEL --calibrate DATA --classes 2", "label 2 does not exist in a head of 2 classes"),
    ("compile MODEL --calibrate DATA --classes 5 --keep-head", "--keep-head keeps 3 classes, --classes says 5"),
    (
        "compile MODEL --calibrate DATA --classes 3 --scheme 49kb",
        "no scheme '49kb' for the model 'model': use head, bias, full",
    ),
    ("compile MODEL --calibrate DATA --classes 3 --scheme nowhere.toml", "cannot read the scheme nowhere.toml"),
    ("compile MODEL --calibrate DATA --classes 3 --scheme bad/scheme.toml", "scheme.toml is not TOML"),
    ("compile MODEL --calibrate DATA --classes 3 --scheme bad/layer.toml", "has no layer 'conv9'; its layers are conv0, conv1"),
    (
        "compile MODEL --calibrate DATA --classes 3 --scheme bad/key.toml",
        "unknown key 'bias'; known are accumulate, adapt, bias",
    ),
    ("compile MODEL --calibrate DATA --classes 3 --target z80", "z80"),
    ("compile MODEL --calibrate DATA --classes 3 --sram 1000", "not a positive multiple of 1024"),
    ("compile MODEL --calibrate DATA --classes 3 --lr 0", "--lr must be above 0 and below 16, got 0.0"),
    ("train MODEL --data nowhere.npz", "nowhere.npz: no such file or folder"),
    ("train MODEL --data bad/text.npz", "not an .npz file"),
    ("train MODEL --data bad/broken.npz", "not a readable .npz file"),
    ("train MODEL --data bad/other.npz", "no array 'x'"),
    ("train MODEL --data bad/nan.npz", "NaN or infinite values in 1 samples, first in sample 7"),
    ("train MODEL --data bad/none.npz", "must be [samples, ...] and not empty"),
    ("train MODEL --data bad/label.npz --classes 3", "label 7 of sample 5 is out of range: the model has 3 classes"),
    ("train MODEL --data bad/label.npz --keep-head", "label 7 of sample 5 is out of range: the model has 3 classes"),
    ("train MODEL --data bad/negative.npz", "label -1 of sample 0 is out of range"),
    ("train MODEL --data bad/float_y.npz", "y is float64, not integers"),
    ("train MODEL --data bad/few_y.npz", "y has shape [9] for 60 samples"),
    ("train MODEL --data bad/one_hot.npz", "y has shape [60, 3] for 60 samples: give one integer label per sample (y.argmax"),
    ("train MODEL --data bad/one_label.npz", "all samples have the same label"),
    ("train MODEL --data bad/shape.npz", "samples are float32 [5, 6, 7], the model's input is [6, 6, 1]"),
    ("train MODEL --data bad/test_only.npz", "the training split is empty"),
    ("train MODEL --data bad/train_only.npz", "needs training and test samples, has 60 and 0"),
    ("train MODEL --data DATA --calibrate bad/floats.npz", "floats.npz holds float32, "),
    ("train MODEL --data bad/pickled.npz", "array 'y' cannot be read"),
    ("train MODEL --data DATA --skip 0", "--skip is a probability"),
    ("train MODEL --data bad", "no class folders"),
    ("inspect bad", "bad holds no report.json"),
    ("inspect nowhere", "nowhere"),
]


@pytest.mark.parametrize(("line", "said"), WRONG, ids=[line for line, _ in WRONG])
def test_wrong_input_ends_with_1_and_a_message(run: Run, bad: Path, here: Path, line: str, said: str) -> None:
    known = {"MODEL": here / "model.onnx", "DATA": here / "data.npz"}
    arguments = [known.get(word, word) for word in line.split()]
    folder = ("-o", "out") if arguments[0] in ("compile", "train") else ()
    answer = run(*arguments, *folder, "--json")
    assert answer.code == 1 and said in answer.words, answer.err
    assert "Traceback" not in answer.err
    assert not answer.out or json.loads(answer.out)["ok"] is False
    assert made(Path()) == {"bad"}, "nothing half-written"
