"""Finding what to update: importance, the knapsack, predicted against real cost."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from corpus import Net as CorpusNet
from corpus import residual
from mcugrad.errors import BudgetError
from mcugrad.ir import Graph, interpret
from mcugrad.memory.floor import smallest_peak
from mcugrad.memory.modes import plan
from mcugrad.memory.problem import state_layout
from mcugrad.prepare import Prepared
from mcugrad.preprocess import Input, Preprocess
from mcugrad.search.cost import instructions
from mcugrad.search.evolution import evolve
from mcugrad.search.importance import importance
from mcugrad.search.solve import Choice, Limits, front, solve
from mcugrad.search.space import (
    QUALITY,
    RATIOS,
    Depth,
    Gains,
    Option,
    Space,
    bias_depths,
    fisher_gains,
    scheme_of,
    space,
    training,
)
from mcugrad.targets import get_target
from mcugrad.trainer import quiet
from mcugrad.training.calibrate import temporary_head
from mcugrad.training.scheme import UpdateScheme, layers

TARGET = get_target("cortex-m7")


def prepared(graph: Graph, samples: int = 8) -> Prepared:
    """The network with random inputs and labels."""
    rng = np.random.default_rng(3)
    x = rng.integers(-128, 128, (samples, *graph.inputs[0].type.shape[1:])).astype(np.int8)
    return Prepared("tiny", graph, Preprocess(Input.FLOAT), x, rng.integers(0, 3, samples), ())


# Importance


def pointwise() -> Graph:
    """Two 1x1 convolutions, pool, head."""
    net = CorpusNet((4, 4, 3))
    return net.finish(net.conv(net.conv(net.x, 4), 5))


def direct_energy(net: Prepared, seed: int) -> tuple[np.ndarray, float]:
    """Mean squared gradient of the last layer of `pointwise` in real units, per input channel, and of its bias: float64,
    from the chain rule written out."""
    graph = net.graph
    layer = layers(graph)["conv1"]
    x_value, y_value = layer.inputs[0], layer.outputs[0]
    head = temporary_head((5, net.classes), seed)
    learned = graph.with_params({"head_weight": head, "head_bias": np.zeros(net.classes, np.int32)})
    runs = [interpret(learned, {"input": x[None]}) for x in net.x]
    zero, s_x, s_y = x_value.type.quant.zero, x_value.type.quant.scale[0], y_value.type.quant.scale[0]
    mean = np.rint(np.mean([r[x_value].mean(axis=(0, 1, 2)) - zero for r in runs], axis=0))
    weight, bias = np.zeros(4), 0.0
    for run, label in zip(runs, net.y, strict=True):
        logits = run[graph.outputs[0]].reshape(-1) * s_y * 2.0**-12
        p = np.exp(logits - logits.max())
        g = p / p.sum() - np.eye(net.classes)[label]
        y = run[y_value].reshape(-1, 5)
        at_y = (head * 2.0**-12) @ g / len(y) * ((y > -128) & (y < 127))
        x = s_x * (run[x_value].reshape(-1, 4) - zero - mean)
        weight += np.square(at_y.T @ x).sum(axis=0) / len(runs)
        bias += np.square(at_y.sum(axis=0)).sum() / len(runs)
    return weight, bias


def test_importance_is_the_mean_squared_centred_gradient_in_real_units() -> None:
    net = prepared(pointwise())
    found = importance(net, seed=5)
    weight, bias = direct_energy(net, 5)
    np.testing.assert_allclose(found.weight["conv1"], weight, rtol=2e-3)
    assert found.bias["conv1"] == pytest.approx(bias, rel=2e-3)
    assert found.gain("conv1", (0, 2)) == pytest.approx(weight[[0, 2]].sum(), rel=2e-3)


def test_a_layer_whose_output_reaches_nothing_ranks_last() -> None:
    graph = residual()
    silent = graph.with_params({"conv3_weight": np.zeros_like(graph.param(layers(graph)["conv3"].inputs[1]).data)})
    gains = fisher_gains(importance(prepared(silent)), silent)
    assert max(gains.weight["conv2"].values()) == gains.bias["conv2"] == 0
    assert min(max(gains.weight[name].values()) for name in ("conv0", "conv3", "conv4")) > 0


def test_importance_depends_on_the_seed_alone() -> None:
    net = prepared(residual())
    first, again, other = (importance(net, seed=s).bias for s in (1, 1, 2))
    assert first == again != other


def test_gains_grow_with_the_share_of_channels_and_depthwise_layers_are_whole() -> None:
    graph = residual()
    gains = fisher_gains(importance(prepared(graph)), graph)
    assert list(gains.weight["conv2"]) == [1.0], "depthwise"
    assert list(gains.weight["conv1"]) == [0.25, 0.5, 1.0], "four input channels: an eighth is none"
    assert sorted(gains.weight["conv1"].values()) == list(gains.weight["conv1"].values())


# The knapsack


def random_space(seed: int) -> Space:
    """Four layers with up to three options each, and costs of all kinds that pull in different directions."""
    rng = np.random.default_rng(seed)
    names = tuple(f"conv{i}" for i in range(4))
    options = [
        Option(i, name, r, 4, *(float(g) for g in rng.uniform(1, 50, 1)), *(int(c) for c in rng.integers(10, 400, 3)))
        for i, name in enumerate(names)
        for r in RATIOS[: rng.integers(1, 4)]
    ]
    steps = np.cumsum(rng.integers(1, 80, (5, 5)), axis=0)
    depths = [
        Depth(n, float(n * rng.uniform(0, 4)), *(int(v) for v in steps[n, :4]), tuple(int(p) for p in row))
        for n, row in enumerate(steps[:, 4:] * rng.uniform(0, 4, (5, 4)))
    ]
    kept, update = (tuple(int(k) for k in rng.integers(0, most, 4)) for most in (200, 600))
    return Space(names, kept, update, tuple(options), tuple(depths), 200.0)


def every_choice(where: Space) -> Iterator[Choice]:
    by_layer = [[None, *(o for o in where.options if o.layer == i)] for i in range(len(where.names))]
    for depth in where.depths:
        for combination in itertools.product(*by_layer):
            chosen = tuple(o for o in combination if o is not None)
            if all(o.layer >= len(where.names) - depth.biases for o in chosen):
                yield Choice(where, depth, chosen)


@pytest.mark.parametrize("seed", range(12))
def test_the_knapsack_finds_what_trying_everything_finds(seed: int) -> None:
    where, rng = random_space(seed), np.random.default_rng(seed + 100)
    limits = Limits(*(int(v) for v in rng.integers(300, 1300, 3)))
    within = [
        c
        for c in every_choice(where)
        if c.sram <= limits.sram and c.flash <= limits.flash and c.instructions <= limits.instructions
    ]
    found = solve(where, limits)
    assert (found is None) == (not within)
    if found is not None:
        assert found.sram <= limits.sram and found.flash <= limits.flash and found.instructions <= limits.instructions
        assert found.gain == pytest.approx(max(c.gain for c in within), abs=1e-6)
        assert evolve(where, limits).gain == pytest.approx(found.gain, rel=0.05)


def test_layers_can_be_forced_in_and_out() -> None:
    where = random_space(1)
    free = solve(where, Limits())
    assert {o.layer for o in free.options} == {0, 1, 2, 3}
    assert 2 not in {o.layer for o in solve(where, Limits(), without=[2]).options}
    tight = Limits(sram=solve(where, Limits(), without=[0, 1, 2]).sram)
    forced = solve(where, tight, having=[1])
    assert forced is None or 1 in {o.layer for o in forced.options}
    assert solve(where, Limits(sram=10)) is None


def test_more_memory_never_gains_less() -> None:
    points = front(random_space(4), range(200, 2000, 150), Limits())
    gains = [choice.gain for _, choice in points]
    assert len(points) > 5 and gains == sorted(gains) and gains[0] < gains[-1]


# Costs


@pytest.fixture(scope="module")
def tiny() -> tuple[Prepared, Space]:
    net = prepared(residual())
    gains = fisher_gains(importance(net), net.graph)
    return net, space(net, gains, bias_depths(net, TARGET, None, quiet), TARGET, (0, 4, 8))


@pytest.mark.parametrize("count", range(6))
def test_predicted_costs_are_near(tiny: tuple[Prepared, Space], count: int) -> None:
    net, where = tiny
    rng = np.random.default_rng(count)
    depth = where.depths[count]
    chosen = []
    for layer in range(len(where.names) - depth.biases, len(where.names)):
        own = [o for o in where.options if o.layer == layer]
        if rng.random() < 0.7:
            chosen.append(own[int(rng.integers(len(own)))])
    choice = Choice(where, depth, tuple(chosen))
    graph = training(net, scheme_of(depth, choice.options))
    assert 0 <= state_layout(graph).total - choice.state < 8, "parameters that begin at zero stand apart, aligned"
    scratch = max((n.op.kernel(n).scratch for n in graph.nodes if n.op.phase == "update"), default=0)
    assert abs(choice.arena - smallest_peak(graph, input_rows=None)) <= scratch + 64
    assert choice.instructions == pytest.approx(instructions(graph, TARGET), rel=0.06), "masks that become unnecessary"


def test_the_smallest_plan_reaches_the_smallest_peak(tiny: tuple[Prepared, Space]) -> None:
    net, _ = tiny
    for biases in range(6):
        graph = training(net, UpdateScheme(biases=biases))
        for rows in (False, True):
            with pytest.raises(BudgetError) as error:
                plan(graph, sram_for_arena=0, input_rows=rows)
            beyond = error.value.needed - smallest_peak(graph, input_rows=rows)
            assert beyond <= 0.05 * error.value.needed
            assert biases > 0 or beyond >= 0, "only a backward pass can be rerun to need less"


def test_options_cost_what_they_say(tiny: tuple[Prepared, Space]) -> None:
    _, where = tiny
    conv1 = {(o.ratio, o.bits): o for o in where.options if o.name == "conv1"}
    assert conv1[1.0, 0].state == 24 and conv1[1.0, 4].state == 36 and conv1[0.5, 8].state == 24
    assert conv1[1.0, 4].gain == pytest.approx(QUALITY[4] * conv1[1.0, 8].gain)
    assert where.total == pytest.approx(Gains(*_all_gains(where)).total)


def _all_gains(where: Space) -> tuple[dict[str, dict[float, float]], dict[str, float]]:
    weight: dict[str, dict[float, float]] = {}
    for o in where.options:
        if o.bits == 8:
            weight.setdefault(o.name, {})[o.ratio] = o.gain
    return weight, {"all": where.depths[-1].gain}
