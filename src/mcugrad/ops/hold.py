"""Several samples make one step: what each asks for is held until enough have come, then the parameter moves once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Struct, TensorType, Value
from mcugrad.quant.affine import BIAS_LIMIT, rsh

Array = NDArray[Any]

WEIGHT_BITS = 8
"""Fraction bits of what an int8 weight holds: units of 2**-8 of its own."""
HEAD_BITS = 4  # likewise of an int16 weight of the head
BIAS_BITS = {"s32": 8, "s16": 2}  # likewise of a bias, and of the int16 delta of one
MOST_SAMPLES = 256
TOP = {"s16": 32767, "s32": BIAS_LIMIT}


@dataclass(frozen=True)
class Hold:
    """An accumulator of `samples` shares u, with `fraction` bits below the unit in which its parameter moves.

    A = A + clamp(u, +-most); at the last sample the parameter moves by v = RSH(A, fraction), and A keeps A - (v << fraction).
    No accumulator overflows its dtype: |A| <= samples * most + 2**(fraction - 1) <= TOP[dtype].
    """

    samples: int
    fraction: int
    dtype: str = "s16"

    @property
    def most(self) -> int:
        """The largest share of one sample."""
        return (TOP[self.dtype] - (1 << self.fraction >> 1)) // self.samples

    def check(self, parameter: TensorType, held: TensorType, count: TensorType) -> None:
        """Raises GraphError when the accumulator does not fit the parameter, or could overflow."""
        if not 2 <= self.samples <= MOST_SAMPLES or not 0 <= self.fraction <= 8:
            raise GraphError(f"a step takes 2 to {MOST_SAMPLES} samples, not {self.samples}")
        if self.samples * self.most + (1 << self.fraction >> 1) > TOP[self.dtype]:
            raise GraphError(f"{self.samples} samples overflow an accumulator of {self.dtype}")
        if (held.shape, held.dtype) != (parameter.shape, self.dtype) or (count.shape, count.dtype) != ((1,), "s32"):
            raise GraphError(f"an accumulator {held} with a count {count} does not fit {parameter}")

    def complete(self, count: Array) -> bool:
        """Is this the last sample of a step?  count: samples before it."""
        return int(count[0]) + 1 == self.samples

    def take(self, share: Array, held: Array, count: Array) -> tuple[Array, Array]:
        """(what the parameter moves by, what is held afterwards), all int64 of the parameter's shape."""
        total = held.astype(np.int64) + np.clip(share, -self.most, self.most)
        step = rsh(total, self.fraction) if self.complete(count) else np.zeros_like(total)
        return step, total - (step << self.fraction)

    def take_real(self, share: Array, held: Array, count: Array) -> tuple[Array, Array]:
        """`take` without rounding and clamping; share in units of the accumulator."""
        total = held + share
        return (total / 2.0**self.fraction, np.zeros_like(total)) if self.complete(count) else (np.zeros_like(total), total)

    def struct(self, held: Value, count: Value) -> Struct:
        fields = (
            ("held", Operand(held, "void", const=False)),
            ("count", Operand(count, "int32_t")),
            ("last", self.samples - 1),
            ("fraction", self.fraction),
            ("most", self.most),
        )
        return Struct("mcg_hold_t", fields)


@dataclass(frozen=True)
class CountSample(Op):
    """count' = (count + 1) mod samples.  Inputs: count s32[1].  Output: count'."""

    samples: int
    phase = "update"
    aliased = ((0, 0),)

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if (types[0].shape, types[0].dtype) != ((1,), "s32"):
            raise GraphError(f"samples are counted in s32[1], not in {types[0]}")
        return types

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        after = arrays[0] + 1
        return (np.where(after >= self.samples, 0, after),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        return Kernel("mcg_count_sample", (self.samples, Operand(node.outputs[0], "int32_t", const=False)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        """In the middle of a step and at its end."""
        from mcugrad.ops.example_grad import Sketch

        for before in (0, 3, 4):
            s = Sketch(before)
            count = s.constant("count", (before,), "s32")
            new = s.build.add(cls(5), count, name="next")
            yield s.build.graph(new, ((count, new[0]),))
