"""Whole-graph gradients: the backward pass against finite differences of the loss, and the integers against the reals."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from graphs import (
    Network,
    attentive_network,
    calibrated,
    everything,
    network_with_loss,
    random_network,
    random_scheme,
)
from mcugrad.ir import Graph, Node, Result, Value, interpret
from mcugrad.loss import Loss
from mcugrad.ops.backprop import GradQuantize, passes
from mcugrad.ops.correlate import correlate_weight
from mcugrad.ops.head import HEAD_ONE, Head, HeadUpdate
from mcugrad.ops.loss import SampleScale
from mcugrad.ops.pool import MaxPool
from mcugrad.ops.update import BiasStep, WeightStep
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import gradient_exponents, temporary_head
from mcugrad.training.losses import ending
from mcugrad.training.scheme import resolve
from stages import STAGES, TAILS

Array = NDArray[Any]

SEEDS = range(66)
RTOL = 1e-6
STEP = 2e-3  # of an int8 weight unit


@dataclass(frozen=True, eq=False)
class Case:
    """A training graph with random exponents (they must cancel), and its real run on one sample."""

    net: Network
    graph: Graph
    feeds: dict[str, Array]
    run: Result


def case(seed: int, net: Network | None = None) -> Case:
    net, rng = net or random_network(seed), np.random.default_rng(seed)
    selection = resolve(random_scheme(net.graph, rng), net.graph)
    slots = differentiate(net.graph, TrainingPlan(selection, loss=net.loss)).meta["slots"]
    exponents = {name: int(rng.integers(-6, 7)) for name in slots}
    plan = TrainingPlan(selection, 0.05, exponents, calibrated(net, selection).means, net.loss)
    graph = differentiate(net.graph, plan)
    feeds = net.feeds(0)
    return Case(net, graph, feeds, interpret(graph, feeds, "real"))


def loss(case: Case, moved: dict[str, Array]) -> tuple[float, list[Array]]:
    """The loss with other parameter contents, and everything that must not change for it to be smooth."""
    graph = case.graph.with_params(moved)
    run = interpret(graph, case.feeds, "real", until=graph.outputs[0])
    kinks = [kink(n, run) for n in graph.nodes if n.outputs and n.outputs[0].name in run.values]
    return true_loss(case, run[graph.outputs[0]]), [k for k in kinks if k is not None]


def true_loss(case: Case, logits: Array) -> float:
    """The loss of real logits in integer units, from its definition."""
    last, target = case.net.graph.nodes[-1], case.feeds["label"]
    unit = scale(last.inputs[0]) / (HEAD_ONE if isinstance(last.op, Head) else 1)
    a = logits * unit
    if case.net.loss is Loss.SOFTMAX:
        return float(np.log(np.exp(a - a[target[0]]).sum()))
    if case.net.loss is Loss.SIGMOID:
        return float(np.logaddexp(0, np.where(target, -a, a)).sum())
    if case.net.loss is Loss.MSE:
        return float(np.mean((a - target * (unit if isinstance(last.op, Head) else unit / 128)) ** 2))
    x = case.graph.inputs[0]
    return float(np.mean((a - scale(x) * (case.feeds[x.name].reshape(-1).astype(np.float64) - zero(x))) ** 2))


def kink(node: Node, run: Result) -> Array | None:
    if getattr(node.op, "out", None) is not None:
        return passes(run[node.outputs[0]])
    if isinstance(node.op, MaxPool):
        padded = node.op.window.pad(run[node.inputs[0]], -np.inf)
        taps = [padded[:, r, c] for _, _, r, c in node.op.window.taps(*node.inputs[0].type.shape[1:3])]
        return np.argmax(taps, axis=0)
    return None


def slope(case: Case, direction: dict[str, Array]) -> float | None:
    """Central difference of the loss along `direction`; None when a clamp or a maximum switches nearby."""
    base = {p.value.name: p.data.astype(np.float64) for p in case.graph.params}
    for step in (STEP, STEP / 30):
        ends = [loss(case, {n: base[n] + sign * step * d for n, d in direction.items()}) for sign in (1, -1)]
        middle = loss(case, {})[1]
        if all(np.array_equal(a, b) for _, masks in ends for a, b in zip(masks, middle, strict=True)):
            return float((ends[0][0] - ends[1][0]) / (2 * step))
    return None


@dataclass(frozen=True, eq=False)
class Gradient:
    """dL/dq of one parameter by the backward graph; `mean` is not None for a centred weight: dL/dq at fixed output mean."""

    value: Value
    array: Array
    step: Node


def gradients(case: Case) -> Iterator[Gradient]:
    """Real gradients per integer unit of every updated parameter, from the raw ones of the graph (numerics.md).

    dL/dy = h * 2**(E + e_s) / s_w, so a weight unit changes the loss by dW * s_x * 2**(E + e_s) and a bias unit by
    db * s_x * 2**(E + e_s); a head weight unit by f * g * s_f * 2**-27, a head bias unit by g * s_f * 2**-27."""
    producer = case.graph.producers()
    for node in case.graph.nodes:
        if isinstance(node.op, HeadUpdate):
            x, g, weight, bias, _ = node.inputs
            f = (case.run[x] - zero(x)).reshape(-1)
            unit = scale(x) / (2.0**node.op.bits * HEAD_ONE)
            yield Gradient(weight, np.outer(f, case.run[g]) * unit, node)
            yield Gradient(bias, case.run[g] * unit, node)
        if isinstance(node.op, WeightStep | BiasStep):
            x = layer_input(case.graph, node)
            raw = case.run[node.inputs[0]]
            if isinstance(node.op, WeightStep) and node.op.centred:
                grad = producer[node.inputs[0]]
                raw = raw + off_centre(grad, case.run)
            yield Gradient(node.inputs[1], raw * scale(x) * 2.0 ** exponent(case, node), node)


def off_centre(grad: Node, run: Result) -> Array:
    """What a centred gradient leaves out: the gradient of the input means, where the tap is inside the map."""
    x, h, mean = (run[v] for v in grad.inputs)
    means = np.broadcast_to(mean, (*x.shape[:3], len(mean)))
    if grad.outputs[0].type.shape[0] == 1 and h.shape[3] == x.shape[3] and not hasattr(grad.op, "groups"):
        h = h if grad.op.channels is None else h[..., list(grad.op.channels)]
        per = [correlate_weight(means[..., [c]], h[..., [c]], grad.op.window, 1) for c in range(h.shape[3])]
        return np.concatenate([p.reshape(1, *grad.op.window.kernel, 1) for p in per], axis=3)
    return correlate_weight(means, h, grad.op.window, grad.op.groups)


def exponent(case: Case, node: Node) -> int:
    """E + e_s of a weight or bias step."""
    assert isinstance(node.op, WeightStep | BiasStep)
    exponents = case.run.values["exponents"]
    sample = next(n.outputs[1] for n in case.graph.nodes if isinstance(n.op, SampleScale))
    return int(case.run[sample][0]) + int(exponents[node.op.exponent])


def layer_input(graph: Graph, step: Node) -> Value:
    """The input of the layer that owns the stepped parameter."""
    return next(n.inputs[0] for n in graph.nodes if n.op.weight_axis is not None and step.inputs[1] in n.inputs)


def scale(value: Value) -> float:
    assert value.type.quant is not None
    return value.type.quant.scale[0]


def zero(value: Value) -> int:
    assert value.type.quant is not None
    return value.type.quant.zero


def directions(array: Array, rng: np.random.Generator) -> Iterator[Array]:
    """A dense direction and a few single elements, the steepest included."""
    yield rng.choice([-1.0, 1.0], array.shape)
    for index in {int(np.abs(array).argmax()), *(int(i) for i in rng.integers(0, array.size, 2))}:
        one = np.zeros(array.size)
        one[index] = 1
        yield one.reshape(array.shape)


@pytest.mark.parametrize("seed", SEEDS)
def test_real_gradients_equal_finite_differences(seed: int) -> None:
    compare_with_differences(case(seed), seed)


@pytest.mark.parametrize("seed", range(200, 208))
def test_real_gradients_through_a_softmax_equal_finite_differences(seed: int) -> None:
    compare_with_differences(case(seed, attentive_network(seed)), seed)


def test_integer_gradients_through_a_softmax_point_where_the_real_ones_do() -> None:
    point_alike([attentive_network(seed) for seed in range(200, 216)], 0.98, 0.998)


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("seed", range(100, 108))
def test_real_gradients_of_every_loss_equal_finite_differences(seed: int, loss: Loss) -> None:
    compare_with_differences(case(seed, network_with_loss(seed, loss)), seed)


@pytest.mark.parametrize("loss", Loss)
@pytest.mark.parametrize("seed", range(100, 108))
def test_integer_gradient_of_the_logits_stands_for_the_derivative_of_the_loss(seed: int, loss: Loss) -> None:
    """Within the rounding of g and of the probabilities; logits at their integers, away from the limit of a head's error."""
    c = case(seed, network_with_loss(seed, loss))
    run, end = interpret(c.graph, c.feeds), ending(loss, c.net.graph)
    logits = run[c.graph.outputs[0]].astype(np.float64)
    step = scale(c.net.graph.nodes[-1].inputs[0]) / (HEAD_ONE if isinstance(c.net.graph.nodes[-1].op, Head) else 1)
    found = run.values["loss.1"] * end.unit
    for k in range(len(logits)):
        moved = [logits + sign * 1e-3 / step * (np.arange(len(logits)) == k) for sign in (1, -1)]
        derivative = (true_loss(c, moved[0]) - true_loss(c, moved[1])) / 2e-3
        assert found[k] == pytest.approx(derivative, rel=1e-3, abs=max(1.5 * end.unit, 2e-3)), k


