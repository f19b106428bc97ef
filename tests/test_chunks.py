"""Inverted bottlenecks in chunks of channels: the same losses and parameters, bit for bit, in any number of chunks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from mcugrad.build import build_host
from mcugrad.costs import Costs
from mcugrad.devices.host import Host
from mcugrad.emit.c import write
from mcugrad.ir import Graph, GraphError, interpret, verify
from mcugrad.memory.backward import Backward
from mcugrad.memory.modes import Mode, plan
from mcugrad.memory.schedule import ScheduleError, layerwise, verify_schedule
from mcugrad.ops.pool import global_average
from mcugrad.ops.share import PartOfSum, Share
from mcugrad.passes import TRAIN, run
from mcugrad.passes.chunk import bottleneck
from mcugrad.passes.recompute import Rerun, read_outside, recompute
from mcugrad.program import Machine, lower
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, layers, resolve
from mobile import Net

STEPS = 20


def bottlenecks(seed: int) -> Graph:
    """Two random inverted bottlenecks of which all biases and part of the expansions learn."""
    rng = np.random.default_rng(seed)
    net = Net(int(rng.integers(4, 8)), 8, seed)
    x = net.conv(net.x, 8)
    for _ in range(2):
        x = net.block(x, 8 * int(rng.integers(3, 6)), 8, kernel=int(rng.choice([3, 5])), stride=int(rng.integers(1, 3)))
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    names = list(layers(forward))
    weights = {n: Update(float(rng.choice([0.5, 1.0])), None, int(rng.choice([0, 4, 8]))) for n in (names[1], names[4])}
    scheme = UpdateScheme("test", weights=weights, biases=6, bias_bits=int(rng.choice([16, 32])))
    return run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)


def parts(graph: Graph, width: int) -> list[Rerun]:
    """Every block of the backward pass that has a bottleneck, in chunks."""
    edges = Backward(graph, False, Costs()).edges
    pairs = [p for p in pairwise(edges) if bottleneck(graph.nodes[slice(*p)], read_outside(graph, *p))]
    return [Rerun(start, stop, frozenset(), channels=width) for start, stop in pairs]


def feeds(graph: Graph, number: int) -> dict[str, np.ndarray]:
    sample, label, control = graph.inputs
    x = np.random.default_rng(number).integers(-128, 128, sample.type.shape).astype(np.int8)
    return {sample.name: x, label.name: np.array([number % 3]), control.name: np.array([7, number, 0, 40000])}


@pytest.mark.parametrize(("seed", "width"), [(1, 16), (3, 24), (5, 8)])
def test_chunks_change_no_bit_in_twenty_steps(seed: int, width: int) -> None:
    graph = bottlenecks(seed)
    changed = recompute(graph, parts(graph, width))
    verify(changed)
    assert any(isinstance(n.op, Share) and isinstance(n.op.op, PartOfSum) for n in changed.nodes)
    before = graph
    for number in range(STEPS):
        a, b = interpret(graph, feeds(graph, number)), interpret(changed, feeds(changed, number))
        for value in graph.outputs:
            assert value.name not in a.values or np.array_equal(a[value], b[value]), value
        after = b.next_params(changed)
        assert all(np.array_equal(data, after[name]) for name, data in a.next_params(graph).items())
        graph, changed = graph.with_params(after), changed.with_params(after)
    weights = [(p, q) for p, q in zip(before.mutable(), graph.mutable(), strict=True) if p.value.name.endswith("_weight")]
    assert any(not np.array_equal(p.data, q.data) for p, q in weights), "nothing has learned"


@pytest.mark.parametrize("seed", [2])
def test_generated_c_and_poisoned_bytes_give_the_bits_of_the_graph_without_chunks(tmp_path: Path, seed: int) -> None:
    graph = bottlenecks(seed)
    scheduled = plan(recompute(graph, parts(graph, 16))).scheduled
    program = lower(scheduled.graph, scheduled.schedule, scheduled.plan, "chunks")
    write(program, tmp_path)
    machine = Machine(program, poison=True)
    with Host.load(build_host(tmp_path, optimize="-O0")) as host:
        for number in range(5):
            given = feeds(graph, number)
            result = interpret(graph, given)
            x, label = given[graph.inputs[0].name], int(given[graph.inputs[1].name][0])
            host.set_control(seed=7, step=number, halvings=0, skip=40000)
            want = int(result[graph.outputs[1]][0])
            assert host.train_step(x[0], label).p_label == want == machine.train_step(x, label, given["control"])[0]
            graph = graph.with_params(result.next_params(graph))
        expected = program.state_hash(program.pack_state({p.value.name: p.data for p in graph.mutable()}))
        assert program.state_hash(host.read_params()) == expected == program.state_hash(machine.state.tobytes())


def wide() -> Graph:
    """One bottleneck of many expanded channels on a small map, whose expansion learns."""
    net = Net(4, 16)
    x = net.block(net.conv(net.x, 16), 16 * 12, 16)
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    scheme = UpdateScheme("test", weights={list(layers(forward))[1]: Update(0.5)}, biases=4)
    return run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)


def test_the_planner_takes_chunks_where_whole_nodes_and_rows_do_not_fit() -> None:
    graph = wide()
    backward = Backward(graph, False, Costs())
    chosen = backward.ways(backward.floor)[0].chosen
    assert Mode.CHANNELS in {w.mode for w in chosen}
    whole = max(min(w.own for w in ways) for ways in backward.whole)
    assert backward.floor < whole


def test_an_update_before_the_last_reader_of_its_rows_is_refused() -> None:
    graph = wide()
    changed = recompute(graph, parts(graph, 32))
    nodes = list(changed.nodes)
    step = next(i for i, n in enumerate(nodes) if isinstance(n.op, Share) and "_weight.next" in n.outputs[0].name)
    reader = max(i for i in range(step) if isinstance(nodes[i].op, Share) and isinstance(nodes[i].op.op, PartOfSum))  # type: ignore[attr-defined]
    nodes[reader], nodes[step] = nodes[step], nodes[reader]
    planted = replace(changed, nodes=tuple(nodes))
    with pytest.raises((ScheduleError, GraphError)):
        verify_schedule(planted, layerwise(planted), {})


def test_chunks_that_split_the_byte_of_a_mask_are_refused() -> None:
    graph = wide()
    (part, *_) = parts(graph, 12)
    with pytest.raises(GraphError, match="multiple of 8 channels, got 12"):
        recompute(graph, [part])
