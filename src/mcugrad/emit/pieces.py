"""A row-streamed segment as numbers, one for each piece."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pieces:
    """Entries with the call in their low `bits` and above them its number of rows, which begin where the call's piece
    before ended, those of its first piece at `starts`."""

    bits: int
    starts: tuple[int, ...]
    entries: tuple[int, ...]

    @property
    def ctype(self) -> str:
        return "uint8_t" if max(self.entries) < 1 << 8 else "uint16_t"


def pieces(steps: Sequence[tuple[int, int, int]]) -> Pieces:
    """From (call, first row, end) of each piece; calls are numbered from 0 in the order of their first piece."""
    at: dict[int, int] = {}
    starts = {call: first for call, first, _ in reversed(steps)}
    for call, first, last in steps:
        assert at.get(call, first) == first < last, "the rows of a call follow each other"
        at[call] = last
    bits = max(len(starts) - 1, 0).bit_length()
    entries = tuple((last - first) << bits | call for call, first, last in steps)
    return Pieces(bits, tuple(starts[call] for call in range(len(starts))), entries)
