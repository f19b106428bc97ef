"""Some rows of a node's work on operands of which only a window of rows is in memory: how a backward pass is streamed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    RowNeed,
    RowRange,
    Staged,
    Struct,
    TensorType,
    Value,
    Work,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class Taken:
    """Rows [first, first + rows) of a buffer are what the op reads."""

    first: int
    rows: int


@dataclass(frozen=True)
class Placed:
    """The op's rows stand from row `first` on in a buffer of `height` rows."""

    first: int
    height: int


@dataclass(frozen=True)
class Piece(Op):
    """`op` on some rows of its operands.

    reads: per input of op, the rows of the buffer that it takes; None: the value as it is.  writes: per output of op,
    where its rows stand in their buffer; None: the output as it is, of an op whose other outputs are placed a count.
    more: the buffers have earlier contents, given after op's inputs in the order of the outputs, and counts go on from
    earlier ones; both in the same bytes.  group: pieces of one group share their scratch memory.
    """

    op: Op
    reads: tuple[Taken | None, ...]
    writes: tuple[Placed | None, ...]
    more: bool = False
    group: str = ""

    @property
    def phase(self) -> str:  # type: ignore[override]
        """A forward op that runs again is part of the backward pass."""
        return "update" if self.op.phase == "update" else "backward"

    @property
    def in_rows(self) -> bool:
        """Is it less than the whole op?"""
        return any(p is not None for p in (*self.reads, *self.writes))

    @property
    def overwrites(self) -> bool:
        return self.more or self.op.overwrites

    @property
    def scratch_group(self) -> str | None:  # type: ignore[override]
        return self.group or None

    @property
    def aliased(self) -> tuple[tuple[int, int], ...]:  # type: ignore[override]
        """(input, output) pairs that are one buffer."""
        return tuple((len(self.reads) + i, i) for i in range(len(self.writes))) if self.more else self.op.aliased

    def _taken(self, types: Sequence[TensorType]) -> list[TensorType]:
        return [t if r is None else with_rows(t, r.rows) for t, r in zip(types, self.reads, strict=False)]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        for type_, read in zip(types, self.reads, strict=False):
            if read is not None and not 0 <= read.first < read.first + read.rows <= type_.shape[1]:
                raise GraphError(f"rows [{read.first}, {read.first + read.rows}) do not exist in {type_}")
        made = self.op.infer(*self._taken(types))
        outs = tuple(t if w is None else with_rows(t, w.height) for t, w in zip(made, self.writes, strict=True))
        for type_, write in zip(made, self.writes, strict=True):
            if write is not None and not 0 <= write.first <= write.height - type_.shape[1]:
                raise GraphError(f"{type_} does not fit a buffer of {write.height} rows from row {write.first} on")
        if self.more and types[len(self.reads) :] != outs:
            raise GraphError("the earlier contents must be of the types of the outputs")
        return outs

    def inner(self, node: Node) -> Node:
        """The op on values that have only the rows of the piece."""
        sliced = self._taken([v.type for v in node.inputs])
        inputs = [
            v if r is None else Value(v.name, t, v.origin) for v, r, t in zip(node.inputs, self.reads, sliced, strict=False)
        ]
        made = self.op.infer(*sliced)
        outputs = [
            v if w is None else Value(v.name, t, v.origin) for v, w, t in zip(node.outputs, self.writes, made, strict=True)
        ]
        return Node(self.op, tuple(inputs), tuple(outputs))

    def _run(self, node: Node, how: str, *arrays: Array) -> tuple[Array, ...]:
        parts = [a if r is None else a[:, r.first : r.first + r.rows] for a, r in zip(arrays, self.reads, strict=False)]
        made = getattr(self.op, how)(self.inner(node), *parts)
        before = arrays[len(self.reads) :] if self.more else [None] * len(made)
        return tuple(
            _placed(np.asarray(array), write, old, value.type)
            for array, write, old, value in zip(made, self.writes, before, node.outputs, strict=True)
        )

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "eval", *arrays)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self._run(node, "real", *arrays)

    def work(self, node: Node) -> Work:
        return self.op.work(self.inner(node))

    def roomier(self, node: Node, room: int) -> Op | None:
        op = self.op.roomier(self.inner(node), room)
        return None if op is None else replace(self, op=op)

    def kernel(self, node: Node) -> Kernel:
        inner = self.inner(node)
        pairs = [*zip(inner.inputs, node.inputs, self.reads, strict=False)]
        where = {a: (b, r.first * b.type.row_bytes) for a, b, r in pairs if r is not None}
        outs = zip(inner.outputs, node.outputs, self.writes, strict=True)
        where |= {a: (b, w.first * b.type.row_bytes) for a, b, w in outs if w is not None}
        return moved_kernel(node, inner, where, self.more)

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example_piece import pieces

        return pieces()


