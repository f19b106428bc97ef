"""Everything that may be updated, what each part would gain and what it costs: the items of the knapsack."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mcugrad.costs import factor, update_kind
from mcugrad.ir import Array, Graph, GraphError, Node, Value
from mcugrad.memory.certificate import live as alive_bytes
from mcugrad.memory.floor import smallest_peak
from mcugrad.memory.problem import build
from mcugrad.memory.schedule import layerwise
from mcugrad.ops.head import Head
from mcugrad.ops.turned import Turned
from mcugrad.passes import TRAIN, run
from mcugrad.prepare import Prepared
from mcugrad.search.cost import constants, instructions
from mcugrad.search.importance import Importance
from mcugrad.targets import Target
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.scheme import Update, UpdateScheme, largest, layers, resolve

RATIOS = (0.125, 0.25, 0.5, 1.0)
POWER = 0.75
"""Gain = energy ** POWER: what the second half of a layer's energy adds to accuracy is less than what the first did."""

STRETCH = 8  # of depths over which a smallest arena may be told from those at both ends

QUALITY = {8: 1.0, 4: 0.985, 0: 0.78}
"""Share of the gain over the head alone that is left with F residual bits (numerics.md, CIFAR-10 under the 99 kB scheme)."""


@dataclass(frozen=True)
class Gains:
    """Predicted gain of each part, in one unit: per layer and ratio of its input channels, and per bias."""

    weight: Mapping[str, Mapping[float, float]]
    bias: Mapping[str, float]

    @cached_property
    def total(self) -> float:
        """Gain of updating everything with 8 residual bits."""
        return sum(max(g.values()) for g in self.weight.values()) + sum(self.bias.values())


@dataclass(frozen=True)
class Option:
    """One way to update a layer's weight.  state, flash: bytes it adds; instructions: of its update."""

    layer: int
    name: str
    ratio: float
    bits: int
    gain: float
    state: int
    flash: int
    instructions: int


@dataclass(frozen=True)
class Depth:
    """Updating the biases of the last `biases` layers, and all that a backward pass through them costs.

    state, flash: bytes, those of the head included.  instructions: of the whole step, every node run whole.
    arena: the smallest arena the planner reaches.  peaks: by layer in forward order, bytes alive at most while the layer
    or its backward pass runs.
    """

    biases: int
    gain: float
    state: int
    flash: int
    instructions: int
    arena: int
    peaks: tuple[int, ...]


@dataclass(frozen=True)
class Space:
    """All choices for a network.

    names: layers in forward order.  kept: by layer, bytes by which the input of an updated weight, kept whole until the
    update, exceeds the 1-bit mask that the backward pass keeps anyway.  update: by layer, bytes of the gradient that its
    update reads and of the scratch memory it works in.  total: gain of updating everything.
    """

    names: tuple[str, ...]
    kept: tuple[int, ...]
    update: tuple[int, ...]
    options: tuple[Option, ...]
    depths: tuple[Depth, ...]
    total: float

    def arena(self, depth: Depth, chosen: tuple[Option, ...]) -> int:
        """Predicted bytes of the smallest arena: at each layer, the inputs kept for it and those before, and what else is
        alive, or what its own update needs."""
        updated = {o.layer for o in chosen}
        kept, most = 0, depth.arena
        for at, peak in enumerate(depth.peaks):
            kept += self.kept[at] if at in updated else 0
            if at >= len(self.names) - depth.biases:
                most = max(most, kept + max(peak, self.update[at] if at in updated else 0))
        return most


def fisher_gains(found: Importance, graph: Graph) -> Gains:
    """Gains from the mean-centred Fisher energy, which is the first-order decrease of the loss at one rate for all."""
    weight = {}
    for name, node in layers(graph).items():
        data = weight_data(graph, node)
        kept = {r: channels_of(data, node, r) for r in RATIOS}
        weight[name] = {r: found.gain(name, c) ** POWER for r, c in kept.items() if c != ()}
    return Gains(weight, {name: energy**POWER for name, energy in found.bias.items()})


