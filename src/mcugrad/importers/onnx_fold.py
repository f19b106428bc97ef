"""Folds the ONNX nodes that compute constants, such as the Shape-Gather-Concat chains around a flatten."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.importers.source import array

Array = NDArray[Any]
Attributes = Mapping[str, Any]

MAX_CONSTANT = 1 << 24  # elements of one folded constant


def bounded(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape; raises ValueError when a constant of it would be absurdly large."""
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_CONSTANT:
        raise ValueError(f"a constant of shape {list(shape)} is too large")
    return shape


def axes_of(ins: tuple[Array | None, ...], attributes: Attributes, rank: int) -> tuple[int, ...] | None:
    """The axes, given as attribute or (newer opsets) as second input, counted from the front; None when absent."""
    given = attributes.get("axes")
    if given is None and len(ins) > 1 and ins[1] is not None:
        given = ins[1].reshape(-1).tolist()
    if given is None:
        return None
    axes = tuple(int(a) + rank if a < 0 else int(a) for a in given)
    if any(not 0 <= a < rank for a in axes) or len(set(axes)) != len(axes):
        raise ValueError(f"axes {list(given)} do not fit rank {rank}")
    return axes


def reshaped(shape: tuple[int, ...], target: Array, allow_zero: bool) -> tuple[int, ...]:
    """ONNX Reshape: 0 copies the dimension (unless allowed as such), -1 takes what is left."""
    out = [int(v) for v in target.reshape(-1)]
    if not allow_zero:
        out = [shape[i] if v == 0 else v for i, v in enumerate(out)]
    if out.count(-1) == 1:
        rest = math.prod(v for v in out if v != -1)
        out[out.index(-1)] = math.prod(shape) // rest if rest else 0
    if math.prod(out) != math.prod(shape) or min(out, default=1) < 0:
        raise ValueError(f"{list(shape)} cannot be reshaped to {target.tolist()}")
    return tuple(out)


def _constant(ins: tuple[Array, ...], a: Attributes) -> Array:
    for key, dtype in (
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if key in a:
            return np.array(a[key], dtype)
    return array(a["value"])


def _gather(ins: tuple[Array, ...], a: Attributes) -> Array:
    data, index = ins
    axis = int(a.get("axis", 0))
    bounded((*index.shape, data.size // max(data.shape[axis], 1)))
    return np.take(data, index.astype(np.int64), axis=axis)


def _concat(ins: tuple[Array, ...], a: Attributes) -> Array:
    bounded((sum(x.size for x in ins),))
    return np.concatenate(ins, axis=int(a["axis"]))


def _unsqueeze(ins: tuple[Array, ...], a: Attributes) -> Array:
    count = len(a["axes"]) if "axes" in a else ins[1].size
    return np.expand_dims(ins[0], axes_of(ins, a, ins[0].ndim + count) or ())


def _squeeze(ins: tuple[Array, ...], a: Attributes) -> Array:
    return np.squeeze(ins[0], axes_of(ins, a, ins[0].ndim))


def _slice(ins: tuple[Array, ...], a: Attributes) -> Array:
    given = [np.array(a[k]) if k in a else None for k in ("starts", "ends", "axes")]
    given = [x if x is not None else (ins[i] if len(ins) > i else None) for i, x in enumerate(given, 1)]
    starts, ends, axes = given
    if starts is None or ends is None:
        raise ValueError("a slice without start and end")
    steps = ins[4] if len(ins) > 4 else np.ones(starts.size)
    cut = [slice(None)] * ins[0].ndim
    for i, axis in enumerate(axes.tolist() if axes is not None else range(starts.size)):
        low, high, step = int(starts[i]), int(ends[i]), int(steps[i])
        cut[int(axis)] = slice(low, None if step < 0 and high < -ins[0].shape[int(axis)] else high, step)
    return ins[0][tuple(cut)]


def _cast(ins: tuple[Array, ...], a: Attributes) -> Array:
    import onnx

    return ins[0].astype(onnx.helper.tensor_dtype_to_np_dtype(int(a["to"])))


def _binary(function: Callable[[Array, Array], Array]) -> Callable[[tuple[Array, ...], Attributes], Array]:
    def fold(ins: tuple[Array, ...], a: Attributes) -> Array:
        bounded(np.broadcast_shapes(*(x.shape for x in ins)))
        return np.asarray(function(*ins)).astype(ins[0].dtype)

    return fold


def _divide(x: Array, y: Array) -> Array:
    if x.dtype.kind != "f" and not y.all():
        raise ValueError("division by zero")
    return np.asarray(x / y if x.dtype.kind == "f" else np.trunc(x / y))


def _constant_of_shape(ins: tuple[Array, ...], a: Attributes) -> Array:
    value = array(a["value"]) if "value" in a else np.zeros(1, np.float32)
    return np.full(bounded(tuple(int(v) for v in ins[0])), value.reshape(-1)[0], value.dtype)


def _reduce_prod(ins: tuple[Array, ...], a: Attributes) -> Array:
    axes = axes_of(ins, a, ins[0].ndim)
    return np.asarray(np.prod(ins[0], axis=axes, keepdims=bool(a.get("keepdims", 1)), dtype=ins[0].dtype))


def _reshape(ins: tuple[Array, ...], a: Attributes) -> Array:
    return ins[0].reshape(reshaped(ins[0].shape, ins[1], bool(a.get("allowzero", 0))))


def _transpose(ins: tuple[Array, ...], a: Attributes) -> Array:
    return np.transpose(ins[0], a.get("perm"))


FOLDS: dict[str, Callable[[tuple[Array, ...], Attributes], Array]] = {
    "Add": _binary(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _binary(_divide),
    "Gather": _gather,
    "Identity": lambda ins, a: ins[0],
    "Mul": _binary(np.multiply),
    "Neg": lambda ins, a: -ins[0],
    "ReduceProd": _reduce_prod,
    "Reshape": _reshape,
    "Slice": _slice,
    "Sqrt": lambda ins, a: np.sqrt(ins[0]),
    "Squeeze": _squeeze,
    "Sub": _binary(np.subtract),
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
