"""A share of a node's channels: rows of parameters that move in place, parts of a sum, and copies of what is not in rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.ir import BITS, Graph, GraphError, Kernel, Node, Op, Operand, Scratch, Struct, TensorType, Value, Work
from mcugrad.ops.backprop import Chain
from mcugrad.ops.piece import moved_kernel

Array = NDArray[Any]


def with_share(type_: TensorType, first: int, last: int, axis: int) -> TensorType:
    """The type of elements [first, last) along an axis, its scales with them."""
    if not 0 <= first < last <= type_.shape[axis]:
        raise GraphError(f"channels [{first}, {last}) do not exist in {type_}")
    quant = type_.quant
    if quant is not None and quant.axis == axis:
        quant = replace(quant, scale=quant.scale[first:last])
    return replace(type_, shape=(*type_.shape[:axis], last - first, *type_.shape[axis + 1 :]), quant=quant)


@dataclass(frozen=True)
class Share(Op):
    """`op` on elements [first, last) along the first axis of the inputs in `shared`.

    Where an output of op lies in the bytes of such an input, it is the whole input with this share changed.  count: an
    input after op's own, to which output 1, a chain's count of clamped elements, is added in place; None: no count.
    """

    op: Op
    shared: tuple[int, ...]
    first: int = 0
    last: int = 0
    count: int | None = None

    @property
    def phase(self) -> str:  # type: ignore[override]
        return self.op.phase

    @property
    def overwrites(self) -> bool:
        return self.count is not None or self.op.overwrites

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return self.op.aliased if self.count is None else (*self.op.aliased, (self.count, 1))

    def replaces(self, node: Node) -> tuple[tuple[int, int], ...]:
        return self.op.replaces(self.inner(node))

    def _inputs(self, types: Sequence[TensorType]) -> list[TensorType]:
        own = types if self.count is None else types[: self.count]
        return [with_share(t, self.first, self.last, 0) if i in self.shared else t for i, t in enumerate(own)]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        for index in self.shared:
            if _offset(types[index], self.first) is None:
                raise GraphError(f"channel {self.first} of {types[index]} does not begin at a byte")
        outs = list(self.op.infer(*self._inputs(types)))
        for source, target in self.op.aliased:
            if source in self.shared:
                outs[target] = types[source]
        if self.count is not None and types[self.count] != outs[1]:
            raise GraphError(f"a count {outs[1]} cannot go on from {types[self.count]}")
        return tuple(outs)

    def inner(self, node: Node) -> Node:
        """The op on values that have only this share."""
        types = self._inputs([v.type for v in node.inputs])
        inputs = [v if t is v.type else Value(v.name, t, v.origin) for v, t in zip(node.inputs, types, strict=False)]
        made = self.op.infer(*types)
        outputs = [v if t == v.type else Value(v.name, t, v.origin) for v, t in zip(node.outputs, made, strict=True)]
        return Node(self.op, tuple(inputs), tuple(outputs))

    def _run(self, node: Node, how: str, *arrays: Array) -> tuple[Array, ...]:
        own = arrays if self.count is None else arrays[: self.count]
        parts = [a[self.first : self.last] if i in self.shared else a for i, a in enumerate(own)]
        made: list[Array] = list(getattr(self.op, how)(self.inner(node), *parts))
        for source, target in self.op.aliased:
            if source in self.shared:
                whole = arrays[source].astype(np.result_type(arrays[source], made[target]))
                whole[self.first : self.last] = made[target]
                made[target] = whole
        if self.count is not None:
            made[1] = made[1] + arrays[self.count]
        return tuple(made)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "eval", *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "real", *arrays)

    def work(self, node: Node) -> Work:
        return self.op.work(self.inner(node))

    def kernel(self, node: Node) -> Kernel:
        inner = self.inner(node)
        pairs = [*zip(inner.inputs, node.inputs, strict=False), *zip(inner.outputs, node.outputs, strict=True)]
        where = {a: (b, _offset(b.type, self.first) or 0) for a, b in pairs if a is not b}
        return moved_kernel(node, inner, where, self.count is not None)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_share import shares

        return shares()


def _offset(type_: TensorType, first: int) -> int | None:
    """Bytes before element `first` of the first axis; None where it begins within a byte."""
    bits = first * (type_.elements // type_.shape[0]) * BITS[type_.dtype]
    return bits // 8 if bits % 8 == 0 else None


@dataclass(frozen=True)
class PartOfSum(Op):
    """An input gradient that is the sum of several calls, each of a share of the channels of h.

    Inputs: those of the chain's producer; unless it is the first, the sum of the parts before (int32); in the last part
    what the chain reads besides.  Output: the sum with this part, in the bytes of the sum before; of the last part, what
    the chain gives.  Requantized once, so that the parts do not change a bit.
    """

    chain: Chain
    first: bool
    last: bool
    phase = "backward"
    overwrites = True

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return () if self.first or self.last else ((self.chain.producer_inputs, 0),)

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """Those of the chain's operands."""
        n = self.chain.producer_inputs
        return tuple((i + (not self.first), o) for i, o in self.chain.in_place if i > n) if self.last else ()

    def _split(self, items: Sequence[Any]) -> tuple[list[Any], Any, list[Any]]:
        """What the producer reads, the sum before (None for the first part), the rest."""
        n = self.chain.producer_inputs
        own, rest = list(items[:n]), list(items[n:])
        return (own, None, rest) if self.first else (own, rest[0], rest[1:])

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        own, before, rest = self._split(types)
        made = self.chain.producer.infer(*own)
        if before is not None and (before,) != made:
            raise GraphError(f"the parts before are {before}, not {made[0]}")
        return self.chain.infer(*own, *rest) if self.last else made

    def _chained(self, node: Node) -> Node:
        """The last part without the sum before."""
        own, _, rest = self._split(node.inputs)
        return Node(self.chain, (*own, *rest), node.outputs)

    def _producer(self, node: Node) -> Node:
        own, _, _ = self._split(node.inputs)
        (acc,) = self.chain.producer.infer(*(v.type for v in own))
        return Node(self.chain.producer, tuple(own), (Value("sum", acc),))

    def _run(self, node: Node, how: str, *arrays: Array) -> tuple[Array, ...]:
        own, before, rest = self._split(arrays)
        so_far = 0 if before is None else before
        if self.last:
            return self.chain.run(self._chained(node), how, [*own, *rest], so_far)
        (acc,) = getattr(self.chain.producer, how)(self._producer(node), *own)
        return (acc + so_far,)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "eval", *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "real", *arrays)

    def work(self, node: Node) -> Work:
        return self.chain.producer.work(self._producer(node))

    def kernel(self, node: Node) -> Kernel:
        producer = self._producer(node)
        kernel = self.chain.producer.kernel(producer)
        if kernel is None:
            raise GraphError(f"{self.chain.producer.name} has no kernel to accumulate with")
        _, before, _ = self._split(node.inputs)
        stored = before if self.last else node.outputs[0]
        fields = (("sum", Operand(stored, "int32_t", const=False)), ("add", int(not self.first)), ("more", int(not self.last)))
        part = (("sum", Struct("mcg_sum_t", fields)),)
        if not self.last:
            chain = Struct("mcg_chain_t", (("count", 0), *part))
            return replace(kernel, args=(*kernel.args, chain, Scratch()))
        whole = self.chain.kernel(self._chained(node))
        made = (
            replace(a, fields=(*a.fields, *part)) if isinstance(a, Struct) and a.ctype == "mcg_chain_t" else a
            for a in whole.args
        )
        return replace(whole, args=tuple(made))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_share import parts_of_sums

        return parts_of_sums()