def weight_data(graph: Graph, node: Node) -> Array:
    """The int8 weight of a layer."""
    param = graph.param(node.inputs[1])
    if param is None:
        raise GraphError(f"{node.inputs[1].name} is not a parameter")
    return param.data


def channels_of(data: Array, node: Node, ratio: float) -> tuple[int, ...] | None:
    """The input channels that a scheme's ratio selects; None: all of them, (): no such choice."""
    if ratio == 1:
        return None
    count = math.floor(data.shape[3] * ratio)
    if count == 0 or node.op.weight_axis == 3:  # a depthwise weight is small: the search takes it whole or not at all
        return ()
    try:
        node.op.partial(largest(data, count))
    except GraphError:
        return ()
    return largest(data, count)


def training(prepared: Prepared, scheme: UpdateScheme) -> Graph:
    """The fused training graph without calibrated exponents: all that memory and instructions depend on."""
    plan = TrainingPlan(resolve(scheme, prepared.graph), loss=prepared.targets.loss)
    return run(differentiate(prepared.graph, plan), TRAIN)


def least_depth(prepared: Prepared) -> int:
    """Biases that learn at least: none beside a head, one where there is no head to learn."""
    return 0 if isinstance(prepared.graph.nodes[-1].op, Head) else 1


Progress = Callable[[str, int, int], None]


