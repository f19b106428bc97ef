"""The cost model: factors for every core, and steps predicted near what they take."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
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
    truth = [1.5, 20.0, 0.0, 3.0, 700.0, 90.0, 2.0, 5.0, 1.0]
    rng = np.random.default_rng(7)
    shapes = [tuple(map(int, rng.integers(0, 2000, 4) * (50, 1, 1, 1))) for _ in range(16)]
    whole = [(*s, i % 2, i % 5, s[3] * (i % 5), *((s[1], s[3]) if i % 3 else (0, 0))) for i, s in enumerate(shapes)]
    calls = [fitting.Call("k", "k:a", s, round(sum(a * b for a, b in zip(truth, s, strict=True)))) for s in whole]
    table = fitting.fit(calls)
    assert table["k"] == table["k:a"] == pytest.approx(truth, rel=0.01, abs=0.5)
    assert fitting.errors(calls, table)["k"][2] < 0.01


def test_a_kind_is_fitted_apart_where_there_are_enough_calls_of_it() -> None:
    def call(name: str, macs: int, each: int) -> fitting.Call:
        return fitting.Call("k", name, (macs, *[0] * 8), each * macs)

    calls = [call("k:dear", 1000 * i, 6) for i in range(1, 9)] + [call("k:cheap", 1000 * i, 2) for i in range(1, 9)]
    table = fitting.fit([*calls, call("k:rare", 1000, 90)])
    assert table["k:dear"][0] == 6 and table["k:cheap"][0] == 2 and "k:rare" not in table
    assert 2 < table["k"][0] < 6
    assert fitting.predicted(call("k:rare", 1000, 90), table) == 1000 * table["k"][0]


def test_kinds_and_parts_of_a_weight_are_told_from_the_node(tmp_path: Path) -> None:
    build = compiled(Setting(DIGITS, "demo", 64, "resident"), tmp_path / "model")
    kinds = {costs.kind(n) for n in build.program.graph.nodes}
    assert {"", "3x3", "3x3 strided", "4 bits"} <= kinds
    live = [n for n in build.program.graph.nodes if len(n.inputs) > 3 and n.inputs[3].name.endswith("_rest")]
    assert live and all(costs.counts(n)[8] == n.inputs[1].type.elements + n.inputs[3].type.elements for n in live)
    assert all(
        costs.counts(n)[8] == 0 for n in build.program.graph.nodes if not any(v.name.endswith("_rest") for v in n.inputs)
    )


def test_a_kind_without_factors_has_those_of_its_kernel() -> None:
    assert costs.factor("cortex-m7", "mcg_depthwise", "9x9") == costs.factor("cortex-m7", "mcg_depthwise")
    assert costs.factor("cortex-m7", "mcg_depthwise", "3x3") != costs.factor("cortex-m7", "mcg_depthwise")
    assert costs.factor("cortex-m7", "mcg_of_tomorrow") == costs.OTHER
