"""Gradient exponents that follow the data: up where gradients clamp too often, back down when they no longer do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mcugrad.ir import Graph, GraphError, Kernel, Node, Op, Operand, Struct, TensorType

Array = NDArray[Any]

WINDOW = 256
"""Steps with a backward pass over which clamped elements are counted; C packs the count of steps into one byte."""
SHARE = 1000  # at most one element in so many may be clamped (numerics.md)
HEADROOM = 8  # how far an exponent may rise above its calibrated value
MOST = (1 << 23) - 1  # clamped elements that a window can count


@dataclass(frozen=True)
class AdaptExponent(Op):
    """After every 256th step: E + 1 where more than 1 in 1000 elements of the gradient were clamped; E - 1, not below its
    calibrated value, where none was.

    Inputs: exponents s8 [slots], health s32 [slots] (clamped elements << 8 | steps, of this window), clamped s32 [1].
    Outputs: exponents', health'.  base: the calibrated exponent; elements: of the stored gradient.
    """

    slot: int
    base: int
    elements: int
    phase = "update"
    aliased = ((0, 0), (1, 1))

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        exponents, health, clamped = types
        if exponents.shape != health.shape or not 0 <= self.slot < exponents.elements or clamped.elements != 1:
            raise GraphError(f"slot {self.slot} does not fit exponents {exponents} with health {health}")
        return exponents, health

    @property
    def limit(self) -> int:
        """Clamped elements in a window that are still healthy."""
        return self.elements * WINDOW // SHARE

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        exponents, health = arrays[0].copy(), arrays[1].copy()
        packed = int(health[self.slot])
        clamped, steps = min((packed >> 8) + int(arrays[2][0]), MOST), (packed & 255) + 1
        if steps == WINDOW:
            e = int(exponents[self.slot])
            rise = clamped > self.limit and e < min(self.base + HEADROOM, 127)
            fall = clamped == 0 and e > self.base
            exponents[self.slot] = e + rise - fall
            clamped = steps = 0
        health[self.slot] = clamped << 8 | steps
        return exponents, health

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        top = min(self.base + HEADROOM, 127)
        fields = (("slot", self.slot), ("base", self.base), ("top", top), ("limit", self.limit))
        args = (
            Struct("mcg_adapt_t", fields),
            Operand(node.inputs[2], "int32_t"),
            Operand(node.outputs[0], const=False),
            Operand(node.outputs[1], "int32_t", const=False),
        )
        return Kernel("mcg_adapt_exponent", args)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        """Inside a window, its end with none, few, too many and countless clamped elements, at both ends of the range."""
        from mcugrad.ops.example_grad import Sketch

        ends = ((0, 0, 9), (0, 7, 9), (0, 8, 9), (0, 1, 17), (0, 0, 10), (MOST, 1 << 30, 9), (3, 0, 9))
        for i, (before, now, e) in enumerate(((1, 1, 9), *ends)):
            s = Sketch(i)
            steps = 5 if i == 0 else WINDOW - 1
            exponents = s.constant("exponents", (1, 0, e, -3), "s8")
            health = s.constant("health", (7, 7, before << 8 | steps, 7), "s32")
            clamped = s.constant("clamped", (now,), "s32")
            new = s.build.add(cls(2, 9, 30), exponents, health, clamped, name="next")
            yield s.build.graph(new, ((exponents, new[0]), (health, new[1])))
