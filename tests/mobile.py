"""Small int8 networks of the mobile kind, and what checks a plan of them, for the tests of the memory planner."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mcugrad.ir import Builder, Graph, Quant, TensorType, Value
from mcugrad.memory.problem import state_layout
from mcugrad.memory.schedule import (
    LoadRows,
    Step,
    verify_schedule,
)
from mcugrad.memory.solve import MemoryPlan
from mcugrad.memory.validate import validate
from mcugrad.ops.add import Add
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.pool import global_average
from mcugrad.ops.spatial import Window
from mcugrad.passes import TRAIN, run
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import Update, UpdateScheme, layers, resolve

Q = Quant((0.05,), 3)


class Net:
    """Builds int8 networks of the mobile kind."""

    def __init__(self, size: int, channels: int, seed: int = 0) -> None:
        self.build, self.rng = Builder(), np.random.default_rng(seed)
        self.x = self.build.input("image", TensorType((1, size, size, channels), "s8", Q))

    def _layer(self, op: Conv2d | DepthwiseConv2d, x: Value, shape: tuple[int, ...], outputs: int) -> Value:
        name = f"conv{sum(n.op.weight_axis is not None for n in self.build.nodes)}"
        weight = self.build.param(
            f"{name}_weight", TensorType(shape, "s8", Quant((0.02,))), self.rng.integers(-127, 128, shape)
        )
        bias = self.build.param(f"{name}_bias", TensorType((outputs,), "s32"), self.rng.integers(-999, 999, outputs))
        return self.build.one(op, x, weight, bias, name=name)

    def conv(self, x: Value, outputs: int, kernel: int = 1, stride: int = 1) -> Value:
        op = Conv2d(square(kernel, stride), Q)
        return self._layer(op, x, (outputs, kernel, kernel, x.type.shape[3]), outputs)

    def depthwise(self, x: Value, kernel: int = 3, stride: int = 1) -> Value:
        return self._layer(DepthwiseConv2d(square(kernel, stride), Q), x, (1, kernel, kernel, x.type.shape[3]), x.type.shape[3])

    def add(self, a: Value, b: Value) -> Value:
        return self.build.one(Add(Q), a, b, name="add")

    def block(self, x: Value, expanded: int, outputs: int, kernel: int = 3, stride: int = 1) -> Value:
        """An inverted bottleneck, residual where the shapes allow it."""
        y = self.conv(self.depthwise(self.conv(x, expanded), kernel, stride), outputs)
        return self.add(x, y) if y.type.shape == x.type.shape else y

    def graph(self, *outputs: Value) -> Graph:
        return self.build.graph(outputs)


def square(kernel: int, stride: int) -> Window:
    return Window((kernel, kernel), (stride, stride), (kernel // 2,) * 4)


def mobile(size: int = 128) -> Graph:
    """The geometry of MCUNet-5FPS up to 16x16 at 128x128."""
    net = Net(size, 3)
    x = net.conv(net.depthwise(net.conv(net.x, 16, 3, 2)), 8)
    for expanded, outputs, kernel, stride in [(32, 16, 7, 2), (48, 16, 3, 1), (48, 16, 3, 1), (64, 24, 7, 2)]:
        x = net.block(x, expanded, outputs, kernel, stride)
    return net.graph(net.build.one(global_average(x.type), x, name="pool"))


def chain(size: int, *kernels: tuple[int, int]) -> Graph:
    """3-channel convolutions of (kernel, stride) one after the other."""
    net = Net(size, 3)
    x = net.x
    for kernel, stride in kernels:
        x = net.conv(x, 3, kernel, stride)
    return net.graph(x)


def training(bits: int = 4, size: int = 16, everything: bool = False) -> Graph:
    """A stem and two inverted bottlenecks whose last layers learn, or all of them."""
    net = Net(size, 3)
    x = net.block(net.block(net.conv(net.x, 8, 3, 2), 16, 8), 16, 8)
    forward = attach_head(net.graph(net.build.one(global_average(x.type), x, name="pool")), 4)
    some = {"conv4": Update(0.5), "conv5": Update()}
    every = {name: Update() for name in layers(forward)}
    weights, biases = (every, len(every)) if everything else (some, 4)
    scheme = UpdateScheme("test", weights=weights, biases=biases, residual_bits=bits, centred=True)
    return run(differentiate(forward, TrainingPlan(resolve(scheme, forward))), TRAIN)


def check(graph: Graph, schedule: tuple[Step | LoadRows, ...], plan: MemoryPlan, **changes: object) -> None:
    """Schedule verifier and plan validator, with some of the plan's facts replaced."""
    state = state_layout(graph)
    facts = {
        "offsets": plan.offsets,
        "scratch": plan.scratch,
        "rings": plan.ring_rows,
        "arena": plan.arena,
        "state": state.offsets,
        "state_bytes": state.total,
    }
    verify_schedule(graph, schedule, plan.ring_rows)
    validate(graph, schedule, **{**facts, **changes})  # type: ignore[arg-type]


def execute(graph: Graph, schedule: tuple[Step | LoadRows, ...], plan: MemoryPlan, image: np.ndarray) -> dict[str, np.ndarray]:
    """Runs the steps in numpy on one block of bytes, every ring and every overwritten operand included."""
    arena = np.full(plan.arena, 0x5A, np.int8)

    def rows(value: Value, first: int, last: int) -> np.ndarray:
        size, keep = value.type.row_bytes, plan.ring_rows.get(value, value.type.shape[1])
        return np.concatenate([plan.offsets[value] + (r % keep) * size + np.arange(size) for r in range(first, last)])

    if not any(isinstance(s, LoadRows) for s in schedule):
        arena[rows(graph.inputs[0], 0, image.shape[1])] = image.reshape(-1)
    for step in schedule:
        if isinstance(step, LoadRows):
            arena[rows(step.value, step.first, step.last)] = image[:, step.first : step.last].reshape(-1)
            continue
        y = step.outputs[0]
        need = {n.index: n for n in step.node.op.needs(step.node, step.first, step.last)}
        inputs = [
            arena[rows(v, need[i].first, need[i].last)].reshape(1, -1, *v.type.shape[2:]) if i in need else graph.param(v).data
            for i, v in enumerate(step.inputs)
        ]
        op = step.node.op.crop(step.node, step.first, step.last)
        (out,) = op.eval(replace(step.node, op=op), *inputs)
        arena[rows(y, step.first, step.last)] = out.reshape(-1)
    return {v.name: arena[rows(v, 0, v.type.shape[1])].reshape(v.type.shape) for v in graph.outputs}
