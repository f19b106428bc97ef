"""The demo, as a user runs it: the story holds, the figures are there, the firmware stays small."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from mcugrad.demo import BUDGET
from mcugrad.devices.elf import read_elf
from mcugrad.report.demo import print_demo

LONGEST = 180  # seconds, on a machine that does other things too; 30 alone


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-c", "from mcugrad.cli import main; main()", "demo", "--json", "-o", str(folder / "run")]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - start < LONGEST
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_the_sparse_update_beats_the_head_alone_by_three_points(result: dict[str, Any]) -> None:
    accuracy = result["accuracy"]
    assert accuracy["original_sensor"] > 0.95, "the network is good on what it was trained for"
    assert accuracy["changed_sensor"] < accuracy["original_sensor"] - 0.3, "and fails on what the changed sensor sees"
    assert accuracy["sparse"] - accuracy["head_only"] >= 0.03
    assert accuracy["float_full"] > accuracy["sparse"] - 0.02, "the ceiling is no floor"
    assert accuracy["shuffled_labels"] < 0.25, "nothing is learned where there is nothing to learn"
    assert (accuracy["before"], accuracy["after"]) == (accuracy["changed_sensor"], accuracy["sparse"])


def test_host_and_mcu_learned_the_same_parameters(result: dict[str, Any]) -> None:
    hashes = result["hashes"]
    assert hashes["equal"] is True and hashes["mcu"] == hashes["host"] == result["parameters_sha256"]


def test_the_figures_are_those_of_compile_and_train(result: dict[str, Any]) -> None:
    assert {"macs", "sram", "flash", "plan", "elf", "header"} <= set(result)
    assert {"accuracy", "losses", "instructions", "parameters_sha256", "samples_per_second"} <= set(result)
    steps, instructions, sram = result["steps"], result["instructions"], result["sram"]
    assert len(result["losses"]) == steps["total"] > steps["full"] > steps["total"] // 2
    assert 0 < instructions["forward"] < instructions["step_mean"] <= instructions["step"] < 5_000_000
    elf = read_elf(Path(result["elf"]))
    assert sram["total"] == sram["static"] + sram["stack"] == elf.sram_total
    assert sram["total"] <= (BUDGET.sram or 0) and result["flash"]["total"] <= (BUDGET.flash or 0)


def test_the_pictures_and_the_report_are_in_the_folder(result: dict[str, Any]) -> None:
    folder = Path(result["folder"])
    for name in ("learning.png", "memory.png"):
        with Image.open(folder / name) as picture:
            assert min(picture.size) > 300 and len(picture.convert("RGB").getcolors(1 << 24) or []) > 16
    report = json.loads((folder / "report.json").read_text())
    assert report["hashes"] == result["hashes"] and not Path(report["elf"]).is_absolute()
    assert {p.name for p in folder.parent.iterdir()} == {"run"}, "nothing temporary is left"


def test_people_read_the_same_numbers(result: dict[str, Any]) -> None:
    with Console(record=True, width=100, file=None, quiet=False) as console:
        print_demo(result, console)
    text = console.export_text()
    assert f"{result['accuracy']['sparse']:.1%}" in text and f"{result['sram']['total']:,} bytes" in text
    assert "learned parameters on host and MCU: equal" in text
