"""Recomputing and running in rounds of rows: the same losses and parameters, bit for bit, whatever is cut where."""

from __future__ import annotations

import numpy as np
import pytest

from graphs import random_training
from mcugrad.ir import Graph, Node, interpret, verify
from mcugrad.ops.backprop import Chain
from mcugrad.passes import TRAIN, run
from mcugrad.passes.recompute import Rerun, cuttable, recompute


def starts(graph: Graph) -> list[int]:
    return [i for i, n in enumerate(graph.nodes) if isinstance(n.op, Chain)] + [len(graph.nodes)]


def rerunnable(graph: Graph, nodes: tuple[Node, ...]) -> set:
    """Forward values that the nodes read, and those behind them."""
    producer = {v: n for n in graph.nodes if n.op.phase == "forward" for v in n.outputs if v.type.dtype == "s8"}
    found, waiting = set(), [v for n in nodes for v in n.inputs]
    while waiting:
        value = waiting.pop()
        if value in producer and value not in found and cuttable(producer[value]):
            found.add(value)
            waiting += producer[value].inputs
    return found


def random_parts(graph: Graph, rng: np.random.Generator) -> list[Rerun]:
    cuts, parts, at = starts(graph), [], 0
    while at < len(cuts) - 1:
        stop = int(rng.integers(at + 1, len(cuts)))
        nodes = graph.nodes[cuts[at] : cuts[stop]]
        rows = None if not all(map(cuttable, nodes)) or rng.random() < 0.2 else int(rng.integers(1, 4))
        again = frozenset(v for v in rerunnable(graph, nodes) if rng.random() < 0.7)
        if rng.random() < 0.8:
            parts.append(Rerun(cuts[at], cuts[stop], again, rows))
        at = stop
    return parts


@pytest.mark.parametrize("seed", range(200))
def test_parts_that_are_recomputed_in_rounds_change_no_bit(seed: int) -> None:
    net, plain = random_training(seed)
    graph = run(plain, TRAIN)
    changed = recompute(graph, random_parts(graph, np.random.default_rng(seed)))
    verify(changed)
    for sample in range(2):
        feeds = net.feeds(sample, step=sample)
        a, b = interpret(graph, feeds), interpret(changed, feeds)
        for value in graph.outputs:
            if value.name in a.values:
                assert np.array_equal(a[value], b[value]), value
        after = b.next_params(changed)
        for name, data in a.next_params(graph).items():
            assert np.array_equal(data, after[name]), name
        graph, changed = graph.with_params(after), changed.with_params(after)
