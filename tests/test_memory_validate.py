"""The memory validator: every planted mistake is refused, with the step, the value and the bytes."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import pytest

from mcugrad.memory.problem import build, state_layout
from mcugrad.memory.schedule import (
    ScheduleError,
    layerwise,
    streamed,
)
from mcugrad.memory.solve import solve
from mcugrad.memory.validate import PlanError
from mobile import Net, chain, check, training


@pytest.mark.parametrize("stream", [False, True])
def test_every_lifetime_that_ends_a_step_early_is_caught(stream: bool) -> None:
    """Buffers side by side, but for one that is written where another is read for the last time; the op may allow that."""
    graph = training()
    schedule = streamed(graph, 0, 4) if stream else layerwise(graph)
    good = solve(build(graph, schedule))
    ends = itertools.accumulate((b.size for b, _ in good.placed), initial=0)
    apart = [(b, o) for (b, _), o in zip(good.placed, ends, strict=False)]
    arena = sum(b.size for b, _ in apart)
    distances = {(good.placed[o.before][0], good.placed[o.after][0]): o.distance for o in good.overlaps}
    tried = 0
    for (early, _), (late, _) in itertools.permutations(apart, 2):
        node = schedule[min(early.last, len(schedule) - 1)].node
        if early.values and early.first < early.last == late.first and not node.op.replaces(node):
            moved = [(b, arena if b in (early, late) else o) for b, o in apart]
            offsets = {v: o for b, o in moved for v in b.values}
            scratch = {n: o for b, o in moved for n in b.scratch}
            if distances.get((early, late), 1) <= 0:
                check(graph, schedule, good, offsets=offsets, scratch=scratch, arena=2 * arena)
                continue
            with pytest.raises(PlanError, match="|".join(re.escape(v.name) for v in (*early.values, *late.values))):
                check(graph, schedule, good, offsets=offsets, scratch=scratch, arena=2 * arena)
            tried += 1
    assert tried >= 8


def test_overlapping_offsets_are_caught_with_step_value_and_bytes() -> None:
    graph = chain(8, (1, 1), (3, 1), (1, 1))
    schedule = layerwise(graph)
    plan = solve(build(graph, schedule))
    b, c = (n.outputs[0] for n in graph.nodes[1:])
    moved = {**plan.offsets, c: plan.offsets[b] + 64}
    with pytest.raises(PlanError, match=r"step 2 \(conv2\): conv2 overwrites conv1 \(operand 0\) while conv2d still reads it"):
        check(graph, schedule, plan, offsets=moved, arena=plan.arena + 400)
    net = Net(8, 3)
    early = net.conv(net.x, 3)
    late = net.conv(net.conv(early, 3), 3)
    graph = net.graph(net.add(early, late))
    plan = solve(build(graph, layerwise(graph)))
    moved = {**plan.offsets, late: plan.offsets[early] + 4, graph.outputs[0]: plan.arena}
    with pytest.raises(
        PlanError, match=r"step 3 \(add\) reads row 0 of conv0, but 188 of its bytes, from \d+ to \d+, hold row 0 of conv2"
    ):
        check(graph, layerwise(graph), plan, offsets=moved, arena=plan.arena + 400)


def test_a_ring_one_row_too_small_is_caught_for_every_ring() -> None:
    net = Net(24, 3)
    x = net.block(net.conv(net.x, 4, 3, 2), 8, 4, kernel=5)
    graph = net.graph(net.conv(x, 4, 3, 2))
    schedule = streamed(graph, 0, len(graph.nodes), input_rows=True)
    good = solve(build(graph, schedule))
    check(graph, schedule, good)
    assert len(good.ring_rows) == 6
    for value, rows in good.ring_rows.items():
        if rows > 1:
            with pytest.raises(ScheduleError, match=f"of {value.name}, evicted from its ring of {rows - 1} rows"):
                check(graph, schedule, replace(good, ring_rows={**good.ring_rows, value: rows - 1}))
            with pytest.raises(PlanError, match=rf"of {value.name}, but|{value.name} keeps"):
                check(graph, schedule, good, rings={**good.ring_rows, value: rows - 1})


def test_a_convolution_in_place_is_caught_and_a_sum_is_not() -> None:
    net = Net(8, 4)
    x = net.conv(net.x, 4)
    y = net.conv(x, 4)
    graph = net.graph(net.add(x, y))
    plan = solve(build(graph, layerwise(graph)))
    assert plan.offsets[graph.outputs[0]] in (plan.offsets[x], plan.offsets[y])
    check(graph, layerwise(graph), plan)
    with pytest.raises(PlanError, match="conv1 overwrites conv0"):
        check(graph, layerwise(graph), plan, offsets={**plan.offsets, y: plan.offsets[x]})


def test_scratch_that_meets_an_operand_and_a_small_arena_are_caught() -> None:
    graph = chain(8, (3, 1), (3, 1))
    plan = solve(build(graph, layerwise(graph)))
    first = graph.nodes[0]
    with pytest.raises(PlanError, match="scratch memory overlaps its operand image"):
        clash = {**plan.scratch, first: plan.offsets[first.inputs[0]]}
        check(graph, layerwise(graph), plan, scratch=clash, arena=plan.arena + 1000)
    with pytest.raises(PlanError, match="overlaps another result or the scratch memory"):
        apart = {**plan.offsets, first.outputs[0]: plan.arena}
        clash = {**plan.scratch, first: plan.arena}
        check(graph, layerwise(graph), plan, offsets=apart, scratch=clash, arena=plan.arena + 1000)
    with pytest.raises(PlanError, match="leave"):
        check(graph, layerwise(graph), plan, arena=plan.arena - 4)


def test_scratch_over_a_value_that_is_read_later_is_caught() -> None:
    net = Net(8, 3)
    early = net.conv(net.x, 3)
    late = net.conv(early, 3)
    graph = net.graph(net.add(early, net.conv(late, 3)))
    plan = solve(build(graph, layerwise(graph)))
    busy = {**plan.scratch, graph.nodes[2]: plan.offsets[early]}
    with pytest.raises(PlanError, match=r"step 3 \(add\) reads row 0 of conv0, .* hold nothing, or scratch"):
        check(graph, layerwise(graph), plan, scratch=busy)


def test_an_update_outside_the_bytes_of_its_parameter_is_caught() -> None:
    graph = training()
    plan, state = solve(build(graph, layerwise(graph))), state_layout(graph)
    old, new = graph.updates[0]
    with pytest.raises(PlanError, match=f"{new.name} must be the bytes of {old.name}"):
        moved = {**state.offsets, new: state.total}
        check(graph, layerwise(graph), plan, state=moved, state_bytes=state.total + new.type.nbytes)


def test_state_offsets_that_overlap_are_caught() -> None:
    graph = training()
    plan, state = solve(build(graph, layerwise(graph))), state_layout(graph)
    a, b = graph.mutable()[:2]
    with pytest.raises(PlanError, match="at the start of the step"):
        check(graph, layerwise(graph), plan, state={**state.offsets, b.value: state.offsets[a.value]})
