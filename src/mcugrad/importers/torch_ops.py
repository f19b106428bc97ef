"""What each supported aten operator is in ONNX, the language of the translation that follows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mcugrad.importers.source import Array, OnnxNode, Source
from mcugrad.importers.torch_read import Call, Program, Tensor

PREFIX = "torch.ops.aten."
END = 2**63 - 1  # the end of a slice that is not given


class Writer:
    """Collects ONNX nodes and constants of one program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[OnnxNode] = []
        self.tensors: dict[str, Array] = dict(program.constants)

    def constant(self, data: Any, dtype: type = np.float32) -> str:
        name = f"\0{len(self.tensors)}"
        self.tensors[name] = np.asarray(data, dtype)
        return name

    def value(self, argument: Any) -> str:
        """The name of a tensor, or of the constant that a number becomes; '' for None."""
        if argument is None:
            return ""
        return argument.name if isinstance(argument, Tensor) else self.constant(argument)

    def shape(self, argument: Any) -> tuple[int, ...]:
        return self.program.shapes[argument.name]

    def emit(self, call: Call, op: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """A node; its result is `to`, by default the call's own."""
        outputs = (to,) if to else call.outputs
        self.nodes.append(OnnxNode(op, "", call.name, inputs, outputs, attributes))
        return outputs[0]


Rule = Callable[[Writer, Call], None]


def _plural(value: Any, count: int) -> list[int]:
    """As many numbers as there are axes; one stands for all."""
    given = [int(v) for v in value] if isinstance(value, Sequence) else [int(value)]
    return given * count if len(given) == 1 else given


def _first(call: Call) -> Any:
    return next(call.arguments[k] for k in ("self", "input") if k in call.arguments)


def _plain(op: str, **attributes: Any) -> Rule:
    def rule(write: Writer, call: Call) -> None:
        write.emit(call, op, write.value(_first(call)), **attributes)

    return rule


def _conv(write: Writer, call: Call) -> None:
    a, rank = call.arguments, len(write.shape(call.arguments["weight"])) - 2
    if a.get("transposed", False):
        write.emit(call, "ConvTranspose", write.value(a["input"]))
        return
    attributes: dict[str, Any] = {
        "strides": _plural(a.get("stride", 1), rank),
        "dilations": _plural(a.get("dilation", 1), rank),
        "group": int(a.get("groups", 1)),
    }
    padding = a.get("padding", 0)
    if isinstance(padding, str):
        attributes["auto_pad"] = b"SAME_UPPER" if padding == "same" else b"VALID"
    else:
        attributes["pads"] = _plural(padding, rank) * 2
    inputs = [write.value(a.get(key)) for key in ("input", "weight", "bias")]
    write.emit(call, "Conv", *inputs, **attributes)


def _batch_norm(write: Writer, call: Call) -> None:
    a = call.arguments
    channels = write.shape(a["input"])[1]
    gain = write.value(a.get("weight")) or write.constant(np.ones(channels))
    shift = write.value(a.get("bias")) or write.constant(np.zeros(channels))
    mean, variance = (write.value(a[k]) for k in ("running_mean", "running_var"))
    training = int(bool(a.get("training", False)))
    node = OnnxNode(
        "BatchNormalization", "", call.name, (write.value(a["input"]), gain, shift, mean, variance), call.outputs[:1],
        {"epsilon": float(a.get("eps", 1e-5)), "training_mode": training},
    )  # fmt: skip
    write.nodes.append(node)


def _linear(write: Writer, call: Call) -> None:
    a = call.arguments
    x, weight, bias = (write.value(a.get(k)) for k in ("input", "weight", "bias"))
    if len(write.shape(a["input"])) == 2:
        write.emit(call, "Gemm", x, weight, *([bias] if bias else []), transB=1)
        return
    turned = write.emit(call, "Transpose", weight, to=f"{call.outputs[0]}\0w", perm=[1, 0])
    if not bias:
        write.emit(call, "MatMul", x, turned)
        return
    write.emit(call, "Add", write.emit(call, "MatMul", x, turned, to=f"{call.outputs[0]}\0m"), bias)


def _addmm(write: Writer, call: Call) -> None:
    a = call.arguments
    inputs = (write.value(a[k]) for k in ("mat1", "mat2", "self"))
    write.emit(call, "Gemm", *inputs, alpha=float(a.get("alpha", 1)), beta=float(a.get("beta", 1)))


def _matmul(write: Writer, call: Call) -> None:
    a = call.arguments
    second = next(a[k] for k in ("other", "mat2") if k in a)
    write.emit(call, "MatMul", write.value(a["self"]), write.value(second))


def _limits(low: str, high: str, defaults: tuple[float | None, float | None]) -> Rule:
    def rule(write: Writer, call: Call) -> None:
        a = call.arguments
        limits = [a.get(low, defaults[0]), a.get(high, defaults[1])]
        names = [write.constant(v) if v is not None else "" for v in limits]
        write.emit(call, "Clip", write.value(a["self"]), *names)

    return rule


def _binary(op: str) -> Rule:
    def rule(write: Writer, call: Call) -> None:
        a = call.arguments
        other, alpha = write.value(a["other"]), float(a.get("alpha", 1))
        if alpha != 1:
            other = write.emit(call, "Mul", other, write.constant(alpha), to=f"{call.outputs[0]}\0a")
        write.emit(call, op, write.value(a["self"]), other)

    return rule


def _pool(op: str) -> Rule:
    def rule(write: Writer, call: Call) -> None:
        a, rank = call.arguments, len(write.shape(call.arguments["self"])) - 2
        kernel = _plural(a["kernel_size"], rank)
        attributes: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": _plural(a["stride"], rank) if a.get("stride") else kernel,
            "pads": _plural(a.get("padding", 0), rank) * 2,
            "dilations": _plural(a.get("dilation", 1), rank),
            "ceil_mode": int(bool(a.get("ceil_mode", False))),
        }
        if op == "AveragePool":
            attributes["count_include_pad"] = int(bool(a.get("count_include_pad", True)))
        write.emit(call, op, write.value(a["self"]), **attributes)

    return rule


