"""Learning with the device's integer arithmetic, on the host twin, without repeating what never changes.

A frozen prefix gives the same int8 numbers at every visit of an image.  They are computed once, by the twin of the whole
network, and the twin that learns is built from the rest of the training graph: it ends in the parameters that the twin of
the whole graph would have (`same_as_whole` checks it).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.compiler import host_program
from mcugrad.devices.base import Control
from mcugrad.devices.host import Host
from mcugrad.errors import McugradError
from mcugrad.ir import Graph, Node, Value, rebuild
from mcugrad.memory.problem import Home
from mcugrad.prepare import Prepared, training_graph
from mcugrad.program import Program, inference_graph
from mcugrad.trainer import Course, Learned, learn, loss_of, quiet
from mcugrad.training.scheme import Selection, UpdateScheme, layers, resolve

Array = NDArray[Any]


def first_updated(graph: Graph, schemes: list[UpdateScheme]) -> str:
    """The earliest layer that any of the schemes updates; the last layer where none does."""
    selections = [resolve(scheme, graph) for scheme in schemes]
    names = list(layers(graph))
    return next((name for name in names if any(_updates(s, name) for s in selections)), names[-1])


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


def without_prefix(graph: Graph, at: Value) -> Graph:
    """The training graph with the value `at` as its input."""
    last = next(i for i, node in enumerate(graph.nodes) if at in node.outputs)
    return rebuild(graph, graph.nodes[last + 1 :], inputs=(at, *graph.inputs[1:]))


@dataclass(frozen=True, eq=False)
class Twin:
    """A host library and what it was made from."""

    program: Program
    library: Path


def twin(
    prepared: Prepared,
    scheme: UpdateScheme,
    at: Value | None,
    folder: Path,
    rate: float | None = None,
) -> Twin:
    """Builds the training graph under a scheme, from the value `at` on (None: all of it)."""
    graph = training_graph(prepared, scheme, rate=rate)
    if at is not None and at is not graph.inputs[0]:
        graph = without_prefix(graph, at)
    return Twin(*host_program(graph, prepared.name, folder))


def activations(prepared: Prepared, at: Value, x: Array, folder: Path) -> NDArray[np.int8]:
    """The int8 value `at` for raw samples x [N,H,W,C], read from the arena of a twin that keeps it to the end."""
    samples = prepared.quantize(x)
    if at is prepared.graph.inputs[0]:
        return samples
    graph = inference_graph(prepared.graph)
    made = Twin(*host_program(replace(graph, outputs=(*graph.outputs, at)), prepared.name, folder))
    assert made.program.homes[at] is Home.ARENA
    found = np.empty((len(samples), *at.type.shape[1:]), np.int8)
    with Host.load(made.library) as device:
        place = device._context().arena + made.program.plan.offsets[at]
        for i, sample in enumerate(samples):
            device.infer(sample)
            found[i] = np.frombuffer(ctypes.string_at(place, at.type.nbytes), np.int8).reshape(found.shape[1:])
    return found


class Slowed(Host):
    """A twin whose learning rate is halved so many times more: the rates of a grid without building again."""

    def __init__(self, library: Path, halvings: int) -> None:
        super().__init__(library)
        self._more = halvings

    def set_control(
        self, *, seed: int | None = None, step: int | None = None, halvings: int | None = None, skip: int | None = None
    ) -> Control:
        more = None if halvings is None else halvings + self._more
        return super().set_control(seed=seed, step=step, halvings=more, skip=skip)


Start = Callable[[Host, Program, int], None]


def random_head(device: Host, program: Program, seed: int) -> None:
    """The head's weights uniform within 1/sqrt(features), in Q12, as PyTorch would start a linear layer in real units."""
    state = program.unpack_state(device.read_params())
    weight = state["head_weight"]
    bound = 4096 * len(weight) ** -0.5
    state["head_weight"] = np.random.default_rng(seed).uniform(-bound, bound, weight.shape).round().astype(weight.dtype)
    device.write_params(program.pack_state(state))


HEADS: dict[str, Start] = {"random head": random_head}


def run(
    made: Twin,
    halvings: int,
    x: Array,
    y: Array,
    course: Course,
    score: Callable[[Host], dict[str, float]],
    head: Start | None,
    losses: tuple[Callable[[int], float], float | None] = (loss_of, None),
) -> dict[str, Any]:
    """One training run from the initial parameters on int8 samples x: the device's fields of a record.

    losses: the loss that a step's score stands for, and that of a guess.  One that diverges scores as it stood when that
    was seen."""
    with Slowed(made.library, halvings) as device:
        if head is not None:
            head(device, made.program, course.seed)
        try:
            learned = facts(learn(device, x, y, course, quiet, *losses), course)
        except McugradError as error:
            learned = {"steps": course.length(len(x)), "diverged": str(error)}
        return {**score(device), **learned}


def facts(learned: Learned, course: Course) -> dict[str, Any]:
    steps = len(learned.losses)
    last = learned.losses[-(steps // (course.epochs or 1)) :]
    return {
        "steps": steps,
        "loss_last_epoch": round(float(np.mean(last)), 4),
        "full_share": round(learned.full_steps / steps, 4),
        "saturated": learned.saturated,
        "seconds": round(learned.seconds, 1),
    }


def same_as_whole(whole: Prepared, at: Value, x: Array, y: Array, scheme: UpdateScheme, work: Path) -> dict[str, Any]:
    """Trains tail and whole network on the same raw samples and compares hash and losses."""
    course, found = Course(steps=len(x)), []
    for cut, inputs in ((None, whole.quantize(x)), (at, activations(whole, at, x, work / "check-prefix"))):
        made = twin(whole, scheme, cut, work / ("check-whole" if cut is None else "check-tail"))
        with Host.load(made.library) as device:
            losses = learn(device, inputs, y, course).losses
            found.append((made.program.state_hash(device.read_params()), losses))
    return {"steps": len(x), "equal": found[0] == found[1], "parameters_sha256": found[0][0]}
