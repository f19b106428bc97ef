"""Reverse mode at compile time: one walk over the forward nodes appends loss, backward and updates to the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mcugrad.ir import Array, Builder, Graph, GraphError, Node, Op, Param, TensorType, Value
from mcugrad.loss import Loss
from mcugrad.ops.adapt import AdaptExponent
from mcugrad.ops.backprop import GradMask, GradQuantize, GradSum, grad_quant
from mcugrad.ops.head import HEAD_ONE, HeadInputGrad, HeadUpdate
from mcugrad.ops.hold import BIAS_BITS, WEIGHT_BITS, CountSample, Hold
from mcugrad.ops.loss import SampleScale, StopIfEasy, StopIfZero
from mcugrad.ops.reshape import GradLoad
from mcugrad.ops.update import RESIDUAL, BiasGrad, BiasStep, WeightStep
from mcugrad.quant.affine import log2_shift
from mcugrad.training.losses import ending
from mcugrad.training.scheme import ADDED, Selection, layer_of, layers, split


@dataclass(frozen=True)
class TrainingPlan:
    """What differentiate needs besides the graph.

    rate: learning rate in real units.  exponents: per slot name, the static exponent (missing: 0).  means: per layer,
    the input mean over calibration samples, int16 [C], for centred updates (missing: 0).  loss: what is minimised.
    """

    selection: Selection
    rate: float = 1.5e-3
    exponents: Mapping[str, int] = field(default_factory=dict)
    means: Mapping[str, Array] = field(default_factory=dict)
    loss: Loss = Loss.SOFTMAX


def differentiate(graph: Graph, plan: TrainingPlan) -> Graph:
    """The training graph of a quantized forward graph that ends in a Head or in Logits.

    Inputs gain label s32[1], or the loss's target s32[K], and control s32[4]; outputs are logits, the loss's score and the
    clamp count of every stored gradient.  Raises GraphError where a layer to update cannot be reached."""
    draft = Backward(split(graph, plan.selection), plan, slots=1)
    count = len(draft.run().meta["slots"])
    return Backward(split(graph, plan.selection), plan, slots=max(count, 1)).run()


class Backward:
    """Collects the gradients of values while ops add their backward nodes."""

    def __init__(self, graph: Graph, plan: TrainingPlan, slots: int) -> None:
        self.graph, self.plan = graph, plan
        self.build = Builder()
        self.build.inputs, self.build.params = list(graph.inputs), list(graph.params)
        self.build.nodes = list(graph.nodes)
        self.build.reserve([v.name for v in graph.inputs] + [p.value.name for p in graph.params])
        self.build.reserve([v.name for n in graph.nodes for v in n.outputs])
        self.loss = ending(plan.loss, graph)
        self.label = self.build.input("label", self.loss.target or TensorType((1,), "s32"))
        self.control = self.build.input("control", TensorType((4,), "s32"))
        self.exponents = Value(self.build.unique("exponents"), TensorType((slots,), "s8"))
        self.slots: list[str] = []
        self.counts: list[Value] = []
        self.updates: list[tuple[Value, Value]] = []
        self.gradients: dict[Value, list[Value]] = {}
        self.continued: set[Value] = set()
        self.sample_exponent: Value | None = None
        self.layer_names = {n.inputs[1]: name for name, n in layers(graph).items()}
        self.biases: dict[Value, Value] = {}
        self.requantized: dict[Value, tuple[float, ...]] = {}  # h of a layer -> the scales of its forward pass
        self.count: tuple[Value, ...] = ()
        self.reachable = self._reachable()
        self.uses = self._uses()

    def _reachable(self) -> set[Value]:
        """Values with an updated parameter upstream."""
        found: set[Value] = set()
        for node in self.graph.nodes:
            updated = node.op.weight_axis is not None and (
                self.layer_names[node.inputs[1]] in self.plan.selection.weights
                or self.layer_names[node.inputs[1]] in self.plan.selection.biases
            )
            if updated or any(v in found for v in node.inputs):
                found.update(node.outputs)
        return found

    def _uses(self) -> dict[Value, int]:
        """How many gradients each value will receive."""
        table: dict[Value, int] = {}
        for node in self.graph.nodes:
            for value in node.inputs:
                table[value] = table.get(value, 0) + 1
        return table

    def run(self) -> Graph:
        head = self.graph.nodes[-1]
        logits = head.outputs[0]
        target = self.label if self.loss.target else self.graph.inputs[0]
        score, self.g = self.build.add(self.loss.op, logits, target, name="loss")
        if self.loss.skips:
            self.build.nodes.append(Node(StopIfEasy(), (score, self.control), ()))
        for node in reversed(self.graph.nodes):
            if node is head or any(v in self.gradients for v in node.outputs):
                node.op.gradient(node, self)
        self._count(self.count)
        self.build.params.append(Param(self.exponents, self._exponent_data()))
        if self.plan.selection.adapt and self.slots:
            self._adapt()
        graph = self.build.graph((logits, score, *self.counts), self.updates, dict(self.graph.meta))
        return replace(graph, meta={**graph.meta, "slots": tuple(self.slots)})

    def _adapt(self) -> None:
        """At the end of a step each exponent looks at what its gradient's clamp changed."""
        slots = self.exponents.type.shape
        health = self.build.param("health", TensorType(slots, "s32"), np.zeros(slots, np.int32))
        made = {n.outputs[1]: n for n in self.build.nodes if isinstance(n.op, GradQuantize)}
        state: tuple[Value, ...] = (self.exponents, health)
        for slot, count in enumerate(self.counts[: slots[0]]):
            op = AdaptExponent(slot, int(self._exponent_data()[slot]), made[count].outputs[0].type.elements)
            state = self.build.add(op, *state, count, name=f"{self.slots[slot]}.adapted")
        self.updates += zip((self.exponents, health), state, strict=True)

    def _exponent_data(self) -> Array:
        data = np.zeros(self.exponents.type.shape, np.int8)
        for i, name in enumerate(self.slots[: len(data)]):
            data[i] = self.plan.exponents.get(name, 0)
        return data

    # What the gradient rules of ops call.

    def wants(self, value: Value) -> bool:
        """Does any updated parameter lie before this value?"""
        return value in self.reachable

    def add(self, op: Op, *inputs: Value, name: str = "") -> Value:
        return self.build.one(op, *inputs, name=name or op.name)

    def contribute(self, value: Value, op: Op, *inputs: Value) -> None:
        """Adds the gradient that `op` computes to those of `value`."""
        self.pass_on(value, self.add(op, *inputs, name=f"{value.name}.grad"))

    def pass_on(self, value: Value, gradient: Value) -> None:
        """Adds a gradient to those of `value`; all but the last to come are stored as int8."""
        stored = self.gradients.setdefault(value, [])
        last = len(stored) + 1 == self.uses[value]
        if gradient.type.dtype == "s32" and (not last or gradient in self.continued):
            gradient = self.quantize(gradient, (1.0,), f"{value.name}.skip")
        self.continued.add(gradient)
        stored.append(gradient)

    def incoming(self, value: Value) -> Value:
        """The whole gradient of `value` as int32: all contributions in one exponent, summed."""
        *others, last = self.gradients[value]
        scale = grad_quant(last.type).scale
        if others and (scale != (1.0,) or self._feeds(last, others)):
            last = self.quantize(last, (1.0,), f"{value.name}.grad")
        if last.type.dtype != "s32" or last in self.materialised:
            last = self.add(GradLoad(), last, name=f"{value.name}.grad")
        for other in others:
            last = self.add(GradSum(), last, other, self.exponents, name=f"{value.name}.sum")
        return last

    def _feeds(self, last: Value, others: list[Value]) -> bool:
        """Was one of the stored gradients computed from the int32 chain of `last`?  A chain cannot add what waits for it."""
        producer = {v: n for n in self.build.nodes for v in n.outputs}
        start = last
        while isinstance(producer[start].op, GradSum | GradMask):
            start = producer[start].inputs[0]
        found = {start}
        for node in self.build.nodes:
            if not found.isdisjoint(node.inputs):
                found.update(node.outputs)
        return not found.isdisjoint(others)

    @property
    def materialised(self) -> set[Value]:
        """int32 gradients that stand in memory: those of the head."""
        return {n.outputs[0] for n in self.build.nodes if isinstance(n.op, SampleScale)}

    def stored(self, value: Value, wide: bool = True) -> Value:
        """The whole gradient of `value` in memory: int8, or the head's int32 as it stands when `wide`."""
        gradients = self.gradients[value]
        if len(gradients) == 1 and (gradients[0].type.dtype == "s8" or (wide and gradients[0] in self.materialised)):
            return gradients[0]
        return self.quantize(self.incoming(value), (1.0,), f"{value.name}.grad")

    def mask(self, gradient: Value, y: Value) -> Value:
        """The gradient where y's clamp let it pass."""
        return self.add(GradMask(), gradient, y, name=f"{y.name}.masked")

    def masked(self, y: Value, x: Value, weight: Value) -> Value:
        """h of a layer from x to y: the masked gradient times the weight scale per output channel, int8."""
        scales = channel_scales(weight, y)
        forward = tuple(scale_of(x) * s / scale_of(y) for s in scales)
        h = self.quantize(self.mask(self.incoming(y), y), scales, f"{y.name}.h", forward)
        self.requantized[h] = forward
        return h

    def quantize(self, gradient: Value, factor: tuple[float, ...], name: str, forward: tuple[float, ...] = ()) -> Value:
        scale = grad_quant(gradient.type).scale[0]
        self.slots.append(self._slot_name(name))
        slot = min(len(self.slots), self.exponents.type.shape[0]) - 1
        op = GradQuantize(tuple(f * scale for f in factor), slot, forward)
        stored, count = self.build.add(op, gradient, self.exponents, name=name)
        self.counts.append(count)
        return stored

    def _slot_name(self, name: str) -> str:
        """A value with several readers stores several gradients, each with its own exponent."""
        candidate, n = name, 1
        while candidate in self.slots:
            n += 1
            candidate = f"{name}_{n}"
        return candidate

    def update_head(self, x: Value, weight: Value, bias: Value, logits: Value) -> None:
        """Head gradient with the old weights, head update, then the sample's exponent."""
        back = self.wants(x)
        if back:
            gf = self.add(HeadInputGrad(), weight, self.g, name="features.grad")
        if self.plan.selection.head:
            update = HeadUpdate(self.plan.rate, self.loss.bits, self.samples)
            held = [self._held(v, h) for v, h in zip((weight, bias), update.holds, strict=True) if self.samples > 1]
            count = self._counter("head") if held else ()
            new = self.build.add(update, x, self.g, weight, bias, self.control, *held, *count, name="head.next")
            self.updates += zip((weight, bias, *held), new, strict=True)
            self._count(count)
        if back:
            self.begin(x, gf, self.loss.unit / HEAD_ONE)

    def begin(self, x: Value, gradient: Value, unit: float | None = None) -> None:
        """The int8 backward pass begins at x: the sample's exponent, and x's gradient (int32, in units of `unit`)."""
        if self.wants(x):
            self.build.nodes.append(Node(StopIfZero(), (gradient,), ()))
            scaled = SampleScale(x.type.shape, self.loss.unit if unit is None else unit)
            a, self.sample_exponent = self.build.add(scaled, gradient, name="features.scaled")
            self.gradients[x] = [a]

    def update_bias(self, bias: Value, h: Value, x: Value, weight: Value) -> None:
        name = self.layer_names[weight]
        if name not in self.plan.selection.biases:
            return
        scales = channel_scales(weight, h)
        base = tuple(log2_shift(self.rate / (scale_of(x) * s * s)) for s in scales)
        grad = self.add(BiasGrad(), h, name=f"{name}_bias.grad")
        hold = None if self.samples == 1 else Hold(self.samples, BIAS_BITS[bias.type.dtype], bias.type.dtype)
        held = self._holding(bias, hold)
        run_time = (self._sample(), self.exponents, self.control)
        step = BiasStep(base, grad_quant(h.type).exponent, hold, self.requantized[h])
        new = self.build.add(step, grad, bias, *run_time, *held, name=f"{name}_bias.next")
        self.biases[bias] = new[0]
        self.updates += zip((bias, *held[:1]), new, strict=True)

    def update_weight(self, weight: Value, op: Any, x: Value, h: Value, bias: Value) -> None:
        name = self.layer_names[weight]
        part = self.plan.selection.weights.get(name)
        if part is None:
            return
        mean = (self._mean(name, x, part.channels),) if part.centred else ()
        grad = self.add(op, x, h, *mean, name=f"{name}_weight.grad")
        base = tuple(log2_shift(self.rate * scale_of(x) / (s * s)) for s in channel_scales(weight, h))
        layer, forward = layers(self.graph)[name], self.requantized[h]
        if layer.op.weight_axis == 3 and part.channels is not None:
            base, forward = tuple(base[c] for c in part.channels), ()
        step = WeightStep(
            base,
            grad_quant(h.type).exponent,
            part.residual_bits,
            self._tensor(weight),
            layer.op.weight_axis or 0,
            part.channels,
            x.type.shape[3] if part.channels is not None else 0,
            part.centred,
            None if self.samples == 1 else Hold(self.samples, WEIGHT_BITS - part.residual_bits),
            forward=forward,
        )
        self._step(step, grad, weight, mean, bias)

    def _step(self, step: WeightStep, grad: Value, weight: Value, mean: tuple[Value, ...], bias: Value) -> None:
        name = layer_of(weight.name)
        state = [weight]
        if step.residual_bits:
            type_ = TensorType(weight.type.shape, RESIDUAL[step.residual_bits])
            data = np.zeros(weight.type.shape, np.int8)
            state.append(self.build.param(f"{name}_residual", type_, data, weight.origin))
        current = (self.biases.get(bias, bias),) if step.centred else ()
        run_time = (self._sample(), self.exponents, self.control)
        held = self._holding(weight, step.hold)
        new = self.build.add(step, grad, *state, *run_time, *mean, *current, *held, name=f"{name}_weight.next")
        self.updates += zip(state, new, strict=False)
        self.updates += [(v, new[-1]) for v in held[:1]]
        if step.centred:
            self.updates = [u for u in self.updates if u[0] is not bias]
            self.updates.append((bias, new[len(state)]))

    @property
    def samples(self) -> int:
        """Samples of one step."""
        return self.plan.selection.accumulate

    @property
    def rate(self) -> float:
        """Learning rate of one sample."""
        return self.plan.rate / self.samples

    def _holding(self, parameter: Value, hold: Hold | None) -> tuple[Value, ...]:
        """What a step of several samples holds for a parameter, and the count of the samples; nothing without `hold`."""
        if hold is None:
            return ()
        self.count = self.count or self._counter("backward")
        return (self._held(parameter, hold), *self.count)

    def _held(self, parameter: Value, hold: Hold) -> Value:
        type_ = TensorType(parameter.type.shape, hold.dtype)
        return self.build.param(f"{parameter.name}_held", type_, np.zeros(type_.shape, np.int32), parameter.origin)

    def _counter(self, what: str) -> tuple[Value]:
        return (self.build.param(f"{what}_samples", TensorType((1,), "s32"), np.zeros(1, np.int32)),)

    def _count(self, count: tuple[Value, ...]) -> None:
        """One more sample, once all that it moves has read how many there were."""
        self.updates += [(c, self.add(CountSample(self.samples), c, name=f"{c.name}.next")) for c in count]

    def _mean(self, name: str, x: Value, channels: tuple[int, ...] | None) -> Value:
        """Means of the channels in this weight."""
        data = self.plan.means.get(name, np.zeros(x.type.shape[3], np.int16))
        data = data if channels is None else data[list(channels)]
        return self.build.param(f"{name}_mean", TensorType(data.shape, "s16"), data, x.origin)

    def _sample(self) -> Value:
        if self.sample_exponent is None:
            raise GraphError("a layer is updated before the head's gradient is known")
        return self.sample_exponent

    def _tensor(self, weight: Value) -> int:
        """Index of the parameter in the forward graph as it was before `split`: names its random numbers."""
        whole = [p.value for p in self.graph.params if not p.value.name.endswith(ADDED)]
        return whole.index(weight)


def scale_of(value: Value) -> float:
    if value.type.quant is None:
        raise GraphError(f"{value.name} is not quantized")
    return value.type.quant.scale[0]


def channel_scales(weight: Value, h: Value) -> tuple[float, ...]:
    """Weight scale per output channel."""
    if weight.type.quant is None:
        raise GraphError(f"{weight.name} is not quantized")
    scale = weight.type.quant.scale
    return scale * h.type.shape[-1] if len(scale) == 1 else scale
