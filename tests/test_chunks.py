"""Inverted bottlenecks in chunks of channels: the same losses and parameters, bit for bit, in any number of chunks."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bottlenecks import bottlenecks, learn_the_same, learn_the_same_in_c
from mcugrad.costs import Costs
from mcugrad.ir import Graph, GraphError, verify
from mcugrad.memory.backward import Backward
from mcugrad.memory.modes import Mode
from mcugrad.memory.schedule import ScheduleError, layerwise, verify_schedule
from mcugrad.ops.pool import global_average
from mcugrad.ops.share import PartOfSum, Share
from mcugrad.passes import TRAIN, run
from mcugrad.passes.chunk import bottleneck
from mcugrad.passes.recompute import Rerun, read_outside, recompute
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, layers, resolve
from mobile import Net


def graph_of(seed: int) -> Graph:
    """All biases and part of the expansions learn."""
    return bottlenecks(seed, (1, 4), 6, (0, 4, 8))


def parts(graph: Graph, width: int) -> list[Rerun]:
    """Every block of the backward pass that has a bottleneck, in chunks."""
    edges = Backward(graph, False, Costs()).edges
    pairs = [p for p in pairwise(edges) if bottleneck(graph.nodes[slice(*p)], read_outside(graph, *p))]
    return [Rerun(start, stop, frozenset(), channels=width) for start, stop in pairs]


@pytest.mark.parametrize(("seed", "width"), [(1, 16), (3, 24), (5, 8)])
def test_chunks_change_no_bit_in_twenty_steps(seed: int, width: int) -> None:
    graph = graph_of(seed)
    changed = recompute(graph, parts(graph, width))
    verify(changed)
    assert any(isinstance(n.op, Share) and isinstance(n.op.op, PartOfSum) for n in changed.nodes)
    after = learn_the_same(graph, changed)
    weights = [(p, q) for p, q in zip(graph.mutable(), after.mutable(), strict=True) if p.value.name.endswith("_weight")]
    assert any(not np.array_equal(p.data, q.data) for p, q in weights), "nothing has learned"


def test_generated_c_and_poisoned_bytes_give_the_bits_of_the_graph_without_chunks(tmp_path: Path) -> None:
    graph = graph_of(2)
    learn_the_same_in_c(graph, recompute(graph, parts(graph, 16)), tmp_path, emulated=False)


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
