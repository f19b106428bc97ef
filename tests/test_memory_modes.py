"""The choice of modes under a cap of SRAM, and the picture of the result."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import pytest
from matplotlib.image import imread

from graphs import random_training
from mcugrad.costs import Costs, counts, factor, kind
from mcugrad.errors import BudgetError
from mcugrad.memory import modes, problem
from mcugrad.memory.certificate import live
from mcugrad.memory.forward import Forward
from mcugrad.memory.live import Lives
from mcugrad.memory.modes import Mode, Planner, plan
from mcugrad.memory.problem import Problem
from mcugrad.memory.schedule import Step, layerwise
from mcugrad.memory.solve import MemoryPlan, solve
from mcugrad.passes import TRAIN, run
from mcugrad.report.memory_map import draw_memory_map
from mobile import mobile, training


def test_layerwise_when_it_fits_and_streaming_far_below_it_when_not() -> None:
    graph = mobile()
    layer = plan(graph)
    assert not layer.blocks
    assert layer.arena == 163_840 + layer.scheduled.plan.certificate.alive[-1][1]
    streamed = plan(graph, sram_for_arena=90_000)
    assert streamed.arena <= 90_000
    assert streamed.blocks
    assert all(b.mode is Mode.ROWS for b in streamed.blocks)
    small = plan(graph, sram_for_arena=50_000, input_rows=None)
    assert small.input_rows
    assert small.arena <= 50_000


def test_a_budget_that_cannot_be_met_says_by_how_much_and_what_would_do() -> None:
    with pytest.raises(BudgetError) as failure:
        plan(mobile(), sram_for_arena=20_000)
    words = str(failure.value)
    needed = int(re.findall(r"the arena needs (\d+)", words)[0])
    assert f"{needed - 20_000} more than the 20000 bytes left for it" in words
    assert "--input rows" in words
    assert plan(mobile(), sram_for_arena=needed).arena <= needed


@pytest.mark.parametrize("seed", [0, 3, 5])
def test_what_is_needed_does_not_depend_on_what_was_asked_for_and_is_enough(seed: int) -> None:
    graph = run(random_training(seed)[1], TRAIN)
    found = set()
    for cap in (1, 100, 400):
        with pytest.raises(BudgetError) as failure:
            plan(graph, sram_for_arena=cap, input_rows=None)
        found.add(failure.value.needed)
    (needed,) = found
    assert plan(graph, sram_for_arena=needed, input_rows=None).arena <= needed
    with pytest.raises(BudgetError) as failure:
        plan(graph, sram_for_arena=plan(graph, sram_for_arena=needed, input_rows=None).arena // 2, input_rows=None)
    assert failure.value.needed == needed


def test_the_arena_must_fit_the_cap_not_only_the_live_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    def wasteful(problem: Problem, **options: object) -> MemoryPlan:
        found = solve(problem, **options)  # type: ignore[arg-type]
        return replace(found, arena=found.arena + 40_000)

    monkeypatch.setattr(modes, "solve", wasteful)
    graph = mobile()
    planned = plan(graph, sram_for_arena=plan(graph).arena - 1)
    assert planned.blocks
    with pytest.raises(BudgetError):
        plan(graph, sram_for_arena=60_000)


def test_the_picture_shows_every_program(tmp_path: object) -> None:
    planned = plan(mobile(), sram_for_arena=60_000, input_rows=True)
    path = draw_memory_map(planned.scheduled, tmp_path / "memory.png", "mobile")  # type: ignore[operator]
    pixels = imread(path)[..., :3]
    assert pixels.shape[0] > 600
    assert pixels.shape[1] > 1200
    assert 0.1 < (pixels.min(axis=2) < 0.9).mean() < 0.9


def test_the_peak_of_a_node_counts_what_is_computed_in_place_once() -> None:
    graph = mobile()
    schedule = layerwise(graph)
    apart, merged = (live(problem.build(graph, schedule, in_place=merge)) for merge in (False, True))
    at = int((apart - merged).argmax())
    assert merged[at] < apart[at]
    lives = Lives(graph)
    passing = lives.passing(at, at + 1, lives.touched(graph.nodes[at : at + 1]))
    assert lives.peak(at, at + 1, schedule[at : at + 1], {}) + passing == merged[at]


def test_rows_cost_what_the_cost_model_says_of_their_further_calls() -> None:
    graph = mobile()
    planned = plan(graph, sram_for_arena=90_000)
    calls = Counter(s.node for s in planned.scheduled.schedule if isinstance(s, Step))
    kernels = {n: k for n in calls if (k := n.op.kernel(n)) is not None}
    known = {n: factor("cortex-m7", k.function, kind(n)) for n, k in kernels.items()}
    expected = sum((f.more + f.again * counts(n)[3]) * (calls[n] - 1) for n, f in known.items())
    assert expected > 0
    assert sum(b.extra for b in planned.blocks) == pytest.approx(expected, abs=len(planned.blocks))


def test_the_fewest_instructions_of_both_passes_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def way(backward: int, *forward: int) -> tuple[SimpleNamespace, SimpleNamespace]:
        cuts = [(SimpleNamespace(extra=extra),) for extra in forward]
        return SimpleNamespace(instructions=backward), SimpleNamespace(cuts=lambda cap: cuts)

    monkeypatch.setattr(Planner, "_fitting", lambda *_: iter([way(10, 100), way(20, 5, 85), way(30, 70)]))
    monkeypatch.setattr(Planner, "_placed", lambda _, choice, forward, blocks, rows: choice.instructions + blocks[0].extra)
    assert list(Planner(mobile())._under(1 << 20, False)) == [25, 100, 105, 110]


def test_rounds_of_rows_take_fewer_calls_and_no_less_memory() -> None:
    forward = Forward(mobile(), False, Costs())
    rounds = [b for b in forward.blocks if b.rounds]
    assert {b.rounds for b in rounds} > {1, 2}
    for block in rounds:
        (plain,) = [b for b in forward.blocks if (b.start, b.stop, b.mode, b.rounds) == (block.start, block.stop, Mode.ROWS, 0)]
        assert block.peak >= plain.peak and block.steps <= plain.steps and block.extra < plain.extra


def test_cuts_end_with_one_that_computes_each_row_as_late_as_possible() -> None:
    forward = Forward(mobile(), False, Costs())
    cap = (forward.floor() + max(b.peak for b in forward.blocks)) // 2
    cuts = forward.cuts(cap)
    assert any(b.rounds for b in cuts[0]) and not any(b.rounds for b in cuts[-1])
    extra = [sum(b.extra for b in cut) for cut in cuts[1:]]
    assert extra == sorted(extra)


def test_caps_go_down_faster_where_plans_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    goals: list[int] = []

    def under(_: Planner, cap: int, rows: bool) -> Iterator[SimpleNamespace]:
        goals.append(cap)
        return iter([SimpleNamespace(arena=10_004)] * (cap > 5000))

    monkeypatch.setattr(Planner, "_under", under)
    tried = list(Planner(training())._with_reruns(10_000, False))
    steps = [a - b for a, b in pairwise(goals)]
    assert len(tried) == len(goals) - 1 < 15 and all(b >= 2 * a for a, b in pairwise(steps))


def test_a_plan_is_placed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    placed: list[int] = []
    solved = modes.solve
    monkeypatch.setattr(modes, "solve", lambda *a, **k: placed.append(1) or solved(*a, **k))
    planner = Planner(training(size=32, everything=True))
    first, again = (next(planner._under(30_000, False)) for _ in range(2))
    assert first is again and len(placed) == 1
