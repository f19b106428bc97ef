"""mcugrad plan: what it says agrees with the build, and what does not fit is refused with what would."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from mcugrad import cli
from mcugrad.api import Request, plan_request
from mcugrad.errors import BudgetError
from mcugrad.report.plan import leading_mode
from onnx_models import residual_net

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A small mobile network and images for it."""
    folder = tmp_path_factory.mktemp("plan")
    net, output = residual_net((1, 3, 49, 48))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 49, 48, 3)).astype(np.uint8), np.arange(40) % 5
    np.savez(folder / "data.npz", x=x, y=y, split=(y == 4).astype(np.uint8))
    return net.save(folder / "model.onnx", output), folder / "data.npz"


def request(files: Files, sram: int = 256 << 10) -> Request:
    return Request(files[0], "full", 5, sram=sram, calibrate=files[1])


def arguments(files: Files, sram: object, folder: Path) -> list[str]:
    options = ["--scheme", "full", "--classes", 5, "--calibrate", files[1], "--sram", sram, "-o", folder]
    return ["mcugrad", "plan", *map(str, (files[0], *options))]


def test_the_planned_arena_and_parameters_are_those_of_the_linked_firmware(files: Files, tmp_path: Path) -> None:
    planned = plan_request(request(files), tmp_path / "plan")
    built = plan_request(request(files), tmp_path / "build", confirm=True)
    for part in ("arena", "parameters"):
        assert planned["sram"][part] == built["sram"][part]
    assert built["sram"]["total"] <= planned["sram"]["total"]
    assert (tmp_path / "build" / "firmware" / "model.c").exists()


def test_files_of_a_plan_and_of_a_front(files: Files, tmp_path: Path) -> None:
    result = plan_request(request(files), tmp_path / "plan", front=True)
    folder = tmp_path / "plan"
    assert json.loads((folder / "plan.json").read_text())["sram"] == result["sram"]
    assert json.loads((folder / "pareto.json").read_text()) == result["pareto"]
    for picture in ("memory.png", "pareto.png"):
        assert imread(folder / picture)[..., :3].min() < 0.5
    sram, cost = ([p[k] for p in result["pareto"]] for k in ("sram", "instructions"))
    assert sram == sorted(sram, reverse=True)
    assert cost == sorted(cost)
    assert leading_mode(result["pareto"][0]) == "layerwise"
    assert len(sram) > 1


def test_a_plan_that_does_not_fit_says_by_how_much_and_what_would_and_leaves_nothing(files: Files, tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as failure:
        plan_request(request(files, 8 << 10), tmp_path / "plan")
    words = str(failure.value)
    needed = int(re.findall(r"about ([\d,]+) bytes", words)[0].replace(",", ""))
    assert f"{needed - (8 << 10):,} more" in words
    assert not (tmp_path / "plan").exists()
    kib = int(re.findall(r"--sram (\d+)K", words)[0])
    assert plan_request(request(files, kib << 10), tmp_path / "plan")["sram"]["total"] <= kib << 10


@pytest.mark.parametrize(("sram", "code"), [("64K", 0), ("8K", 3)])
def test_the_command_prints_json_or_ends_with_the_code_of_a_missed_budget(
    files: Files,
    sram: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", [*arguments(files, sram, tmp_path / "out"), "--json"])
    try:
        cli.main()
        ended = 0
    except SystemExit as end:
        ended = int(end.code or 0)
    assert ended == code
    out = capsys.readouterr().out
    assert (json.loads(out)["sram"]["total"] <= 64 << 10) if code == 0 else not out


def test_the_printed_plan_names_the_modes_of_its_blocks(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    smallest = plan_request(request(files), tmp_path / "front", front=True)["pareto"][-1]["sram"]
    monkeypatch.setattr(sys, "argv", arguments(files, f"{-(-smallest // 1024)}K", tmp_path / "out"))
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    words = " ".join(capsys.readouterr().out.split())
    assert "recompute" in words
    assert "alive at the peak" in words
