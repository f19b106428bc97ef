"""The memory planner: schedules, addresses, the certificate, and a validator that catches planted mistakes."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcugrad.ir import Graph, TensorType, Value, interpret
from mcugrad.memory.buffer import Buffer
from mcugrad.memory.certificate import live, live_bytes, live_peak, lower_bound
from mcugrad.memory.gaps import use_gaps
from mcugrad.memory.modes import plan
from mcugrad.memory.problem import Home, MemoryProblemError, build, state_layout, storage
from mcugrad.memory.schedule import (
    LoadRows,
    ScheduleError,
    Segment,
    Step,
    arrange,
    layerwise,
    ring_rows,
    streamed,
    verify_schedule,
)
from mcugrad.memory.solve import cp_sat, peak, place, solve
from mcugrad.memory.validate import PlanError
from mcugrad.ops.backprop import Chain
from mcugrad.ops.piece import Piece
from mcugrad.ops.pool import MaxPool
from mcugrad.ops.reshape import Reshape
from mcugrad.passes.recompute import Rerun, recompute
from mobile import Net, chain, check, execute, square, training

# Schedules


@pytest.mark.parametrize(
    ("kernels", "rings"),
    [
        ([(1, 1), (1, 1), (1, 1)], [1, 1]),
        ([(1, 1), (3, 1), (3, 1), (1, 1)], [3, 3, 1]),
        ([(3, 2), (5, 2), (1, 1)], [5, 1]),
        ([(1, 1), (7, 2), (3, 1), (3, 2)], [7, 3, 3]),
        ([(1, 1), (1, 2), (1, 2), (1, 1)], [1, 1, 1]),  # every other row is read by nothing
    ],
)
def test_a_streamed_chain_keeps_exactly_the_kernel_rows(kernels: list[tuple[int, int]], rings: list[int]) -> None:
    graph = chain(32, *kernels)
    schedule = streamed(graph, 0, len(kernels))
    found = ring_rows(graph, schedule)
    assert [found[n.outputs[0]] for n in graph.nodes[:-1]] == rings
    verify_schedule(graph, schedule, found)
    for value, rows in found.items():
        if rows > 1:
            with pytest.raises(ScheduleError, match="evicted from its ring"):
                verify_schedule(graph, schedule, {**found, value: rows - 1})


def test_a_residual_keeps_the_rows_between_its_two_readers() -> None:
    net = Net(16, 4)
    x = net.conv(net.x, 4)
    graph = net.graph(net.conv(net.block(x, 8, 4, kernel=5), 4))
    rings = ring_rows(graph, streamed(graph, 0, len(graph.nodes)))
    assert rings[x] == 3  # row r of the sum needs row r + 2 of the expansion
    assert {v.name: n for v, n in rings.items()} == {"conv0": 3, "conv1": 5, "conv2": 1, "conv3": 1, "add": 1}


def test_what_is_read_after_the_segment_is_kept_whole() -> None:
    net = Net(16, 4)
    a = net.conv(net.x, 4)
    b = net.depthwise(a)
    graph = net.graph(net.add(a, net.conv(b, 4)))
    schedule = streamed(graph, 0, 2)
    assert not ring_rows(graph, schedule)
    verify_schedule(graph, schedule, {})


def test_rows_that_nothing_reads_are_computed_too() -> None:
    graph = chain(16, (1, 1), (1, 2), (1, 2))
    schedule = streamed(graph, 0, 3)
    verify_schedule(graph, schedule, ring_rows(graph, schedule))


def test_the_pulled_input_is_a_ring_of_the_first_kernels_rows() -> None:
    graph = chain(32, (3, 2), (3, 1))
    schedule = streamed(graph, 0, 2, input_rows=True)
    loads = [s for s in schedule if isinstance(s, LoadRows)]
    assert [r for s in loads for r in range(s.first, s.last)] == list(range(32))
    assert ring_rows(graph, schedule)[graph.inputs[0]] == 3


def test_an_input_with_two_readers_cannot_be_pulled() -> None:
    net = Net(8, 4)
    graph = net.graph(net.add(net.x, net.conv(net.x, 4)))
    with pytest.raises(ScheduleError, match="image cannot be pulled row by row: it is read by conv0, add"):
        streamed(graph, 0, 2, input_rows=True)


def test_a_segment_ends_before_an_op_that_has_no_rows() -> None:
    net = Net(8, 4)
    flat = net.build.one(Reshape((1, 256)), net.conv(net.x, 4), name="flat")
    with pytest.raises(ScheduleError, match="flat cannot be split into rows: end the streamed segment before it"):
        streamed(net.graph(flat), 0, 2)


def test_the_verifier_refuses_missing_late_and_repeated_rows() -> None:
    graph = chain(16, (3, 1), (3, 1))
    good = streamed(graph, 0, 2)
    verify_schedule(graph, good)
    with pytest.raises(ScheduleError, match="only 14 of 16 rows of conv1 are computed"):
        verify_schedule(graph, good[:-1])
    with pytest.raises(ScheduleError, match="reads row 1 of conv0, of which 0 rows are written"):
        verify_schedule(graph, (good[1], good[0], *good[2:]))
    with pytest.raises(ScheduleError, match="does not continue"):
        verify_schedule(graph, (good[0], *good))
    with pytest.raises(ScheduleError, match="in the schedule but not in both"):
        extra = replace(graph.nodes[0], outputs=(Value("extra", graph.nodes[0].outputs[0].type),))
        verify_schedule(graph, (*layerwise(graph), Step(extra, 0, 16)))


def test_the_verifier_refuses_a_read_after_the_update_and_an_update_across_an_early_end() -> None:
    graph = training()
    steps = list(layerwise(graph))
    verify_schedule(graph, tuple(steps))
    reader = next(i for i, s in enumerate(steps) if s.node.op.name == "head_input_grad")
    update = next(i for i, s in enumerate(steps) if s.node.op.name == "head_update")
    swapped = list(steps)
    swapped.insert(update, swapped.pop(reader))
    with pytest.raises(ScheduleError, match="reads head_weight after its update"):
        verify_schedule(graph, tuple(swapped))
    end = next(i for i, s in enumerate(steps) if s.node.op.name == "stop_if_zero")
    with pytest.raises(ScheduleError, match="moves across"):
        verify_schedule(graph, (*steps[:update], *steps[update + 1 : end + 1], steps[update], *steps[end + 1 :]))


# Addresses


def buffers_of(spans: list[tuple[int, int, int]]) -> tuple[Buffer, ...]:
    return tuple(
        Buffer((Value(f"v{i}", TensorType((4 * size,), "s8")),), first, first + length, 4 * size)
        for i, (first, length, size) in enumerate(spans)
    )


spans = st.lists(st.tuples(st.integers(0, 7), st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=14)


def overlapping(buffers: tuple[Buffer, ...], offsets: list[int]) -> list[tuple[str, str]]:
    """Pairs that share a byte at some step, by brute force."""
    cells: dict[tuple[int, int], str] = {}
    clashes = []
    for buffer, offset in zip(buffers, offsets, strict=True):
        for cell in ((t, b) for t in range(buffer.first, buffer.last + 1) for b in range(offset, offset + buffer.size, 4)):
            if cells.setdefault(cell, buffer.name) != buffer.name:
                clashes.append((cells[cell], buffer.name))
    return clashes


def most_alive(buffers: tuple[Buffer, ...]) -> int:
    return max(sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(11))


@given(spans, st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_buffers_never_overlap(drawn: list[tuple[int, int, int]], seed: int) -> None:
    buffers = buffers_of(drawn)
    offsets, _ = place(buffers, most_alive(buffers), seed)
    assert not overlapping(buffers, offsets)
    assert place(buffers, most_alive(buffers), seed)[0] == offsets
    assert most_alive(buffers) <= peak(buffers, offsets) == max(o + b.size for o, b in zip(offsets, buffers, strict=True))


@given(spans)
@settings(max_examples=50, deadline=None)
def test_live_bytes_are_right_by_brute_force(drawn: list[tuple[int, int, int]]) -> None:
    buffers = buffers_of(drawn)
    assert [sum(b.size for b in buffers if b.first <= t <= b.last) for t in range(12)] == live_bytes(buffers, 11).tolist()


@given(spans)
@settings(max_examples=25, deadline=None)
def test_cp_sat_never_overlaps_and_is_never_worse_than_its_hint(drawn: list[tuple[int, int, int]]) -> None:
    buffers = buffers_of(drawn)
    stacked = [sum(b.size for b in buffers[:i]) for i in range(len(drawn))]
    offsets = cp_sat(buffers, stacked, most_alive(buffers), seed=0, effort=0.2)
    assert not overlapping(buffers, offsets)
    assert peak(buffers, offsets) <= peak(buffers, stacked)


def test_cp_sat_reaches_the_live_peak_where_first_fit_does_not() -> None:
    buffers = buffers_of([(2, 3, 8), (7, 0, 1), (7, 1, 7), (6, 2, 4), (5, 1, 4), (5, 3, 7)])
    assert peak(buffers, place(buffers, 76, effort=0)[0]) == 88
    offsets, method = place(buffers, 76)
    assert (peak(buffers, offsets), method) == (76, "CP-SAT")


def test_the_peak_of_a_tiny_chain_by_hand() -> None:
    net = Net(8, 4)  # 256 bytes
    x = net.conv(net.x, 8)  # 512 bytes, scratch 16
    x = net.conv(x, 8, 3, 2)  # 128 bytes, scratch 288
    graph = net.graph(net.add(x, net.conv(x, 8)))
    problem = build(graph, layerwise(graph))
    scratch = [n.op.kernel(n).scratch for n in graph.nodes]
    assert live_bytes(problem.buffers, 4).tolist() == [
        256 + 512 + scratch[0],
        512 + 128 + scratch[1],
        128 + 128 + scratch[2],
        128 + 128,  # the sum takes the bytes of one side
        128,
    ]
    # conv0 starts 272 bytes below the image: its last strip may read pixel 58 again when pixel 62 is written, 63 * 8 - 58 * 4;
    # conv1 starts 24 below conv0: three pixels are written before its first row is free
    assert live(problem)[:2].tolist() == [256 + 272 + scratch[0], 512 + 24 + scratch[1]]
    plan = solve(problem)
    assert plan.arena == plan.certificate.live_peak == plan.certificate.lower_bound == max(528 + scratch[0], 536 + scratch[1])
    check(graph, layerwise(graph), plan)


def test_an_operand_that_is_also_read_where_it_may_not_be_replaced_keeps_its_bytes() -> None:
    net = Net(4, 4)
    x = net.conv(net.x, 4)
    twice = net.add(x, x)
    graph = net.graph(twice)
    assert solve(build(graph, layerwise(graph))).offsets[twice] == solve(build(graph, layerwise(graph))).offsets[x]
    object.__setattr__(graph.nodes[-1].op, "in_place", ((0, 0),))
    plan = solve(build(graph, layerwise(graph)))
    assert plan.offsets[twice] != plan.offsets[x]
    with pytest.raises(PlanError, match=r"add overwrites conv0 \(operand 1\)"):
        check(graph, layerwise(graph), plan, offsets={**plan.offsets, twice: plan.offsets[x]})


@st.composite
def networks(draw: st.DrawFn) -> Graph:
    """Random graphs of convolutions, poolings and sums, with several outputs now and then."""
    net = Net(draw(st.sampled_from([6, 9])), 3, draw(st.integers(0, 99)))
    values = [net.x]
    for _ in range(draw(st.integers(2, 9))):
        x = values[-1] if draw(st.booleans()) else draw(st.sampled_from(values))
        same = [v for v in values if v.type.shape == x.type.shape]
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "add", "add"]))
        kernel = draw(st.sampled_from([1, 3]))
        stride = draw(st.sampled_from([1, 2])) if x.type.shape[1] > 2 else 1
        if kind == "conv":
            values.append(net.conv(x, draw(st.integers(1, 4)), kernel, stride))
        elif kind == "depthwise":
            values.append(net.depthwise(x, kernel, stride))
        elif kind == "pool":
            values.append(net.build.one(MaxPool(square(kernel, stride)), x, name="pool"))
        else:
            values.append(net.add(x, draw(st.sampled_from(same))))
    made = values[1:]
    return net.graph(made[-1], *draw(st.lists(st.sampled_from(made[:-1] or made), max_size=1)))


@given(networks(), st.data())
@settings(max_examples=60, deadline=None)
def test_every_schedule_of_a_random_network_gives_the_same_bytes(graph: Graph, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(graph.nodes)), min_size=2, max_size=4)))
    rounds = data.draw(st.lists(st.integers(0, 3), min_size=2, max_size=2))
    segments = [Segment(*s) for s in zip(cuts[::2], cuts[1::2], rounds, strict=False)]
    image = np.random.default_rng(0).integers(-128, 128, graph.inputs[0].type.shape).astype(np.int8)
    expected = interpret(graph, {"image": image})
    pulled = graph.consumers()[graph.inputs[0]] == [graph.nodes[0]] and data.draw(st.booleans())
    segments = [Segment(0, cuts[1], rounds[0]), *segments[1:]] if pulled else segments
    schedule = arrange(graph, segments, input_rows=pulled)
    problem = build(graph, schedule)
    plan = solve(problem)
    check(graph, schedule, plan)
    assert plan.certificate.lower_bound <= live_peak(problem) <= plan.arena
    for name, array in execute(graph, schedule, plan, image).items():
        assert np.array_equal(array, expected.values[name]), name


@given(networks(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_no_order_of_the_nodes_goes_below_the_lower_bound(graph: Graph, seed: int) -> None:
    rng, known, order = random.Random(seed), {graph.inputs[0], *(p.value for p in graph.params)}, []
    while len(order) < len(graph.nodes):
        node = rng.choice([n for n in graph.nodes if n not in order and known.issuperset(n.inputs)])
        order.append(node)
        known.update(node.outputs)
    other = replace(graph, nodes=tuple(order))
    bound = lower_bound(build(graph, layerwise(graph)))
    assert bound == lower_bound(build(other, layerwise(other))) <= live_peak(build(other, layerwise(other)))


# Storage and the training step


def test_parameters_and_scalars_are_not_in_the_arena() -> None:
    graph = training()
    home = {v.name: h for v, h in storage(graph).home.items()}
    assert home["image"] is Home.ARENA
    assert home["label"] is home["control"] is Home.CALLER
    assert home["conv4_weight"] is home["conv4_weight.next.0"] is home["conv5_bias.next"] is Home.STATE
    assert home["conv4_weight_rest"] is home["conv0_weight"] is Home.FLASH
    assert not {v for v in solve(build(graph, layerwise(graph))).offsets if home[v.name] is not Home.ARENA}


def test_the_state_is_packed_and_aligned() -> None:
    graph = training()
    layout = state_layout(graph)
    old = sorted((p.value for p in graph.mutable()), key=layout.offsets.__getitem__)
    for value, following in itertools.pairwise(old):
        assert layout.offsets[following] >= layout.offsets[value] + value.type.nbytes
    assert all(layout.offsets[v] % {"s32": 4, "s16": 2}.get(v.type.dtype, 1) == 0 for v in old)
    assert layout.total == (sum(v.type.nbytes for v in old) + 3) // 4 * 4
    assert all(layout.offsets[new] == layout.offsets[before] for before, new in graph.updates)


def test_an_update_that_is_not_in_place_is_refused() -> None:
    graph = training()
    old, new = graph.updates[0]
    other = Value("elsewhere", new.type)
    nodes = tuple(replace(n, outputs=tuple(other if v is new else v for v in n.outputs)) for n in graph.nodes[:-1])
    broken = replace(graph, nodes=nodes, updates=((old, graph.nodes[0].outputs[0]),))
    with pytest.raises(MemoryProblemError, match="head_weight: its next value conv0 is computed elsewhere"):
        storage(broken)


def test_a_reshape_names_the_same_bytes_and_both_names_stay_readable() -> None:
    net = Net(8, 4)
    x = net.conv(net.x, 4)
    flat = net.build.one(Reshape((1, 4, 4, 16)), x, name="flat")
    graph = net.graph(net.conv(flat, 4), net.conv(x, 4))
    plan = solve(build(graph, layerwise(graph)))
    assert plan.offsets[x] == plan.offsets[flat]
    check(graph, layerwise(graph), plan)
    with pytest.raises(PlanError, match="flat must be the bytes of conv0"):
        check(graph, layerwise(graph), plan, offsets={**plan.offsets, flat: plan.offsets[flat] + 4}, arena=plan.arena + 4)


@pytest.mark.parametrize("bits", [0, 4, 8])
def test_a_training_step_is_planned_and_valid(bits: int) -> None:
    graph = training(bits)
    step = plan(graph).scheduled
    assert step.plan.certificate.optimal
    chains = [n for n in graph.nodes if n.op.name == "chain"]
    merged = [
        n for n in chains if any(step.plan.offsets[n.inputs[i]] == step.plan.offsets[n.outputs[o]] for i, o in n.op.replaces(n))
    ]
    assert merged, "some gradient takes the bytes of its mask or of the gradient it adds"


def test_an_update_takes_the_arenas_free_bytes_while_it_runs() -> None:
    graph = training(4, size=32, everything=True)
    schedule, lean = layerwise(graph), solve(build(graph, layerwise(graph)))
    roomy, steps, given = use_gaps(graph, schedule, lean)
    grown = [(n, m) for n, m in zip(graph.nodes, roomy.nodes, strict=True) if n is not m]
    assert grown and given.arena == lean.arena and given.offsets == lean.offsets
    for old, new in grown:
        less, more = (n.op.kernel(n) for n in (old, new))
        assert less is not None and more is not None and less.scratch < more.scratch
    check(roomy, steps, given)
    assert use_gaps(roomy, steps, given) == (roomy, steps, given), "what has all it can use takes no more"


def test_pieces_that_share_scratch_memory_use_what_the_largest_of_them_needs() -> None:
    graph = training(4, size=32, everything=True)
    cuts = [i for i, n in enumerate(graph.nodes) if isinstance(n.op, Chain)]
    cut = recompute(graph, [Rerun(cuts[4], len(graph.nodes), frozenset(), 4)])
    schedule, lean = layerwise(cut), solve(build(cut, layerwise(cut)))
    roomy, steps, given = use_gaps(cut, schedule, lean)
    grown = {m for n, m in zip(cut.nodes, roomy.nodes, strict=True) if n is not m and isinstance(m.op, Piece)}
    shared = [b for b, _ in given.placed if len(b.scratch) > 1 and grown & set(b.scratch)]
    assert shared and given.arena == lean.arena and given.offsets == lean.offsets
    for buffer in shared:
        kernels = [n.op.kernel(n) for n in buffer.scratch]
        assert max(k.scratch for k in kernels if k is not None) <= buffer.size
    check(roomy, steps, given)
