"""The pipelines on random training graphs: no pass changes a bit, and each one delivers what it promises."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from graphs import Network, calibrated, everything, random_network, random_training
from mcugrad.ir import Graph, GraphError, Node, Value, interpret, rebuild, verify
from mcugrad.ops.backprop import Chain, ClampMask, GradMask
from mcugrad.ops.conv2d import Conv2dWeightGrad
from mcugrad.ops.lut import LutGrad
from mcugrad.ops.mul import MulGrad
from mcugrad.ops.pool import MaxPoolGrad, global_average
from mcugrad.ops.select import SelectChannels
from mcugrad.ops.update import BiasStep, Update, WeightStep
from mcugrad.passes import TRAIN, run
from mcugrad.passes.keep import keep_live_channels
from mcugrad.passes.train import fuse_chains, fuse_updates, one_bit_masks, prune, update_early
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import HEAD_ONLY, UpdateScheme, layers, resolve
from mcugrad.training.scheme import Update as Part
from mobile import Net
from stages import STAGES

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_pass_keeps_every_bit_of_the_step(seed: int) -> None:
    net, graph = random_training(seed)
    fused = run(graph, TRAIN, net.feeds(0))
    for number in range(1, 3):
        feeds = net.feeds(number, step=number, halvings=number - 1)
        assert_same_step(graph, fused, feeds)
        graph = graph.with_params(interpret(graph, feeds).next_params(graph))
        fused = fused.with_params(interpret(fused, feeds).next_params(fused))


def assert_same_step(before: Graph, after: Graph, feeds: dict[str, np.ndarray]) -> None:
    a, b = interpret(before, feeds), interpret(after, feeds)
    assert a.progress == b.progress
    outputs = [v for v in before.outputs if v.name in a.values]  # not those behind an early end
    assert all(np.array_equal(a[v], b[v]) for v in outputs)
    changed = b.next_params(after)
    assert {n: d.tolist() for n, d in a.next_params(before).items()} == {n: d.tolist() for n, d in changed.items()}


@pytest.fixture(scope="module")
def trained() -> list[tuple[Network, Graph]]:
    """Random networks with their training graphs after all passes."""
    pairs = (random_training(seed) for seed in SEEDS)
    return [(net, run(graph, TRAIN)) for net, graph in pairs]


def test_after_the_pipeline_every_node_lowers(trained: list[tuple[Network, Graph]]) -> None:
    for _, graph in trained:
        assert all(n.op.lowers for n in graph.nodes)
        for node in graph.nodes:
            node.op.kernel(node)


def test_no_gradient_is_stored_as_int32_but_that_of_the_features(trained: list[tuple[Network, Graph]]) -> None:
    for net, graph in trained:
        features = net.graph.nodes[-1].inputs[0].type.elements
        for node in (n for n in graph.nodes if n.op.phase == "backward"):
            assert all(v.type.elements in (1, features) for v in node.outputs if v.type.dtype == "s32"), node


def test_no_parameter_gradient_is_stored(trained: list[tuple[Network, Graph]]) -> None:
    """All that an update writes are the bytes of a parameter."""
    for _, graph in trained:
        for node in (n for n in graph.nodes if n.op.phase == "update"):
            assert {output for _, output in node.op.aliased} == set(range(len(node.outputs))), node


def test_an_activation_kept_only_for_its_mask_is_kept_as_one_bit(trained: list[tuple[Network, Graph]]) -> None:
    """What the backward pass reads of int8 activations, it reads for weight gradients, maxima, slopes and factors."""
    masks = 0
    for _, graph in trained:
        forward = {v for n in graph.nodes if n.op.phase == "forward" and not isinstance(n.op, ClampMask) for v in n.outputs}
        inputs = {n.inputs[0] for n in graph.nodes if n.op.phase == "update"}
        for node in (n for n in graph.nodes if isinstance(n.op, Chain)):
            compared = isinstance(node.op.producer, MaxPoolGrad | LutGrad | MulGrad)
            inputs.update(node.inputs[1:2] if compared else ())
        for node in (n for n in graph.nodes if n.op.phase == "backward"):
            assert {v for v in node.inputs if v in forward and v.type.dtype == "s8"} <= inputs, node
        masks += sum(isinstance(n.op, ClampMask) for n in graph.nodes)
    assert masks > len(trained), "the pass did nothing"


def test_a_partly_updated_layer_keeps_the_channels_it_updates_and_no_others(trained: list[tuple[Network, Graph]]) -> None:
    """Whoever still reads a whole activation for some of its channels shares it with another backward reader, or the copy
    and the mask would have been no smaller."""
    kept = 0
    for _, graph in trained:
        readers = graph.consumers()
        kept += sum(isinstance(n.op, SelectChannels) for n in graph.nodes)
        for node in (n for n in graph.nodes if isinstance(n.op, Update) and isinstance(n.op.grad, Conv2dWeightGrad)):
            x, channels = node.inputs[0], node.op.grad.channels
            if channels is not None:
                others = [n for n in readers[x] if n is not node and n.op.phase in ("backward", "update")]
                assert others or 8 * len(channels) >= 7 * x.type.shape[3], node
    assert kept > len(trained) / 4, "the pass did nothing"


def test_the_copy_of_channels_is_taken_after_the_last_forward_reader() -> None:
    for seed in SEEDS:
        _, graph = random_training(seed)
        after = keep_live_channels(prune(graph))
        readers = after.consumers()
        for i, node in enumerate(after.nodes):
            if isinstance(node.op, SelectChannels):
                x, later = node.inputs[0], after.nodes[i + 1 :]
                rest = [
                    n for n in readers[x] if n in later and n.op.phase == "forward" and not isinstance(n.op, SelectChannels)
                ]
                assert len(rest) <= 1
                assert all(x in {n.inputs[k] for k, _ in n.op.replaces(n)} for n in rest), "one that may write over it"


def test_the_copies_of_a_partly_updated_depthwise_layer_let_its_passes_run_in_place() -> None:
    net = Net(4, 8)
    x = net.conv(net.depthwise(net.conv(net.x, 16)), 8)
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 3)
    scheme = UpdateScheme("test", weights={list(layers(forward))[1]: Part(0.25)}, biases=3)
    graph = run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)
    at = {n.outputs[0].name: i for i, n in enumerate(graph.nodes) if n.outputs}
    selects = [n for n in graph.nodes if isinstance(n.op, SelectChannels)]
    over = [next(m for m in graph.nodes[at[n.outputs[0].name] :] if m is not n and n.inputs[0] in m.inputs) for n in selects]
    assert len(selects) == 2
    for node, reader in zip(selects, over, strict=True):
        (after,) = [r for r in graph.consumers()[node.inputs[0]] if at[r.outputs[0].name] > at[node.outputs[0].name]]
        assert after is reader and node.inputs[0] in {reader.inputs[i] for i, _ in reader.op.replaces(reader)}


def test_a_mask_is_that_of_the_activation_it_replaces() -> None:
    for seed in SEEDS:
        _, graph = random_training(seed)
        before = [n for n in graph.nodes if isinstance(n.op, GradMask)]
        after = one_bit_masks(graph)
        source = {n.outputs[0]: n.inputs[0] for n in after.nodes if isinstance(n.op, ClampMask)}
        masks = [n for n in after.nodes if isinstance(n.op, GradMask)]
        assert [source.get(n.inputs[1], n.inputs[1]) for n in masks] == [n.inputs[1] for n in before]


def test_a_mask_is_taken_directly_after_its_activation(trained: list[tuple[Network, Graph]]) -> None:
    for _, graph in trained:
        for i, node in enumerate(graph.nodes):
            if isinstance(node.op, ClampMask):
                assert node.inputs[0] in graph.nodes[i - 1].outputs


def test_updates_stand_directly_after_their_operands_and_the_last_reader(trained: list[tuple[Network, Graph]]) -> None:
    """Between an update and the last node it must wait for, there are only other updates."""
    for _, graph in trained:
        old = {new: value for value, new in graph.updates}
        for i, node in enumerate(graph.nodes):
            if node.op.phase != "update":
                continue
            replaced = {old[v] for v in node.outputs if v in old}
            waits = [j for j, other in enumerate(graph.nodes[:i]) if must_precede(other, node, replaced)]
            assert all(n.op.phase == "update" for n in graph.nodes[max(waits) + 1 : i]), node


def must_precede(other: Node, update: Node, replaced: set[Value]) -> bool:
    return not other.outputs or bool(set(other.outputs) & set(update.inputs)) or bool(replaced & set(other.inputs))


def test_an_update_never_runs_before_the_end_of_the_step_could_stop_it(trained: list[tuple[Network, Graph]]) -> None:
    for _, graph in trained:
        kinds = [n.op.phase if n.outputs else "end" for n in graph.nodes]
        assert "update" not in kinds[: kinds.index("end")]


@pytest.mark.parametrize("scheme", [HEAD_ONLY, UpdateScheme("late", "", {}, 2)], ids=["head only", "with biases"])
def test_an_easy_sample_changes_nothing(scheme: UpdateScheme) -> None:
    net = random_network(2)
    graph = run(differentiate(net.graph, TrainingPlan(resolve(scheme, net.graph))), TRAIN)
    skipped = interpret(graph, net.feeds(0, skip=0))
    assert skipped.progress == 1
    before = {p.value.name: p.data.tolist() for p in graph.mutable()}
    assert {n: d.tolist() for n, d in skipped.next_params(graph).items()} == before


def frozen_prefix(graph: Graph) -> Iterator[str]:
    """Names of the values that have no updated layer before them."""
    moved = {u[0] for u in graph.updates}
    reached: set[Value] = set()
    for node in graph.nodes:
        if node.op.phase != "forward":
            return
        if moved & set(node.inputs) or reached & set(node.inputs):
            reached.update(node.outputs)
        else:
            yield from (v.name for v in node.outputs)


def test_no_gradient_flows_below_the_first_updated_layer() -> None:
    pruned = 0
    for seed in SEEDS:
        net = random_network(seed)
        scheme = UpdateScheme("late", "", {}, 2, True, 8)
        graph = prune(differentiate(net.graph, TrainingPlan(resolve(scheme, net.graph))))
        verify(graph)
        frozen = set(frozen_prefix(graph))
        gradients = {v.name.split(".")[0] for n in graph.nodes if n.op.phase == "backward" for v in n.outputs}
        assert not frozen & gradients, seed
        pruned += len(frozen)
    assert pruned > len(SEEDS)


def test_prune_drops_what_no_update_needs() -> None:
    net = random_network(1)
    graph = differentiate(net.graph, calibrated(net, resolve(everything(net.graph), net.graph)))
    bare = prune(replace(graph, updates=(), outputs=graph.outputs[:2]))
    assert {n.op.phase for n in bare.nodes if n.outputs} <= {"forward", "loss", "backward"}
    assert not any(isinstance(n.op, BiasStep | WeightStep) for n in bare.nodes)
    assert len(bare.params) < len(graph.params)


def test_a_scheme_of_the_head_alone_has_no_backward_pass() -> None:
    net = random_network(2)
    graph = run(differentiate(net.graph, TrainingPlan(resolve(HEAD_ONLY, net.graph))), TRAIN, net.feeds(0))
    assert not [n for n in graph.nodes if n.op.phase == "backward"]
    assert [old.name for old, _ in graph.updates] == ["head_weight", "head_bias"]


def test_a_frozen_head_stays_and_the_rest_learns() -> None:
    net = random_network(2)
    scheme = replace(everything(net.graph), head=False)
    graph = run(differentiate(net.graph, calibrated(net, resolve(scheme, net.graph))), TRAIN, net.feeds(0))
    assert not {"head_weight", "head_bias"} & {old.name for old, _ in graph.updates}
    assert any(n.op.phase == "update" for n in graph.nodes)


def test_gradients_that_wait_for_each_other_are_not_fused_into_one_chain() -> None:
    """A value added to itself, and a detour past a convolution: the chain would need its own output."""
    for name in ("double", "detour"):
        index = [f.__name__ for f in STAGES].index(name)
        net = random_network(index)
        graph = differentiate(net.graph, calibrated(net, resolve(everything(net.graph), net.graph)))
        fused = run(graph, TRAIN, net.feeds(0))
        for node in fused.nodes:
            assert not set(node.inputs) & set(node.outputs)


@pytest.mark.parametrize("centred", [False, True])
def test_biases_and_their_deltas_learn_the_same_numbers(centred: bool) -> None:
    """As long as no delta leaves int16: the bias in flash plus its delta is the int32 bias."""
    net = random_network(0)
    graphs = {}
    for bits in (16, 32):
        scheme = replace(everything(net.graph, centred=centred), bias_bits=bits)
        graphs[bits] = run(differentiate(net.graph, calibrated(net, resolve(scheme, net.graph), 0.02)), TRAIN)
    for step in range(4):
        feeds = net.feeds(step, step=step)
        results = {bits: interpret(graph, feeds) for bits, graph in graphs.items()}
        moved = {bits: results[bits].next_params(graph) for bits, graph in graphs.items()}
        base = {p.value.name: p.data for p in graphs[16].params}
        deltas = [n for n in moved[16] if n.endswith("_delta")]
        assert len(deltas) == sum(n.endswith("_bias") for n in moved[32]) - 1, "all but the head's"
        for name in deltas:
            bias = name.removesuffix("_delta") + "_bias"
            assert moved[16][name].dtype == np.int16
            assert np.abs(moved[16][name].astype(np.int32)).max() < 32767
            assert np.array_equal(base[bias] + moved[16][name], moved[32][bias]), name
        weights = [n for n in moved[32] if not n.endswith("_bias")]
        assert all(np.array_equal(moved[16][n], moved[32][n]) for n in weights)
        graphs = {bits: graph.with_params(moved[bits]) for bits, graph in graphs.items()}
    assert any(moved[16][n].any() for n in deltas)


def drop_last_node(graph: Graph) -> Graph:
    return replace(graph, nodes=graph.nodes[:-1])


def forget_a_mask(graph: Graph) -> Graph:
    """A wrong rewrite: the first clamp mask reads another activation of the same shape."""
    masks = [n for n in graph.nodes if isinstance(n.op, GradMask)]
    broken = {masks[-1]: replace(masks[-1], inputs=(masks[-1].inputs[0], full(masks[-1], graph)))}
    return rebuild(graph, [broken.get(n, n) for n in graph.nodes])


def full(mask: Node, graph: Graph) -> Value:
    shape = mask.inputs[1].type.shape
    return next(
        v for n in graph.nodes for v in n.outputs if v.type.shape == shape and v.type.dtype == "s8" and v is not mask.inputs[1]
    )


def stop_always(graph: Graph) -> Graph:
    return graph.with_params({p.value.name: np.zeros_like(p.data) for p in graph.params if p.value.name == "head_weight"})


def test_the_runner_names_a_pass_that_breaks_a_rule() -> None:
    net, graph = random_training(1)
    with pytest.raises(GraphError, match=r"pass drop_last_node: .* nothing computes it"):
        run(graph, (drop_last_node,), net.feeds(0))


def test_the_runner_names_a_pass_that_changes_a_result() -> None:
    net, graph = random_training(1)
    with pytest.raises(GraphError, match=r"pass forget_a_mask: (output|the next value of) .* changed"):
        run(graph, (forget_a_mask,), net.feeds(0))
    run(graph, (forget_a_mask,))


def test_the_runner_names_a_pass_that_ends_the_step_elsewhere() -> None:
    net, graph = random_training(1)
    with pytest.raises(GraphError, match="pass stop_always: the step ends at 2, not at 0"):
        run(graph, (stop_always,), net.feeds(0))


def test_the_pipeline_is_the_documented_one() -> None:
    assert (prune, keep_live_channels, one_bit_masks, fuse_chains, fuse_updates, update_early) == TRAIN
