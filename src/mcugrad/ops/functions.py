"""Functions of one real number with their slopes: what a look-up table may hold."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Quant

Array = NDArray[Any]

_erf = np.vectorize(math.erf, otypes=[np.float64])
SQRT1_2 = math.sqrt(0.5)


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, e) / (1 + e))


class Function:
    """f: R -> R on float64 arrays.  `quant` is the int8 quantization of its range where the field has a fixed one."""

    quant: Quant | None = None

    def value(self, x: Array) -> Array:
        raise NotImplementedError

    def slope(self, x: Array) -> Array:
        """df/dx; at a kink, the one from the right."""
        raise NotImplementedError


@dataclass(frozen=True)
class Sigmoid(Function):
    quant = Quant((1 / 256,), -128)

    def value(self, x: Array) -> Array:
        return sigmoid(x)

    def slope(self, x: Array) -> Array:
        return sigmoid(x) * sigmoid(-x)


@dataclass(frozen=True)
class Tanh(Function):
    quant = Quant((1 / 128,), 0)

    def value(self, x: Array) -> Array:
        return np.tanh(x)

    def slope(self, x: Array) -> Array:
        return np.asarray(1 - np.tanh(x) ** 2)


@dataclass(frozen=True)
class HardSigmoid(Function):
    """min(max(alpha * x + beta, 0), 1); ONNX's default is alpha 0.2, PyTorch's and TFLite's 1/6."""

    alpha: float = 1 / 6
    beta: float = 0.5
    quant = Quant((1 / 256,), -128)

    def value(self, x: Array) -> Array:
        return np.clip(self.alpha * x + self.beta, 0, 1)

    def slope(self, x: Array) -> Array:
        v = self.alpha * x + self.beta
        return np.where((v >= 0) & (v < 1), self.alpha, 0.0)


@dataclass(frozen=True)
class HardSwish(Function):
    """x * min(max(x / 6 + 1/2, 0), 1)"""

    def value(self, x: Array) -> Array:
        return np.asarray(x * np.clip(x / 6 + 0.5, 0, 1))

    def slope(self, x: Array) -> Array:
        return np.where(x < -3, 0.0, np.where(x < 3, x / 3 + 0.5, 1.0))


@dataclass(frozen=True)
class LeakyRelu(Function):
    """x, times alpha below 0."""

    alpha: float = 0.01

    def value(self, x: Array) -> Array:
        return np.where(x < 0, self.alpha * x, x)

    def slope(self, x: Array) -> Array:
        return np.where(x < 0, self.alpha, 1.0)


@dataclass(frozen=True)
class Elu(Function):
    """gamma * x, below 0 gamma * alpha * (exp(x) - 1); SELU has alpha 1.67326, gamma 1.0507."""

    alpha: float = 1.0
    gamma: float = 1.0

    def value(self, x: Array) -> Array:
        return np.asarray(self.gamma * np.where(x < 0, self.alpha * np.expm1(np.minimum(x, 0)), x))

    def slope(self, x: Array) -> Array:
        return np.asarray(self.gamma * np.where(x < 0, self.alpha * np.exp(np.minimum(x, 0)), 1.0))


@dataclass(frozen=True)
class Silu(Function):
    """x * sigmoid(x), also called swish."""

    def value(self, x: Array) -> Array:
        return np.asarray(x * sigmoid(x))

    def slope(self, x: Array) -> Array:
        return np.asarray(sigmoid(x) * (1 + x * sigmoid(-x)))


@dataclass(frozen=True)
class Gelu(Function):
    """x * P(normal < x); `tanh`: its usual approximation."""

    tanh: bool = False

    def _inner(self, x: Array) -> Array:
        return np.asarray(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))

    def value(self, x: Array) -> Array:
        cdf = 0.5 * (1 + (np.tanh(self._inner(x)) if self.tanh else _erf(x * SQRT1_2)))
        return np.asarray(x * cdf)

    def slope(self, x: Array) -> Array:
        if not self.tanh:
            return np.asarray(0.5 * (1 + _erf(x * SQRT1_2)) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi))
        t = np.tanh(self._inner(x))
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return np.asarray(0.5 * (1 + t) + 0.5 * x * (1 - t**2) * inner)


@dataclass(frozen=True)
class Softplus(Function):
    """ln(1 + exp(x))"""

    def value(self, x: Array) -> Array:
        return np.logaddexp(0, x)

    def slope(self, x: Array) -> Array:
        return sigmoid(x)


@dataclass(frozen=True)
class Elementary(Function):
    """One of numpy's own functions and its slope; NaN and infinities become 0."""

    name: str

    def _apply(self, which: int, x: Array) -> Array:
        with np.errstate(all="ignore"):
            y = ELEMENTARY[self.name][which](np.asarray(x, np.float64))
        return np.where(np.isfinite(y), y, 0.0)

    def value(self, x: Array) -> Array:
        return self._apply(0, x)

    def slope(self, x: Array) -> Array:
        return self._apply(1, x)


ELEMENTARY: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "abs": (np.abs, lambda x: np.where(x < 0, -1.0, 1.0)),
    "exp": (np.exp, np.exp),
    "log": (np.log, lambda x: 1 / x),
    "sqrt": (np.sqrt, lambda x: 0.5 / np.sqrt(x)),
    "rsqrt": (lambda x: 1 / np.sqrt(x), lambda x: -0.5 * x**-1.5),
    "reciprocal": (lambda x: 1 / x, lambda x: -(x**-2.0)),
    "square": (np.square, lambda x: 2 * x),
    "sin": (np.sin, np.cos),
    "cos": (np.cos, lambda x: -np.sin(x)),
}
"""Function and slope by name."""
