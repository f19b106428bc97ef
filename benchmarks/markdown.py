"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Lines = list[str]


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> Lines:
    """The first `words` columns hold words, the others numbers."""
    line = "|".join(["", *("---" if i < words else "---:" for i in range(len(heads))), ""])
    return [f"| {' | '.join(heads)} |", line, *(f"| {' | '.join(row)} |" for row in rows)]
