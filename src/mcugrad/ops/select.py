"""A copy of some channels: what a partly updated layer keeps of its input for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, RowNeed, RowRange, Struct, Table, TensorType, Walk
from mcugrad.ops.example import activation, single
from mcugrad.ops.spatial import nhwc

Array = NDArray[Any]


@dataclass(frozen=True)
class SelectChannels(Op):
    """y [1,H,W,n] = the listed channels (ascending) of x [1,H,W,C]."""

    channels: tuple[int, ...]
    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        height, width, channels = nhwc(x)
        if list(self.channels) != sorted(set(self.channels)) or not self.channels:
            raise GraphError(f"channels to select must ascend, got {list(self.channels)}")
        if not 0 <= self.channels[0] <= self.channels[-1] < channels:
            raise GraphError(f"cannot select channels {list(self.channels)} of {channels}")
        return (replace(x, shape=(1, height, width, len(self.channels))),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (np.ascontiguousarray(arrays[0][..., list(self.channels)]),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        (x,), (y,) = node.inputs, node.outputs
        fields = (
            ("width", x.type.shape[2]),
            ("in_c", x.type.shape[3]),
            ("out_c", len(self.channels)),
            ("order", Table("uint16_t", self.channels)),
        )
        return Kernel("mcg_select_channels", (Struct("mcg_select_t", fields), RowRange(), Operand(x), Operand(y, const=False)))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first, last),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return self

    def walks(self, node: Node) -> tuple[Walk, ...]:
        (x,), (y,) = node.inputs, node.outputs
        pixels = np.arange(x.type.elements // x.type.shape[3])[:, None] * x.type.shape[3]
        reads, writes = (pixels + np.array(self.channels)).reshape(-1), np.arange(y.type.elements)
        return (Walk(0, 0, np.stack([reads, reads + 1, writes, writes + 1], axis=1)),)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        yield single(cls((0, 2, 3, 6)), x=activation(3, 5, 7))
        yield single(cls((4,)), x=activation(2, 1, 5))
        yield single(cls(tuple(range(1, 10))), x=activation(4, 3, 10))


@dataclass(frozen=True)
class SelectGradient(SelectChannels):
    """Some channels of a gradient, or of what is read with it, directly before an update reads them."""

    phase = "backward"
