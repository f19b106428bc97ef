"""Scale and shift per channel, as batch norm leaves it after training; float only, folded before quantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mcugrad.ir import GraphError, Node, Op, TensorType

Array = NDArray[Any]


@dataclass(frozen=True)
class BatchNorm(Op):
    """y = x * scale + shift.  Inputs: x f32 [1,H,W,C], scale [C] = gamma / sqrt(var + eps), shift [C] = beta - mean * scale."""

    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, scale, shift = types
        if x.dtype != "f32":
            raise GraphError(f"batch norm is float only, got {x}: fold it before quantization")
        if scale.shape != x.shape[-1:] or shift.shape != x.shape[-1:]:
            raise GraphError(f"batch norm of {list(scale.shape)} and {list(shift.shape)} does not fit {x.shape[-1]} channels")
        return (x,)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        x, scale, shift = arrays
        return (x * scale + shift,)
