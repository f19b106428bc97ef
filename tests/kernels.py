"""Every example of every op as C: printed, built for this machine and called on guarded buffers.

Run as a program it repeats the bit-for-bit comparison on a library built with sanitizers:
    python tests/kernels.py LIBRARY
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mcugrad import toolchain
from mcugrad.build import WIDE
from mcugrad.emit.call import CallPrinter, Rows
from mcugrad.ir import NUMPY, Graph, Node, Op, StopStep, TensorType, Value
from mcugrad.layout import from_bytes
from mcugrad.ops import registry
from mcugrad.ops.example import feeds

CSRC = Path(toolchain.__file__).parent / "csrc"
STRICT = ("-std=c99", *toolchain.WARNINGS)
DRAWS = 3  # of the contents of an example whose operands are inputs
GUARD = 64  # bytes on either side of a buffer
PATTERN = 0xA5


@dataclass(frozen=True)
class Case:
    """One example: `name` is unique, `number` that of its C function."""

    name: str
    number: int
    op: type[Op]
    graph: Graph

    @property
    def node(self) -> Node:
        return self.graph.nodes[0]

    def contents(self, seed: int) -> dict[Value, np.ndarray]:
        """Contents of the node's inputs; those that are parameters are always the same."""
        fed = feeds(self.graph, np.random.default_rng([*self.name.encode(), seed]))
        arrays = {v: fed[v.name].astype(NUMPY[v.type.dtype]) for v in self.graph.inputs}
        arrays |= {p.value: p.data for p in self.graph.params}
        return {v: arrays[v] for v in self.node.inputs}


def cases() -> list[Case]:
    found = [(cls, i, graph) for cls in registry().values() for i, graph in enumerate(cls.examples())]
    return [Case(f"{cls.__name__}-{i}", n, cls, graph) for n, (cls, i, graph) in enumerate(found)]


def operands(node: Node) -> list[Value]:
    return list(dict.fromkeys((*node.inputs, *node.outputs)))


def source(all_cases: Sequence[Case]) -> str:
    """One function per case: run_N(addresses of its operands and scratch, rows, context)."""
    functions: list[str] = []
    place: dict[Value, int] = {}
    printer = CallPrinter(lambda value, ctype, const: f"({'const ' * const}{ctype} *)b[{place[value]}]")
    for case in all_cases:
        kernel = case.node.op.kernel(case.node)
        if kernel is None:
            continue
        place.clear()
        place.update({v: i for i, v in enumerate(operands(case.node))})
        call = printer.call(case.node, kernel, "r", f"b[{len(place)}]")
        last = f"return {call.expression};" if not case.node.outputs else f"{call.expression};\n  return 0;"
        body = "\n  ".join(["(void)b, (void)r, (void)c;", *call.setup, last])
        head = f"int32_t run_{case.number}(void **b, const mcg_rows_t *r, const mcg_context_t *c)"
        functions.append(f"{head};\n{head} {{\n  {body}\n}}")
    return "\n\n".join(['#include "kernels.h"', *printer.definitions, *functions]) + "\n"


def build(folder: Path, all_cases: Sequence[Case], compiler: toolchain.Compiler, flags: Sequence[str]) -> Path:
    """A shared library of all kernels and all cases; a uses.h in the folder goes before that of the host."""
    path = folder / "cases.c"
    path.write_text(source(all_cases), encoding="utf-8")
    everything = ("-fPIC", *STRICT, *flags)
    folders = ("ops", "wide") if WIDE[0] in flags else ("ops",)
    kernels = (p for folder in folders for p in sorted((CSRC / folder).glob("*.c")))
    sources = [(p, everything) for p in (path, CSRC / "runtime.c", *kernels)]
    objects = toolchain.compile_objects(compiler, sources, (folder, CSRC / "host", CSRC))
    return toolchain.shared_library(compiler, objects, [f for f in flags if f.startswith("-fsanitize")], folder, "cases")


class Library(Protocol):
    """Compiled cases: calls run_N with operands, an mcg_rows_t and the last four fields of an mcg_context_t."""

    def call(self, number: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]) -> int: ...


class Host:
    """A shared library in this process."""

    def __init__(self, path: Path | str) -> None:
        self.library = ctypes.CDLL(str(path))

    def call(self, number: int, buffers: Sequence[Buffer], rows: Sequence[int], control: Sequence[int]) -> int:
        addresses = (ctypes.c_void_p * len(buffers))(*(b.address for b in buffers))
        context = ctypes.create_string_buffer(struct.pack("4P4I", 0, 0, 0, 0, *control))
        pieces = ctypes.create_string_buffer(struct.pack("5i", *rows))
        return int(self.library[f"run_{number}"](addresses, pieces, context))


