"""Searching the network of the demo: short trainings, the command, its margins, what it writes and what it refuses."""

from __future__ import annotations

import itertools
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mcugrad
from mcugrad import cli
from mcugrad.data import Calibration, calibration_samples
from mcugrad.digits import digits
from mcugrad.errors import BudgetError, McugradError
from mcugrad.importers import load
from mcugrad.memory import modes
from mcugrad.prepare import prepare
from mcugrad.search.command import SOLVERS, search_request
from mcugrad.search.contribution import Trials, contribution
from mcugrad.search.importance import importance
from mcugrad.search.run import ROUNDS, _Margin
from mcugrad.search.solve import Cost
from mcugrad.targets import get_target
from mcugrad.training.scheme import layers, read_scheme, resolve
from onnx_models import Net

ASSET = Path(mcugrad.__file__).parent / "assets" / "digits.onnx"
TARGET = get_target("cortex-m7")
SRAM = 12 << 10


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = digits("changed", 0)
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    np.savez(path, x=found.x, y=found.y, split=found.split)
    return path


def test_short_trainings_find_what_helps(data: Path) -> None:
    net = prepare(load(ASSET), classes=10, calibration=calibration_samples(data, 32, (16, 16, 1)))
    x, y = digits("changed", 0).train
    told: list[int] = []
    gains = contribution(Trials.of(net, x, y, 0), 7, 9, lambda _what, done, _total: told.append(done))
    assert told == list(range(8)), "two depths, five weights"
    assert set(gains.weight) == set(gains.bias) == set(layers(net.graph))
    measured = {name for name, gain in gains.weight.items() if any(gain.values())}
    assert measured and measured <= set(list(layers(net.graph))[-5:])
    assert min(gains.bias.values()) >= 0 and sum(gains.bias.values()) > 0
    best = gains.weight[min(measured)]
    assert len(best) == 1 or best[0.25] == pytest.approx(best[1.0] / 2)


# The command


def request(**changes: Any) -> mcugrad.Request:
    return mcugrad.Request(**{"model": ASSET, "classes": 10, "sram": SRAM, "flash": 256 << 10, **changes})


