"""Every loss down the whole line: interpreter, planned program, host and virtual MCU learn the same bits from targets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphs import Network, calibrated, everything, network_with_loss
from mcugrad.build import build, build_host
from mcugrad.devices.host import Host
from mcugrad.devices.virtual import VirtualMcu
from mcugrad.emit.c import write
from mcugrad.errors import McugradError
from mcugrad.ir import GraphError, interpret
from mcugrad.loss import Loss
from mcugrad.memory.modes import plan
from mcugrad.ops.loss import StopIfEasy
from mcugrad.passes import TRAIN, run
from mcugrad.program import Machine, Program, lower
from mcugrad.targets import get_target
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.losses import ending
from mcugrad.training.scheme import HEAD_ONLY, resolve

STEPS = 5


def program(net: Network) -> Program:
    selection = resolve(everything(net.graph), net.graph)
    fused = run(differentiate(net.graph, calibrated(net, selection, 0.01)), TRAIN, net.feeds(0))
    scheduled = plan(fused).scheduled
    return lower(fused, scheduled.schedule, scheduled.plan, f"with-{net.loss.value}")


def by_interpreter(net: Network, made: Program) -> tuple[list[int], str]:
    """Scores of some steps and the hash of the parameters after them."""
    graph, scores = made.graph, []
    for number in range(STEPS):
        result = interpret(graph, net.feeds(number, step=number))
        scores.append(int(result[graph.outputs[1]][0]))
        graph = graph.with_params(result.next_params(graph))
    return scores, made.state_hash(made.pack_state({p.value.name: p.data for p in graph.mutable()}))


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("seed", [200, 201])
def test_interpreter_program_host_and_virtual_mcu_learn_the_same_bits(tmp_path: Path, loss: Loss, seed: int) -> None:
    net = network_with_loss(seed, loss)
    made = program(net)
    want = by_interpreter(net, made)
    machine = Machine(made, poison=True)
    feeds = [net.feeds(i, step=i) for i in range(STEPS)]
    scores = [machine.train_step(f["input"], f["label"], f["control"])[0] for f in feeds]
    assert (scores, made.state_hash(machine.state.tobytes())) == want
    write(made, tmp_path)
    devices = Host.load(build_host(tmp_path, optimize="-O0")), VirtualMcu.load(build(tmp_path, get_target("cortex-m7")))
    for device in devices:
        with device:
            assert device.facts.targets == made.targets
            device.set_control(seed=7, skip=1 << 16)
            scores = [device.train_step(f["input"][0], f["label"]).p_label for f in feeds]
            assert (scores, made.state_hash(device.read_params())) == want, type(device).__name__


@pytest.mark.parametrize("loss", [Loss.SIGMOID, Loss.MSE])
def test_a_target_of_another_length_is_refused(tmp_path: Path, loss: Loss) -> None:
    net = network_with_loss(202, loss)
    made = program(net)
    write(made, tmp_path)
    with Host.load(build_host(tmp_path)) as host, pytest.raises(McugradError, match=f"a target of {made.targets} numbers"):
        host.train_step(net.x[0], np.zeros(made.targets + 1, np.int32))


def test_only_a_probability_can_be_good_enough() -> None:
    for loss in Loss:
        net = network_with_loss(203, loss)
        graph = differentiate(net.graph, TrainingPlan(resolve(HEAD_ONLY, net.graph), loss=loss))
        assert any(isinstance(n.op, StopIfEasy) for n in graph.nodes) == (loss in (Loss.SOFTMAX, Loss.SIGMOID))


def test_a_new_head_cannot_reconstruct_the_sample() -> None:
    net = network_with_loss(200, Loss.MSE)
    with pytest.raises(GraphError, match="train the model's own output"):
        ending(Loss.AUTOENCODER, net.graph)


def test_an_unknown_loss_is_named() -> None:
    with pytest.raises(McugradError, match="unknown loss 'hinge': use softmax, sigmoid, mse, autoencoder"):
        Loss.named("hinge")


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("seed", [200, 205])
def test_score_stands_for_the_loss(loss: Loss, seed: int) -> None:
    """-ln p of the true class; that of the label that fares worst; the mean squared error in real units."""
    net = network_with_loss(seed, loss)
    selection = resolve(HEAD_ONLY, net.graph)
    graph = differentiate(net.graph, TrainingPlan(selection, loss=loss))
    end = ending(loss, net.graph)
    for sample in range(3):
        feeds = net.feeds(sample)
        whole, real = interpret(graph, feeds), interpret(graph, feeds, "real")
        reals = interpret(graph, feeds, lambda n: "real" if n.op.phase == "loss" else "eval")
        score = int(whole[graph.outputs[1]][0])
        assert end.loss_of(score) == pytest.approx(end.loss_of(float(reals[graph.outputs[1]][0])), rel=0.02, abs=2e-3)
        assert real[graph.outputs[1]].shape == (1,)
