"""Sweeps: every combination once, resumed where they stopped, chosen by samples that are neither learned nor tested."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import blobs, write_model
from mcugrad.api import Request
from mcugrad.api import train_request as train
from mcugrad.errors import McugradError
from mcugrad.sweep import RESULTS, SUMMARY, Job, Sweep, parse_jobs, read_results, summary, sweep
from mcugrad.trainer import Course
from onnx_models import Net


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("sweep")
    np.savez(folder / "data.npz", **blobs(90))
    return Sweep(Request(write_model(folder / "model.onnx")), folder / "data.npz", Course(epochs=1))


def test_every_combination_is_a_job_once() -> None:
    jobs = parse_jobs("head, bias", "default,1e-3", "0-2,5,5")
    assert len(jobs) == len(set(jobs)) == 2 * 2 * 4
    assert jobs[0] == Job("head", None, 0) and Job("bias", 1e-3, 5) in jobs


@pytest.mark.parametrize(
    ("schemes", "rates", "seeds", "words"),
    [
        ("", "default", "0", "at least one scheme"),
        ("head", "fast", "0", "--lr: 'fast' is not a number"),
        ("head", "99", "0", "--lr must be above 0"),
        ("head", "default", "1-x", "--seeds: 'x' is not a number"),
        ("head", "default", "3-1", "at least one scheme and one seed"),
    ],
)
def test_a_wrong_list_is_refused_with_its_remedy(schemes: str, rates: str, seeds: str, words: str) -> None:
    with pytest.raises(McugradError, match=words):
        parse_jobs(schemes, rates, seeds)


def test_a_sweep_goes_on_where_it_was_interrupted(plan: Sweep, tmp_path: Path) -> None:
    jobs = parse_jobs("head,bias", "0.01", "0-1")
    first = sweep(plan, jobs[:2], tmp_path, workers=1)
    path = tmp_path / RESULTS
    kept = path.read_text()
    path.write_text(kept + '{"key": "cut of')
    whole = sweep(plan, jobs, tmp_path, workers=2)
    assert (first["found_before"], whole["found_before"], whole["runs"]) == (0, 2, 4)
    assert path.read_text().startswith(kept) and len(read_results(path)) == 4
    assert json.loads((tmp_path / SUMMARY).read_text()) == whole
    again = [{k: v for k, v in plan.run(job).items()} for job in jobs[:1]]
    assert again == [r for r in read_results(path) if r["key"] == again[0]["key"]], "a run depends on its seed alone"


def test_another_course_or_file_is_another_run(plan: Sweep, tmp_path: Path) -> None:
    job = Job("head", None, 0)
    keys = {plan.key(job), replace(plan, course=Course(epochs=2)).key(job), plan.key(replace(job, seed=1))}
    scheme = tmp_path / "mine.toml"
    scheme.write_text("biases = 1\n")
    own = replace(job, scheme=str(scheme))
    keys |= {plan.key(own)}
    scheme.write_text("biases = 2  # more\n")
    assert len(keys | {plan.key(own)}) == 5


def test_the_best_is_chosen_by_validation_not_by_the_test_split() -> None:
    metric = "accuracy"

    def run(scheme: str, seed: int, validation: float, test: float) -> dict[str, object]:
        scores = {"validation": validation, "test": test}
        return {"scheme": scheme, "rate": 0.1, "seed": seed, "metric": metric, "scores": scores, "state_bytes": 8}

    rows = summary([run("a", 0, 0.5, 0.9), run("b", 0, 0.6, 0.2), run("b", 1, 0.8, 0.4)])
    assert [r["scheme"] for r in rows] == ["b", "a"]
    assert rows[0]["validation"]["mean"] == pytest.approx(0.7) and rows[0]["test"]["sd"] == pytest.approx(0.2 / 2**0.5)
    assert rows[1]["test"]["sd"] is None


def test_an_error_is_best_where_it_is_smallest() -> None:
    def run(scheme: str, mse: float) -> dict[str, object]:
        return {"scheme": scheme, "rate": 0.1, "metric": "mse", "scores": {"validation": mse, "test": mse}, "state_bytes": 8}

    assert [r["scheme"] for r in summary([run("a", 2.0), run("b", 1.0)])] == ["b", "a"]


@pytest.mark.parametrize(("loss", "metric"), [("sigmoid", "accuracy"), ("mse", "r2")])
def test_a_sweep_learns_numbers_too(plan: Sweep, loss: str, metric: str, tmp_path: Path) -> None:
    data = dict(blobs(90))
    data["y"] = np.eye(3)[data["y"]] if loss == "sigmoid" else data["y"][:, None] * 2.5
    data.pop("classes", None)
    np.savez(tmp_path / "data.npz", **data)
    own = Sweep(replace(plan.request, loss=loss), tmp_path / "data.npz", Course(epochs=8))
    result = sweep(own, parse_jobs("head", "0.02,0.1", "0"), tmp_path / "out", workers=1)
    assert result["best"]["metric"] == metric and result["best"]["test"]["mean"] > 0.3


@pytest.mark.parametrize("labelled", [False, True], ids=["no labels", "anomalies"])
def test_a_sweep_of_an_autoencoder_chooses_the_smaller_error(tmp_path: Path, labelled: bool) -> None:
    """The default rate is in the units of the model's own output, as in a single training."""
    rng, net = np.random.default_rng(0), Net((1, 1, 8, 8))
    hidden = net.op("Relu", net.conv("x", 1, 4, pads=[1, 1, 1, 1]))
    net.save(tmp_path / "m.onnx", net.conv(hidden, 4, 1, pads=[1, 1, 1, 1]))
    x = rng.integers(0, 256, (60, 1, 1, 1)) * np.ones((60, 8, 8, 1))
    y = {"y": (np.arange(60) % 5 == 4).astype(np.int64), "split": (np.arange(60) % 5 > 2).astype(np.uint8)} if labelled else {}
    np.savez(tmp_path / "d.npz", x=x.astype(np.uint8), **y)
    request = Request(str(tmp_path / "m.onnx"), loss="autoencoder")
    plan = Sweep(request, tmp_path / "d.npz", Course(epochs=6))
    with pytest.raises(McugradError, match=r"the scheme 'head' updates nothing of m, .* use bias, full"):
        plan.run(Job("head", None, 0))
    result = sweep(plan, parse_jobs("bias,full", "default", "0"), tmp_path / "out", workers=1)
    errors = [row["validation"]["mean"] for row in result["rows"]]
    assert errors == sorted(errors) and {row["metric"] for row in result["rows"]} == {"mse"}
    alone = train(
        replace(request, scheme=result["best"]["scheme"]), tmp_path / "d.npz", Course(epochs=6), folder=tmp_path / "run"
    )
    assert result["best"]["test"]["mean"] < alone["mse"]["before"]
    assert read_results(tmp_path / "out" / RESULTS)[0]["rate"] < 0.1