def pack(type_: TensorType, array: np.ndarray) -> np.ndarray:
    """The bytes of a value in memory."""
    if type_.dtype == "u1":
        rows = array.reshape(type_.shape[1] if len(type_.shape) == 4 else 1, -1)
        return np.packbits(rows.astype(np.uint8), axis=1, bitorder="little").reshape(-1)
    if type_.dtype == "s4":
        low, high = np.resize(array, (array.size + 1) // 2 * 2).reshape(-1, 2).T.astype(np.uint8) & 15
        return low | high << 4
    return np.ascontiguousarray(array, NUMPY[type_.dtype]).reshape(-1).view(np.uint8)


def unpack(type_: TensorType, data: np.ndarray) -> np.ndarray:
    if type_.dtype == "u1":
        rows = type_.shape[1] if len(type_.shape) == 4 else 1
        bits = np.unpackbits(data.reshape(rows, -1), axis=1, bitorder="little")
        return bits[:, : type_.elements // rows].reshape(type_.shape)
    if type_.dtype == "s4":
        flat = np.stack([data & 15, data >> 4], 1).reshape(-1)[: type_.elements].astype(np.int8)
        return ((flat ^ 8) - 8).reshape(type_.shape)
    return data.view(NUMPY[type_.dtype]).reshape(type_.shape)


class Buffer:
    """Bytes at a given remainder of 8, exactly as long as asked for, between guards or in a block of malloc."""

    def __init__(self, size: int, remainder: int, guarded: bool = True) -> None:
        self.block = None
        if guarded:
            self.whole = np.full(size + 2 * GUARD + 8, PATTERN, np.uint8)
            self.start = GUARD + (remainder - self.whole.ctypes.data - GUARD) % 8
        else:
            self.block = LIBC.malloc(size + remainder or 1)
            self.whole = np.ctypeslib.as_array((ctypes.c_uint8 * (size + remainder)).from_address(self.block))
            self.start = remainder
        self.data = self.whole[self.start : self.start + size]

    @property
    def address(self) -> int:
        return self.whole.ctypes.data + self.start

    def intact(self) -> bool:
        """Whether nothing was written outside."""
        outside = (self.whole[: self.start], self.whole[self.start + self.data.size :])
        return self.block is not None or all((part == PATTERN).all() for part in outside)

    def free(self) -> None:
        if self.block is not None:
            LIBC.free(self.block)


class Part(Buffer):
    """Bytes [at, at + size) of a larger buffer."""

    def __init__(self, larger: Buffer, at: int, size: int) -> None:
        self.larger, self.whole, self.start, self.block = larger, larger.whole, larger.start + at, None
        self.data = self.whole[self.start : self.start + size]

    def intact(self) -> bool:
        return self.larger.intact()


LIBC = ctypes.CDLL(None)
LIBC.malloc.restype, LIBC.malloc.argtypes, LIBC.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]


@dataclass
class Run:
    """A case with memory: bytes of its operands, and of its scratch.

    sizes: bytes of values that are not whole (rings).  shared: (input, output) pairs in one buffer.  slid: (input, output,
    distance) of an output that starts so many bytes below that input and may overlap it.
    """

    case: Case
    library: Library
    alignment: int = 0
    guarded: bool = True
    shared: tuple[tuple[int, int], ...] = ()
    slid: tuple[int, int, int] | None = None
    sizes: Mapping[Value, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        node, self.buffers = self.case.node, {}
        same = {node.outputs[o]: node.inputs[i] for i, o in (*node.op.aliased, *self.shared)}
        for i, value in enumerate(operands(node)):
            twin = same.get(value)
            bytewise = value.type.dtype in ("s8", "u1", "s4")
            remainder = (self.alignment + i) % 4 if bytewise else 4
            size = self.sizes.get(value, value.type.nbytes)
            if twin is not None:
                size = max(size, self.sizes.get(twin, twin.type.nbytes))
            self.buffers[value] = self.buffers[twin] if twin in self.buffers else Buffer(size, remainder, self.guarded)
        if self.slid is not None:
            self._slide(node.inputs[self.slid[0]], node.outputs[self.slid[1]], self.slid[2])
        kernel = node.op.kernel(node)
        self.scratch = Buffer(kernel.scratch if kernel else 0, 4, self.guarded)
        self.scratch.data[:] = PATTERN

    def _slide(self, x: Value, y: Value, distance: int) -> None:
        x_at, y_at = max(distance, 0), max(-distance, 0)
        larger = Buffer(max(x_at + x.type.nbytes, y_at + y.type.nbytes), self.alignment, self.guarded)
        self.buffers[x] = Part(larger, x_at, x.type.nbytes)
        self.buffers[y] = Part(larger, y_at, y.type.nbytes)

    def call(self, rows: Rows | None = None, control: np.ndarray | None = None) -> int:
        """Calls the kernel; returns what it returns (0 when it returns nothing)."""
        node = self.case.node
        buffers = [*(self.buffers[v] for v in operands(node)), self.scratch]
        if rows is None:
            rows = Rows.whole(node) if node.op.splits_rows else Rows(0, 0, 0, 0)
        words = [0, 0, 0, 0] if control is None else [int(c) & 0xFFFFFFFF for c in control]
        stop = self.library.call(self.case.number, buffers, tuple(vars(rows).values()), words)
        assert all(b.intact() for b in buffers), f"{self.case.name} wrote outside its buffers"
        return stop

    def load(self, contents: Mapping[Value, np.ndarray]) -> None:
        for value, array in contents.items():
            packed = pack(value.type, array)
            self.buffers[value].data[: packed.size] = packed

    def outputs(self) -> list[np.ndarray]:
        found = [unpack(v.type, self.buffers[v].data[: v.type.nbytes].copy()) for v in self.case.node.outputs]
        for buffer in {id(b): b for b in (*self.buffers.values(), self.scratch)}.values():
            buffer.free()
        return found


Answer = tuple[list[np.ndarray], int]
"""The outputs, and 1 when the step stops."""


def expected(case: Case, contents: Mapping[Value, np.ndarray]) -> Answer:
    """The outputs by the op's integer semantics, and whether the step stops."""
    node = case.node
    try:
        arrays = node.op.eval(node, *(contents[v] for v in node.inputs))
    except StopStep:
        return [], 1
    return [a.astype(NUMPY[v.type.dtype]).reshape(v.type.shape) for v, a in zip(node.outputs, arrays, strict=True)], 0


def control_of(case: Case, contents: Mapping[Value, np.ndarray]) -> np.ndarray | None:
    return next((a for v, a in contents.items() if v.name == "control"), None)


def run(case: Case, library: Library, contents: Mapping[Value, np.ndarray], **options: Any) -> Answer:
    """The outputs by the C kernel, and whether it says that the step stops."""
    machine = Run(case, library, **options)
    machine.load(contents)
    stop = machine.call(control=control_of(case, contents))
    return machine.outputs(), int(stop != 0)


def same(got: Answer, want: Answer) -> bool:
    return got[1] == want[1] and all(np.array_equal(g, w) for g, w in zip(got[0], want[0], strict=False))


def height(value: Value) -> int:
    return value.type.shape[1] if len(value.type.shape) == 4 else 1


def pieces(rows: int, size: int) -> list[tuple[int, int]]:
    return [(first, min(first + size, rows)) for first in range(0, rows, size)]


def stream(case: Case, library: Library, contents: Mapping[Value, np.ndarray], size: int, spare: int) -> np.ndarray:
    """The output, computed `size` rows at a time with rings that hold what a piece needs and `spare` rows more."""
    node = case.node
    x = [node.inputs[n.index] for n in node.op.needs(node, 0, height(node.outputs[0]))]
    (y,) = node.outputs
    split = pieces(height(y), size)
    needs = [node.op.needs(node, first, last) for first, last in split]
    kept = [max(1, *(n[i].last - n[i].first for n in needs)) + spare for i in range(len(x))]
    row = {v: v.type.nbytes // height(v) for v in (*x, y)}
    machine = Run(case, library, sizes={**{v: k * row[v] for v, k in zip(x, kept, strict=True)}, y: (size + spare) * row[y]})
    machine.load({v: a for v, a in contents.items() if v not in x})
    found = []
    for (first, last), need in zip(split, needs, strict=True):
        for v, k, n in zip(x, kept, need, strict=True):
            ring = machine.buffers[v].data.reshape(k, -1)
            for r in range(n.first, n.last):
                ring[r % k] = contents[v].reshape(height(v), -1)[r].view(np.uint8)
        machine.call(Rows(first, last, kept[0], size + spare, kept[1] if len(kept) > 1 else 0))
        out = machine.buffers[y].data.reshape(size + spare, -1).view(np.int8)
        found += [out[r % (size + spare)].copy() for r in range(first, last)]
    return from_bytes(np.stack(found).tobytes(), y.type)


def main(path: str) -> int:
    library = Host(path)
    wrong = [
        f"{case.name} draw {seed}"
        for case in cases()
        if case.node.op.kernel(case.node)
        for seed in range(DRAWS)
        if not same(run(case, library, c := case.contents(seed), alignment=seed, guarded=False), expected(case, c))
    ]
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
