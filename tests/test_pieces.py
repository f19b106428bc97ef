"""The table of a row-streamed segment gives back its pieces."""

import pytest

from mcugrad.emit.pieces import Pieces, pieces


def unpacked(table: Pieces) -> list[tuple[int, int, int]]:
    """What the generated loop makes of it."""
    at, found = list(table.starts), list[tuple[int, int, int]]()
    for entry in table.entries:
        call, first = entry & ((1 << table.bits) - 1), at[entry & ((1 << table.bits) - 1)]
        at[call] = first + (entry >> table.bits)
        found.append((call, first, at[call]))
    return found


@pytest.mark.parametrize(
    ("steps", "ctype"),
    [
        ([(0, 0, 2), (1, 0, 1), (0, 2, 4), (2, 3, 9), (1, 1, 2)], "uint8_t"),
        ([(0, 5, 300), (1, 0, 40), (0, 300, 301)], "uint16_t"),
        ([(0, 0, 7)], "uint8_t"),
    ],
)
def test_pieces_come_back(steps: list[tuple[int, int, int]], ctype: str) -> None:
    table = pieces(steps)
    assert unpacked(table) == steps and table.ctype == ctype


def test_rows_of_a_call_must_follow_each_other() -> None:
    with pytest.raises(AssertionError, match="follow each other"):
        pieces([(0, 0, 2), (0, 3, 4)])
