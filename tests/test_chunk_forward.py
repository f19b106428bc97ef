"""Forward inverted bottlenecks in chunks of channels: the same losses and parameters, bit for bit, in any number of chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mcugrad.build import build, build_host
from mcugrad.costs import Costs
from mcugrad.devices.host import Host
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit.c import write
from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, GraphError, interpret, verify
from mcugrad.memory.forward import Forward, Mode
from mcugrad.memory.modes import Planned, plan
from mcugrad.ops.conv2d_sum import Conv2dSum, RequantizeSum
from mcugrad.ops.pool import global_average
from mcugrad.passes import TRAIN, run
from mcugrad.passes.chunk_forward import chunk_forward, expansions
from mcugrad.program import Machine, lower
from mcugrad.targets import get_target
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, layers, resolve
from mobile import Net

STEPS = 20


def bottlenecks(seed: int) -> Graph:
    """Random inverted bottlenecks of which the last learns: all its biases and part of its expansion."""
    rng = np.random.default_rng(seed)
    net = Net(int(rng.integers(4, 8)), 8, seed)
    x = net.conv(net.x, 8)
    for _ in range(2):
        x = net.block(x, 8 * int(rng.integers(3, 6)), 8, kernel=int(rng.choice([3, 5])), stride=int(rng.integers(1, 3)))
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    weights = {list(layers(forward))[4]: Update(float(rng.choice([0.5, 1.0])))}
    scheme = UpdateScheme("test", weights=weights, biases=4, bias_bits=int(rng.choice([16, 32])))
    return run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)


def wide() -> Graph:
    """One bottleneck of many expanded channels on a small map."""
    net = Net(6, 8)
    x = net.block(net.conv(net.x, 8), 8 * 24, 8, kernel=5, stride=2)
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    return run(differentiate(forward, TrainingPlan(resolve(UpdateScheme("test", biases=1), forward))), TRAIN)


def feeds(graph: Graph, number: int) -> dict[str, np.ndarray]:
    sample, label, control = graph.inputs
    x = np.random.default_rng(number).integers(-128, 128, sample.type.shape).astype(np.int8)
    return {sample.name: x, label.name: np.array([number % 3]), control.name: np.array([7, number, 0, 40000])}


def chunked(graph: Graph, width: int) -> Graph:
    found = list(expansions(graph))
    assert len(found) == 2
    return chunk_forward(graph, [(e, width) for e in found])


@pytest.mark.parametrize(("seed", "width"), [(1, 16), (3, 24), (5, 8)])
def test_chunks_change_no_bit_in_twenty_steps(seed: int, width: int) -> None:
    graph = before = bottlenecks(seed)
    changed = chunked(graph, width)
    verify(changed)
    assert {Conv2dSum, RequantizeSum} <= {type(n.op) for n in changed.nodes}
    for number in range(STEPS):
        a, b = interpret(graph, feeds(graph, number)), interpret(changed, feeds(changed, number))
        for value in graph.outputs:
            assert value.name not in a.values or np.array_equal(a[value], b[value]), value
        after = b.next_params(changed)
        assert all(np.array_equal(data, after[name]) for name, data in a.next_params(graph).items())
        graph, changed = graph.with_params(after), changed.with_params(after)
    moved = [not np.array_equal(p.data, q.data) for p, q in zip(before.mutable(), graph.mutable(), strict=True)]
    assert any(moved), "nothing has learned"


@pytest.mark.parametrize("seed", [2, 4])
def test_host_virtual_mcu_and_poisoned_bytes_give_the_bits_of_the_graph_without_chunks(tmp_path: Path, seed: int) -> None:
    graph = bottlenecks(seed)
    scheduled = plan(chunked(graph, 8)).scheduled
    program = lower(scheduled.graph, scheduled.schedule, scheduled.plan, "chunks")
    write(program, tmp_path)
    machine = Machine(program, poison=True)
    firmware = build(tmp_path, get_target("cortex-m7"))
    with Host.load(build_host(tmp_path, optimize="-O0")) as host, VirtualMcu.load(firmware) as mcu:
        for number in range(5):
            given = feeds(graph, number)
            result = interpret(graph, given)
            x, label = given[graph.inputs[0].name], int(given[graph.inputs[1].name][0])
            want = int(result[graph.outputs[1]][0])
            for device in (host, mcu):
                device.set_control(seed=7, step=number, halvings=0, skip=40000)
                assert device.train_step(x[0], label).p_label == want
            assert machine.train_step(x, label, given["control"])[0] == want
            graph = graph.with_params(result.next_params(graph))
        expected = program.state_hash(program.pack_state({p.value.name: p.data for p in graph.mutable()}))
        assert program.state_hash(machine.state.tobytes()) == expected
        assert program.state_hash(host.read_params()) == expected == program.state_hash(mcu.read_params())


def least(graph: Graph) -> Planned:
    """The smallest plan."""
    with pytest.raises(BudgetError) as failure:
        plan(graph, sram_for_arena=1)
    return plan(graph, sram_for_arena=failure.value.needed)


def test_the_planner_takes_chunks_where_neither_whole_layers_nor_rows_fit() -> None:
    graph = wide()
    forward = Forward(graph, False, Costs())
    without = max(min(b.peak for b in forward.blocks if b.start <= i < b.stop) for i in range(forward.stop))
    planned = least(graph)
    assert Mode.CHANNELS in {b.mode for b in planned.blocks}
    assert planned.arena < without
    assert not plan(graph, sram_for_arena=2 * without).ways
    assert Mode.CHANNELS not in {b.mode for b in plan(graph, sram_for_arena=2 * without).blocks}


def test_what_else_reads_an_expanded_value_keeps_the_bottleneck_whole() -> None:
    net = Net(5, 8)
    wide = net.conv(net.x, 32)
    y = net.conv(net.depthwise(wide), 8)
    assert len(list(expansions(net.graph(y)))) == 1
    assert not list(expansions(net.graph(y, wide)))
    other = net.conv(wide, 8)
    assert not list(expansions(net.graph(y, other)))


def test_chunks_that_split_the_byte_of_a_mask_are_refused() -> None:
    with pytest.raises(GraphError, match="multiple of 8 channels, got 12"):
        chunked(bottlenecks(1), 12)
