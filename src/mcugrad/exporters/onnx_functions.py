"""The functions of look-up tables as ONNX operators on real numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mcugrad.errors import McugradError
from mcugrad.exporters.onnx_build import Pieces
from mcugrad.ir import Value
from mcugrad.ops.functions import (
    Elementary,
    Elu,
    Function,
    Gelu,
    HardSigmoid,
    HardSwish,
    LeakyRelu,
    Sigmoid,
    Silu,
    Softplus,
    Tanh,
)

ELEMENTARY = {
    "abs": ("Abs",),
    "cos": ("Cos",),
    "exp": ("Exp",),
    "log": ("Log",),
    "reciprocal": ("Reciprocal",),
    "rsqrt": ("Sqrt", "Reciprocal"),
    "sin": ("Sin",),
    "sqrt": ("Sqrt",),
}

PLAIN: dict[type[Function], tuple[str, ...]] = {
    HardSwish: ("HardSwish",),
    Sigmoid: ("Sigmoid",),
    Softplus: ("Softplus",),
    Tanh: ("Tanh",),
}


def function(pieces: Pieces, f: Function, x: str, y: Value) -> str:
    """The float tensor f(x) for the value `y`.  Raises McugradError for a function that ONNX has no words for."""
    write = _Writer(pieces, y)
    match f:
        case HardSigmoid():
            return write("HardSigmoid", x, alpha=f.alpha, beta=f.beta)
        case LeakyRelu():
            return write("LeakyRelu", x, alpha=f.alpha)
        case Elu():
            return write("Selu", x, alpha=f.alpha, gamma=f.gamma)
    return _composed(write, f, x)


def _composed(write: _Writer, f: Function, x: str) -> str:
    """A function without attributes, by one operator or several."""
    if isinstance(f, Gelu):
        return _gelu(write, f, x)
    if isinstance(f, Silu):
        return write("Mul", x, write("Sigmoid", x))
    if f == Elementary("square"):
        return write("Mul", x, x)
    kinds = ELEMENTARY.get(f.name) if isinstance(f, Elementary) else PLAIN.get(type(f))
    if kinds is None:
        raise McugradError(
            f"{write.y.name} ({write.y.origin}): {f} cannot be written as ONNX yet: use --to graph to look at it"
        )
    for kind in kinds:
        x = write(kind, x)
    return x


class _Writer:
    """Adds nodes whose names are those of a value with a number."""

    def __init__(self, pieces: Pieces, y: Value) -> None:
        self.pieces, self.y, self.count = pieces, y, 0

    def __call__(self, kind: str, *inputs: str, **attributes: Any) -> str:
        self.count += 1
        return self.pieces.node(kind, list(inputs), f"{self.y.name}_float_{self.count}", self.y.origin, **attributes)

    def number(self, value: float) -> str:
        self.count += 1
        return self.pieces.constant(f"{self.y.name}_number_{self.count}", np.array(value, np.float32))


def _gelu(write: _Writer, f: Gelu, x: str) -> str:
    """x / 2 * (1 + erf(x / sqrt(2))), or its approximation by tanh."""
    if f.tanh:
        cube = write("Mul", write("Mul", x, x), write("Mul", x, write.number(0.044715)))
        inner = write("Tanh", write("Mul", write("Add", x, cube), write.number(math.sqrt(2 / math.pi))))
    else:
        inner = write("Erf", write("Mul", x, write.number(math.sqrt(0.5))))
    return write("Mul", write("Mul", x, write.number(0.5)), write("Add", inner, write.number(1.0)))
