"""Random quantized networks, update schemes and training graphs for all tests: small, seeded, every kind of fan-out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Builder, Graph, Node, Op, Quant, TensorType, Value
from mcugrad.loss import Loss
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.functions import Elu, Gelu, HardSwish, LeakyRelu, Sigmoid, Silu, Tanh
from mcugrad.ops.head import Head
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.place import Pad, Slice
from mcugrad.ops.pool import AvgPool, MaxPool, global_average
from mcugrad.ops.reshape import Reshape
from mcugrad.ops.softmax import PROBABILITY, Softmax
from mcugrad.ops.spatial import Window
from mcugrad.ops.transpose import Transpose
from mcugrad.ops.upsample import Upsample
from mcugrad.training.autodiff import TrainingPlan, differentiate
from mcugrad.training.calibrate import gradient_exponents, input_means, temporary_head
from mcugrad.training.head import attach_head, attach_logits
from mcugrad.training.scheme import Selection, Update, UpdateScheme, layers, resolve

Array = NDArray[Any]

SAMPLES = 6
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


def plain(s: Sketch, x: Value) -> Value:
    return s.conv(x, s.pick(3, 4, 5, 7), s.pick(1, 2, 3), s.pick(1, 1, 2), relu=s.pick(True, False))


def strided(s: Sketch, x: Value) -> Value:
    return s.conv(x, s.pick(3, 5), 3, 2, relu=True)


def grouped(s: Sketch, x: Value) -> Value:
    x = s.conv(x, 6, relu=False)
    groups = s.pick(2, 3, 6)
    return s.conv(x, groups * s.pick(1, 2), 3, s.pick(1, 2), groups)


def depthwise(s: Sketch, x: Value) -> Value:
    return s.depthwise(x, s.pick((3, 3), (3, 2), (5, 5)), s.pick(1, 2), s.pick(True, False))


def residual(s: Sketch, x: Value) -> Value:
    """An inverted bottleneck with its identity skip."""
    y = s.depthwise(s.conv(x, s.pick(5, 6, 9)), s.pick((3, 3), (5, 5)))
    if y.type.shape[1:3] != x.type.shape[1:3]:
        y = s.conv(x, 5)
    return s.add(s.conv(y, x.type.shape[3], relu=False), x)


def branch(s: Sketch, x: Value) -> Value:
    """An addition of two convolutions of one value."""
    outputs = s.pick(3, 5)
    return s.add(s.conv(x, outputs, 1), s.conv(x, outputs, 1, relu=False))


def double(s: Sketch, x: Value) -> Value:
    """A value added to itself."""
    y = s.conv(x, s.pick(3, 4))
    return s.add(y, y)


def triple(s: Sketch, x: Value) -> Value:
    """A value with three readers."""
    y = s.conv(x, s.pick(3, 5))
    a, b = s.conv(y, y.type.shape[3], relu=False), s.conv(y, y.type.shape[3])
    return s.add(s.add(a, b, "inner"), y)


def detour(s: Sketch, x: Value) -> Value:
    """The gradient of a clamp's input waits for the gradient of a convolution that hangs on the same addition."""
    y = s.conv(x, s.pick(3, 4), relu=False)
    c = s.clamp(y)
    return s.add(c, s.conv(y, y.type.shape[3], relu=False))


def clamped(s: Sketch, x: Value) -> Value:
    return s.clamp(s.conv(x, s.pick(3, 5), relu=False))


def max_pool(s: Sketch, x: Value) -> Value:
    y = s.conv(x, s.pick(3, 4))
    small = min(y.type.shape[1:3]) < 2
    window = Window((3, 3), (1, 1), (1, 1, 1, 1)) if small or s.pick(True, False) else Window((2, 2), (2, 2))
    return s.place(MaxPool(window), y, name=f"max_pool{s.count}")


def avg_pool(s: Sketch, x: Value) -> Value:
    y = s.conv(x, s.pick(3, 4))
    kernel = tuple(min(2, n) for n in y.type.shape[1:3])
    return s.place(AvgPool(Window((kernel[0], kernel[1]), s.pick((1, 1), (2, 2), (1, 2)))), y, name=f"avg_pool{s.count}")


def dilated(s: Sketch, x: Value) -> Value:
    dilation = s.pick((2, 1), (1, 2), (2, 2))
    top, left = dilation
    outputs = s.pick(3, 4)
    if s.pick(True, False):
        x = s.conv(x, outputs)
        window = Window((3, 3), (1, 1), (top, left, top, left), dilation)
        return s.layer(lambda out: DepthwiseConv2d(window, out), x, (1, 3, 3, outputs), 3, True)
    window = Window((3, 2), s.pick((1, 1), (2, 1)), (top, 0, top, left), dilation)
    return s.layer(lambda out: Conv2d(window, out), x, (outputs, 3, 2, x.type.shape[3]), 0, False)


def concatenated(s: Sketch, x: Value) -> Value:
    """Branches at different scales, as in SqueezeNet, and the input itself, as in DenseNet."""
    a, b = s.conv(x, s.pick(2, 3), 1), s.conv(x, s.pick(2, 5), 3)
    parts = (a, b) if a.type.shape[1:3] != x.type.shape[1:3] or s.pick(True, False) else (a, b, x)
    if b.type.shape[1:3] != a.type.shape[1:3]:
        parts = (a, s.conv(x, 2))
    return s.concat(3, *parts, tight=s.pick(True, False))


