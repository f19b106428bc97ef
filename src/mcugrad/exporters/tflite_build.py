"""A flatbuffer that grows at its front: the old bytes stay whole, new tables refer into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import flatbuffers
import numpy as np
import tflite

from mcugrad.ir import Array

ALIGN = 16  # bytes; buffers of a TFLite file
GROWTH = 1 << 16


class Extension:
    """Tables in front of `old`, the bytes of a finished TFLite file.

    Offsets within a flatbuffer point forward and are counted from its end while it is built, so that a table of the old
    file at byte p is simply one more offset (`at`)."""

    def __init__(self, old: bytes) -> None:
        bytes_ = old + bytes(-len(old) % ALIGN)
        self.size = len(bytes_)
        self.builder = flatbuffers.Builder(self.size + GROWTH)
        self.builder.head = len(self.builder.Bytes) - self.size
        self.builder.Bytes[self.builder.head :] = bytes_
        self.builder.minalign = ALIGN

    def at(self, place: int) -> int:
        """The offset of what stands at byte `place` of the old file."""
        return self.size - place

    def old(self, accessor: Any) -> int:
        """The offset of a table of the old file."""
        return self.at(accessor._tab.Pos)

    def field(self, accessor: Any, slot: int) -> int:
        """The offset of the vector, string or table in that slot of an old table; 0: absent."""
        offset = accessor._tab.Offset(4 + 2 * slot)
        return self.at(accessor._tab.Indirect(accessor._tab.Pos + offset)) if offset else 0

    def table(self, kind: str, fields: Mapping[str, int | bool]) -> int:
        """A new table; offsets of 0 are left out."""
        builder = self.builder
        getattr(tflite, f"{kind}Start")(builder)
        for name, value in fields.items():
            getattr(tflite, f"{kind}Add{name}")(builder, value)
        return int(getattr(tflite, f"{kind}End")(builder))

    def tables(self, offsets: Iterable[int]) -> int:
        """A vector of tables."""
        items = list(offsets)
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return int(self.builder.EndVector())

    def numbers(self, data: Array) -> int:
        """A vector of numbers, little-endian."""
        flat = np.ascontiguousarray(data).reshape(-1)
        return int(self.builder.CreateNumpyVector(flat))

    def buffer(self, data: Array) -> int:
        """A Buffer table whose bytes are aligned for any kernel."""
        raw = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
        self.builder.StartVector(1, len(raw), ALIGN)
        self.builder.head -= len(raw)
        self.builder.Bytes[self.builder.head : self.builder.head + len(raw)] = raw.tobytes()
        return self.table("Buffer", {"Data": int(self.builder.EndVector())})

    def text(self, string: str) -> int:
        return int(self.builder.CreateString(string))

    def finish(self, root: int) -> bytes:
        self.builder.Finish(root, b"TFL3")
        return bytes(self.builder.Output())