@pytest.fixture(scope="module")
def found(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("search") / "out"
    return search_request(request(), data, instructions=1_500_000, folder=folder), folder


def test_the_scheme_it_writes_compiles_within_the_budget(
    found: tuple[dict[str, Any], Path], data: Path, tmp_path: Path
) -> None:
    result, folder = found
    scheme = read_scheme(folder / "scheme.toml")
    chosen = result["chosen"]
    assert scheme.centred and scheme.biases == chosen["biases"] > 0 and set(scheme.weights) == set(chosen["weights"]) != set()
    compiled = mcugrad.compile(request(scheme=str(folder / "scheme.toml"), calibrate=data), tmp_path / "out")
    assert resolve(scheme, compiled.prepared.graph).weights
    facts = compiled.facts()
    assert facts["sram"]["total"] <= SRAM and facts["flash"]["total"] <= 256 << 10
    assert facts["sram"]["parameters"] == chosen["parameters"]
    assert chosen["sram"] <= SRAM and chosen["instructions"] <= 1_500_000


@pytest.mark.parametrize("more", [0, 1, 3])
def test_near_the_limit_it_asks_for_few_plans(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    """What a search costs is its plans: so many rounds of so many probes, besides the head's, and never the smallest of all."""
    counts: Counter[str] = Counter()
    placed, solved = modes._place, SOLVERS["fisher"]
    monkeypatch.setattr(modes, "_place", lambda *a, **k: [counts.update(["plans"]), placed(*a, **k)][1])
    monkeypatch.setitem(SOLVERS, "fisher", lambda *a: [counts.update(["solved"]), solved(*a)][1])
    monkeypatch.setattr(modes.Planner, "smallest", property(lambda _: pytest.fail("looks for the smallest plan of all")))
    sram = SRAM + (more << 10)
    result = search_request(request(sram=sram), data, folder=tmp_path / "out")
    assert result["chosen"]["sram"] <= sram and result["chosen"]["weights"]
    assert counts["plans"] <= 4 * modes.PROBES * (ROUNDS + 1) and counts["solved"] <= ROUNDS


def plans_of(limit: int, gap: int) -> tuple[list[int], int | None]:
    """What margins a search takes where each choice uses all it may and needs `gap` more: SRAM of each round, and the last
    that fits."""
    margin, tried, fitting = _Margin(), [], None
    for _ in range(ROUNDS):
        predicted = limit - margin.taken.sram
        fits = predicted + gap <= limit
        tried.append(predicted)
        fitting = predicted if fits else fitting
        following = margin.after(Cost(gap, 0, 0), fits)
        if following is None:
            break
        margin = following
    return tried, fitting


@pytest.mark.parametrize("gap", [-3000, -1, 0, 1, 500, 9000])
def test_what_was_missed_is_left_free(gap: int) -> None:
    tried, fitting = plans_of(100_000, gap)
    assert fitting is not None and fitting >= 100_000 - max(gap, 0) * 1.01
    assert len(tried) <= ROUNDS


def test_the_margin_at_least_doubles_until_a_choice_fits() -> None:
    margin, taken = _Margin(), []
    for missed in (100, 150, 260):
        margin = margin.after(Cost(missed, 0, 0), fits=False)
        taken.append(margin.taken.sram)
    assert taken == [100, 200, 400]
    assert margin.after(Cost(40, 0, 0), fits=True).taken.sram == (400 + 200) // 2, "half way back to what was refused"


def test_it_tells_for_each_layer_why(found: tuple[dict[str, Any], Path]) -> None:
    result, _ = found
    for row in result["layers"]:
        assert row["reason"].startswith("in: " if row["ratio"] else "out: ")
        assert bool(row["ratio"]) == (row["name"] in result["chosen"]["weights"])
    assert any("displace" in row["reason"] for row in result["layers"])
    assert all("lose -" not in row["reason"] for row in result["layers"])


def test_the_front_rises_and_everything_is_written(found: tuple[dict[str, Any], Path]) -> None:
    result, folder = found
    points = result["pareto"]
    assert len(points) > 3
    for a, b in itertools.pairwise(points):
        assert a["sram"] < b["sram"] and a["gain"] < b["gain"]
    assert json.loads((folder / "pareto.json").read_text()) == points
    assert (folder / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert {**json.loads((folder / "search.json").read_text())} == result
    assert (folder / "scheme.toml").read_text().startswith("# Found by mcugrad search")


def test_the_same_seed_finds_the_same(found: tuple[dict[str, Any], Path], data: Path, tmp_path: Path) -> None:
    first, folder = found
    again = search_request(request(), data, instructions=1_500_000, folder=tmp_path / "again")
    assert (tmp_path / "again" / "scheme.toml").read_text() == (folder / "scheme.toml").read_text()
    assert {k: v for k, v in again.items() if k not in ("seconds", "folder")} == {
        k: v for k, v in first.items() if k not in ("seconds", "folder")
    }


def test_evolution_searches_the_same_choices(data: Path, tmp_path: Path) -> None:
    common = {"method": "evolution", "trials": 6}
    result = search_request(request(), data, folder=tmp_path / "out", **common)
    assert result["method"] == "evolution" and result["chosen"]["sram"] <= SRAM
    assert read_scheme(tmp_path / "out" / "scheme.toml").biases == result["chosen"]["biases"]


def test_a_budget_below_the_head_says_by_how_much(data: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"even the head alone does not fit.*\d+ more than the 3072.*--sram \d+K") as error:
        search_request(request(sram=3 << 10), data, folder=tmp_path / "out")
    assert error.value.needed > 3 << 10
    with pytest.raises(BudgetError, match=r"more than the 1000 allowed"):
        search_request(request(), data, instructions=1000, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_are_asked_for(data: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "bare.npz", x=np.load(data)["x"][:40])
    with pytest.raises(McugradError, match="has no labels"):
        search_request(request(), tmp_path / "bare.npz", folder=tmp_path / "out")
    with pytest.raises(McugradError, match="unknown method 'luck'"):
        search_request(request(), data, method="luck", folder=tmp_path / "out")


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two convolutions that are to give the image back, and images."""
    folder, rng = tmp_path_factory.mktemp("autoencoder"), np.random.default_rng(0)
    net = Net((1, 1, 8, 8))
    hidden = net.op("Relu", net.conv("x", 1, 4, pads=[1, 1, 1, 1]))
    net.save(folder / "m.onnx", net.conv(hidden, 4, 1, pads=[1, 1, 1, 1]))
    x = rng.integers(0, 256, (60, 1, 1, 1)) * np.ones((60, 8, 8, 1))
    np.savez(folder / "d.npz", x=x.astype(np.uint8), y=np.arange(60) // 48, split=np.arange(60) // 40)
    return folder / "m.onnx", folder / "d.npz"


@pytest.mark.parametrize("method", ["fisher", "contribution"])
def test_a_model_that_restores_its_input_is_searched_by_its_own_loss(
    autoencoder: tuple[Path, Path], tmp_path: Path, method: str
) -> None:
    model, data = autoencoder
    asked = mcugrad.Request(model, sram=24 << 10, loss="autoencoder")
    result = search_request(asked, data, method=method, trials=5, folder=tmp_path / "out")
    chosen = result["chosen"]
    assert chosen["biases"] >= 1 and chosen["sram"] <= 24 << 10
    learned = mcugrad.Request(model, scheme=str(tmp_path / "out" / "scheme.toml"), loss="autoencoder", sram=24 << 10)
    losses = mcugrad.train(learned, data, mcugrad.Course(epochs=6), folder=tmp_path / "run")["losses"]
    assert np.mean(losses[-30:]) < np.mean(losses[:30])


def test_the_gains_are_those_of_the_loss(data: Path) -> None:
    """A sigmoid of one label has other gradients than a softmax of two classes."""
    x = np.load(data)["x"]
    y = (x.mean(axis=(1, 2, 3)) > x.mean()).astype(np.int64)
    gains = []
    for loss, labels in (("softmax", y), ("sigmoid", y[:, None])):
        found = mcugrad.Request(ASSET, loss=loss).prepared(
            load(ASSET), 2 if loss == "softmax" else 1, Calibration(x, labels, "x")
        )
        gains.append(importance(found, samples=8).bias)
    assert gains[0].keys() == gains[1].keys() and gains[0] != gains[1]


def command(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: object) -> int:
    """Exit code of `mcugrad search` on the digits network."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["mcugrad", "search", str(ASSET), *map(str, arguments), "-o", str(folder)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_the_command_prints_json_or_tables_and_its_exit_codes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("--data", data, "--classes", 10, "--instructions", "900k")
    assert command(monkeypatch, tmp_path / "a", *common, "--sram", "8K", "--residual-bits", 4, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["budget"] == {"sram": 8192, "flash": TARGET.flash, "instructions": 900_000}
    assert {w["residual_bits"] for w in result["chosen"]["weights"].values()} == {4}
    assert command(monkeypatch, tmp_path / "b", *common, "--sram", "8K") == 0
    assert "predicted gain" in capsys.readouterr().out
    assert command(monkeypatch, tmp_path / "c", *common, "--sram", "3K") == 3
    assert "even the head alone" in capsys.readouterr().err
    assert command(monkeypatch, tmp_path / "d", "--data", tmp_path / "nothing", "--classes", 10) == 1
    assert command(monkeypatch, tmp_path / "e", "--classes", 10) == 2
