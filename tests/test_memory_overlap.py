"""Buffers that overlap while both are alive: distances by hand, placement by brute force, and planted mistakes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcugrad.ir import Graph, TensorType, Value, Walk, interpret
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.certificate import live_bytes, live_peak
from mcugrad.memory.overlap import Overlap, common_bytes, least_distance
from mcugrad.memory.problem import build
from mcugrad.memory.schedule import Schedule, layerwise, streamed
from mcugrad.memory.solve import MemoryPlan, cp_sat, peak, place, solve
from mcugrad.memory.validate import PlanError
from mobile import Net, check, execute


@pytest.mark.parametrize(
    ("pieces", "distance"),
    [
        ([(0, 9, 0, 9)], None),  # all is read before anything is written
        ([(0, 4, 0, 2), (4, 8, 2, 4)], -2),  # half as many bytes
        ([(0, 4, 0, 4), (4, 8, 4, 8)], 0),  # byte for byte
        ([(0, 2, 0, 4), (2, 4, 4, 8), (4, 6, 8, 12)], 4),  # twice as many
        ([(0, 4, 0, 2), (0, 8, 2, 4)], 2),  # the second piece reads again from the start
    ],
)
def test_the_least_distance_keeps_writing_behind_reading(pieces: list[tuple[int, ...]], distance: int | None) -> None:
    assert least_distance(Walk(0, 0, np.array(pieces))) == distance


def test_common_bytes_by_hand() -> None:
    assert common_bytes(100, 40, 0) == common_bytes(100, 40, -60) == common_bytes(100, 40, None) == 40
    assert common_bytes(100, 40, 12) == 28
    assert common_bytes(40, 100, 70) == 30
    assert common_bytes(40, 100, 60) == common_bytes(40, 100, 8) == 40
    assert common_bytes(40, 100, 100) == 0


def block() -> tuple[Graph, Value, Value]:
    """A residual block on 12 rows of 48 bytes; its input and its sum."""
    net = Net(12, 3)
    x = net.conv(net.x, 4, 3)
    y = net.block(x, 8, 4)
    return net.graph(net.conv(y, 4)), x, y


def named(plan: MemoryPlan, before: Value, after: Value) -> Overlap:
    at = {v: i for i, (b, _) in enumerate(plan.placed) for v in b.values}
    return next(o for o in plan.overlaps if (o.before, o.after) == (at[before], at[after]))


def test_a_streamed_block_writes_its_sum_one_row_behind_its_input() -> None:
    graph, x, y = block()
    schedule = streamed(graph, 1, 5)
    plan = solve(build(graph, schedule))
    assert named(plan, x, y).distance == x.type.row_bytes == 48  # the sum of a row still reads that row
    assert plan.offsets[y] == plan.offsets[x] - 48
    check(graph, schedule, plan)
    image = np.random.default_rng(0).integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8)
    expected = interpret(graph, {"image": image})
    for name, array in execute(graph, schedule, plan, image).items():
        assert np.array_equal(array, expected.values[name])


def test_a_row_nearer_is_refused_by_the_validator() -> None:
    graph, x, y = block()
    schedule = streamed(graph, 1, 5)
    plan = solve(build(graph, schedule))
    rest = {v: o + plan.arena for v, o in plan.offsets.items() if v not in (x, y)}
    for distance, words in ((48, None), (47, "add.* overwrites conv0"), (4, "add.* overwrites conv0"), (-48, "reads row")):
        moved = {**rest, x: 96, y: 96 - distance}
        scratch = {n: o + plan.arena for n, o in plan.scratch.items()}
        if words is None:
            check(graph, schedule, plan, offsets=moved, scratch=scratch, arena=2 * plan.arena)
        else:
            with pytest.raises(PlanError, match=words):
                check(graph, schedule, plan, offsets=moved, scratch=scratch, arena=2 * plan.arena)


def wide_to_narrow() -> tuple[Graph, Schedule, Value, Value]:
    """A 1x1 convolution of 16 pixels from 12 to 8 channels."""
    net = Net(4, 12)
    y = net.conv(net.x, 8)
    graph = net.graph(net.conv(y, 8, 3))
    return graph, layerwise(graph), net.x, y


def test_a_contraction_slides_into_its_input_and_a_byte_too_high_is_refused() -> None:
    graph, schedule, x, y = wide_to_narrow()
    plan = solve(build(graph, schedule))
    # after 15 pixels of 8 bytes the last strip may read pixel 10 again: 15 * 8 - 10 * 12 = 0
    assert named(plan, x, y).distance == 0
    check(graph, schedule, plan)
    rest = {v: o + plan.arena for v, o in plan.offsets.items() if v not in (x, y)}
    scratch = {n: o + plan.arena for n, o in plan.scratch.items()}
    for higher in (1, 4, 100):
        moved = {**rest, x: 8, y: 8 + higher}
        with pytest.raises(PlanError, match=r"conv0 overwrites image \(operand 0\) while conv2d still reads it"):
            check(graph, schedule, plan, offsets=moved, scratch=scratch, arena=2 * plan.arena)


def test_an_input_with_a_later_reader_is_not_overwritten() -> None:
    net = Net(4, 12)
    x = net.conv(net.x, 12)
    y = net.conv(x, 8)
    graph = net.graph(net.conv(x, 8), y)
    problem = build(graph, layerwise(graph))
    at = {v: i for i, b in enumerate(problem.buffers) for v in b.values}
    assert not [o for o in problem.overlaps if (o.before, o.after) == (at[x], at[y])]


@st.composite
def overlapping(draw: st.DrawFn) -> tuple[tuple[Buffer, ...], tuple[Overlap, ...]]:
    """Random buffers; some of those that follow each other may overlap."""
    spans = draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(1, 20)), min_size=2, max_size=10))
    buffers = tuple(
        Buffer((Value(f"v{i}", TensorType((4 * size,), "s8")),), first, first + length, 4 * size)
        for i, (first, length, size) in enumerate(spans)
    )
    pairs = [
        (i, j)
        for i, j in itertools.permutations(range(len(buffers)), 2)
        if buffers[i].first < buffers[j].first <= buffers[i].last
    ]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    overlaps = [Overlap(i, j, 4 * draw(st.integers(-buffers[i].size // 4, buffers[j].size // 4 - 1))) for i, j in chosen]
    return buffers, tuple(o for o in overlaps if o.saving(buffers) > 0)


def wrong(buffers: tuple[Buffer, ...], overlaps: tuple[Overlap, ...], offsets: list[int]) -> list[tuple[str, str]]:
    """Pairs that are alive together and share bytes that they may not."""
    distance = {(o.before, o.after): o.distance for o in overlaps}
    return [
        (buffers[i].name, buffers[j].name)
        for i, j in itertools.permutations(range(len(buffers)), 2)
        if buffers[i].first <= buffers[j].first <= buffers[i].last
        and offsets[i] < offsets[j] + buffers[j].size
        and offsets[j] < offsets[i] + buffers[i].size
        and not ((i, j) in distance and offsets[j] <= offsets[i] - distance[i, j])
    ]


@given(overlapping())
@settings(max_examples=150, deadline=None)
def test_only_pairs_that_may_overlap_do_and_at_their_distance(drawn: tuple[tuple[Buffer, ...], tuple[Overlap, ...]]) -> None:
    buffers, overlaps = drawn
    bound = int(live_bytes(buffers, 11, overlaps).max())
    offsets, _ = place(buffers, bound, effort=0, overlaps=overlaps)
    assert not wrong(buffers, overlaps, offsets)
    assert bound <= peak(buffers, offsets)


@given(overlapping())
@settings(max_examples=40, deadline=None)
def test_cp_sat_keeps_the_distances_and_does_not_go_below_the_bound(drawn) -> None:  # type: ignore[no-untyped-def]
    buffers, overlaps = drawn
    stacked = [sum(b.size for b in buffers[:i]) for i in range(len(buffers))]
    bound = int(live_bytes(buffers, 11, overlaps).max())
    offsets = cp_sat(buffers, stacked, bound, seed=0, effort=0.2, overlaps=overlaps)
    assert not wrong(buffers, overlaps, offsets)
    assert bound <= peak(buffers, offsets) <= peak(buffers, stacked)


def test_the_overlap_of_a_streamed_block_shows_in_the_arena() -> None:
    graph, x, y = block()
    problem = build(graph, streamed(graph, 1, 5))
    plan = solve(problem)
    assert plan.arena == live_peak(problem)
    assert plan.arena < x.type.nbytes + y.type.nbytes + max(b.size for b in problem.buffers if b.scratch)
