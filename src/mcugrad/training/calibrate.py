"""Static gradient exponents and input means, measured on a few samples with a temporary head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mcugrad.ir import Array, Graph, Node, interpret
from mcugrad.loss import Loss
from mcugrad.ops.backprop import GradQuantize, grad_quant
from mcugrad.passes.train import prune
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.scheme import Selection, layers

HEAD_RANGE = 300
EXPONENT_SAMPLES = 16
MEAN_SAMPLES = 32


def temporary_head(shape: tuple[int, ...], seed: int) -> Array:
    """int16 integers uniform in [-300, 300)."""
    return np.random.default_rng(seed).integers(-HEAD_RANGE, HEAD_RANGE, shape).astype(np.int16)


def gradient_exponents(
    graph: Graph, selection: Selection, x: Array, y: Array, head: Array | None, loss: Loss = Loss.SOFTMAX
) -> dict[str, int]:
    """Exponent per slot of the training graph of `graph`.

    x: int8 [N,H,W,C], y: labels [N] or targets [N,K], head: int16 [F,K] temporary weights (None: the graph as it is, for
    heads that are not new and graphs that keep their output).  Integer forward, masks and loss, float64
    backward; E = ceil(log2(max |stored gradient| / 127)) + 1 over the samples, or that of its source when all are 0.
    """
    if head is not None:
        graph = graph.with_params({"head_weight": head, "head_bias": np.zeros(head.shape[1], np.int32)})
    training = differentiate(graph, TrainingPlan(selection, loss=loss))
    backward = prune(replace(training, updates=()))
    nodes = [n for n in backward.nodes if isinstance(n.op, GradQuantize)]
    largest = dict.fromkeys(nodes, 0.0)
    for sample, label in zip(x, y, strict=True):
        control = np.array([0, 0, 0, 1 << 16])
        feeds = {graph.inputs[0].name: sample[None], "label": np.atleast_1d(label), "control": control}
        result = interpret(backward, feeds, gradient_mode)
        for node in nodes:
            largest[node] = max(largest[node], float(np.abs(result[node.outputs[0]]).max()))
    return _exponents(training, largest)


def gradient_mode(node: Node) -> str:
    """Integer forward, masks and loss; float64 backward."""
    return "eval" if node.op.phase in ("forward", "loss") and node.outputs else "real"


def _exponents(graph: Graph, largest: Mapping[Node, float]) -> dict[str, int]:
    found: dict[int, int] = {}
    for node, top in largest.items():
        assert isinstance(node.op, GradQuantize)
        source = grad_quant(node.inputs[0].type).exponent
        quiet = 0 if source is None else found[source]
        found[node.op.exponent] = max(-128, math.ceil(math.log2(top / 127)) + 1) if top > 0 else quiet
    return {name: found[i] for i, name in enumerate(graph.meta["slots"]) if i in found}


def input_means(graph: Graph, selection: Selection, x: Array) -> dict[str, Array]:
    """rint of the mean over samples and positions of (x - z_x), int16 [C], for each layer with a centred update."""
    wanted = {n: node for n, node in layers(graph).items() if n in selection.weights and selection.weights[n].centred}
    if not wanted:
        return {}
    sums = {name: np.zeros(node.inputs[0].type.shape[3]) for name, node in wanted.items()}
    for sample in x:
        result = interpret(graph, {graph.inputs[0].name: sample[None]})
        for name, node in wanted.items():
            quant = node.inputs[0].type.quant
            sums[name] += result[node.inputs[0]].mean(axis=(0, 1, 2)) - (quant.zero if quant else 0)
    return {name: np.rint(total / len(x)).astype(np.int16) for name, total in sums.items()}