def _adaptive(op: str) -> Rule:
    """Pooling to a given size: global, or of equal windows where the size divides the map."""

    def rule(write: Writer, call: Call) -> None:
        shape = write.shape(call.arguments["self"])[2:]
        size = _plural(call.arguments["output_size"], len(shape))
        x = write.value(call.arguments["self"])
        if all(n == 1 for n in size):
            write.emit(call, f"Global{op}", x)
        elif any(n % m for n, m in zip(shape, size, strict=True)):
            write.emit(call, "adaptive pooling into windows of different sizes", x)
        else:
            kernel = [n // m for n, m in zip(shape, size, strict=True)]
            write.emit(call, op, x, kernel_shape=kernel, strides=kernel)

    return rule


def _mean(write: Writer, call: Call) -> None:
    a = call.arguments
    axes = [int(d) for d in a.get("dim") or range(len(write.shape(a["self"])))]
    write.emit(call, "ReduceMean", write.value(a["self"]), axes=axes, keepdims=int(bool(a.get("keepdim", False))))


def _reshape(write: Writer, call: Call) -> None:
    """Every operator that only gives elements another shape: torch has written down which."""
    shape = write.constant(write.program.shapes[call.outputs[0]], np.int64)
    write.emit(call, "Reshape", write.value(_first(call)), shape, allowzero=1)


def _permute(write: Writer, call: Call) -> None:
    a, rank = call.arguments, len(write.shape(call.arguments["self"]))
    perm = list(range(rank))
    if "dims" in a:
        perm = [int(d) % rank for d in a["dims"]]
    else:
        i, j = int(a.get("dim0", 0)) % rank, int(a.get("dim1", 1)) % rank
        perm[i], perm[j] = perm[j], perm[i]
    write.emit(call, "Transpose", write.value(a["self"]), perm=perm)


def _concat(write: Writer, call: Call) -> None:
    names = [write.value(t) for t in call.arguments["tensors"]]
    write.emit(call, "Concat", *names, axis=int(call.arguments.get("dim", 0)))


def _slice(write: Writer, call: Call) -> None:
    a = call.arguments
    numbers = [a.get("start") or 0, END if a.get("end") is None else a["end"], a.get("dim", 0), a.get("step", 1)]
    write.emit(call, "Slice", write.value(a["self"]), *(write.constant([int(n)], np.int64) for n in numbers))


def _split(write: Writer, call: Call) -> None:
    """Pieces along one axis, each a slice; their sizes stand in the program."""
    axis, start = int(call.arguments.get("dim", 0)), 0
    for name in call.outputs:
        end = start + write.program.shapes[name][axis]
        numbers = (write.constant([n], np.int64) for n in (start, end, axis, 1))
        write.emit(call, "Slice", write.value(call.arguments["self"]), *numbers, to=name)
        start = end


def _pad(write: Writer, call: Call) -> None:
    """torch pads the last axis first: (left, right, top, bottom, front, back)."""
    a, rank = call.arguments, len(write.shape(call.arguments["self"]))
    pairs = [int(p) for p in a["pad"]] + [0] * (2 * rank - len(a["pad"]))
    before, after = pairs[0::2][::-1], pairs[1::2][::-1]
    pads, value = write.constant(before + after, np.int64), write.constant(float(a.get("value") or 0))
    write.emit(call, "Pad", write.value(a["self"]), pads, value, mode=str(a.get("mode", "constant")).encode())


def _upsample(write: Writer, call: Call) -> None:
    before, after = write.shape(_first(call)), write.program.shapes[call.outputs[0]]
    scales = write.constant([m / n for n, m in zip(before, after, strict=True)])
    attributes: dict[str, Any] = {"mode": b"nearest", "coordinate_transformation_mode": b"asymmetric", "nearest_mode": b"floor"}
    write.emit(call, "Resize", write.value(_first(call)), "", scales, **attributes)


def _softmax(op: str) -> Rule:
    def rule(write: Writer, call: Call) -> None:
        write.emit(call, op, write.value(call.arguments["self"]), axis=int(call.arguments.get("dim", -1)))

    return rule


def _leaky(write: Writer, call: Call) -> None:
    slope = float(call.arguments.get("negative_slope", 0.01))
    write.emit(call, "LeakyRelu", write.value(call.arguments["self"]), alpha=slope)


def _prelu(write: Writer, call: Call) -> None:
    """One slope per channel: [C] becomes [C,1,1]."""
    rank, slopes = len(write.shape(call.arguments["self"])), call.arguments["weight"]
    shape = [-1] + [1] * (rank - 2)
    turned = write.emit(call, "Reshape", slopes.name, write.constant(shape, np.int64), to=f"{call.outputs[0]}\0s")
    write.emit(call, "PRelu", write.value(call.arguments["self"]), turned)


def _elu(write: Writer, call: Call) -> None:
    write.emit(call, "Elu", write.value(call.arguments["self"]), alpha=float(call.arguments.get("alpha", 1)))


def _each(names: str, rule: Rule) -> dict[str, Rule]:
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_each("conv1d conv2d convolution", _conv),
    **_each("batch_norm _native_batch_norm_legit_no_training", _batch_norm),
    **_each("linear", _linear),
    **_each("addmm", _addmm),
    **_each("mm matmul", _matmul),
    **_each("relu relu_", _plain("Relu")),
    **_each("hardtanh hardtanh_", _limits("min_val", "max_val", (-1.0, 1.0))),
    **_each("relu6 relu6_", _limits("", "", (0.0, 6.0))),
    **_each("clamp clamp_ clamp_min", _limits("min", "max", (None, None))),
    **_each("hardswish hardswish_", _plain("HardSwish")),
    **_each("hardsigmoid hardsigmoid_", _plain("HardSigmoid", alpha=1 / 6, beta=0.5)),
    **_each("sigmoid sigmoid_", _plain("Sigmoid")),
    **_each("tanh tanh_", _plain("Tanh")),
    **_each("silu silu_", _plain("Swish")),
    **_each("gelu", _plain("Gelu")),
    **_each("softplus", _plain("Softplus")),
    **_each("elu elu_", _elu),
    **_each("leaky_relu leaky_relu_", _leaky),
    **_each("prelu _prelu_kernel", _prelu),
    **_each("max_pool1d max_pool2d", _pool("MaxPool")),
    **_each("avg_pool1d avg_pool2d", _pool("AveragePool")),
    **_each("adaptive_avg_pool1d adaptive_avg_pool2d _adaptive_avg_pool2d", _adaptive("AveragePool")),
    **_each("adaptive_max_pool1d adaptive_max_pool2d", _adaptive("MaxPool")),
    **_each("mean", _mean),
    **_each("flatten view reshape _unsafe_view squeeze unsqueeze unflatten", _reshape),
    **_each("permute transpose t", _permute),
    **_each("cat concat", _concat),
    **_each("slice", _slice),
    **_each("split split_with_sizes chunk", _split),
    **_each("pad constant_pad_nd", _pad),
    **_each("add add_", _binary("Add")),
    **_each("sub sub_", _binary("Sub")),
    **_each("mul mul_", _binary("Mul")),
    **_each("div div_", _binary("Div")),
    **_each("dropout dropout_ feature_dropout contiguous clone alias detach to lift_fresh_copy", _plain("Identity")),
    **_each("softmax _softmax", _softmax("Softmax")),
    **_each("log_softmax _log_softmax", _softmax("LogSoftmax")),
    **_each("upsample_nearest1d upsample_nearest2d", _upsample),
}


def source(program: Program) -> Source:
    """The program as ONNX nodes; an operator without a rule keeps its own name, for a blocker."""
    write = Writer(program)
    for call in program.calls:
        base = call.target.removeprefix(PREFIX).split(".")[0]
        rule = RULES.get(base) if call.target.startswith(PREFIX) else None
        if rule is None:
            names = (t.name for t in call.arguments.values() if isinstance(t, Tensor))
            write.emit(call, call.target.removeprefix("torch.ops."), *names)
        else:
            rule(write, call)
    return Source(
        name=program.name,
        input=program.input,
        input_shape=program.shapes[program.input],
        input_type="float32",
        outputs=program.outputs,
        nodes=tuple(write.nodes),
        tensors=write.tensors,
        shapes=program.shapes,
        notes=(),
        metadata={},
    )
