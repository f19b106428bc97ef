"""Recomputing and running in rounds of rows: the same losses and parameters, bit for bit, whatever is cut where."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from graphs import Network, random_training
from mcugrad.build import build_host
from mcugrad.devices.host import Host
from mcugrad.emit.c import source, write
from mcugrad.ir import Graph, Node, Value, interpret, verify
from mcugrad.memory.modes import Mode, plan
from mcugrad.memory.schedule import ScheduleError, layerwise, verify_schedule
from mcugrad.ops.backprop import Chain
from mcugrad.ops.piece import Slide
from mcugrad.passes import TRAIN, run
from mcugrad.passes.recompute import Rerun, cuttable, recompute
from mcugrad.program import Machine, Program, lower
from mobile import training


def starts(graph: Graph) -> list[int]:
    return [i for i, n in enumerate(graph.nodes) if isinstance(n.op, Chain)] + [len(graph.nodes)]


def rerunnable(graph: Graph, nodes: tuple[Node, ...]) -> list[Value]:
    """Forward values that the nodes read, and those behind them, in the order of the graph."""
    producer = {v: n for n in graph.nodes if n.op.phase == "forward" for v in n.outputs if v.type.dtype == "s8"}
    found, waiting = set(), [v for n in nodes for v in n.inputs]
    while waiting:
        value = waiting.pop()
        if value in producer and value not in found and cuttable(producer[value]):
            found.add(value)
            waiting += producer[value].inputs
    return [v for v in producer if v in found]


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


STEPS = 3


def rerun_program(seed: int) -> tuple[Network, Graph, Program]:
    """A random network, its training graph as it is, and a program in which random parts of it are rerun."""
    net, plain = random_training(seed)
    graph = run(plain, TRAIN)
    scheduled = plan(recompute(graph, random_parts(graph, np.random.default_rng(seed)))).scheduled
    return net, graph, lower(scheduled.graph, scheduled.schedule, scheduled.plan, f"random{seed}")


def by_interpreter(net: Network, graph: Graph) -> tuple[list[int], dict[str, np.ndarray]]:
    """p_label of each step, and the parameters after the last."""
    found = []
    for number in range(STEPS):
        result = interpret(graph, net.feeds(number, step=number))
        found.append(int(result[graph.outputs[1]][0]))
        graph = graph.with_params(result.next_params(graph))
    return found, {p.value.name: p.data for p in graph.mutable()}


@pytest.mark.parametrize("seed", range(30))
def test_a_program_of_reruns_on_poisoned_bytes_is_the_graph_without_them(seed: int) -> None:
    net, graph, program = rerun_program(seed)
    want, params = by_interpreter(net, graph)
    machine = Machine(program, poison=True)
    feeds = [net.feeds(i, step=i) for i in range(STEPS)]
    assert [machine.train_step(f["input"], int(f["label"][0]), f["control"])[0] for f in feeds] == want
    assert program.state_hash(machine.state.tobytes()) == program.state_hash(program.pack_state(params))


@pytest.mark.parametrize("seed", range(1, 30, 4))
def test_generated_c_of_reruns_gives_the_bits_of_the_graph_without_them(tmp_path: Path, seed: int) -> None:
    net, graph, program = rerun_program(seed)
    want, params = by_interpreter(net, graph)
    write(program, tmp_path)
    with Host.load(build_host(tmp_path, optimize="-O0")) as host:
        for number in range(STEPS):
            feeds = net.feeds(number, step=number)
            seed_, step, halvings, skip = (int(c) for c in feeds["control"])
            host.set_control(seed=seed_, step=step, halvings=halvings, skip=skip)
            assert host.train_step(feeds["input"][0], int(feeds["label"][0])).p_label == want[number], f"step {number}"
        assert program.state_hash(host.read_params()) == program.state_hash(program.pack_state(params))


def everything_learns() -> Graph:
    """Three inverted bottlenecks at 32x32, all of them updated."""
    return training(size=32, everything=True)


def test_a_tight_cap_reruns_the_backward_pass_in_rows_and_a_loose_one_does_not() -> None:
    graph = everything_learns()
    free = plan(graph).arena
    assert not plan(graph, sram_for_arena=free).ways
    tight = plan(graph, sram_for_arena=25_000)
    assert tight.arena <= 25_000 < free * 3 // 4
    assert Mode.RECOMPUTE_ROWS in {w.mode for w in tight.ways}
    assert [u[0] for u in tight.scheduled.graph.updates] == [u[0] for u in graph.updates]


def test_rounds_are_printed_as_a_loop() -> None:
    graph = everything_learns()
    scheduled = plan(graph, sram_for_arena=25_000).scheduled
    text = source(lower(scheduled.graph, scheduled.schedule, scheduled.plan, "loops"))
    assert "for (int32_t round = 0; round < " in text
    pieces = sum(n.op.scratch_group is not None for n in scheduled.graph.nodes)
    assert text.count("mcg_conv2d_update(") + text.count("mcg_slide(") < pieces // 2


def test_a_reader_of_a_window_that_has_moved_on_is_refused() -> None:
    graph = everything_learns()
    scheduled = plan(graph, sram_for_arena=25_000).scheduled
    nodes = list(scheduled.graph.nodes)
    at = next(i for i, n in enumerate(nodes) if isinstance(n.op, Slide))
    (before,) = nodes[at].inputs
    late = max(i for i in range(at) if before in nodes[i].inputs)
    moved = [*nodes[:late], *nodes[late + 1 : at + 1], nodes[late], *nodes[at + 1 :]]
    with pytest.raises(ScheduleError, match=f"reads {before.name} after"):
        verify_schedule(scheduled.graph, layerwise(replace(scheduled.graph, nodes=tuple(moved))))