def test_validation_samples_are_neither_learned_nor_tested(plan: Sweep) -> None:
    from mcugrad.sweep import _parts, _shared

    prepared, data = _shared(plan.request, plan.data)
    learned, held, test = _parts(prepared, data, 3)
    assert len(learned[1]) + len(held[1]) == len(data.train[1]) and len(test[1]) == len(data.test[1])
    assert set(held[1].tolist()) == set(data.train[1].tolist()), "every class is in the validation part"
    assert not np.array_equal(held[0], _parts(prepared, data, 4)[1][0]), "the split is drawn anew for each seed"


def test_a_foreign_line_in_the_results_is_named(tmp_path: Path) -> None:
    path = tmp_path / RESULTS
    path.write_text("hello\n")
    with pytest.raises(McugradError, match="line 1: not a result"):
        read_results(path)


def test_wrong_input_ends_a_sweep_and_keeps_what_was_found(plan: Sweep, tmp_path: Path) -> None:
    with pytest.raises(McugradError, match="nowhere"):
        sweep(plan, (Job("head", None, 0), Job("nowhere", None, 0)), tmp_path, workers=1)
    assert len(read_results(tmp_path / RESULTS)) == 1


def test_a_ray_cluster_gives_the_same_results(plan: Sweep, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'mcugrad[ray]')")
    jobs = parse_jobs("head", "0.01", "0-1")
    here, there = (sweep(plan, jobs, tmp_path / name, workers=1, ray=ray) for name, ray in (("a", None), ("b", "local")))
    assert here["rows"] == there["rows"]
