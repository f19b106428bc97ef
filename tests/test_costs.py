"""The cost model: factors for every core, and steps predicted near what they take."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import costs as fitting
from benchmarks.calls import traced
from benchmarks.models import DIGITS, IN_QEMU, TARGETS, Setting, compiled

from mcugrad import costs
from mcugrad.search.cost import scheduled_instructions
from mcugrad.targets import get_target, known_targets


@pytest.mark.parametrize("core", sorted({get_target(name).core for name in known_targets()}))
def test_every_core_has_factors_and_none_is_negative(core: str) -> None:
    table = costs.factors(core)
    assert {"mcg_conv2d", "mcg_depthwise", "mcg_conv2d_input_grad", "mcg_conv2d_update", "mcg_depthwise_update"} <= set(table)
    assert all(number >= 0 for factor in table.values() for number in vars(factor).values())


def test_measured_cores_have_their_own_factors_and_others_borrow() -> None:
    tables = [costs.factors(core)["mcg_conv2d"] for core in ("cortex-m7", "cortex-m55", "cortex-m0plus")]
    assert len(set(tables)) == 3 and tables[1].mac < tables[0].mac < tables[2].mac
    assert costs.factors("cortex-m33") is not None and costs.factors("cortex-m33")["mcg_conv2d"] == tables[0]
    assert costs.factors("a core of tomorrow")["mcg_conv2d"] == tables[2]
    assert set((*TARGETS, *IN_QEMU)) <= set(known_targets())


def test_a_step_is_predicted_within_a_sixth(tmp_path: Path) -> None:
    build = compiled(Setting(DIGITS, "demo", 64, "resident"), tmp_path / "model")
    with traced(build) as trace:
        while trace.step(build.prepared.x[0], int(build.prepared.y[0])).progress:
            pass
        measured = trace.counters.total
    assert scheduled_instructions(build.program, get_target("cortex-m7")) == pytest.approx(measured, rel=1 / 6)


def test_more_calls_cost_more(tmp_path: Path) -> None:
    build = compiled(Setting(DIGITS, "head", 64, "resident"), tmp_path / "model")
    node = next(n for n in build.program.graph.nodes if (k := n.op.kernel(n)) and k.function == "mcg_conv2d")
    target = get_target("cortex-m7")
    assert costs.instructions(node, target, 9) >= costs.instructions(node, target, 1) > node.op.work(node).macs / 2
    assert costs.instructions(node, replace(target, core="cortex-m0plus")) > costs.instructions(node, target)


def test_the_fit_finds_the_factors_that_made_the_counts() -> None:
    truth = [1.5, 20.0, 0.0, 3.0, 700.0, 90.0]
    shapes = [(1000, 10, 40, 9, 1, 0), (5000, 300, 20, 80, 1, 9), (300, 40, 900, 7, 1, 1), (90_000, 800, 70, 5, 1, 2)]
    shapes += [(700, 5, 5, 1, 0, 1), (4000, 90, 3000, 600, 0, 20), (60, 900, 10, 10, 1, 0), (200, 30, 8, 40, 0, 4)]
    calls = [fitting.Call("k", s, round(sum(a * b for a, b in zip(truth, s, strict=True)))) for s in shapes]
    assert fitting.fit(calls)["k"] == pytest.approx(truth, rel=0.01, abs=0.5)
    assert fitting.errors(calls, fitting.fit(calls))["k"][2] < 0.01
