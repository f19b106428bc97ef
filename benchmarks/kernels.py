"""Instructions per multiply-accumulate of each kernel by shape and core, whole calls, beside the reference.

python benchmarks/kernels.py --target cortex-m7
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import reference
from benchmarks.calls import traced
from benchmarks.ledger import COMPILER, Entry
from benchmarks.models import CLASSES, IN_QEMU, RISCV, TARGETS
from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.errors import McugradError
from mcugrad.ir import Builder, Node, Quant, TensorType, Value
from mcugrad.ops.backprop import Chain
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.example import activation, filled, vector, weights
from mcugrad.ops.pool import global_average
from mcugrad.ops.spatial import Window
from mcugrad.ops.update import Update as UpdateOp
from mcugrad.prepare import Prepared, synthetic
from mcugrad.preprocess import Input, Preprocess
from mcugrad.training.head import attach_head
from mcugrad.training.scheme import HEAD_ONLY, Update, UpdateScheme

PARTS = ("forward", "input_gradient", "weight_update", "bias_update")
STEPS = 3
LAYER, BEFORE = "layer", "before"
RELU = -128  # zero point of an activation that is never negative


@dataclass(frozen=True)
class Shape:
    """A layer to measure; outputs 0: depthwise.  `trained` layers follow another one, which gets their input gradient."""

    name: str
    size: int  # height and width of the input
    inputs: int
    outputs: int = 0
    kernel: int = 1
    stride: int = 1
    ratio: float = 1.0  # share of input channels whose weights learn
    trained: bool = True

    @property
    def window(self) -> Window:
        pad = (self.kernel - 1) // 2
        return Window((self.kernel, self.kernel), (self.stride, self.stride), (pad, pad, pad, pad))

    def scheme(self) -> UpdateScheme:
        if not self.trained:
            return HEAD_ONLY
        return UpdateScheme("kernels", self.name, {LAYER: Update(self.ratio)}, (BEFORE, LAYER))


SHAPES = (
    Shape("1x1 64x64 8->32", 64, 8, 32, trained=False),
    Shape("1x1 32x32 16->48", 32, 16, 48),
    Shape("1x1 16x16 48->96", 16, 48, 96),
    Shape("1x1 8x8 192->96", 8, 192, 96),
    Shape("1x1 8x8 48->240, half", 8, 48, 240, ratio=0.5),
    Shape("1x1 4x4 96->384", 4, 96, 384),
    Shape("dw 3x3 16x16 96", 16, 96, kernel=3),
    Shape("dw 3x3/2 16x16 96", 16, 96, kernel=3, stride=2),
    Shape("dw 3x3 4x4 96", 4, 96, kernel=3),
    Shape("dw 5x5 4x4 96", 4, 96, kernel=5),
    Shape("dw 5x5/2 8x8 96", 8, 96, kernel=5, stride=2),
    Shape("dw 5x5 8x8 240", 8, 240, kernel=5),
    Shape("dw 7x7 8x8 240", 8, 240, kernel=7),
    Shape("stem 3x3/2 128x128 3->16", 128, 3, 16, kernel=3, stride=2, trained=False),
    Shape("3x3 8x8 32->32", 8, 32, 32, kernel=3),
    Shape("fc 256->256", 1, 256, 256),
)


class Sketch:
    """Builds a small network with random weights."""

    def __init__(self, shape: Shape) -> None:
        self.build, self.rng = Builder(), np.random.default_rng(0)
        x = self.build.input("input", activation(shape.size, shape.size, shape.inputs, zero=0))
        if shape.trained:
            x = self.depthwise(x, BEFORE, Window((1, 1)))
        x = self.convolve(x, shape) if shape.outputs else self.depthwise(x, LAYER, shape.window)
        self.features = self.build.one(global_average(x.type), x, name="features")

    def parameter(self, name: str, type_: TensorType) -> Value:
        low, high = (-127, 128) if type_.dtype == "s8" else (-1000, 1000)
        return self.build.param(name, type_, self.rng.integers(low, high, type_.shape))

    def depthwise(self, x: Value, name: str, window: Window) -> Value:
        weight = self.parameter(f"{name}_weight", weights(1, *window.kernel, x.type.shape[3], axis=3))
        bias = self.parameter(f"{name}_bias", vector(x.type.shape[3]))
        return self.build.one(DepthwiseConv2d(window, _output(x, window.kernel[0] ** 2)), x, weight, bias, name=name)

    def convolve(self, x: Value, shape: Shape) -> Value:
        kernel, inputs = shape.window.kernel, x.type.shape[3]
        weight = self.parameter(f"{LAYER}_weight", weights(shape.outputs, *kernel, inputs, axis=0))
        bias = self.parameter(f"{LAYER}_bias", vector(shape.outputs))
        return self.build.one(Conv2d(shape.window, _output(x, inputs * kernel[0] ** 2)), x, weight, bias, name=LAYER)


def _output(x: Value, terms: int) -> Quant:
    """The scale that suits sums of so many products, after a ReLU; scales of `activation` count in `filled`."""
    quant = x.type.quant
    assert quant is not None
    return Quant((filled(terms, RELU).scale[0] * quant.scale[0] / 0.05,), RELU)


def network(shape: Shape) -> Prepared:
    """input -> [before ->] layer -> pool -> head, on synthetic samples."""
    sketch = Sketch(shape)
    graph = attach_head(sketch.build.graph((sketch.features,)), CLASSES)
    x = synthetic(8, (shape.size, shape.size, shape.inputs), 0)
    return Prepared(shape.name, graph, Preprocess(Input.INT8), x, np.arange(8) % CLASSES, ())


def measure(shape: Shape, target: str) -> Entry:
    """Instructions and MACs of each part of the layer, in a step that runs to its end."""
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(target, sram=1 << 20, flash=4 << 20)
        build = compile_model(network(shape), shape.scheme(), Path(folder) / "model", budget)
        costs = _costs(build)
    parts = {part: node for node in costs if isinstance(node, Node) and (part := part_of(node))}
    figures = {
        part: {"instructions": costs[parts[part]], "macs": parts[part].op.work(parts[part]).macs}
        for part in PARTS
        if part in parts
    }
    settings = {"shape": shape.name, "target": target, "compiler": COMPILER}
    return Entry(f"kernel/{shape.name}/{target}", "kernel", settings, figures)


def _costs(build: Compiled) -> Mapping[Node | Value, int]:
    with traced(build) as trace:
        for sample, label in zip(build.prepared.x[:STEPS], build.prepared.y[:STEPS], strict=True):
            if trace.step(sample, int(label)).progress == 0:
                return trace.costs()
    raise McugradError(f"{build.program.name}: none of {STEPS} steps ran to its end")


def part_of(node: Node) -> str:
    """Which part of the measured layer the node is; "" for every other."""
    reads = [v.name for v in node.inputs]
    writes = node.outputs[0].name if node.outputs else ""
    if writes == LAYER:
        return "forward"
    if isinstance(node.op, Chain):
        return "input_gradient" if f"{LAYER}_weight" in reads else ""
    if isinstance(node.op, UpdateOp):
        return {f"{LAYER}_weight": "weight_update", f"{LAYER}_bias": "bias_update"}.get(writes.split(".")[0], "")
    return ""


def table(entries: list[Entry]) -> str:
    """Instructions per MAC, one line per shape and core."""
    head = f"{'shape':28}{'core':15}" + "".join(f"{p:>16}" for p in PARTS[:3]) + f"{'TinyEngine M7':>30}{'CMSIS-NN M7':>13}"
    return "\n".join([head, *map(_line, entries)])


def _line(entry: Entry) -> str:
    shape, target = entry.settings["shape"], entry.settings["target"]
    cells = "".join(f"{per_mac(entry, part):>16}" for part in PARTS[:3])
    theirs = " / ".join(reference.TINYENGINE.get((shape, part), "-") for part in PARTS[:3])
    return f"{shape:28}{target:15}{cells}{theirs:>30}{reference.CMSIS_NN.get((shape, 'forward'), '-'):>13}"


def per_mac(entry: Entry, part: str) -> str:
    """Instructions per MAC with two decimals; "-" where the part was not measured."""
    figures = entry.figures.get(part)
    return f"{figures['instructions'] / figures['macs']:.2f}" if figures else "-"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    cores = (*TARGETS, *IN_QEMU, RISCV)
    parser.add_argument("--target", choices=cores, action="append", help="repeatable; default: virtual MCUs")
    parser.add_argument("--shape", choices=[s.name for s in SHAPES], action="append", help="repeatable; default: all")
    options = parser.parse_args()
    shapes = [s for s in SHAPES if s.name in (options.shape or [s.name])]
    print(table([measure(shape, target) for target in options.target or TARGETS for shape in shapes]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
