"""Two small inverted bottlenecks that learn, and the check that a changed graph learns the same, for the tests of chunks."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from mcugrad.build import build, build_host
from mcugrad.devices.host import Host
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit.c import write
from mcugrad.ir import Graph, interpret
from mcugrad.memory.modes import plan
from mcugrad.ops.pool import global_average
from mcugrad.passes import TRAIN, run
from mcugrad.program import Machine, lower
from mcugrad.targets import get_target
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, layers, resolve
from mobile import Net

STEPS = 20


def bottlenecks(seed: int, learning: tuple[int, ...], biases: int, residual_bits: tuple[int, ...]) -> Graph:
    """Random ones, of which the layers of these numbers learn part or all of their weights with one of these residual bits."""
    rng = np.random.default_rng(seed)
    net = Net(int(rng.integers(4, 8)), 8, seed)
    x = net.conv(net.x, 8)
    for _ in range(2):
        x = net.block(x, 8 * int(rng.integers(3, 6)), 8, kernel=int(rng.choice([3, 5])), stride=int(rng.integers(1, 3)))
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    names = list(layers(forward))
    weights = {names[i]: Update(float(rng.choice([0.5, 1.0])), None, int(rng.choice(residual_bits))) for i in learning}
    scheme = UpdateScheme("test", weights=weights, biases=biases, bias_bits=int(rng.choice([16, 32])))
    return run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)


def feeds(graph: Graph, number: int) -> dict[str, np.ndarray]:
    """Sample, label and control of step `number`."""
    sample, label, control = graph.inputs
    x = np.random.default_rng(number).integers(-128, 128, sample.type.shape).astype(np.int8)
    return {sample.name: x, label.name: np.array([number % 3]), control.name: np.array([7, number, 0, 40000])}


def learn_the_same(graph: Graph, changed: Graph) -> Graph:
    """Twenty steps of both with the same results and parameters, which is asserted; the first as it is then."""
    for number in range(STEPS):
        a, b = interpret(graph, feeds(graph, number)), interpret(changed, feeds(changed, number))
        for value in graph.outputs:
            assert value.name not in a.values or np.array_equal(a[value], b[value]), value
        after = b.next_params(changed)
        assert all(np.array_equal(data, after[name]) for name, data in a.next_params(graph).items())
        graph, changed = graph.with_params(after), changed.with_params(after)
    return graph


def learn_the_same_in_c(graph: Graph, changed: Graph, folder: Path, emulated: bool) -> None:
    """Five steps of the graph in the interpreter, and of the changed one in C on the host, with poisoned bytes, and
    emulated on a core: the same results and parameters."""
    scheduled = plan(changed).scheduled
    program = lower(scheduled.graph, scheduled.schedule, scheduled.plan, "chunks")
    write(program, folder)
    machine = Machine(program, poison=True)
    with ExitStack() as stack:
        devices: list[Host | VirtualMcu] = [stack.enter_context(Host.load(build_host(folder, optimize="-O0")))]
        if emulated:
            devices.append(stack.enter_context(VirtualMcu.load(build(folder, get_target("cortex-m7")))))
        for number in range(5):
            given = feeds(graph, number)
            result = interpret(graph, given)
            x, label = given[graph.inputs[0].name], int(given[graph.inputs[1].name][0])
            want = int(result[graph.outputs[1]][0])
            for device in devices:
                device.set_control(seed=7, step=number, halvings=0, skip=40000)
                assert device.train_step(x[0], label).p_label == want
            assert machine.train_step(x, label, given["control"])[0] == want
            graph = graph.with_params(result.next_params(graph))
        expected = program.state_hash(program.pack_state({p.value.name: p.data for p in graph.mutable()}))
        assert program.state_hash(machine.state.tobytes()) == expected
        assert all(program.state_hash(device.read_params()) == expected for device in devices)
