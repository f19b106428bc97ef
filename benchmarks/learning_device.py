"""Learning with the device's integer arithmetic, on the host twin, without repeating what never changes.

A frozen prefix gives the same int8 numbers at every visit of an image.  They are computed once, by the interpreter, and
the twin is built from the rest of the training graph: training ends in the parameters that the twin of the whole graph
would have (`same_as_whole` checks it).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning_data import Images
from mcugrad.compiler import host_program
from mcugrad.devices.host import Host
from mcugrad.ir import Graph, Node, Value, interpret, rebuild
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Program
from mcugrad.trainer import Course, Learned, accuracy, learn
from mcugrad.training.scheme import Selection, UpdateScheme, layers, resolve


def first_updated(graph: Graph, schemes: list[UpdateScheme]) -> str:
    """The earliest layer that any of the schemes updates."""
    selections = [resolve(scheme, graph) for scheme in schemes]
    return next(name for name in layers(graph) if any(_updates(s, name) for s in selections))


def _updates(selection: Selection, layer: str) -> bool:
    return layer in selection.weights or layer in selection.biases


def cut_before(graph: Graph, layer: str) -> Value:
    """The last value before the layer on which alone the rest of the forward graph depends."""
    start = graph.nodes.index(layers(graph)[layer])
    while not _alone(graph, graph.nodes[start:], graph.nodes[start].inputs[0]):
        start -= 1
    return graph.nodes[start].inputs[0]


def _alone(graph: Graph, nodes: tuple[Node, ...], value: Value) -> bool:
    known = {value, *(p.value for p in graph.params), *(v for n in nodes for v in n.outputs)}
    return all(v in known for n in nodes for v in n.inputs)


def activations(graph: Graph, at: Value, x: NDArray[np.int8]) -> NDArray[np.int8]:
    """The int8 value `at` for each input of x [N,H,W,C]."""
    name = graph.inputs[0].name
    return np.concatenate([interpret(graph, {name: x[i : i + 1]}, until=at)[at] for i in range(len(x))])


def without_prefix(graph: Graph, at: Value) -> Graph:
    """The training graph with the value `at` as its input."""
    last = next(i for i, node in enumerate(graph.nodes) if at in node.outputs)
    return rebuild(graph, graph.nodes[last + 1 :], inputs=(at, *graph.inputs[1:]))


@dataclass(frozen=True, eq=False)
class Twin:
    """A host library and what it was made from."""

    program: Program
    library: Path


def twin(prepared: Prepared, scheme: UpdateScheme, at: Value | None, folder: Path) -> Twin:
    """Builds the training graph under a scheme, from the value `at` on (None: all of it)."""
    graph = training_graph(prepared, scheme)
    if at is not None:
        graph = without_prefix(graph, at)
    return Twin(*host_program(graph, prepared.name, folder))


@dataclass(frozen=True, eq=False)
class Tail:
    """Where the network is cut, and the int8 values there for a set's images."""

    at: Value
    train: NDArray[np.int8]
    test: NDArray[np.int8]


def tail(whole: Prepared, first: str, images: Images, cache: Path) -> Tail:
    """Cuts the network before layer `first`; the activations are kept in the file `cache`."""
    at = cut_before(whole.graph, first)
    if not cache.exists():
        np.savez(cache, **{k: activations(whole.graph, at, whole.quantize(s.x)) for k, s in _splits(images)})
    stored = np.load(cache)
    return Tail(at, stored["train"], stored["test"])


def _splits(images: Images) -> tuple[tuple[str, Any], ...]:
    return (("train", images.train), ("test", images.test))


def run(made: Twin, part: Tail, images: Images, course: Course) -> dict[str, Any]:
    """One training run from the initial parameters: the device's fields of a record."""
    with Host.load(made.library) as device:
        before = accuracy(device, part.test, images.test.y)
        learned = learn(device, part.train, images.train.y, course)
        after = accuracy(device, part.test, images.test.y)
        state = made.program.state_hash(device.read_params())
    return {"accuracy": {"before": before, "after": after}, **_facts(learned, course), "parameters_sha256": state}


def _facts(learned: Learned, course: Course) -> dict[str, Any]:
    steps = len(learned.losses)
    last = learned.losses[-(steps // (course.epochs or 1)) :]
    return {
        "steps": steps,
        "loss_last_epoch": round(float(np.mean(last)), 4),
        "full_share": round(learned.full_steps / steps, 4),
        "saturated": learned.saturated,
        "seconds": round(learned.seconds, 1),
    }


def same_as_whole(
    whole: Prepared, part: Tail, images: Images, scheme: UpdateScheme, work: Path, steps: int = 100
) -> dict[str, Any]:
    """Trains tail and whole network on the same samples and compares hash and losses."""
    chosen = np.random.default_rng(0).permutation(len(images.train.x))[:steps]
    y, course = images.train.y[chosen], Course(steps=steps)
    found = []
    for at, x in ((None, whole.quantize(images.train.x[chosen])), (part.at, part.train[chosen])):
        made = twin(whole, scheme, at, work / ("check-whole" if at is None else "check-tail"))
        with Host.load(made.library) as device:
            losses = learn(device, x, y, course).losses
            found.append((made.program.state_hash(device.read_params()), losses))
    return {"steps": steps, "equal": found[0] == found[1], "parameters_sha256": found[0][0]}
