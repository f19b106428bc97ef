"""C functions as text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

LEARNS = "const mcg_context_t *c, const int32_t *target, mcg_result_t *result"
"""Parameters of a function that learns."""


def bases(lines: Sequence[str]) -> list[str]:
    """Declarations of the base pointers that the lines use."""
    text = "\n".join(lines)
    names = {"A": "arena", "S": "state"}
    return [f"uint8_t *const {k} = c->{v};" for k, v in names.items() if f"({k} + " in text or f" {k} + " in text]


def function(signature: str, lines: Sequence[str], declare: bool = False) -> str:
    body = textwrap.indent("\n".join(lines), "  ")
    return f"\n{signature + ';' + chr(10) if declare else ''}{signature} {{\n{body}\n}}\n"