def compare_with_differences(c: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    checked = skipped = 0
    for gradient in gradients(c):
        largest = np.abs(gradient.array).max()
        for direction in directions(gradient.array, rng):
            measured = slope(c, {gradient.value.name: direction})
            if measured is None:
                skipped += 1
                continue
            expected = float((gradient.array * direction).sum())
            # 1e-9: what float64 can tell of a loss of about 1 over a step of 2 * STEP
            assert measured == pytest.approx(expected, rel=RTOL, abs=RTOL * largest + 1e-10), f"{gradient.value} seed {seed}"
            checked += 1
    assert checked > 0
    assert skipped <= checked / 2, "too close to kinks to tell anything"


def test_the_seeds_cover_every_stage_every_tail_and_every_kind_of_update() -> None:
    cases = [case(seed) for seed in SEEDS]
    assert {s for c in cases for s in c.net.stages} == {f.__name__ for f in (*STAGES, *TAILS)}
    steps = [n for c in cases for n in c.graph.nodes if isinstance(n.op, WeightStep)]
    assert {n.op.residual_bits for n in steps} == {0, 4, 8}
    assert {n.op.centred for n in steps} == {True, False}
    assert {n.op.axis for n in steps} == {0, 3}
    assert any(n.op.channels is not None for n in steps)


@pytest.mark.parametrize("seed", range(24))
def test_real_updates_step_down_the_gradient_at_the_rate_of_quantization_aware_scaling(seed: int) -> None:
    """One step moves a real weight by lr * gradient, up to the power of two nearest to the rate."""
    c = case(seed)
    following = {old: new for old, new in c.graph.updates}
    for gradient in gradients(c):
        if isinstance(gradient.step.op, WeightStep) and gradient.step.op.centred:
            continue
        param = c.graph.param(gradient.value)
        assert param is not None
        if isinstance(gradient.step.op, BiasStep) and following[gradient.value] is not gradient.step.outputs[0]:
            continue
        moved = param.data - c.run[following[gradient.value]]
        unit = np.broadcast_to(real_unit(c.graph, gradient), moved.shape)
        exact = 0.05 * gradient.array / unit**2
        large = np.abs(exact) > 1e-6 * np.abs(exact).max()
        ratio = moved[large] / exact[large]
        assert np.all((ratio > 2**-0.5 * (1 - 1e-9)) & (ratio < 2**0.5 * (1 + 1e-9))), gradient.value


def real_unit(graph: Graph, gradient: Gradient) -> Array:
    """What one integer step of the parameter is worth, per element."""
    op, inputs = gradient.step.op, gradient.step.inputs
    if isinstance(op, HeadUpdate):
        return np.array(1 / HEAD_ONE if gradient.value is inputs[2] else scale(inputs[0]) / HEAD_ONE)
    layer = next(n for n in graph.nodes if n.op.weight_axis is not None and gradient.value in n.inputs)
    weight = layer.inputs[1].type
    assert weight.quant is not None
    per_channel = np.array(weight.quant.scale) * np.ones(layer.outputs[0].type.shape[3])
    if isinstance(op, BiasStep):
        return per_channel * scale(layer.inputs[0])
    assert isinstance(op, WeightStep)
    if op.axis == 3 and op.channels is not None:
        per_channel = per_channel[list(op.channels)]
    return per_channel.reshape([-1 if i == op.axis else 1 for i in range(4)])


def real_backward(node: Node) -> str:
    return "real" if node.op.phase in ("backward", "update") else "eval"


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def integer_and_real(net: Network) -> Iterator[tuple[type, Array, Array]]:
    """(kind of step, integer gradient, real one) per updated tensor over some samples, both in units of the real one's norm."""
    graph = differentiate(net.graph, calibrated(net, resolve(everything(net.graph), net.graph)))
    runs = [(interpret(graph, net.feeds(i)), interpret(graph, net.feeds(i), real_backward)) for i in range(3)]
    runs = [(integers, reals) for integers, reals in runs if integers.progress == 0]
    for node in graph.nodes if runs else ():
        if isinstance(node.op, WeightStep | BiasStep):
            pairs = ([r[node.inputs[0]].astype(np.float64).ravel() for r in pair] for pair in runs)
            a, b = (np.concatenate(side) for side in zip(*pairs, strict=True))
            if np.abs(b).max() > 0:
                yield type(node.op), a / np.linalg.norm(b), b / np.linalg.norm(b)


def point_alike(nets: list[Network], least: float, median: float) -> None:
    """Tensors at unit norm, pooled over networks: cosine above `least`, its median above `median`, norm within 5 %."""
    found: dict[type, list[tuple[Array, Array]]] = {WeightStep: [], BiasStep: []}
    for net in nets:
        for kind, integers, reals in integer_and_real(net):
            found[kind].append((integers, reals))
    for pairs in found.values():
        a, b = (np.concatenate([p[i] for p in pairs]) for i in (0, 1))
        assert cosine(a, b) > least
        assert np.median([cosine(*p) for p in pairs if p[0].any()]) > median
        assert abs(np.linalg.norm(a) / np.linalg.norm(b) - 1) < 0.05


def test_integer_gradients_point_where_the_real_ones_do() -> None:
    point_alike([random_network(seed) for seed in SEEDS], 0.98, 0.998)


@pytest.mark.parametrize("loss", Loss)
def test_integer_gradients_of_every_loss_point_where_the_real_ones_do(loss: Loss) -> None:
    point_alike([network_with_loss(seed, loss) for seed in range(100, 116)], 0.97, 0.995)


@pytest.mark.parametrize("seed", range(0, 48, 5))
def test_calibrated_exponents_leave_one_bit_above_the_largest_gradient_seen(seed: int) -> None:
    """max |stored gradient| * 2**-E of the calibration samples lies in (127/4, 127/2]."""
    net = random_network(seed)
    selection = resolve(everything(net.graph), net.graph)
    head = temporary_head((net.graph.params[-2].value.type.shape[0], net.graph.params[-1].value.type.shape[0]), 1)
    exponents = gradient_exponents(net.graph, selection, net.x, net.labels, head)
    zero = {"head_weight": head, "head_bias": np.zeros(head.shape[1], np.int32)}
    graph = differentiate(net.graph.with_params(zero), TrainingPlan(selection, 0.05, exponents))
    stored = [n for n in graph.nodes if isinstance(n.op, GradQuantize)]
    largest = dict.fromkeys(stored, 0.0)
    for sample in range(len(net.x)):
        how = interpret(graph, net.feeds(sample), lambda n: "real" if n.op.phase in ("backward", "update") else "eval")
        largest = {n: max(top, float(np.abs(how[n.outputs[0]]).max())) for n, top in largest.items()}
    assert any(largest.values())
    assert all(top == 0 or 127 / 4 < top <= 127 / 2 for top in largest.values())
