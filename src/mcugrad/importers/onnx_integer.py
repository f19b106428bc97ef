"""Quantized ONNX: what QuantizeLinear and DequantizeLinear say is kept; operators on integers are written as such pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mcugrad.importers.limits import span
from mcugrad.importers.onnx_state import Blocked, State
from mcugrad.importers.source import Array, OnnxNode
from mcugrad.ir import Quant
from mcugrad.ops.clamp import Clamp

OFFSETS = {"int8": 0, "uint8": 128}  # what is subtracted from a stored activation to give int8
BYTE_TYPES = {2: "uint8", 3: "int8"}  # TensorProto.DataType of 8-bit integers
STATIC = "quantize statically to 8 bits (onnxruntime.quantization.quantize_static)"


def quantize(state: State, node: OnnxNode) -> None:
    """QuantizeLinear and DequantizeLinear of an activation: the grid of its value; a second, different one requantizes."""
    act = state.act(node.inputs[0], padded=True)
    if node.inputs[0] in state.dropped:
        state.dropped.add(node.outputs[0])
    else:
        quant, known = activation_grid(state, node), state.quants.get(act.value)
        if known not in {None, quant}:
            if node.op == "DequantizeLinear":
                raise Blocked("it reads numbers that were quantized with another scale or zero point", STATIC)
            name = f"{act.value.name}_requantized"
            act = replace(act, value=state.emit(Clamp(*span(quant)), act.value, name=name, node=node))
        state.quants[act.value] = quant
    state.acts[node.outputs[0]] = act


def activation_grid(state: State, node: OnnxNode) -> Quant:
    """The int8 grid that a pair gives an activation; raises Blocked for anything but one scale and 8 bits."""
    scale = state.weight(node.inputs[1]).astype(np.float64).reshape(-1)
    given = len(node.inputs) > 2 and node.inputs[2]
    zero = state.constant(node.inputs[2]).reshape(-1) if given else np.zeros(1, stored_type(state, node))
    if str(zero.dtype) not in OFFSETS:
        raise Blocked(f"activations of type {zero.dtype}", STATIC)
    if scale.size != 1 or zero.size != 1 or not scale[0] > 0:
        raise Blocked(f"an activation with {scale.size} scales and {zero.size} zero points", "quantize activations per tensor")
    return Quant((float(scale[0]),), int(zero[0]) - OFFSETS[str(zero.dtype)])


def stored_type(state: State, node: OnnxNode) -> str:
    """Type of the integers of a pair without a zero point: uint8, or what its attribute or the model's input says."""
    if node.op == "DequantizeLinear" and node.inputs[0] == state.source.input:
        return state.source.input_type
    return BYTE_TYPES.get(int(node.attributes.get("output_dtype", 0)), "uint8")


def fold(state: State, node: OnnxNode) -> None:
    """The pair on a constant: QuantizeLinear stores integers, DequantizeLinear real numbers and their steps."""
    data, scale = state.constant(node.inputs[0]), state.weight(node.inputs[1]).astype(np.float64)
    zero = state.constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else np.zeros(scale.shape, np.uint8)
    if not (scale > 0).all() or node.attributes.get("block_size", 0):
        raise Blocked("a scale that is not positive, or scales by block", "quantize weights per tensor or per channel")
    axis = int(node.attributes.get("axis", 1))
    step, shift = along(scale, data.ndim, axis), along(zero.astype(np.int64), data.ndim, axis)
    if node.op == "QuantizeLinear":
        limits = np.iinfo(zero.dtype)
        state.store(node.outputs[0], np.clip(np.rint(data / step) + shift, limits.min, limits.max).astype(zero.dtype))
        return
    state.store(node.outputs[0], (data.astype(np.int64) - shift) * step)
    state.steps[node.outputs[0]] = np.broadcast_to(step, data.shape)
    offset = OFFSETS.get(str(data.dtype))
    if scale.size == zero.size == 1 and offset is not None:
        state.grids[node.outputs[0]] = Quant((float(scale.reshape(-1)[0]),), int(zero.reshape(-1)[0]) - offset)


def along(numbers: Array, rank: int, axis: int) -> Array:
    """Scales or zero points shaped to broadcast: one, or one per index of an axis."""
    if numbers.size == 1:
        return numbers.reshape(())
    return numbers.reshape([-1 if i == axis % rank else 1 for i in range(rank)])


# Operators on integers


@dataclass(frozen=True)
class Integer:
    """How an operator on integers reads: the float operator, where (x, scale, zero) begin, and the output's (scale, zero).

    A triple at index 3 is a weight, whose scales lie along `axis`; `bias`: index of an int32 bias at both scales."""

    op: str
    triples: tuple[int, ...] = (0,)
    out: int = 3
    axis: Callable[[OnnxNode], int] = lambda node: 0
    bias: int | None = None


def gemm_axis(node: OnnxNode) -> int:
    return 0 if node.attributes.get("transB", 0) else 1


BOTH = (0, 3)
INTEGERS = {
    "QGemm": Integer("Gemm", BOTH, 7, gemm_axis, 6),
    "QLinearAdd": Integer("Add", BOTH, 6),
    "QLinearAveragePool": Integer("AveragePool"),
    "QLinearConv": Integer("Conv", BOTH, 6, bias=8),
    "QLinearGlobalAveragePool": Integer("GlobalAveragePool"),
    "QLinearLeakyRelu": Integer("LeakyRelu"),
    "QLinearMatMul": Integer("MatMul", BOTH, 6, lambda node: -1),
    "QLinearMul": Integer("Mul", BOTH, 6),
    "QLinearReduceMean": Integer("ReduceMean"),
    "QLinearSigmoid": Integer("Sigmoid"),
    "QLinearSoftmax": Integer("Softmax"),
}


def expanded(node: OnnxNode) -> Iterator[OnnxNode]:
    """An operator on integers as dequantized inputs, the float operator, and a quantized output."""
    if node.op == "QLinearConcat":
        out, starts = 0, tuple(range(2, len(node.inputs), 3))
        form = Integer("Concat", starts, out)
    else:
        form = INTEGERS[node.op]
    (name, *_) = node.outputs

    def part(op: str, *inputs: str, to: str, **attributes: int) -> OnnxNode:
        return OnnxNode(op, "", node.name, inputs, (to,), attributes)

    reals = []
    for i in form.triples:
        axis = form.axis(node) if i == 3 else 1
        reals.append(f"{name}\0{i}")
        yield part("DequantizeLinear", *node.inputs[i : i + 3], to=reals[-1], axis=axis)
    if form.bias is not None and len(node.inputs) > form.bias and node.inputs[form.bias]:
        yield part("Mul", node.inputs[1], node.inputs[4], to=f"{name}\0scale")
        reals.append(f"{name}\0bias")
        yield part("DequantizeLinear", node.inputs[form.bias], f"{name}\0scale", to=reals[-1], axis=0)
    quantized = len(node.inputs) > form.out and node.inputs[form.out]
    real = f"{name}\0real" if quantized else name
    yield OnnxNode(form.op, "", node.name, tuple(reals), (real,), node.attributes)
    if quantized:
        yield part("QuantizeLinear", real, *node.inputs[form.out : form.out + 2], to=name)
