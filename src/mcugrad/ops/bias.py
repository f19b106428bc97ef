"""The bias of a layer that learns: int32, or int32 in flash with an int16 delta in SRAM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import GraphError, Kernel, Node, Operand, Staged, TensorType, Value
from mcugrad.quant.affine import BIAS_LIMIT

Array = NDArray[Any]


def moving_bias(node: Node) -> Value:
    """What a layer's bias update moves: the delta where there is one."""
    return node.inputs[-1] if _has_delta(node) else node.inputs[2]


def whole_bias(node: Node, arrays: Sequence[Array]) -> Array:
    """The bias of the layer, with its delta."""
    return summed(arrays[2], arrays[-1]) if _has_delta(node) else arrays[2]


def summed(bias: Array, delta: Array) -> Array:
    """float64 of bias + delta, kept within +-BIAS_LIMIT."""
    total: Array = np.clip(bias.astype(np.float64) + delta, -BIAS_LIMIT, BIAS_LIMIT)
    return total


def with_bias(node: Node, kernel: Kernel) -> Kernel:
    """The layer's kernel; with a delta, on the sum of both, which stands behind the kernel's own scratch memory."""
    if not _has_delta(node):
        return kernel
    base, delta = node.inputs[2], node.inputs[-1]
    offset = (kernel.scratch + 3) // 4 * 4
    total = Staged("mcg_summed_bias", (Operand(base, "int32_t"), Operand(delta, "int16_t"), base.type.elements), offset)
    args = tuple(total if isinstance(a, Operand) and a.value is base else a for a in kernel.args)
    return replace(kernel, args=args, scratch=offset + 4 * base.type.elements)


def without_delta(types: Sequence[TensorType], delta: bool) -> tuple[TensorType, ...]:
    """The types of the other inputs; raises GraphError when the delta does not fit the bias."""
    if delta and (types[-1].dtype, types[-1].shape) != ("s16", types[2].shape):
        raise GraphError(f"a delta of type {types[-1]} does not fit a bias {types[2]}")
    return tuple(types[: len(types) - delta])


def _has_delta(node: Node) -> bool:
    return bool(getattr(node.op, "delta", False))
