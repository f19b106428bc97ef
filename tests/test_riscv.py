"""The stack of RV32IMC code: how far each instruction moves it, where each jump goes, and the deepest path."""

from __future__ import annotations

import pytest

from mcugrad.devices.riscv import decode
from mcugrad.devices.stack import Code, worst_stack
from mcugrad.errors import McugradError

BASE = 0x1000


def riscv(*parts: int) -> Code:
    """Instructions as a disassembler prints them: of two bytes unless the lowest two bits are ones."""
    data = b"".join(p.to_bytes(4 if p & 3 == 3 else 2, "little") for p in parts)
    return Code(decode, BASE, data, {BASE: ("root", len(data))}, frozenset(), frozenset(), mark=0)


@pytest.mark.parametrize(
    ("instruction", "grow"),
    [
        (0x1141, 16),  # c.addi sp, -16
        (0x0141, -16),  # c.addi sp, 16
        (0x7139, 64),  # c.addi16sp sp, -64
        (0x6125, -96),  # c.addi16sp sp, 96
        (0x716D, 272),  # c.addi16sp sp, -272
        (0xBC010113, 1088),  # addi sp, sp, -1088
        (0x44010113, -1088),  # addi sp, sp, 1088
        (0x0808, 0),  # c.addi4spn a0, sp, 16
        (0xC606, 0),  # c.swsp ra, 12(sp)
        (0x01010513, 0),  # addi a0, sp, 16
    ],
)
def test_instructions_move_the_stack_by(instruction: int, grow: int) -> None:
    effect = decode(riscv(instruction), BASE)
    assert effect.grow == grow and effect.size == (4 if instruction & 3 == 3 else 2)
    assert effect.falls and not effect.jumps


@pytest.mark.parametrize(
    ("instruction", "target", "falls"),
    [
        (0xA011, 4, False),  # c.j .+4
        (0xBFFD, -2, False),  # c.j .-2
        (0xC501, 8, True),  # c.beqz a0, .+8
        (0xFD7D, -2, True),  # c.bnez a0, .-2
        (0x0640006F, 100, False),  # j .+100
        (0xFE0518E3, -16, True),  # bnez a0, .-16
        (0x10B54063, 256, True),  # blt a0, a1, .+256
    ],
)
def test_jumps_go_to(instruction: int, target: int, falls: bool) -> None:
    effect = decode(riscv(instruction), BASE)
    assert effect.jumps == (BASE + target,) and effect.falls == falls and effect.call is None


@pytest.mark.parametrize(("instruction", "target"), [(0x2011, 4), (0x7FF000EF, 4094), (0xF9DFF0EF, -100)])
def test_calls_go_to(instruction: int, target: int) -> None:
    effect = decode(riscv(instruction), BASE)
    assert effect.call == BASE + target and effect.falls


def test_the_two_halves_of_a_far_call_are_one() -> None:
    code = riscv(0x00002097, 0xFF0080E7)  # auipc ra, 2; jalr ra, -16(ra)
    assert decode(code, BASE + 4).call == BASE + 0x2000 - 16


@pytest.mark.parametrize("instruction", [0x8082, 0x00008067, 0x9002, 0x0000, 0x30200073])  # ret, ret, ebreak, unimp, mret
def test_nothing_follows(instruction: int) -> None:
    effect = decode(riscv(instruction), BASE)
    assert not effect.falls and not effect.indirect and not effect.jumps


@pytest.mark.parametrize(
    ("parts", "bound"),
    [
        ((0x1141, 0xC111, 0x7139, 0x6121, 0x0141, 0x8082), 80),  # addi sp, -16; beqz a0, .+4; -64; +64; +16; ret
        ((0x6285, 0x80028293, 0x40510133, 0x8082), 2048),  # lui t0, 1; addi t0, t0, -2048; sub sp, sp, t0; ret
    ],
)
def test_the_deepest_path_is_found(parts: tuple[int, ...], bound: int) -> None:
    assert worst_stack(riscv(*parts), "root") == bound


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((0x1141, 0xBFFD), "grows in a loop"),  # addi sp, -16; j .-2
        ((0x9502, 0x8082), "calls through a pointer"),  # jalr a0
        ((0x8502,), "calls through a pointer"),  # jr a0
        ((0x40510133, 0x8082), "not a constant"),  # sub sp, sp, t0
        ((0x00012103, 0x8082), "unknown distance"),  # lw sp, 0(sp)
        ((0x2011, 0x8082), "no known function"),  # jal far away
    ],
)
def test_what_has_no_bound_is_refused(parts: tuple[int, ...], message: str) -> None:
    with pytest.raises(McugradError, match=message):
        worst_stack(riscv(*parts), "root")
