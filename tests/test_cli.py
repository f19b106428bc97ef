"""The commands as a user meets them: output, exit codes, messages, and nothing half-written."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
from PIL import Image

import mcugrad
from mcugrad import cli
from mcugrad.compiler import DEVICES, Compiled
from mcugrad.fit import INPUT_MODES
from mcugrad.folder import MANIFEST
from mcugrad.trainer import SATURATED, SCHEDULES, Learned, report
from onnx_models import Net

# A shell that runs tests in the background makes them ignore Ctrl-C, and so would what they start.
_HEED = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
COMMAND = (sys.executable, "-c", f"{_HEED}; from mcugrad.cli import main; main()")
CLASSES = 3
VERBS = ("check", "plan", "compile", "train", "demo", "inspect", "sweep")


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


@pytest.fixture(scope="module")
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


def made(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# Results


def whole(value: Any) -> bool:
    """Is every number below `value` an integer?"""
    inner = value.values() if isinstance(value, dict) else value
    return type(value) is int if not isinstance(value, dict | list) else all(whole(v) for v in inner)


def test_compile_reports_every_byte_and_writes_a_folder(run: Run, build: tuple[object, ...]) -> None:
    answer = run(*build, "--scheme", "bias", "-o", "out", "--json")
    assert answer.code == 0, answer.err
    facts, folder = answer.json, Path("out")
    for part, names in {
        "macs": {"forward", "backward"},
        "sram": {"arena", "parameters", "replay", "static", "stack", "total"},
        "flash": {"code", "constants", "latents", "total"},
    }.items():
        assert set(facts[part]) == names and whole(facts[part])
    assert {"live_peak", "lower_bound"} <= set(facts["plan"])
    sram, plan = facts["sram"], facts["plan"]
    assert sram["arena"] + sram["parameters"] <= sram["static"] and sram["static"] + sram["stack"] == sram["total"]
    assert 0 < plan["lower_bound"] <= plan["live_peak"] <= sram["arena"]
    assert Path(facts["elf"]).read_bytes()[:4] == b"\x7fELF"
    assert f"#define MODEL_ARENA_BYTES {sram['arena']}" in Path(facts["header"]).read_text()
    assert {"model.c", "mcugrad.h", "report.json", "memory.png", MANIFEST} <= made(folder)
    assert json.loads((folder / "report.json").read_text())["elf"] == "build/cortex-m7.elf"
    assert made(Path()) == {"out"}


@pytest.mark.parametrize("device", ["host", "vm"])
def test_train_reports_what_it_learned_and_what_it_cost(run: Run, train: tuple[object, ...], device: str) -> None:
    answer = run(*train, "--on", device, "--scheme", "full", "--epochs", 2, "--lr", 0.05, "-o", "out", "--json")
    assert answer.code == 0, answer.err
    result = answer.json
    assert result["accuracy"]["after"] > result["accuracy"]["before"] and len(result["losses"]) == 80
    assert result["losses"][0] == pytest.approx(np.log(CLASSES), abs=1e-3), "the head starts at zero"
    assert re.fullmatch("[0-9a-f]{64}", result["parameters_sha256"])
    assert set(result["sram"]) == {"static", "stack", "total"} and whole(result["sram"])
    assert result["samples_per_second"] > 0
    counts = result["instructions"]
    assert set(counts) == {"forward", "step", "step_mean"}
    assert counts == dict.fromkeys(counts) if device == "host" else counts["forward"] < counts["step_mean"] <= counts["step"]
    folder = Path("out")
    assert (folder / "parameters.bin").stat().st_size == json.loads((folder / "report.json").read_text())["sram"]["parameters"]
    assert json.loads((folder / "training.json").read_text()) == result
    assert run("inspect", "out", "--json").json["training"]["losses"] == result["losses"]


def test_the_seed_decides_everything(run: Run, train: tuple[object, ...]) -> None:
    common = (*train, "--scheme", "full", "--steps", 10, "--json")
    first, again, other = (run(*common, "--seed", seed).json["parameters_sha256"] for seed in (1, 1, 2))
    assert first == again != other
    assert made(Path("runs")) == {"train-model-1", "train-model-2", "train-model-3"}


def test_kept_samples_may_lie_in_flash(run: Run, train: tuple[object, ...], build: tuple[object, ...]) -> None:
    common = (*train, "--scheme", "bias", "--steps", 30, "--replay", 6, "--on", "vm")
    sram, flash = (run(*common, "--replay-in", place, "-o", place, "--json").json for place in ("sram", "flash"))
    assert flash["parameters_sha256"] == sram["parameters_sha256"] and flash["sram"]["total"] < sram["sram"]["total"]
    wear = flash["wear"]
    assert "wear" not in sram and (wear["samples"], wear["expected_writes"]) == (30, 15.7) and 6 <= wear["writes"] <= 30
    assert f"{wear['writes']} latents written" in run(*common, "--replay-in", "flash", "-o", "again").out
    text = run(*build, "--scheme", "bias", "--replay", 6, "--replay-in", "flash", "-o", "c").out
    assert "flash latents" in text and "in slots of 4,096 bytes of flash" in text
    answer = run(*build, "--replay-in", "flash", "-o", "out")
    assert answer.code == 1 and "add --replay auto to keep some" in answer.words
    answer = run(*build, "--replay", 6, "--replay-in", "flash", "--target", "rv32imc", "-o", "out")
    assert answer.code == 1 and "cannot write the flash of rv32imc" in answer.words and "out" not in made(Path())


def test_people_read_tables(run: Run, build: tuple[object, ...], train: tuple[object, ...], here: Path) -> None:
    text = run(*build, "-o", "c").out
    assert "SRAM total" in text and "written to c" in text
    assert "accuracy on held-out data" in run(*train, "--steps", 5, "--on", "vm", "-o", "t").out
    assert "live peak" in run("inspect", "c").out
    assert "%logits: s32[3] = Head()" in run("inspect", "c", "--graph", "forward").out
    assert "next %head_weight" in run("inspect", "c", "--graph", "training").out
    assert "conv 3x3" in run("check", here / "model.onnx").out
    assert run("--version").out == f"mcugrad {mcugrad.__version__}\n"


def test_check_and_inspect_print_json_and_nothing_else(run: Run, here: Path, build: tuple[object, ...]) -> None:
    run(*build, "-o", "c")
    assert run("check", here / "model.onnx", "--json").json["ok"] is True
    assert run("inspect", here / "model.onnx", "--json").json["graph"].startswith("input")
    report = run("inspect", "c", "--json").json
    assert sum(layer["macs"] for layer in report["layers"]) == sum(report["macs"].values())
    assert "output" in run("inspect", "c", "--graph", "forward", "--json").json["graph"]


def test_a_folder_of_images_is_data(run: Run, here: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        for label in ("dark", "light"):
            place = Path("images", split, label)
            place.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (9, 7), 40 * i + 90 * (label == "light")).save(place / f"{i}.png")
    result = run("train", here / "model.onnx", "--data", "images", "--epochs", 3, "--json").json
    assert len(result["losses"]) == 3 * 8


def test_saturated_gradients_are_noted(tmp_path: Path, here: Path) -> None:
    request = mcugrad.Request(here / "model.onnx", "full", CLASSES, calibrate=here / "data.npz")
    compiled: Compiled = mcugrad.compile(request, tmp_path / "out")
    stored = sum(
        node.outputs[node.outputs.index(count) - 1].type.elements
        for count in compiled.program.counts
        for node in compiled.program.graph.nodes
        if count in node.outputs
    )
    assert stored > 0
    learned = Learned((1.0,) * 100, (0,) * 100, 0, None, 1.0)
    for clamped, noted in ((int(stored * 100 * SATURATED), False), (stored * 10, True)):
        found = report(
            compiled,
            replace(learned, saturated=clamped),
            ({"accuracy": 0.1}, {"accuracy": 0.2}),
            compiled.program.initial_state(),
            None,
        )
        assert bool(found["notes"]) == noted
    assert found["saturated"] == {"elements": stored * 10, "share": 0.1}
    assert "10.00% of the gradient elements were clamped" in found["notes"][0]


def test_importing_the_package_is_quick_and_its_names_are_there() -> None:
    code = "import sys, mcugrad; assert not {'numpy', 'onnx', 'unicorn'} & set(sys.modules); print(dir(mcugrad))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "compile" in done.stdout
    assert all(getattr(mcugrad, name) is not None for name in mcugrad.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = mcugrad.nothing


# The command line


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_every_option(run: Run, verb: str) -> None:
    answer = run(verb, "--help")
    assert answer.code == 0
    assert all(option in answer.out for option in ("--json", "--seed", "--help"))
    command: Any = typer.main.get_command(cli.app)
    assert all(parameter.help for parameter in command.commands[verb].params)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("compile",), "Missing argument"),
        (("compile", "m.onnx", "--frobnicate"), "No such option: --frobnicate"),
        (("compile", "m.onnx", "--sram", "5x"), "'5x' is not a size; write bytes, or 256K, or 1M"),
        (("compile", "m.onnx", "--sram", "0"), "'0' is not a size"),
        (("compile", "m.onnx", "--residual-bits", "3"), "'3' is not 0, 4 or 8"),
        (("compile", "m.onnx", "--compiler", "cl"), "'cl' is not one of 'zig', 'gcc'"),
        (("compile", "m.onnx", "--input", "tape"), "'tape' is not one of"),
        (("train", "m.onnx"), "Missing option '--data'"),
        (("train", "m.onnx", "--data", "d.npz", "--on", "mars"), "'mars' is not one of 'host', 'vm', 'qemu'"),
        (("train", "m.onnx", "--data", "d.npz", "--steps", "0"), "Invalid value for '--steps'"),
        (("train", "m.onnx", "--data", "d.npz", "--steps", "5", "--epochs", "1"), "--steps or --epochs, not both"),
        (("demo", "--seed", "-1"), "Invalid value for '--seed'"),
        (("fly",), "No such command 'fly'"),
    ],
)
def test_a_wrong_command_line_ends_with_2(run: Run, arguments: tuple[str, ...], said: str) -> None:
    answer = run(*arguments)
    assert (answer.code, answer.out) == (2, "") and said in answer.words
    assert not made(Path())


def test_the_command_line_offers_what_the_api_takes() -> None:
    hints = get_type_hints(cli.train)
    offered = [get_args(hints[name]) for name in ("on", "schedule", "input_mode")]
    assert offered == [DEVICES, SCHEDULES, tuple(INPUT_MODES)]


# Wrong input


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


# The folder of a result


def test_a_folder_of_ones_own_is_replaced_and_a_foreign_one_is_not(run: Run, build: tuple[object, ...]) -> None:
    assert run(*build, "-o", "out").code == 0
    (Path("out", "build") / "left-over.so").write_bytes(b"")
    assert run(*build, "-o", "out", "--scheme", "bias").code == 0, "its own work, builds included, may go"
    (Path("out") / "main.c").write_text("int main(void);")
    answer = run(*build, "-o", "out")
    assert answer.code == 1 and "holds files that mcugrad did not make (main.c)" in answer.words
    assert Path("out", "main.c").exists() and Path("out", "model.c").exists()


@pytest.mark.parametrize("name", ["notes.txt", "report.json", MANIFEST])
def test_no_file_of_the_user_is_ever_deleted(run: Run, build: tuple[object, ...], name: str) -> None:
    Path("out", "sub").mkdir(parents=True)
    Path("out", name).write_text("{}")
    Path("out", "sub", "thesis.tex").write_text("three years")
    answer = run(*build, "-o", "out")
    assert answer.code == 1 and "did not make" in answer.words
    assert Path("out", "sub", "thesis.tex").read_text() == "three years"


def test_places_that_cannot_be_written_are_named(run: Run, build: tuple[object, ...], here: Path) -> None:
    Path("file").write_text("")
    for place, said in (
        ("file", "file exists and is not a folder"),
        ("file/below", "file/below cannot be written"),
        (".", ". is the current folder"),
        ("/proc/none/out", "/proc/none/out cannot be written"),
    ):
        answer = run(*build, "-o", place)
        assert answer.code == 1 and said in answer.words, answer.err
    assert made(Path()) == {"file"}
    assert run("demo", "-o", "file").code == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_named(run: Run, build: tuple[object, ...]) -> None:
    Path("locked").mkdir(mode=0o500)
    answer = run(*build, "-o", "locked/out")
    assert answer.code == 1 and "locked/out cannot be written: Permission denied" in answer.words


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(tmp_path: Path, train: tuple[object, ...], number: int, code: int) -> None:
    arguments = [str(a) for a in (*train, "--on", "vm", "--steps", 10_000_000, "-o", "out")]
    process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out-*/build/host-*.so")) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert made(tmp_path), "it has begun"
        time.sleep(0.5)
        process.send_signal(number)
        out, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code and not out
    assert not made(tmp_path)


def test_a_bar_moves_on_a_terminal_and_nowhere_else(run: Run, train: tuple[object, ...], tmp_path: Path) -> None:
    assert "\x1b" not in run(*train, "--steps", 5, "-o", "quiet").err
    main, side = pty.openpty()
    arguments = [str(a) for a in (*train, "--steps", 5, "-o", "out", "--json")]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen([*COMMAND, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=side, env=environment)
    os.close(side)
    assert process.stdout is not None
    json.loads(process.stdout.read())
    shown = b""
    try:
        while chunk := os.read(main, 1 << 16):
            shown += chunk
    except OSError:  # the other side has closed
        pass
    assert process.wait() == 0 and b"learning" in shown


# Budgets


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Compiles a model whose schemes differ by several pages of memory."""
    folder = tmp_path_factory.mktemp("wide")
    net = Net((1, 1, 12, 12))
    x = net.relu6(net.conv("x", 1, 24, strides=[2, 2], pads=[1, 1, 1, 1]))
    x = net.op("Relu", net.conv(x, 24, 64, 1))
    net.save(folder / "model.onnx", net.gemm(net.op("Flatten", net.op("GlobalAveragePool", x)), 64, CLASSES))
    data = blobs()
    np.savez(folder / "data.npz", **{**data, "x": data["x"].repeat(2, axis=1).repeat(2, axis=2)})
    return ("compile", folder / "model.onnx", "--classes", CLASSES, "--calibrate", folder / "data.npz")