@dataclass(frozen=True)
class Take(Op):
    """Channels [first, last) of a value [1,H,W,C], one bit or byte each; those of bits begin and end at whole bytes."""

    first: int
    last: int

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        (x,) = types
        check_bytes(x, self.first, self.last)
        return (with_share(x, self.first, self.last, 3),)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return (np.ascontiguousarray(arrays[0][..., self.first : self.last]),)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        (x,), (y,) = node.inputs, node.outputs
        offset, sizes = part_of_rows(x.type, self.first, self.last)
        return Kernel("mcg_take", (*sizes, Operand(x, offset=offset), Operand(y, const=False)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example import activation, single

        yield single(cls(2, 5), x=activation(3, 5, 7))
        yield single(cls(4, 18), x=activation(2, 3, 21))
        yield single(cls(8, 24), x=TensorType((1, 3, 3, 32), "u1"))
        yield single(cls(0, 8), x=TensorType((1, 5, 1, 16), "u1"))


@dataclass(frozen=True)
class TakeGradient(Take):
    """Some channels of what an input gradient reads, directly before it."""

    phase = "backward"


@dataclass(frozen=True)
class Put(Op):
    """A value [1,H,W,C] of which channels from `first` on are x; the others are those of the value before.

    Inputs: x, and unless these are the first that are put there, the value before, in whose bytes the result is; before
    that the others are not defined (here 0).  channels: C.
    """

    first: int
    channels: int

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return ((1, 0),) if self.first else ()

    @property
    def overwrites(self) -> bool:
        return True

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        x, before = types[0], types[1:]
        whole = replace(x, shape=(*x.shape[:3], self.channels))
        check_bytes(whole, self.first, self.first + x.shape[3])
        if before not in ((), (whole,)) or bool(before) != bool(self.first):
            raise GraphError(f"channels {self.first} and more of {whole} cannot be put into {before}")
        return (whole,)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        whole = arrays[1].copy() if self.first else np.zeros(node.outputs[0].type.shape, arrays[0].dtype)
        whole[..., self.first : self.first + arrays[0].shape[3]] = arrays[0]
        return (whole,)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        x, y = node.inputs[0], node.outputs[0]
        offset, sizes = part_of_rows(y.type, self.first, self.first + x.type.shape[3])
        return Kernel("mcg_put", (*sizes, Operand(x), Operand(y, const=False, offset=offset)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example import activation, single

        yield single(cls(2, 7), x=activation(3, 5, 3), before=activation(3, 5, 7))
        yield single(cls(8, 32), x=TensorType((1, 3, 3, 16), "u1"), before=TensorType((1, 3, 3, 32), "u1"))
        yield single(cls(40, 88), x=TensorType((1, 2, 3, 48), "u1"), before=TensorType((1, 2, 3, 88), "u1"))
        yield single(cls(0, 4), x=activation(3, 2, 4))


def check_bytes(whole: TensorType, first: int, last: int) -> None:
    """Raises GraphError unless channels [first, last) of every position are whole bytes."""
    if BITS[whole.dtype] > 8 or any(n * BITS[whole.dtype] % 8 for n in (first, last, whole.shape[3])):
        raise GraphError(f"channels [{first}, {last}) of {whole} are not whole bytes")
    with_share(whole, first, last, 3)


def part_of_rows(whole: TensorType, first: int, last: int) -> tuple[int, tuple[int, int, int]]:
    """Byte of channel `first`; positions, bytes of channels [first, last) of each, bytes from one to the next."""
    bits = BITS[whole.dtype]
    return first * bits // 8, (whole.shape[1] * whole.shape[2], (last - first) * bits // 8, whole.shape[3] * bits // 8)
