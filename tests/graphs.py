"""Random quantized networks, update schemes and training graphs for all tests: small, seeded, every kind of fan-out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, Node, Value
from mcugrad.loss import Loss
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.head import Head
from mcugrad.ops.reshape import Reshape
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import gradient_exponents, input_means, temporary_head
from mcugrad.training.head import attach_head, attach_logits
from mcugrad.training.scheme import Selection, Update, UpdateScheme, layers, resolve
from sketch import SAMPLES, Sketch
from stages import STAGES, TAILS, attended, plain, pooled

Array = NDArray[Any]

NO_SKIP = 1 << 16  # a threshold that no probability reaches


@dataclass(frozen=True, eq=False)
class Network:
    """A forward graph that ends in a head or its own logits, with inputs int8 [N,H,W,C] and labels (or targets) that fit."""

    graph: Graph
    x: Array
    labels: Array
    stages: tuple[str, ...]
    loss: Loss = Loss.SOFTMAX

    def feeds(self, sample: int, *, seed: int = 7, step: int = 0, halvings: int = 0, skip: int = NO_SKIP) -> dict[str, Array]:
        """Contents of the inputs of its training graph."""
        control = np.array([seed, step, halvings, skip], np.int32)
        return {"input": self.x[sample : sample + 1], "label": np.atleast_1d(self.labels[sample]), "control": control}


def random_body(s: Sketch, seed: int) -> tuple[Value, tuple[str, ...]]:
    """The features, and the names of the stages before them."""
    x = s.input((int(s.rng.integers(5, 9)), int(s.rng.integers(4, 8)), int(s.rng.integers(1, 5))))
    extra = [STAGES[i] for i in s.rng.integers(0, len(STAGES), s.rng.integers(1, 3))]
    stages = [plain, *extra, STAGES[seed % len(STAGES)]]
    for stage in stages:
        x = stage(s, x)
    tail = TAILS[seed // 3 % len(TAILS)]
    return tail(s, x), tuple(f.__name__ for f in (*stages, tail))


def random_network(seed: int) -> Network:
    """Stage `seed % 22` and tail `seed // 3 % 4` are certain; one to three more stages are drawn."""
    s = Sketch(seed)
    features, stages = random_body(s, seed)
    classes = int(s.rng.integers(2, 8))
    graph = with_head(s, features, classes)
    labels = s.rng.integers(0, classes, SAMPLES)
    return Network(graph, np.concatenate(s.samples[graph.inputs[0]]), labels, stages)


def attentive_network(seed: int) -> Network:
    """A random network with a softmax before its end."""
    s = Sketch(seed)
    x = attended(s, plain(s, s.input((5, 4, 3))))
    graph = with_head(s, pooled(s, plain(s, x)), 4)
    labels = s.rng.integers(0, 4, SAMPLES)
    return Network(graph, np.concatenate(s.samples[graph.inputs[0]]), labels, ("plain", "attended", "plain", "pooled"))


def network_with_loss(seed: int, loss: Loss) -> Network:
    """A random network that ends in a head or, for every second seed, in an output of its own, and targets for `loss`."""
    s = Sketch(seed)
    features, stages = random_body(s, seed)
    few = 2 if loss is Loss.SOFTMAX else 1
    if loss is Loss.AUTOENCODER or seed % 2:
        sample = s.build.inputs[0].type.elements
        flat = s.place(Reshape((1, 1, 1, features.type.elements)), features, name="flat")
        y = s.conv(flat, sample if loss is Loss.AUTOENCODER else s.pick(few, 3, 5), relu=False)
        graph, unit = attach_logits(s.build.graph((y,))), 128
    else:
        graph, unit = with_head(s, features, s.pick(few, 3, 5)), 1
    outputs = graph.outputs[0].type.elements
    targets = {
        Loss.SOFTMAX: lambda: s.rng.integers(0, outputs, SAMPLES),
        Loss.SIGMOID: lambda: s.rng.integers(0, 2, (SAMPLES, outputs)),
        Loss.MSE: lambda: s.rng.integers(-60, 61, (SAMPLES, outputs)) * unit * (1 if unit > 1 else 1000),
        Loss.AUTOENCODER: lambda: np.zeros(SAMPLES, np.int64),
    }[loss]()
    return Network(graph, np.concatenate(s.samples[graph.inputs[0]]), targets, stages, loss)


def with_head(s: Sketch, features: Value, classes: int) -> Graph:
    """The network so far with a random head."""
    spread = 1.5 / (np.sqrt(features.type.elements) * (np.std(s.reals(features)) + 0.02))
    weight = s.rng.normal(0, spread, (features.type.elements, classes))
    return attach_head(s.build.graph((features,)), classes, weight, s.rng.normal(0, 0.2, classes), least=1)


def random_scheme(graph: Graph, rng: np.random.Generator) -> UpdateScheme:
    """Some weights whole, some by ratio or by listed channels; any residual bits; centred or not; some biases, of any bits."""
    weights: dict[str, Update] = {}
    for name, node in layers(graph).items():
        if rng.random() < 0.7:
            weights[name] = random_update(node, rng)
    names = list(layers(graph))
    listed = tuple(n for n in names if rng.random() < 0.5)
    biases: int | tuple[str, ...] = listed if rng.random() < 0.4 else int(rng.integers(0, len(names) + 1))
    if not weights and not biases:
        biases = 1
    bits, head, centred = int(rng.choice([0, 4, 8])), bool(rng.random() < 0.9), bool(rng.random() < 0.3)
    return UpdateScheme("random", "", weights, biases, head, bits, centred, bias_bits=int(rng.choice([16, 32])))


def random_update(node: Node, rng: np.random.Generator) -> Update:
    bits = (None, 0, 4, 8)[int(rng.integers(4))]
    centred = (None, True, False)[int(rng.integers(3))]
    channels = node.inputs[0].type.shape[3]
    whole = channels < 2 or (isinstance(node.op, Conv2d) and node.op.groups != 1)
    if whole or rng.random() < 0.4:
        return Update(residual_bits=bits, centred=centred)
    if rng.random() < 0.5:
        return Update(ratio=max(0.5, 1 / channels), residual_bits=bits, centred=centred)
    count = int(rng.integers(1, channels))
    listed = tuple(sorted(int(c) for c in rng.choice(channels, count, replace=False)))
    return Update(channels=listed, residual_bits=bits, centred=centred)


def everything(graph: Graph, residual_bits: int = 8, centred: bool = False) -> UpdateScheme:
    """All weights, all biases and the head."""
    every = {name: Update() for name in layers(graph)}
    return UpdateScheme("everything", "", every, len(every), True, residual_bits, centred)


def calibrated(net: Network, selection: Selection, rate: float = 0.05) -> TrainingPlan:
    """A plan with exponents and means measured on the network's own samples."""
    head = None
    if isinstance(net.graph.nodes[-1].op, Head):
        shape = net.graph.params[-2].value.type.shape
        head = temporary_head((shape[0], shape[1]), 1)
    exponents = gradient_exponents(net.graph, selection, net.x, net.labels, head, net.loss)
    return TrainingPlan(selection, rate, exponents, input_means(net.graph, selection, net.x), net.loss)


def random_training(seed: int, rate: float = 0.05) -> tuple[Network, Graph]:
    """A random network and its training graph, before any pass, under a random scheme."""
    net = random_network(seed)
    selection = resolve(random_scheme(net.graph, np.random.default_rng(seed + 1000)), net.graph)
    return net, differentiate(net.graph, calibrated(net, selection, rate))