def moved_kernel(node: Node, inner: Node, where: Mapping[Value, tuple[Value, int]], more: bool) -> Kernel:
    """The kernel of all rows of `inner`, a part of `node`, on other operands: (value, bytes from its first) for each.

    more: counts of a chain go on.  Raises GraphError where there is no kernel."""
    kernel = inner.op.kernel(inner)
    if kernel is None:
        raise GraphError(f"{node.where}: {inner.op.name} only renames bytes and cannot run in parts")
    args = (_all_rows(inner) if isinstance(arg, RowRange) else arg for arg in kernel.args)
    return replace(kernel, args=tuple(_moved(arg, where, more) for arg in args))


def _moved(arg: Any, where: Mapping[Value, tuple[Value, int]], more: bool) -> Any:
    if isinstance(arg, Operand) and arg.value is not None and arg.value in where:
        value, offset = where[arg.value]
        return replace(arg, value=value, offset=arg.offset + offset)
    if isinstance(arg, tuple):
        return tuple(_moved(a, where, more) for a in arg)
    if isinstance(arg, Staged):
        return replace(arg, args=_moved(arg.args, where, more))
    if isinstance(arg, Struct):
        fields = tuple((name, _moved(value, where, more)) for name, value in arg.fields)
        counts_on = (("more", 1),) if more and arg.ctype == "mcg_chain_t" else ()
        return Struct(arg.ctype, (*fields, *counts_on))
    return arg


def with_rows(type_: TensorType, rows: int) -> TensorType:
    """The type of `rows` rows of an NHWC value."""
    if len(type_.shape) != 4:
        raise GraphError(f"{type_} has no rows")
    return replace(type_, shape=(1, rows, *type_.shape[2:]))


def _placed(array: Array, write: Placed | None, old: Array | None, type_: TensorType) -> Array:
    """The buffer with the rows of `array` in it; a count goes on from the old one."""
    if write is None:
        return array if old is None else array + old
    buffer = np.zeros(type_.shape, array.dtype) if old is None else old.astype(array.dtype)
    buffer[:, write.first : write.first + array.shape[1]] = array
    return buffer


def _all_rows(node: Node) -> Struct:
    """An `mcg_rows_t`: all rows of a node whose operands are no taller than what it reads."""
    height = node.outputs[0].type.shape[1]
    kept = [node.inputs[n.index].type.shape[1] for n in node.op.needs(node, 0, height)]
    fields = (("first", 0), ("last", height), ("x_rows", kept[0]), ("y_rows", height), ("x2_rows", (*kept, 0)[1]))
    return Struct("mcg_rows_t", fields)


@dataclass(frozen=True)
class Slide(Op):
    """Rows [by, by + rows) of a window become its first rows; what follows them is to be overwritten."""

    by: int
    rows: int
    group: str = ""
    phase = "backward"
    aliased = ((0, 0),)
    overwrites = True

    @property
    def scratch_group(self) -> str | None:  # type: ignore[override]
        return self.group or None

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        if not 0 < self.by < self.by + self.rows <= types[0].shape[1]:
            raise GraphError(f"rows [{self.by}, {self.by + self.rows}) do not exist in {types[0]}")
        return (types[0],)

    def eval(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        moved = arrays[0].copy()
        moved[:, : self.rows] = arrays[0][:, self.by : self.by + self.rows]
        return (moved,)

    def real(self, node: Node, *arrays: Array) -> tuple[Array, ...]:
        return self.eval(node, *arrays)

    def kernel(self, node: Node) -> Kernel:
        row = node.inputs[0].type.row_bytes
        return Kernel("mcg_slide", (self.rows * row, self.by * row, Operand(node.outputs[0], const=False)))

    @classmethod
    def examples(cls) -> Iterable[Graph]:
        from mcugrad.ops.example import activation, single

        yield single(cls(2, 3), x=activation(5, 3, 3))
        yield single(cls(1, 5), x=activation(7, 2, 4))


def piece_of(
    node: Node, first: int, last: int, bases: Mapping[int, int], places: Sequence[Placed | None], more: bool, group: str
) -> Piece:
    """Rows [first, last) of the node's work.  bases: per input in a window, the row with which its buffer begins."""
    op, needs = node.op.cut(node, first, last)
    reads: list[Taken | None] = [None] * len(node.inputs)
    for need in needs:
        reads[need.index] = Taken(need.first - bases.get(need.index, 0), need.last - need.first)
    return Piece(op, tuple(reads), tuple(places), more, group)


def needed(node: Node, first: int, last: int) -> tuple[RowNeed, ...]:
    """Rows of the inputs that rows [first, last) of the node's work read."""
    return node.op.cut(node, first, last)[1]
