"""How much each part of a network would gain from learning, without training it: mean-centred Fisher information."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mcugrad.ir import Array, Graph, Node, Value, interpret
from mcugrad.ops.head import Head
from mcugrad.passes.train import prune
from mcugrad.prepare import Prepared
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import gradient_mode, input_means, temporary_head
from mcugrad.training.scheme import BUILT_IN, layers, resolve

SAMPLES = 64


@dataclass(frozen=True, eq=False)
class Importance:
    """Expected squared gradient in real units, averaged over samples: per layer, of each input channel of the weight
    [C_in] (one number where the weight is updated whole) and of the bias."""

    weight: Mapping[str, Array]
    bias: Mapping[str, float]

    def gain(self, layer: str, channels: tuple[int, ...] | None) -> float:
        """Energy of the weight's chosen input channels (None: all)."""
        energy = self.weight[layer]
        return float(energy.sum() if channels is None else energy[list(channels)].sum())


def importance(prepared: Prepared, *, samples: int = SAMPLES, seed: int = 0) -> Importance:
    """Importance of every layer of a prepared network on its calibration samples.

    A random head stands in for the one to be learned, where there is one; forward and masks are integer, the backward pass
    float64.  The weight gradient is sum_p (x - mean_c x) * g: without the centring the mean of post-ReLU inputs misleads.
    """
    selection = resolve(replace(BUILT_IN["full"], residual_bits=0, head=False), prepared.graph)
    x, y = prepared.x[:samples], prepared.y[:samples]
    plan = TrainingPlan(selection, means=input_means(prepared.graph, selection, x), loss=prepared.targets.loss)
    graph, found = _gradients(_with_random_head(prepared, seed), plan)
    weight = {name: np.zeros(1) for name in found}
    bias = dict.fromkeys(found, 0.0)
    for sample, label in zip(x, y, strict=True):
        control = np.array([0, 0, 0, 1 << 16])
        feeds = {graph.inputs[0].name: sample[None], "label": np.atleast_1d(label), "control": control}
        result = interpret(graph, feeds, gradient_mode)
        scale = 2.0 ** float(result[found[next(iter(found))].exponent][0])
        for name, part in found.items():
            weight[name] = weight[name] + part.weight_energy(result[part.weight], scale) / len(x)
            bias[name] += part.bias_energy(result[part.bias], scale) / len(x)
    return Importance(weight, bias)


def _with_random_head(prepared: Prepared, seed: int) -> Graph:
    """A model that keeps its own output stays as it is."""
    last = prepared.graph.nodes[-1]
    if not isinstance(last.op, Head):
        return prepared.graph
    head = temporary_head((last.inputs[1].type.shape[0], prepared.classes), seed)
    return prepared.graph.with_params({"head_weight": head, "head_bias": np.zeros(head.shape[1], np.int32)})


@dataclass(frozen=True, eq=False)
class _Part:
    """Gradient values of one layer and what turns them into real units."""

    node: Node
    weight: Value
    bias: Value
    exponent: Value
    weight_scale: Array
    x_scale: float

    def weight_energy(self, grad: Array, scale: float) -> Array:
        """Squared real gradient per input channel: dL/dw = dW * s_x * 2**e_s / s_w[o]."""
        axis = self.node.op.weight_axis or 0
        shape = [-1 if i == axis else 1 for i in range(4)]
        real = grad * (self.x_scale * scale / self.weight_scale.reshape(shape))
        energy = np.square(real)
        return np.array([energy.sum()]) if axis == 3 else energy.sum(axis=(0, 1, 2))

    def bias_energy(self, grad: Array, scale: float) -> float:
        """Squared real gradient of the bias: dL/db = db * 2**e_s / s_w[o]."""
        return float(np.square(grad * scale / self.weight_scale).sum())


def _gradients(graph: Graph, plan: TrainingPlan) -> tuple[Graph, dict[str, _Part]]:
    """The backward graph that ends in parameter gradients, and the gradients of each layer."""
    training = differentiate(graph, plan)
    table, parts = layers(training), {}
    steps = {n.inputs[1].name: n for n in training.nodes if n.op.phase == "update" and not n.op.lowers and len(n.inputs) > 3}
    for name, node in table.items():
        step, bias_step = steps[f"{name}_weight"], steps[f"{name}_bias"]
        quant = node.inputs[1].type.quant
        x = node.inputs[0].type.quant
        assert quant is not None and x is not None, "a prepared graph is quantized"
        channels = node.outputs[0].type.shape[3]
        scales = np.array(quant.scale * channels if len(quant.scale) == 1 else quant.scale)
        parts[name] = _Part(node, step.inputs[0], bias_step.inputs[0], step.inputs[2], scales, x.scale[0])
    outputs = tuple(v for p in parts.values() for v in (p.weight, p.bias, p.exponent))
    return prune(replace(training, updates=(), outputs=outputs)), parts
