"""The stack bound reads Thumb code: what instructions do to the stack, the deepest path, and what has no bound."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mcugrad
from mcugrad.devices.stack import Code, worst_stack
from mcugrad.devices.thumb import decode
from mcugrad.errors import McugradError

OPS = Path(mcugrad.__file__).parent / "csrc" / "ops"


def thumb(*halfwords: int) -> Code:
    data = b"".join(h.to_bytes(2, "little") for h in halfwords)
    return Code(decode, 0x100, data, {0x100: ("root", len(data))}, frozenset(), frozenset())


@pytest.mark.parametrize(
    ("halfwords", "grow"),
    [
        ((0xB5F0,), 20),  # push {r4-r7, lr}
        ((0xBDF0,), -20),  # pop {r4-r7, pc}
        ((0xB084,), 16),  # sub sp, #16
        ((0xB004,), -16),  # add sp, #16
        ((0xE92D, 0x4FF0), 36),  # push.w {r4-r11, lr}
        ((0xED2D, 0x8B04), 16),  # vpush {d8, d9}
        ((0xF84D, 0xED08), 8),  # str lr, [sp, #-8]!
        ((0xF5AD, 0x5D80), 4096),  # sub.w sp, sp, #4096
        ((0xF2AD, 0x4D04), 1028),  # subw sp, sp, #1028
        ((0xF50D, 0x5D80), -4096),  # add.w sp, sp, #4096
        ((0xE96D, 0x4504), 16),  # strd r4, r5, [sp, #-16]!
    ],
)
def test_instructions_move_the_stack_by(halfwords: tuple[int, ...], grow: int) -> None:
    effect = decode(thumb(*halfwords), 0x100)
    assert effect.grow == grow and effect.size == 2 * len(halfwords)


@pytest.mark.parametrize(
    ("halfwords", "bound"),
    [
        ((0xB510, 0xB108, 0xB082, 0xB002, 0xBD10), 16),  # push {r4, lr}; cbz; sub sp, #8; add; pop {r4, pc}
        ((0x2800, 0xBF08, 0x4770, 0xB570, 0xBD70), 16),  # cmp; it eq; bxeq lr; push {r4-r6, lr}; pop
        ((0xF240, 0x4400, 0xEBAD, 0x0D04, 0x4770), 1024),  # movw r4, #1024; sub.w sp, sp, r4; bx lr
    ],
)
def test_the_deepest_path_is_found(halfwords: tuple[int, ...], bound: int) -> None:
    assert worst_stack(thumb(*halfwords), "root") == bound


@pytest.mark.parametrize(
    ("halfwords", "message"),
    [
        ((0xB082, 0xE7FD), "grows in a loop"),  # sub sp, #8; b .-2
        ((0x4798, 0x4770), "calls through a pointer"),  # blx r3
        ((0xE8DF, 0xF000), "table branch"),
        ((0x4487, 0x4770), "jump through a register"),  # add pc, r0
        ((0x4485, 0x4770), "not a constant"),  # add sp, r0
        ((0xF000, 0xFFFE), "no known function"),  # bl far away
    ],
)
def test_what_has_no_bound_is_refused(halfwords: tuple[int, ...], message: str) -> None:
    with pytest.raises(McugradError, match=message):
        worst_stack(thumb(*halfwords), "root")


@pytest.mark.parametrize("path", sorted(OPS.glob("*.S")), ids=lambda p: p.name)
def test_assembly_jumps_through_no_register(path: Path) -> None:
    """The analysis takes that for a call through a pointer; a place in the code comes from the stack (LDR pc) instead."""
    code = path.read_text(encoding="utf-8")
    assert not re.findall(r"^\s*(?:bl?x\w*\s+r\d|mov\w*\s+pc|add\w*\s+pc|tb[bh]\b).*", code, re.MULTILINE)
