"""A learned network as ONNX in the device's own arithmetic: standard integer operators, so that every bit is the device's."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from mcugrad.errors import McugradError
from mcugrad.exporters.learned import PLAIN, Units, classifier, parameter, quant_of
from mcugrad.exporters.onnx_build import OPSET, Pieces
from mcugrad.exporters.onnx_ops import HANDLERS, OUTPUT, window_attributes
from mcugrad.ir import Array, Graph, Node, Op, Value
from mcugrad.ops.add import Add, Sub
from mcugrad.ops.clamp import Clamp
from mcugrad.ops.concat import Concat
from mcugrad.ops.conv2d import Conv2d, output_multipliers
from mcugrad.ops.depthwise import DepthwiseConv2d
from mcugrad.ops.head import HEAD_ONE, Head
from mcugrad.ops.lut import Lut
from mcugrad.ops.mul import Mul
from mcugrad.ops.pool import AvgPool, Ties, counts
from mcugrad.ops.softmax import Softmax
from mcugrad.quant.affine import SOFTMAX_FAR, SOFTMAX_LUT

DOMAIN = "mcugrad.exact"
ROUND = "Round"
FLOAT_EXACT = 1 << 24  # integers below are float32 without rounding, and so is every partial sum of a convolution

FLOAT, DOUBLE, INT8, INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT64


def round_function() -> Any:
    """Round(v, divisor, half, zero) = clamp8(floor((v + half) / divisor) + zero) of int64 tensors: all that requantizes.

    Mod has the sign of the divisor, so that what it leaves divides without rounding."""
    nodes = [
        helper.make_node("Add", ["v", "half"], ["raised"]),
        helper.make_node("Mod", ["raised", "divisor"], ["rest"]),
        helper.make_node("Sub", ["raised", "rest"], ["whole"]),
        helper.make_node("Div", ["whole", "divisor"], ["quotient"]),
        helper.make_node("Add", ["quotient", "zero"], ["moved"]),
        *(helper.make_node("Constant", [], [name], value_int=n) for name, n in (("low", -128), ("high", 127))),
        helper.make_node("Clip", ["moved", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["y"], to=INT8),
    ]
    inputs = ["v", "divisor", "half", "zero"]
    return helper.make_function(DOMAIN, ROUND, inputs, ["y"], nodes, [helper.make_opsetid("", OPSET)])


class ExactPieces(Pieces):
    """Activations are int8 throughout; `centred` and `rounded` lead to wider integers and back."""

    functions = (round_function(),)

    def __init__(self, graph: Graph, units: Units = PLAIN) -> None:
        super().__init__(graph, units)
        self.names: set[str] = set()

    def centred(self, value: Value, to: int) -> str:
        """x - zero of an int8 activation, as elements of type `to`."""
        name = f"{value.name}/centred_{TensorProto.DataType.Name(to).lower()}"
        if name not in self.names:
            self.names.add(name)
            zero = self.constant(f"{name}/zero", np.array(quant_of(value).zero, helper.tensor_dtype_to_np_dtype(to)))
            self.node("Sub", [self.cast(self.stored[value], f"{name}/cast", to), zero], name)
        return name

    def cast(self, tensor: str, name: str, to: int) -> str:
        return self.node("Cast", [tensor], name, to=to)

    def integer(self, name: str, data: Any) -> str:
        return self.constant(name, np.array(data, np.int64))

    def scaled(self, tensor: str, name: str, m: Any, sh: Any, y: Value, zero: int) -> str:
        """int8 `name` = clamp8(MBQM(tensor) + zero): multiplied by m / 2**sh, to nearest, halves up."""
        product = self.node("Mul", [tensor, self.integer(f"{name}/multiplier", m)], f"{name}/product")
        return self.rounded(product, name, np.int64(1) << np.asarray(sh, np.int64), y, zero)

    def rounded(self, tensor: str, name: str, divisor: Any, y: Value, zero: int) -> str:
        """int8 `name` = clamp8(tensor / divisor + zero), to nearest, halves up; divisor: even."""
        halves = np.asarray(divisor, np.int64) // 2
        parts = [self.integer(f"{name}/{part}", n) for part, n in (("divisor", divisor), ("half", halves), ("zero", zero))]
        return self.node(ROUND, [tensor, *parts], name, y.origin, domain=DOMAIN)


def _conv(pieces: ExactPieces, node: Node) -> None:
    """A float32 convolution of integers, exact because its sums stay below 2**24; bias and multiplier in int64."""
    op, (x, weight, bias), (y,) = node.op, node.inputs, node.outputs
    assert isinstance(op, Conv2d | DepthwiseConv2d)
    depthwise = isinstance(op, DepthwiseConv2d)
    data = parameter(pieces.graph, weight).data.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    groups = len(data) if isinstance(op, DepthwiseConv2d) else op.groups
    zero = quant_of(x).zero
    total = pieces.integer(f"{y.name}/bias", parameter(pieces.graph, bias).data.reshape(1, -1, 1, 1))
    for i, part in enumerate(exact_parts(data, max(127 - zero, zero + 128))):
        name = pieces.constant(f"{weight.name}/{i}", part.astype(np.float32))
        inputs, shape = [pieces.centred(x, FLOAT), name], window_attributes(op.window)
        sums = pieces.node("Conv", inputs, f"{y.name}/sum{i}", y.origin, group=groups, **shape)
        total = pieces.node("Add", [pieces.cast(sums, f"{y.name}/int64_{i}", INT64), total], f"{y.name}/total{i}")
    m, sh = output_multipliers(quant_of(x), quant_of(weight), quant_of(y), len(data))
    along = (1, -1, 1, 1)
    pieces.stored[y] = pieces.scaled(total, y.name, m.reshape(along), sh.reshape(along), y, quant_of(y).zero)


def exact_parts(weight: Array, largest: int) -> list[Array]:
    """weight [O,I,kh,kw] as a sum of weights whose products with |x| <= largest add up below 2**24 in any order."""
    for parts in range(1, weight.shape[1] + 1):
        found = [np.zeros_like(weight) for _ in range(parts)]
        for i, part in enumerate(found):
            part[:, i::parts] = weight[:, i::parts]
        if all(np.abs(p.astype(np.int64)).sum((1, 2, 3)).max() * largest < FLOAT_EXACT for p in found):
            return found
    raise McugradError(f"a kernel of {weight.shape[2:]} is too large for float32 sums without rounding: export QDQ (--to onnx)")


def _add(pieces: ExactPieces, node: Node) -> None:
    (y,), op = node.outputs, node.op
    assert isinstance(op, Add)
    products = []
    for i, (x, sign) in enumerate(zip(node.inputs, op.signs, strict=True)):
        factor = pieces.integer(f"{y.name}/factor{i}", sign * op.factor(x.type))
        products.append(pieces.node("Mul", [pieces.centred(x, INT64), factor], f"{y.name}/product{i}"))
    total = pieces.node("Add", products, f"{y.name}/total")
    pieces.stored[y] = pieces.rounded(total, y.name, 1 << op.bits, y, quant_of(y).zero)


def _mul(pieces: ExactPieces, node: Node) -> None:
    (y,), op = node.outputs, node.op
    assert isinstance(op, Mul)
    product = pieces.node("Mul", [pieces.centred(x, INT64) for x in node.inputs], f"{y.name}/both")
    m, sh = op.requantization(*(x.type for x in node.inputs))
    pieces.stored[y] = pieces.scaled(product, y.name, m, sh, y, quant_of(y).zero)


def _clamp(pieces: ExactPieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Clamp)
    pieces.stored[y] = pieces.scaled(pieces.centred(x, INT64), y.name, *op.requantization(x.type), y, quant_of(y).zero)


def _concat(pieces: ExactPieces, node: Node) -> None:
    (y,), op, parts = node.outputs, node.op, []
    assert isinstance(op, Concat)
    for i, x in enumerate(node.inputs):
        known = op.requantization(x.type)
        wide = "" if known is None else pieces.centred(x, INT64)
        parts.append(
            pieces.stored[x] if known is None else pieces.scaled(wide, f"{y.name}/part{i}", *known, y, quant_of(y).zero)
        )
    pieces.stored[y] = pieces.node("Concat", parts, y.name, y.origin, axis=(0, 2, 3, 1)[op.axis])


def _avg_pool(pieces: ExactPieces, node: Node) -> None:
    """Sums by a convolution with ones, divided in float64, where a half is exactly a half."""
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, AvgPool)
    channels = x.type.shape[3]
    ones = pieces.constant(f"{y.name}/ones", np.ones((channels, 1, *op.window.kernel), np.float32))
    stored = pieces.cast(pieces.stored[x], f"{y.name}/stored", FLOAT)
    sums = pieces.node("Conv", [stored, ones], f"{y.name}/sum", y.origin, group=channels, **window_attributes(op.window))
    elements = pieces.constant(f"{y.name}/elements", counts(x.type.shape, op.window).transpose(0, 3, 1, 2).astype(np.float64))
    mean = pieces.node("Div", [pieces.cast(sums, f"{y.name}/sum_double", DOUBLE), elements], f"{y.name}/mean")
    pieces.stored[y] = pieces.cast(_to_integer(pieces, mean, y.name, op.ties), y.name, INT8)


def _to_integer(pieces: ExactPieces, mean: str, name: str, ties: Ties) -> str:
    """float64 integers next to `mean`."""

    def number(value: float) -> str:
        return pieces.constant(f"{name}/{'half' if value == 0.5 else 'one'}", np.array(value))

    def up(tensor: str) -> str:
        return pieces.node("Floor", [pieces.node("Add", [tensor, number(0.5)], f"{name}/raised")], f"{name}/up")

    if ties == Ties.EVEN:
        return pieces.node("Round", [mean], f"{name}/even")
    if ties == Ties.ODD:
        one = number(1.0)
        even = pieces.node("Round", [pieces.node("Add", [mean, one], f"{name}/next")], f"{name}/even")
        return pieces.node("Sub", [even, one], f"{name}/odd")
    if ties == Ties.AWAY:
        size = up(pieces.node("Abs", [mean], f"{name}/size"))
        return pieces.node("Mul", [size, pieces.node("Sign", [mean], f"{name}/sign")], f"{name}/away")
    return up(mean)


def _lut(pieces: ExactPieces, node: Node) -> None:
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Lut)
    table = pieces.constant(f"{y.name}/table", op.table(x.type).astype(np.int8))
    wide = pieces.cast(pieces.stored[x], f"{y.name}/code", INT64)
    index = pieces.node("Add", [wide, pieces.integer(f"{y.name}/first", 128)], f"{y.name}/index")
    pieces.stored[y] = pieces.node("Gather", [table, index], y.name, y.origin)


def _softmax(pieces: ExactPieces, node: Node) -> None:
    """Octaves below the largest element in 1/256, a table of one octave, shifted; the sum divides."""
    (x,), (y,), op = node.inputs, node.outputs, node.op
    assert isinstance(op, Softmax)
    m, sh = op.octaves(x.type)
    axis, name = 1 if len(x.type.shape) == 4 else -1, y.name

    def step(kind: str, to: str, *inputs: str, **more: Any) -> str:
        return pieces.node(kind, list(inputs), f"{name}/{to}", **more)

    def number(to: str, value: Any) -> str:
        return pieces.integer(f"{name}/{to}", value)

    wide = pieces.cast(pieces.stored[x], f"{name}/wide", INT64)
    below = step("Sub", "below", step("ReduceMax", "largest", wide, axes=[axis], keepdims=1), wide)
    product = step("Mul", "product", below, number("multiplier", m << max(-sh, 0)))
    octaves = step(
        "Min", "octaves", step("Div", "shifted", product, number("shift", 1 << max(sh, 0))), number("far", SOFTMAX_FAR)
    )
    one = number("octave", 256)
    table = step("Gather", "table", number("lut", SOFTMAX_LUT), step("Mod", "within", octaves, one))
    powers = number("powers", [1 << i for i in range(SOFTMAX_FAR // 256 + 1)])
    e = step("Div", "exponential", table, step("Gather", "power", powers, step("Div", "octave_count", octaves, one)))
    total = step("ReduceSum", "sum", e, number("axis", [axis]), keepdims=1)
    raised = step("Add", "raised", step("Mul", "scaled", e, one), step("Div", "half", total, number("two", 2)))
    moved = step("Add", "moved", step("Div", "share", raised, total), number("zero", -128))
    pieces.stored[y] = pieces.cast(step("Min", "clipped", moved, number("most", 127)), name, INT8)


def _head(pieces: ExactPieces, node: Node) -> None:
    """Integers in float64, where their sums are exact; units of the output last."""
    x, weight, bias = node.inputs
    units = pieces.units
    flat = pieces.node("Flatten", [pieces.centred(x, DOUBLE)], "features_flat", axis=1)
    step = quant_of(x).scale[0] / HEAD_ONE
    found = classifier(pieces.graph, node, PLAIN, channels_first=True)
    integers = ((weight, np.rint(found[0] * HEAD_ONE)), (bias, np.rint(found[1] / step)))
    constants = [pieces.constant(v.name, d.astype(np.float64)) for v, d in integers]
    total = pieces.node("Gemm", [flat, *constants], "logits_integer")
    scale, mean = (pieces.constant(f"logits_{n}", d) for n, d in (("step", step * units.spread), ("mean", units.mean)))
    real = pieces.node("Add", [pieces.node("Mul", [total, scale], "logits_scaled"), mean], "logits_double")
    pieces.cast(real, OUTPUT, FLOAT)


EXACT: dict[type[Op], Any] = {
    **HANDLERS,  # those that only move integers: between two pairs of one grid, rounding changes nothing
    Add: _add,
    AvgPool: _avg_pool,
    Clamp: _clamp,
    Concat: _concat,
    Conv2d: _conv,
    DepthwiseConv2d: _conv,
    Head: _head,
    Lut: _lut,
    Mul: _mul,
    Softmax: _softmax,
    Sub: _add,
}
