"""The least that is alive at once: the search that measures few blocks finds what measuring all of them does."""

from __future__ import annotations

import pytest

from graphs import random_training
from mcugrad.costs import Costs
from mcugrad.ir import Graph
from mcugrad.memory.floor import drafts, least_peak, smallest_peak
from mcugrad.memory.forward import Forward, can_pull
from mcugrad.memory.schedule import Segment
from mcugrad.passes import TRAIN, run
from mobile import mobile


def floors(graph: Graph) -> dict[bool, int]:
    return {rows: Forward(graph, rows, Costs()).floor() for rows in {False, can_pull(graph)}}


@pytest.mark.parametrize("graph", [mobile(), *(run(random_training(s)[1], TRAIN) for s in range(12))], ids=lambda g: "")
def test_the_search_finds_the_floor_of_all_blocks(graph: Graph) -> None:
    measured = floors(graph)
    assert {rows: smallest_peak(graph, input_rows=rows) for rows in measured} == measured
    assert smallest_peak(graph, input_rows=None) == min(measured.values())


def test_the_search_measures_few_blocks() -> None:
    graph, count = mobile(), 0
    forward = Forward(graph, True, Costs())
    found = forward.row_peak

    def counted(segment: Segment, pull: bool) -> object:
        nonlocal count
        count += 1
        return found(segment, pull)

    forward.row_peak = counted  # type: ignore[method-assign, assignment]
    least_peak(forward, drafts(forward))
    assert 0 < count < 0.6 * len(list(forward.row_cuts()))
