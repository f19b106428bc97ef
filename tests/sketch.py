"""A random quantized network as it is built: every output has a range that fits a few samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Builder, Node, Op, Quant, TensorType, Value
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.mul import Mul
from mcugrad.ops.spatial import Window

Array = NDArray[Any]

SAMPLES = 6


class Sketch:
    """Builds a network stage by stage and fits each output's scale to what a few samples give."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.build = Builder()
        self.samples: dict[Value, list[Array]] = {}
        self.count = 0

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def input(self, shape: tuple[int, int, int]) -> Value:
        quant = Quant((1 / 64,), int(self.rng.integers(-20, 21)))
        x = self.build.input("input", TensorType((1, *shape), "s8", quant))
        self.samples[x] = [self.rng.integers(-128, 128, (1, *shape)).astype(np.int8) for _ in range(SAMPLES)]
        return x

    def place(self, op: Op, *inputs: Value, name: str) -> Value:
        """The node, evaluated on the samples."""
        value = self.build.one(op, *inputs, name=name, origin=f"random:{name}")
        node = self.build.nodes[-1]
        fixed = {p.value: p.data for p in self.build.params}
        self.samples[value] = [
            op.eval(node, *(fixed[v] if v in fixed else self.samples[v][i] for v in inputs))[0].astype(np.int8)
            for i in range(SAMPLES)
        ]
        return value

    def reals(self, x: Value) -> list[Array]:
        quant = x.type.quant
        assert quant is not None
        return [quant.scale[0] * (s.astype(np.float64) - quant.zero) for s in self.samples[x]]

    def fit(self, reals: list[Array], relu: bool) -> Quant:
        """A range that clips about 2 % of the values, or all negative ones."""
        low, high = np.percentile(np.stack(reals), [1, 99])
        low, high = (0.0, max(high, 0.1)) if relu else (low, max(high, low + 0.1))
        scale = float(high - low) / 255
        return Quant((scale,), int(np.clip(np.rint(-128 - low / scale), -128, 127)))

    def layer(self, make: Callable[[Quant | None], Op], x: Value, shape: tuple[int, ...], axis: int, relu: bool) -> Value:
        """A layer with random weights of `shape`; its outputs have a standard deviation of about 1."""
        name, self.count = f"conv{self.count}", self.count + 1
        outputs, taps = shape[axis], int(np.prod(shape)) // shape[axis]
        spread = 1 / (40 * np.sqrt(taps) * (np.std(self.reals(x)) + 0.05))
        per_tensor = self.rng.random() < 0.15
        scales = tuple(float(s) for s in spread * self.rng.uniform(0.6, 1.6, 1 if per_tensor else outputs))
        data = np.clip(np.rint(self.rng.normal(0, 40, shape)), -127, 127)
        w = self.build.param(f"{name}_weight", TensorType(shape, "s8", Quant(scales, 0, None if per_tensor else axis)), data)
        zero = np.zeros(outputs)
        probe = Node(make(None), (x, w, w), ())
        sums = [make(None).real(probe, s, data, zero)[0] for s in self.samples[x]]
        bias = np.rint(self.rng.normal(0, 0.3, outputs) * np.std(sums))
        b = self.build.param(f"{name}_bias", TensorType((outputs,), "s32"), bias)
        quant = x.type.quant
        assert quant is not None
        out = self.fit([(s + bias) * (quant.scale[0] * np.array(scales)) for s in sums], relu)
        return self.place(make(out), x, w, b, name=name)

    def window(self, x: Value, kernel: tuple[int, int], stride: tuple[int, int]) -> Window:
        """Padding about as wide as half the kernel, sometimes uneven, never less than fits."""
        _, height, width, _ = x.type.shape
        top, left = (k // 2 for k in kernel)
        bottom, right = max(kernel[0] - height - top, top - self.pick(0, 0, 1), 0), max(kernel[1] - width - left, left, 0)
        return Window(kernel, stride, (top, left, bottom, right))

    def conv(self, x: Value, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1, relu: bool = True) -> Value:
        window = self.window(x, (kernel, kernel), (stride, stride))
        shape = (outputs, kernel, kernel, x.type.shape[3] // groups)
        return self.layer(lambda out: Conv2d(window, out, groups), x, shape, 0, relu)

    def depthwise(self, x: Value, kernel: tuple[int, int] = (3, 3), stride: int = 1, relu: bool = True) -> Value:
        window = self.window(x, kernel, (stride, stride))
        return self.layer(lambda out: DepthwiseConv2d(window, out), x, (1, *kernel, x.type.shape[3]), 3, relu)

    def add(self, a: Value, b: Value, name: str = "add") -> Value:
        out = self.fit([p + q for p, q in zip(self.reals(a), self.reals(b), strict=True)], relu=False)
        return self.place(Add(out), a, b, name=f"{name}{self.count}")

    def sub(self, a: Value, b: Value) -> Value:
        out = self.fit([p - q for p, q in zip(self.reals(a), self.reals(b), strict=True)], relu=False)
        return self.place(Sub(out), a, b, name=f"sub{self.count}")

    def mul(self, a: Value, b: Value) -> Value:
        out = self.fit([p * q for p, q in zip(self.reals(a), self.reals(b), strict=True)], relu=False)
        return self.place(Mul(out), a, b, name=f"mul{self.count}")

    def concat(self, axis: int, *parts: Value, tight: bool) -> Value:
        """At the range of the whole, or of the first part alone, which clamps the others."""
        whole = [np.concatenate(r, axis) for r in zip(*(self.reals(p) for p in parts), strict=True)]
        out = parts[0].type.quant if tight else self.fit(whole, relu=False)
        return self.place(Concat(axis, out), *parts, name=f"concat{self.count}")

    def constant(self, shape: tuple[int, ...]) -> Value:
        """A frozen operand."""
        type_ = TensorType(shape, "s8", Quant((0.01,), int(self.rng.integers(-30, 31))))
        value = self.build.param(f"constant{self.count}", type_, self.rng.integers(-128, 128, shape))
        self.samples[value] = [self.build.params[-1].data] * SAMPLES
        return value

    def clamp(self, x: Value) -> Value:
        return self.place(Clamp(out=self.fit(self.reals(x), self.rng.random() < 0.5)), x, name=f"clamp{self.count}")