def total(run: Run, wide: tuple[object, ...], scheme: str, memory: str) -> int:
    """Bytes that the scheme needs where there is enough."""
    return int(run(*wide, "--scheme", scheme, "-o", f"enough-{scheme}", "--json").json[memory]["total"])


@pytest.mark.parametrize(("memory", "scheme"), [("sram", "full"), ("flash", "full"), ("sram", "head")])
def test_what_does_not_fit_ends_with_3_and_says_by_how_much(
    run: Run, wide: tuple[object, ...], memory: str, scheme: str
) -> None:
    budget = (total(run, wide, scheme, memory) - 1) // 1024
    budget = budget // 2 if memory == "sram" else budget  # a plan finds less where it must
    answer = run(*wide, "--scheme", scheme, f"--{memory}", f"{budget}K", "--input", "resident", "-o", "out", "--json")
    assert (answer.code, answer.out) == (3, "") and "out" not in made(Path())
    found = re.search(r"needs (\d+) bytes of (\w+), (\d+) more than the (\d+) it may use", answer.words)
    assert found, answer.err
    needed, name, missing, available = found.groups()
    assert int(needed) - int(available) == int(missing) > 0 and name.lower() == memory
    assert int(available) == budget * 1024
    enough = re.search(rf"--{memory} (\d+)K", answer.words)
    assert enough and run(*wide, "--scheme", scheme, f"--{memory}", f"{enough[1]}K", "-o", "again").code == 0
    assert int(enough[1]) * 1024 - int(needed) < 1024, "not a page too much"


def test_a_scheme_that_would_fit_is_named_and_does(run: Run, wide: tuple[object, ...]) -> None:
    head, full = (total(run, wide, scheme, "sram") for scheme in ("head", "full"))
    budget = f"{(head + full) // 2048}K"
    answer = run(*wide, "--scheme", "full", "--sram", budget, "-o", "out")
    assert answer.code == 3 and "out" not in made(Path())
    advice = re.search(r"or use (--\S+ \S+), which needs (\d+)", answer.words)
    assert advice, answer.err
    arguments = ("--scheme", "full") if "--scheme" not in advice[1] else ()
    assert run(*wide, *arguments, *advice[1].split(), "--sram", budget, "-o", "out").code == 0