def space(prepared: Prepared, gains: Gains, depths: Sequence[Depth], target: Target, bits: tuple[int, ...]) -> Space:
    """The choices for a prepared network; depths: those of `bias_depths`, bits: the residual bits F that may be chosen."""
    table = layers(prepared.graph)
    names = tuple(table)
    options = [o for i, name in enumerate(names) for o in _options(i, name, prepared.graph, gains, target, bits)]
    kept = tuple(n.inputs[0].type.nbytes - (n.inputs[0].type.elements + 7) // 8 for n in table.values())
    gained = (sum(gains.bias[name] for name in names[len(names) - d.biases :]) for d in depths)
    worth = tuple(replace(d, gain=gain) for d, gain in zip(depths, gained, strict=True))
    return Space(names, kept, tuple(map(_update_bytes, table.values())), tuple(options), worth, gains.total)


def _update_bytes(node: Node) -> int:
    """Of the gradient and the scratch memory of a layer's weight update, all inputs updated."""
    weight, y = node.inputs[1].type, node.outputs[0].type
    if node.op.weight_axis == 3:
        return y.elements + 16 * math.prod(weight.shape[:3])
    outputs = weight.shape[0]
    return y.elements + Turned(weight.elements // outputs, y.elements // outputs, outputs).scratch


def _options(index: int, name: str, graph: Graph, gains: Gains, target: Target, bits: tuple[int, ...]) -> list[Option]:
    node = layers(graph)[name]
    weight, macs, found = node.inputs[1].type, node.op.work(node).macs, []
    function = "mcg_depthwise_update" if node.op.weight_axis == 3 else "mcg_conv2d_update"
    for ratio, gain in gains.weight[name].items():
        channels = math.floor(weight.shape[3] * ratio)
        live = weight.elements // weight.shape[3] * channels
        means = 2 * channels
        tables = means + 2 * channels * (ratio < 1) + node.outputs[0].type.shape[3]
        for f in bits:
            c = factor(target.core, function, update_kind(f, centred=True))
            fixed = c.call + c.input * node.inputs[0].type.elements + c.weight * node.outputs[0].type.elements
            cost = round(fixed + c.mac * macs * live / weight.elements + c.element * live)
            residual = (live * f + 7) // 8
            found.append(Option(index, name, ratio, f, gain * QUALITY[f], live + residual, residual + tables, cost))
    return found


def bias_depths(prepared: Prepared, target: Target, input_rows: bool | None, progress: Progress) -> tuple[Depth, ...]:
    """Every bias depth from none to all layers and its costs; the gains are still 0."""
    names = tuple(layers(prepared.graph))
    graphs = [training(prepared, UpdateScheme("depth", biases=n)) for n in range(len(names) + 1)]
    arenas = _Arenas(graphs, input_rows, progress)
    found = []
    for n, graph in enumerate(graphs):
        state, peaks = sum(p.value.type.nbytes for p in graph.mutable()), _peaks(graph, names, arenas.at(n))
        found.append(Depth(n, 0.0, state, constants(graph), instructions(graph, target), arenas.at(n), peaks))
    return tuple(found)


class _Arenas:
    """Smallest arenas of graphs of growing depth, planned where they cannot be told from others.

    Where two are equal, so are all between them.  Where the backward pass alone decides both ends of a short stretch, it is
    taken to decide all between them."""

    def __init__(self, graphs: list[Graph], input_rows: bool | None, progress: Progress) -> None:
        self.graphs, self.input_rows, self.progress = graphs, input_rows, progress
        self.backward = [_backward_peak(g) for g in graphs]
        self.known: dict[int, int] = {}
        self._fill(0, len(graphs) - 1)

    def at(self, n: int) -> int:
        return self.known[n]

    def _fill(self, low: int, high: int) -> None:
        for n in (low, high):
            if n not in self.known:
                self.known[n] = smallest_peak(self.graphs[n], input_rows=self.input_rows)
                self.progress("planning memory", len(self.known), len(self.graphs))
        if self.known[low] == self.known[high]:
            self.known |= dict.fromkeys(range(low, high), self.known[low])
        elif high - low <= STRETCH and self._decided(low) and self._decided(high):
            self.known |= {n: max(self.known[low], self.backward[n]) for n in range(low + 1, high)}
        elif high - low > 1:
            middle = (low + high) // 2
            self._fill(low, middle)
            self._fill(middle, high)

    def _decided(self, n: int) -> bool:
        """Is this the arena of the head alone, or what the backward pass needs?"""
        return self.known[n] == max(self.known[0], self.backward[n])


def _backward_peak(graph: Graph) -> int:
    """Bytes alive at most after the forward pass."""
    live = alive_bytes(build(graph, layerwise(graph)))
    sizes = zip(graph.nodes, live[: len(graph.nodes)], strict=True)
    return max((int(size) for node, size in sizes if node.op.phase != "forward"), default=0)


def _peaks(graph: Graph, names: tuple[str, ...], arena: int) -> tuple[int, ...]:
    """Live bytes of each layer, whole nodes one after the other; in the forward pass no more than `arena`, which row
    streaming reaches."""
    live = alive_bytes(build(graph, layerwise(graph)))
    peaks, at = [0] * len(names), 0
    owner = _owners(graph, names)
    for node, size in zip(graph.nodes, live[: len(graph.nodes)], strict=True):
        at = next((owner[v] for v in node.inputs if v in owner), at)
        forward = node.op.phase == "forward"
        peaks[at] = max(peaks[at], min(int(size), arena) if forward else int(size))
    return tuple(peaks)


def _owners(graph: Graph, names: tuple[str, ...]) -> dict[Value, int]:
    """Index of the layer that each weight and bias belongs to."""
    index = {f"{name}_{what}": i for i, name in enumerate(names) for what in ("weight", "bias")}
    return {p.value: index[p.value.name] for p in graph.params if p.value.name in index}


def scheme_of(depth: Depth, chosen: tuple[Option, ...], model: str = "", name: str = "searched") -> UpdateScheme:
    """The update scheme of a choice; its weight gradients are centred, as the gains are measured."""
    weights = {o.name: Update(o.ratio, None, o.bits) for o in sorted(chosen, key=lambda o: o.layer)}
    return UpdateScheme(name, model, weights, depth.biases, centred=True)
