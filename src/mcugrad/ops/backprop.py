"""What every input gradient goes through on its way to the layer before: sum at fan-out, clamp mask, requantize."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import (
    Graph,
    GraphError,
    Kernel,
    Node,
    Op,
    Operand,
    Quant,
    RowNeed,
    RowRange,
    Scratch,
    Struct,
    Table,
    TensorType,
    Value,
    Work,
)
from mcugrad.quant.affine import INT32_MAX, INT32_MIN, clampg, mbqm, multipliers, ratio_between, rsh

Array = NDArray[Any]


def passes(y: Array) -> Array:
    """The clamp's mask, the one definition: strict on the int8 output."""
    return (y > -128) & (y < 127)


def slot(exponents: Array, quant: Quant) -> int:
    """Exponent of a gradient."""
    return 0 if quant.exponent is None else int(exponents[quant.exponent])


def grad_quant(type_: TensorType) -> Quant:
    if type_.quant is None:
        raise GraphError("a gradient needs a scale and an exponent")
    return type_.quant


@dataclass(frozen=True)
class ClampMask(Op):
    """One bit per element of an int8 output: did the value pass its clamp?"""

    splits_rows = True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(types[0].shape, "u1"),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (passes(arrays[0]),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (passes(arrays[0]),)

    def kernel(self, node: Node) -> Kernel:
        y = node.inputs[0].type
        mask = Operand(node.outputs[0], "uint8_t", const=False)
        return Kernel("mcg_clamp_mask", (RowRange(), Operand(node.inputs[0]), mask, y.shape[2] * y.shape[3]))

    def needs(self, node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
        return (RowNeed(0, first, last),)

    def crop(self, node: Node, first: int, last: int) -> Op:
        return self

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_grad import clamp_masks

        return clamp_masks()


@dataclass(frozen=True)
class GradSum(Op):
    """a + RSH(g, E_a - E_g): adds a stored int8 gradient to an int32 one.  Inputs: a, g, exponents."""

    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        a, g = types[:2]
        if a.shape != g.shape or grad_quant(a).scale != grad_quant(g).scale:
            raise GraphError(f"cannot add the gradients {a} and {g}")
        return (a,)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a, g, exponents = arrays
        shift = slot(exponents, grad_quant(node.inputs[0].type)) - slot(exponents, grad_quant(node.inputs[1].type))
        return (np.clip(a.astype(np.int64) + rsh(g, shift), INT32_MIN, INT32_MAX),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a, g, exponents = arrays
        shift = slot(exponents, grad_quant(node.inputs[1].type)) - slot(exponents, grad_quant(node.inputs[0].type))
        return (a + g * 2.0**shift,)


@dataclass(frozen=True)
class GradMask(Op):
    """a where the clamp let its value pass, else 0.  Inputs: a, and the clamp's int8 output or its bit mask."""

    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if types[0].shape != types[1].shape or types[1].dtype not in ("s8", "u1"):
            raise GraphError(f"a mask of type {types[1]} does not fit {types[0]}")
        return (types[0],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a, mask = arrays
        return (np.where(mask if node.inputs[1].type.dtype == "u1" else passes(mask), a, 0),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)


@dataclass(frozen=True)
class GradQuantize(Op):
    """g = clampg(a * factor[c] * 2**(E_a - E_g)), int8, and how many elements the clamp changed.

    Inputs: a (int32), exponents.  factor: one number, or one per channel (the weight scales of the layer before).  A
    factor of 1 rounds by RSH, any other by MBQM.  forward: the scales by which that layer's forward pass requantizes, where
    known: its table of multipliers may then serve both.
    """

    factor: tuple[float, ...]
    exponent: int
    forward: tuple[float, ...] = ()
    phase = "backward"
    lowers = False

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        a = types[0]
        if len(self.factor) not in (1, a.shape[-1]):
            raise GraphError(f"{len(self.factor)} factors for {a.shape[-1]} channels")
        scale = tuple(grad_quant(a).scale[0] / f for f in self.factor)
        axis = len(a.shape) - 1 if len(scale) > 1 else None
        return TensorType(a.shape, "s8", Quant(scale, 0, axis, self.exponent)), TensorType((1,), "s32")

    def shift(self, node: Node, exponents: Array) -> int:
        return int(exponents[self.exponent]) - slot(exponents, grad_quant(node.inputs[0].type))

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a, exponents = arrays
        shift = self.shift(node, exponents)
        v = rsh(a, shift) if self.plain else mbqm(a, *shifted(self.factor, shift))
        g = clampg(v)
        return g, np.array([np.count_nonzero(g != v)])

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        a, exponents = arrays
        return a * (np.array(self.factor) * 2.0 ** -self.shift(node, exponents)), np.zeros(1)

    def tables(self) -> tuple[tuple[str, Any], ...]:
        """Fields of the C struct: multipliers and shifts, or those of the forward pass and how to make these of them."""
        if self.plain:
            return ()
        ratio, more = ratio_between(self.factor, self.forward) or (0, 0)
        m, sh = multipliers(self.forward if ratio else self.factor)
        tables = Table("int32_t", tuple(int(v) for v in m)), Table("uint8_t", tuple(int(v) for v in sh))
        return (("more", more), ("multiplier", tables[0]), ("shift", tables[1]), ("ratio", ratio))

    @property
    def plain(self) -> bool:
        return self.factor == (1.0,)


def shifted(factor: tuple[float, ...], shift: int) -> tuple[Array, Array]:
    """(M, sh) of factor * 2**-shift; sh stays within [1, 62]."""
    m, sh = multipliers(factor)
    return m, np.clip(sh + shift, 1, 62)


@dataclass(frozen=True)
class Stage:
    """One step of a chain: add a stored gradient, apply a mask, store a requantized copy; in this order."""

    add: bool = False
    mask: bool = False
    out: GradQuantize | None = None


@dataclass(frozen=True)
class Chain(Op):
    """An input gradient that is requantized row by row and never stored as int32.

    Inputs: those of `producer`, then the exponents, then per stage its stored gradient and its mask.  Outputs: per
    storing stage the int8 gradient and its count of clamped elements.
    """

    producer: Op
    producer_inputs: int
    stages: tuple[Stage, ...]
    phase = "backward"

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """The last stored gradient may replace an operand of its own or an earlier stage: all are read before.

        It may replace an input of the producer where the producer allows that."""
        last = 2 * (sum(s.out is not None for s in self.stages) - 1)
        first = self.producer_inputs + 1
        operands = range(first, first + sum(s.add + s.mask for s in self.stages))
        return tuple((i, last) for i in (*(i for i, _ in self.producer.in_place), *operands))

    def _walk(self, node: Node) -> list[tuple[Node, str]]:
        """The unfused nodes, each with the kind of value it leaves: acc or out."""
        ins, exponents = node.inputs[: self.producer_inputs], node.inputs[self.producer_inputs]
        operands = iter(node.inputs[self.producer_inputs + 1 :])
        steps: list[tuple[Node, str]] = []

        def step(op: Op, *inputs: Value) -> Value:
            types = op.infer(*(v.type for v in inputs))
            outputs = tuple(Value(f"{op.name}.{len(steps)}.{i}", t) for i, t in enumerate(types))
            steps.append((Node(op, inputs, outputs), "out" if isinstance(op, GradQuantize) else "acc"))
            return outputs[0]

        acc = step(self.producer, *ins)
        for stage in self.stages:
            acc = step(GradSum(), acc, next(operands), exponents) if stage.add else acc
            acc = step(GradMask(), acc, next(operands)) if stage.mask else acc
            if stage.out is not None:
                step(stage.out, acc, exponents)
        return steps

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        node = Node(self, tuple(Value(f"in.{i}", t) for i, t in enumerate(types)), ())
        return tuple(v.type for n, kind in self._walk(node) if kind == "out" for v in n.outputs)

    def run(self, node: Node, how: str, arrays: Sequence[Array], before: Array | int = 0) -> tuple[Array, ...]:
        """`eval` or `real`.  before: is added to what the producer makes."""
        known = dict(zip(node.inputs, arrays, strict=True))
        results: list[Array] = []
        for index, (step, kind) in enumerate(self._walk(node)):
            outputs = getattr(step.op, how)(step, *(known[v] for v in step.inputs))
            if index == 0:
                outputs = (outputs[0] + before,)
            known.update(zip(step.outputs, outputs, strict=True))
            results += outputs if kind == "out" else ()
        return tuple(results)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.run(node, "eval", arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.run(node, "real", arrays)

    def work(self, node: Node) -> Work:
        inner = self.producer.work(self._walk(node)[0][0])
        return replace(super().work(node), macs=inner.macs)

    def _first(self, node: Node) -> Node:
        """The producer alone."""
        return Node(self.producer, node.inputs[: self.producer_inputs], ())

    def cut_rows(self, node: Node) -> int:
        return self.producer.cut_rows(self._first(node))

    def cut(self, node: Node, first: int, last: int) -> tuple[Op, tuple[RowNeed, ...]]:
        producer, needs = self.producer.cut(self._first(node), first, last)
        operands = range(self.producer_inputs + 1, len(node.inputs))
        return replace(self, producer=producer), (*needs, *(RowNeed(i, first, last) for i in operands))

    def kernel(self, node: Node) -> Kernel:
        walk = self._walk(node)
        kernel = self.producer.kernel(walk[0][0])
        if kernel is None:
            raise GraphError(f"{self.producer.name} has no kernel to chain")
        acc = walk[0][0].outputs[0].type
        outs = iter([node.outputs[i : i + 2] for i in range(0, len(node.outputs), 2)])
        operands = iter(node.inputs[self.producer_inputs + 1 :])
        stages = tuple(self._stage(s, acc, operands, outs) for s in self.stages)
        exponents = Operand(node.inputs[self.producer_inputs])
        fields = (("exponents", exponents), ("count", len(stages)), ("stages", stages))
        return replace(kernel, args=(*kernel.args, Struct("mcg_chain_t", fields), Scratch()))

    def _stage(self, stage: Stage, acc: TensorType, operands: Any, outs: Any) -> Struct:
        add = next(operands) if stage.add else None
        mask = next(operands) if stage.mask else None
        out, clamped = next(outs) if stage.out else (None, None)
        fixed: list[tuple[str, Any]] = [
            ("acc_slot", slot_field(acc)),
            ("add_slot", slot_field(add.type) if add else -1),
            ("mask_bits", int(mask is not None and mask.type.dtype == "u1")),
        ]
        if stage.out is not None:
            fixed += [("out_slot", stage.out.exponent), ("channels", len(stage.out.factor)), *stage.out.tables()]
        return Struct(
            "mcg_stage_t",
            (
                ("p", Struct("mcg_stage_params_t", tuple(fixed))),
                ("add", Operand(add)),
                ("mask", Operand(mask, "void")),
                ("out", Operand(out, const=False)),
                ("clamped", Operand(clamped, "int32_t", const=False)),
            ),
        )

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_grad import chains

        return chains()


def slot_field(type_: TensorType) -> int:
    """Exponent slot as the C structs store it: -1 stands for exponent 0."""
    exponent = grad_quant(type_).exponent
    return -1 if exponent is None else exponent
