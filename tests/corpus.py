"""A small fixed corpus of networks and the C that is printed for them: `python tests/corpus.py FOLDER` writes it.

Everything is chosen by hand or by plain integer arithmetic, so that the C changes only when mcugrad does.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.emit.c import header, source
from mcugrad.ir import Builder, Graph, Quant, TensorType, Value
from mcugrad.memory.modes import plan
from mcugrad.ops.add import Add
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.pool import AvgPool, MaxPool, global_average
from mcugrad.ops.spatial import Window
from mcugrad.passes import TRAIN, run
from mcugrad.program import Program, lower
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import HEAD_ONLY, Update, UpdateScheme, resolve

CLASSES = 3
RATE = 2.0**-8
SAME = Window((3, 3), (1, 1), (1, 1, 1, 1))
HALF = Window((3, 3), (2, 2), (1, 1, 1, 1))
POINT = Window((1, 1), (1, 1))
GOLDEN = Path(__file__).parent / "golden"


def pattern(shape: tuple[int, ...], step: int, limit: int = 127) -> NDArray[Any]:
    """Integers in [-limit, limit] that look random and are the same for ever."""
    n = np.arange(np.prod(shape), dtype=np.int64)
    return ((n * n * 31 + n * step + 17) % (2 * limit + 1) - limit).reshape(shape)


class Net:
    """Builds a network with the scales of small powers of two."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.build, self.count = Builder(), 0
        self.x = self.build.input("input", TensorType((1, *shape), "s8", Quant((2.0**-6,), -3)))

    def layer(self, op: Any, x: Value, shape: tuple[int, ...], axis: int) -> Value:
        name, self.count = f"conv{self.count}", self.count + 1
        scales = tuple(2.0**-9 * (1 + c % 3) for c in range(shape[axis]))
        weight = self.build.param(
            f"{name}_weight", TensorType(shape, "s8", Quant(scales, 0, axis)), pattern(shape, 5 + self.count)
        )
        bias = self.build.param(f"{name}_bias", TensorType((shape[axis],), "s32"), pattern((shape[axis],), 7, 2000))
        return self.build.one(op, x, weight, bias, name=name)

    def conv(self, x: Value, outputs: int, window: Window = POINT, zero: int = -128) -> Value:
        shape = (outputs, *window.kernel, x.type.shape[3])
        return self.layer(Conv2d(window, Quant((2.0**-5,), zero)), x, shape, 0)

    def depthwise(self, x: Value, window: Window = SAME) -> Value:
        shape = (1, *window.kernel, x.type.shape[3])
        return self.layer(DepthwiseConv2d(window, Quant((2.0**-5,), -128)), x, shape, 3)

    def finish(self, x: Value) -> Graph:
        return attach_head(self.build.graph((self.build.one(global_average(x.type), x, name="features"),)), CLASSES)


def residual() -> Graph:
    """A strided stem, an inverted bottleneck with its identity skip, and a last convolution."""
    net = Net((8, 8, 3))
    stem = net.conv(net.x, 4, HALF)
    y = net.conv(net.depthwise(net.conv(stem, 6)), 4, zero=2)
    y = net.build.one(Add(Quant((2.0**-5,), 1)), y, stem, name="add")
    return net.finish(net.conv(y, 5))


def pools() -> Graph:
    """Max pool, a clamp of its own, a strided depthwise convolution, windowed average pool."""
    net = Net((9, 8, 2))
    y = net.build.one(MaxPool(Window((2, 2), (1, 1))), net.conv(net.x, 4, SAME, zero=5), name="max_pool")
    y = net.build.one(Clamp(out=Quant((2.0**-5,), -128)), y, name="clamp")
    y = net.build.one(AvgPool(Window((2, 2), (2, 2))), net.depthwise(y, HALF), name="avg_pool")
    return net.finish(net.conv(y, 4))


SPARSE = UpdateScheme("sparse", weights={"conv1": Update(0.5), "conv3": Update(residual_bits=8)}, biases=4)
FULL = UpdateScheme("full", weights={"*": Update()}, biases=4, residual_bits=0, centred=True)
NETWORKS: dict[str, tuple[Callable[[], Graph], UpdateScheme, bool]] = {
    "residual-sparse": (residual, SPARSE, False),
    "residual-rows-head": (residual, HEAD_ONLY, True),
    "pools-full": (pools, FULL, False),
}
"""Network, scheme, and whether the input is pulled row by row."""


def program(name: str) -> Program:
    """The planned program of a network of the corpus."""
    make, scheme, rows = NETWORKS[name]
    graph = make()
    training = run(differentiate(graph, TrainingPlan(resolve(scheme, graph), RATE)), TRAIN)
    planned = plan(training, input_rows=rows).scheduled
    return lower(training, planned.schedule, planned.plan, name)


def sources(name: str) -> dict[str, str]:
    """File name to text."""
    printed = program(name)
    return {"model.h": header(printed), "model.c": source(printed)}


def write(folder: Path) -> None:
    """Every network of the corpus in a folder of its own."""
    for name in NETWORKS:
        place = folder / name
        place.mkdir(parents=True, exist_ok=True)
        for file, text in sources(name).items():
            (place / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
