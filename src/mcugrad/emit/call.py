"""Prints one symbolic kernel call as C."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

from mcugrad.emit.roll import Moving
from mcugrad.ir import Context, Kernel, Node, Operand, RowRange, Scratch, Staged, Struct, Table, TensorType, Value

Address = Callable[[Value, str, bool], str]
"""(value, element type in C, const) -> C expression of the value's address, cast to that pointer type."""

_WIDTH = 110
ROUND = "round"  # the variable of a loop of calls
_PARTLY_READ = "mcg_conv2d_t"  # of which kernels read no field that their call leaves out


@dataclass(frozen=True)
class Rows:
    """An `mcg_rows_t`: output rows [first, last) and how many rows each operand keeps."""

    first: int
    last: int
    x_rows: int
    y_rows: int
    x2_rows: int = 0

    @staticmethod
    def whole(node: Node) -> Rows:
        """All rows of a node whose operands are resident."""
        height = _height(node.outputs[0].type)
        kept = [_height(node.inputs[need.index].type) for need in node.op.needs(node, 0, height)]
        return Rows(0, height, kept[0], height, kept[1] if len(kept) > 1 else 0)


def _height(type_: TensorType) -> int:
    return type_.shape[1] if len(type_.shape) == 4 else 1


@dataclass(frozen=True)
class Call:
    """`setup` declares the locals that `expression`, the call without its semicolon, refers to."""

    setup: tuple[str, ...]
    expression: str


def identifier(name: str) -> str:
    """`name` as a C identifier."""
    plain = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "node"
    return f"n{plain}" if plain[0].isdigit() else plain


class CallPrinter:
    """Prints the calls of one C file and collects the constants they need.

    `address` places values; `context` is the expression of the `const mcg_context_t *`.  Constants with the same contents
    are defined once.  Order and names follow from the sequence of calls alone.
    """

    def __init__(self, address: Address, context: str = "c") -> None:
        self.definitions: list[str] = []
        self._address = address
        self._context = context
        self._known: dict[str, str] = {}
        self._windows: dict[str, Struct] = {}
        self._names: set[str] = set()

    def call(self, node: Node, kernel: Kernel, rows: Rows | str | None = None, scratch: str = "NULL") -> Call:
        """The call of `node`.

        rows: a range, or the expression of a `const mcg_rows_t *`; None: the whole value, resident.
        scratch: the expression of the scratch memory's address, any object pointer.
        """
        base, setup = identifier(node.outputs[0].name if node.outputs else node.inputs[0].name), list[str]()
        arguments: list[str] = []
        for arg in kernel.args:
            if isinstance(arg, RowRange):
                arguments.append(rows if isinstance(rows, str) else self._rows(base, rows or Rows.whole(node)))
            elif isinstance(arg, Scratch):
                arguments.append(scratch)
            elif isinstance(arg, Staged):
                operands = ", ".join(self._value(a, base, setup) for a in arg.args)
                arguments.append(f"{arg.function}({operands}, (uint8_t *)({scratch}) + {arg.offset})")
            else:
                arguments.append(self._value(arg, base, setup))
        return Call(tuple(setup), f"{kernel.function}({', '.join(arguments)})")

    def _rows(self, base: str, rows: Rows) -> str:
        return "&" + self._constant("mcg_rows_t", f"{base}_rows", _braces(map(str, astuple(rows))))

    def _value(self, item: Any, name: str, setup: list[str]) -> str:
        """An argument or field as a C expression; `setup` receives the locals it needs."""
        if isinstance(item, Operand):
            return self._pointer(item)
        if isinstance(item, Context):
            return self._context
        if isinstance(item, Table):
            return self._constant(item.ctype, name, _braces(map(str, item.data)), len(item.data))
        if isinstance(item, Struct):
            return "&" + self._object(item, name, setup)
        if isinstance(item, tuple):
            return self._array(item, name, setup)
        return str(int(item))

    def _pointer(self, item: Operand) -> str:
        if item.value is None:
            return "NULL"
        stride = item.stride if isinstance(item, Moving) else 0
        if item.offset == stride == 0:
            return self._address(item.value, item.ctype, item.const)
        first = self._address(item.value, "int8_t", item.const)
        moved = f" + {item.offset}" * (item.offset != 0) + f" + {ROUND} * {stride}" * (stride != 0)
        return f"({'const ' if item.const else ''}{item.ctype} *)({first}{moved})"

    def _object(self, item: Struct, name: str, setup: list[str]) -> str:
        """Name of the struct's object: in flash when it is constant, else local."""
        name = f"{name}_{_stem(item.ctype)}"
        if item.ctype == _PARTLY_READ:
            return self._window(item, name, setup)
        text = self._fields(item, name, setup)
        if _is_constant(item):
            return self._constant(item.ctype, name, text)
        return self._local(item.ctype, name, text, setup)

    def _window(self, item: Struct, name: str, setup: list[str]) -> str:
        """Name of the struct, or of one before it with the same fields and perhaps more: a backward kernel shares that of the
        forward pass."""
        wanted = dict(item.fields).items()
        for known, other in self._windows.items():
            if wanted <= dict(other.fields).items():
                return known
        made = self._constant(item.ctype, name, self._fields(item, name, setup))
        self._windows[made] = item
        return made

    def _array(self, items: tuple[Struct, ...], name: str, setup: list[str]) -> str:
        """Name of an array of structs of one type."""
        texts = [self._fields(s, f"{name}_{i}", setup) for i, s in enumerate(items)]
        if all(map(_is_constant, items)):
            return self._constant(items[0].ctype, name, _braces(texts), len(items))
        return self._local(items[0].ctype, name, _braces(texts), setup, len(items))

    def _fields(self, item: Struct, name: str, setup: list[str]) -> str:
        return _braces(f".{field} = {self._value(value, _child(name, field, value), setup)}" for field, value in item.fields)

    def _constant(self, ctype: str, name: str, text: str, count: int = 0) -> str:
        """Name of a constant with these contents, defined on first use."""
        key = f"{ctype}[{count}] {text}"
        if key not in self._known:
            self._known[key] = self._unique(name)
            self.definitions.append(_define(f"static const {ctype}", self._known[key], text, count))
        return self._known[key]

    def _local(self, ctype: str, name: str, text: str, setup: list[str], count: int = 0) -> str:
        unique = self._unique(name)
        setup.append(_define(f"const {ctype}", unique, text, count))
        return unique

    def _unique(self, name: str) -> str:
        candidate, n = name, 1
        while candidate in self._names:
            n += 1
            candidate = f"{name}_{n}"
        self._names.add(candidate)
        return candidate


def _is_constant(item: Any) -> bool:
    """Whether C accepts it in a static initialiser: no address of the arena, no context."""
    if isinstance(item, Operand):
        return item.value is None
    if isinstance(item, Struct):
        return all(_is_constant(value) for _, value in item.fields)
    if isinstance(item, tuple):
        return all(map(_is_constant, item))
    return isinstance(item, (int, Table))


def _stem(ctype: str) -> str:
    return ctype.removeprefix("mcg_").removesuffix("_t")


def _child(name: str, field: str, value: Any) -> str:
    """Name of what a field refers to; a struct adds the name of its own type."""
    return name if isinstance(value, Struct) else f"{name}_{field}"


def _braces(items: Any) -> str:
    return "{" + ", ".join(items) + "}"


def _define(head: str, name: str, text: str, count: int) -> str:
    line = f"{head} {name}{f'[{count}]' if count else ''} = {text};"
    return "\n".join(textwrap.wrap(line, _WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False))
