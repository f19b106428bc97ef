"""A block of bytes of the arena for some time."""

from __future__ import annotations

from dataclasses import dataclass

from mcugrad.ir import Node, Value

ALIGN = 4  # bytes; of every arena buffer


@dataclass(frozen=True)
class Buffer:
    """Bytes of the arena that are taken from step `first` through step `last`.

    values: those that share the bytes, in the order of writing.  size: bytes, a multiple of `align`.  ring_rows: rows
    kept of a row-streamed value.  scratch: the nodes whose scratch memory this is (then there are no values).
    """

    values: tuple[Value, ...]
    first: int
    last: int
    size: int
    align: int = ALIGN
    ring_rows: int | None = None
    scratch: tuple[Node, ...] = ()

    @property
    def name(self) -> str:
        return self.values[0].name if self.values else f"scratch of {self.scratch[0].where}"
