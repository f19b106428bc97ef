"""Random training graphs down the whole line: interpreter, planned program on poisoned bytes and generated C agree."""

from pathlib import Path

import numpy as np
import pytest

from graphs import Network, random_training
from mcugrad.build import build_host
from mcugrad.devices.host import Host
from mcugrad.emit.c import write
from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, interpret
from mcugrad.memory.modes import plan
from mcugrad.passes import TRAIN, run
from mcugrad.program import Machine, Program, lower

STEPS = 4


def program(seed: int, tight: bool) -> tuple[Network, Program]:
    """A random network's program: layerwise, or under a cap that asks for row streaming where it helps."""
    net, graph = random_training(seed)
    fused = run(graph, TRAIN)
    planned = plan(fused)
    if tight:
        try:
            planned = plan(fused, sram_for_arena=planned.arena - 1, input_rows=None)
        except BudgetError:
            planned = plan(fused)
    scheduled = planned.scheduled
    return net, lower(scheduled.graph, scheduled.schedule, scheduled.plan, f"random{seed}")


def steps(net: Network, graph: Graph) -> tuple[list[int], dict[str, np.ndarray]]:
    """p_label of each step by the interpreter, and the parameters after the last."""
    found = []
    for number in range(STEPS):
        result = interpret(graph, net.feeds(number, step=number))
        found.append(int(result[graph.outputs[1]][0]))
        graph = graph.with_params(result.next_params(graph))
    return found, {p.value.name: p.data for p in graph.mutable()}


@pytest.mark.parametrize("tight", [False, True], ids=["layerwise", "under a cap"])
@pytest.mark.parametrize("seed", range(16))
def test_a_program_on_poisoned_bytes_is_the_graph(seed: int, tight: bool) -> None:
    net, made = program(seed, tight)
    want, params = steps(net, made.graph)
    machine = Machine(made, poison=True)
    feeds = [net.feeds(i, step=i) for i in range(STEPS)]
    assert [machine.train_step(f["input"], int(f["label"][0]), f["control"])[0] for f in feeds] == want
    assert made.state_hash(machine.state.tobytes()) == made.state_hash(made.pack_state(params))


@pytest.mark.parametrize("seed", range(0, 32, 4))
def test_generated_c_on_the_host_gives_the_bits_of_the_interpreter(tmp_path: Path, seed: int) -> None:
    net, made = program(seed, tight=seed % 8 == 0)
    want, params = steps(net, made.graph)
    write(made, tmp_path)  # at -O0 zig checks for undefined behaviour and aborts
    with Host.load(build_host(tmp_path, optimize="-O0")) as host:
        for number in range(STEPS):
            feeds = net.feeds(number, step=number)
            seed_, step, halvings, skip = (int(c) for c in feeds["control"])
            host.set_control(seed=seed_, step=step, halvings=halvings, skip=skip)
            assert host.train_step(feeds["input"][0], int(feeds["label"][0])).p_label == want[number], f"step {number}"
        assert made.state_hash(host.read_params()) == made.state_hash(made.pack_state(params))
