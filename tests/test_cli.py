"""The commands as a user meets them: what they report, and what they say to a wrong command line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
from PIL import Image

import mcugrad
from command_line import CLASSES, Run, made
from mcugrad import cli
from mcugrad.compiler import DEVICES, Compiled
from mcugrad.fit import INPUT_MODES
from mcugrad.folder import MANIFEST
from mcugrad.trainer import SATURATED, SCHEDULES, Learned, report

VERBS = ("check", "plan", "compile", "train", "demo", "inspect", "sweep")


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
