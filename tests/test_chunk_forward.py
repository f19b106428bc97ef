"""Forward inverted bottlenecks in chunks of channels: the same losses and parameters, bit for bit, in any number of chunks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bottlenecks import bottlenecks, learn_the_same, learn_the_same_in_c
from mcugrad.costs import Costs
from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, GraphError, verify
from mcugrad.memory.forward import Forward, Mode
from mcugrad.memory.modes import Planned, plan
from mcugrad.ops.conv2d_sum import Conv2dSum, RequantizeSum
from mcugrad.ops.pool import global_average
from mcugrad.passes import TRAIN, run
from mcugrad.passes.chunk_forward import chunk_forward, expansions
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import UpdateScheme, resolve
from mobile import Net


def graph_of(seed: int) -> Graph:
    """The last bottleneck learns: all its biases and part of its expansion."""
    return bottlenecks(seed, (4,), 4, (4,))


def wide() -> Graph:
    """One bottleneck of many expanded channels on a small map."""
    net = Net(6, 8)
    x = net.block(net.conv(net.x, 8), 8 * 24, 8, kernel=5, stride=2)
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    return run(differentiate(forward, TrainingPlan(resolve(UpdateScheme("test", biases=1), forward))), TRAIN)


def chunked(graph: Graph, width: int) -> Graph:
    found = list(expansions(graph))
    assert len(found) == 2
    return chunk_forward(graph, [(e, width) for e in found])


@pytest.mark.parametrize(("seed", "width"), [(1, 16), (3, 24), (5, 8)])
def test_chunks_change_no_bit_in_twenty_steps(seed: int, width: int) -> None:
    graph = graph_of(seed)
    changed = chunked(graph, width)
    verify(changed)
    assert {Conv2dSum, RequantizeSum} <= {type(n.op) for n in changed.nodes}
    after = learn_the_same(graph, changed)
    moved = [not np.array_equal(p.data, q.data) for p, q in zip(graph.mutable(), after.mutable(), strict=True)]
    assert any(moved), "nothing has learned"


@pytest.mark.parametrize("seed", [2, 4])
def test_host_virtual_mcu_and_poisoned_bytes_give_the_bits_of_the_graph_without_chunks(tmp_path: Path, seed: int) -> None:
    graph = graph_of(seed)
    learn_the_same_in_c(graph, chunked(graph, 8), tmp_path, emulated=True)


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
    after = net.conv(wide, 8)
    assert not list(expansions(net.graph(y, after)))
    net = Net(5, 8)
    wide = net.conv(net.x, 32)
    filtered, between = net.depthwise(wide), net.conv(wide, 8)
    assert not list(expansions(net.graph(net.conv(filtered, 8), between)))


def test_chunks_that_split_the_byte_of_a_mask_are_refused() -> None:
    with pytest.raises(GraphError, match="multiple of 8 channels, got 12"):
        chunked(graph_of(1), 12)