def stacked(s: Sketch, x: Value) -> Value:
    """Rows or columns of two layers after each other."""
    outputs = s.pick(3, 4)
    a, b = s.conv(x, outputs), s.conv(x, outputs, relu=False)
    return s.conv(s.concat(s.pick(1, 2), a, b, tight=False), 3, 2, 2)


def padded(s: Sketch, x: Value) -> Value:
    """Padding of a map and of channels, then a part of it."""
    y = s.place(Pad((1, 0, 1), (0, 2, 1), s.pick(0.0, 0.3)), s.conv(x, 3), name=f"pad{s.count}")
    height, width, channels = y.type.shape[1:]
    return s.place(Slice((0, 1, 0), (height - 1, width - 1, channels - 1)), y, name=f"slice{s.count}")


def sliced(s: Sketch, x: Value) -> Value:
    """Two halves of the channels take different ways, as in ShuffleNet."""
    y = s.conv(x, 6, relu=False)
    height, width = y.type.shape[1:3]
    left = s.place(Slice((0, 0, 0), (height, width, 2)), y, name=f"left{s.count}")
    right = s.place(Slice((0, 0, 2), (height, width, 4)), y, name=f"right{s.count}")
    return s.concat(3, left, s.conv(right, 3), tight=False)


def transposed(s: Sketch, x: Value) -> Value:
    y = s.conv(x, 4)
    return s.conv(s.place(Transpose(s.pick((0, 2, 1, 3), (0, 3, 1, 2))), y, name=f"transpose{s.count}"), 3)


def upsampled(s: Sketch, x: Value) -> Value:
    """Down and up again, with a skip over it where the sizes allow, as in a U-shaped network."""
    y = s.place(Upsample(s.pick((2, 2), (2, 1))), s.conv(x, 3, 3, 2), name=f"upsample{s.count}")
    z = s.conv(y, 3)
    return s.concat(3, z, x, tight=False) if z.type.shape[1:3] == x.type.shape[1:3] else z


def curved(s: Sketch, x: Value) -> Value:
    """A function by table; its gradient, and that of a skip, at one value."""
    y = s.conv(x, s.pick(3, 5), relu=False)
    function = s.pick(HardSwish(), LeakyRelu(0.1), Elu(), Gelu(), Silu(), Tanh(), Sigmoid())
    out = function.quant or s.fit([function.value(r) for r in s.reals(y)], relu=s.pick(True, False))
    z = s.place(Lut(function, out), y, name=f"lut{s.count}")
    return s.add(z, y) if s.pick(True, False) else z


def squeezed(s: Sketch, x: Value) -> Value:
    """Squeeze and excite."""
    y = s.conv(x, s.pick(4, 6))
    channels = y.type.shape[3]
    gate = s.place(global_average(y.type), y, name=f"squeeze{s.count}")
    gate = s.conv(s.conv(gate, 2), channels, relu=False)
    return s.mul(y, s.place(Lut(Sigmoid(), Sigmoid.quant), gate, name=f"gate{s.count}"))


def products(s: Sketch, x: Value) -> Value:
    """Products and differences of layers, and with constants."""
    y = s.conv(x, s.pick(3, 4), relu=False)
    other = s.conv(x, y.type.shape[3], relu=False)
    z = s.mul(y, s.pick(other, y, s.constant(y.type.shape), s.conv(y, 1)))
    return s.sub(z, s.pick(y, other, s.constant(z.type.shape)))


def attended(s: Sketch, x: Value) -> Value:
    """A layer weighted by a softmax over the channels of another."""
    y = s.conv(x, s.pick(3, 4, 5), relu=False)
    scores = s.conv(x, y.type.shape[3], relu=False)
    return s.mul(y, s.place(Softmax(PROBABILITY), scores, name=f"softmax{s.count}"))


STAGES: tuple[Callable[[Sketch, Value], Value], ...] = (
    plain,
    residual,
    strided,
    branch,
    depthwise,
    double,
    grouped,
    triple,
    max_pool,
    clamped,
    avg_pool,
    detour,
    dilated,
    concatenated,
    stacked,
    padded,
    sliced,
    transposed,
    upsampled,
    curved,
    squeezed,
    products,
)


def pooled(s: Sketch, x: Value) -> Value:
    return s.place(global_average(x.type), x, name="features")


def pooled_residual(s: Sketch, x: Value) -> Value:
    """A residual addition feeds the pool."""
    return pooled(s, residual(s, x))


def flattened(s: Sketch, x: Value) -> Value:
    y = s.conv(x, 3)
    return s.place(Reshape((1, 1, 1, y.type.elements)), y, name="features")


def direct(s: Sketch, x: Value) -> Value:
    """The head reads a convolution's map as it stands."""
    return s.conv(x, 3, relu=False)


TAILS: tuple[Callable[[Sketch, Value], Value], ...] = (pooled, pooled_residual, flattened, direct)


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
