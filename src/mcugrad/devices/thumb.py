"""What Thumb instructions do to the stack and to the flow."""

from __future__ import annotations

from collections.abc import Callable

from mcugrad.devices.stack import Code, Effect, signed
from mcugrad.errors import McugradError

_SP, _LR, _PC = 13, 14, 15


def _ones(mask: int) -> int:
    return bin(mask).count("1")


def _expand(i: int, imm3: int, imm8: int) -> int:
    """ThumbExpandImm of the Arm manual."""
    imm12 = i << 11 | imm3 << 8 | imm8
    if imm12 >> 10 == 0:
        patterns = (imm8, imm8 << 16 | imm8, imm8 << 24 | imm8 << 8, imm8 * 0x01010101)
        return patterns[imm12 >> 8 & 3]
    value, turn = 0x80 | imm12 & 0x7F, imm12 >> 7
    return (value >> turn | value << (32 - turn)) & 0xFFFFFFFF


def decode(code: Code, at: int) -> Effect:
    """What the instruction at `at` does.  Raises McugradError on a jump whose target cannot be known."""
    first = code.halfword(at)
    return _wide(code, at, first, code.halfword(at + 2)) if first >> 11 >= 29 else _narrow(code, at, first)


def _narrow(code: Code, at: int, h: int) -> Effect:
    if h >> 9 == 0x5A:  # PUSH
        return Effect(grow=4 * _ones(h & 0x1FF))
    if h >> 9 == 0x5E:  # POP
        return Effect(grow=-4 * _ones(h & 0x1FF), falls=not h & 0x100)
    if h >> 8 == 0xB0:  # SUB or ADD sp, #imm
        return Effect(grow=(1 if h & 0x80 else -1) * (h & 0x7F) * 4)
    if h >> 8 == 0xBF:
        mask = h & 15
        return Effect(conditional=4 - ((mask & -mask).bit_length() - 1) if mask else 0)
    if h >> 11 == 9:  # LDR rt, [pc, #imm]
        return Effect(load=(h >> 8 & 7, code.word((at + 4 & ~3) + (h & 0xFF) * 4)))
    return _narrow_register(at, h) if h >> 10 == 0x11 else _narrow_branch(at, h)


def _narrow_register(at: int, h: int) -> Effect:
    """ADD, CMP, MOV with high registers; BX, BLX."""
    rd, rm = h >> 4 & 8 | h & 7, h >> 3 & 15
    kind = h >> 8 & 3
    if kind == 3:
        calls = bool(h & 0x80)
        return Effect(falls=calls, indirect=calls or rm != _LR)
    if kind in (0, 2) and rd == _PC:
        raise McugradError(f"jump through a register at {at:#010x}: compile with -fno-jump-tables")
    if kind == 0 and rd == _SP:
        return Effect(sp_register=(rm, -1))
    return Effect(sets_sp=kind == 2 and rd == _SP)


def _narrow_branch(at: int, h: int) -> Effect:
    if h >> 12 == 0xD:
        condition = h >> 8 & 15
        if condition < 14:
            return Effect(jumps=(at + 4 + signed(h & 0xFF, 8) * 2,))
        return Effect(falls=condition == 15)  # 14: UDF
    if h >> 11 == 0x1C:
        return Effect(jumps=(at + 4 + signed(h & 0x7FF, 11) * 2,), falls=False)
    if h & 0xF500 == 0xB100:  # CBZ, CBNZ
        return Effect(jumps=(at + 4 + (h >> 9 & 1) * 64 + (h >> 3 & 31) * 2,))
    return Effect()


# (mask and value of the first halfword, of the second, bytes of stack by the second)
_STACK_FORMS: tuple[tuple[int, int, int, int, Callable[[int], int]], ...] = (
    (0xFFFF, 0xE92D, 0, 0, lambda g: 4 * _ones(g)),  # STMDB sp!
    (0xFFFF, 0xE8BD, 0, 0, lambda g: -4 * _ones(g)),  # LDM sp!
    (0xFFBF, 0xED2D, 0, 0, lambda g: 4 * (g & 0xFF)),  # VPUSH
    (0xFFBF, 0xECBD, 0, 0, lambda g: -4 * (g & 0xFF)),  # VPOP
    (0xFFFF, 0xE96D, 0, 0, lambda g: 4 * (g & 0xFF)),  # STRD [sp, #-imm]!
    (0xFFFF, 0xE8FD, 0, 0, lambda g: -4 * (g & 0xFF)),  # LDRD [sp], #imm
    (0xFFFF, 0xF84D, 0xF00, 0xD00, lambda g: g & 0xFF),  # STR [sp, #-imm]!
    (0xFFFF, 0xF85D, 0xF00, 0xB00, lambda g: -(g & 0xFF)),  # LDR [sp], #imm
)


def _wide(code: Code, at: int, h: int, g: int) -> Effect:
    if h >> 11 == 30 and g & 0x8000:
        return _wide_branch(at, h, g)
    if h & 0xFFF0 == 0xE8D0 and g & 0xFFE0 == 0xF000:
        raise McugradError(f"table branch at {at:#010x}: compile with -fno-jump-tables")
    loads_pc = (h == 0xE8BD and g & 0x8000) or (h & 0xFF70 == 0xF850 and g >> 12 == _PC)
    for mask, value, mask2, value2, grow in _STACK_FORMS:
        if h & mask == value and g & mask2 == value2:
            return Effect(4, grow=grow(g), falls=not loads_pc)
    if loads_pc:  # from [sp, #imm]: to a place of its own that the function left there
        return Effect(4, falls=False, indirect=h != 0xF8DD)
    return _wide_constant(code, at, h, g) or _wide_arithmetic(h, g)


def _wide_constant(code: Code, at: int, h: int, g: int) -> Effect | None:
    """MOVW, MOVT and LDR.W rt, [pc, #imm]."""
    rd, value = g >> 8 & 15, (h & 15) << 12 | (h >> 10 & 1) << 11 | (g >> 12 & 7) << 8 | g & 0xFF
    if h & 0xFBF0 == 0xF240:
        return Effect(4, low=(rd, value))
    if h & 0xFBF0 == 0xF2C0:
        return Effect(4, high=(rd, value))
    if h & 0xFF7F == 0xF85F:
        offset = (g & 0xFFF) * (1 if h & 0x80 else -1)
        return Effect(4, load=(g >> 12, code.word((at + 4 & ~3) + offset)))
    return None


def _wide_arithmetic(h: int, g: int) -> Effect:
    """Data processing whose result is sp."""
    imm8, imm3, i = g & 0xFF, g >> 12 & 7, h >> 10 & 1
    arithmetic = (h >> 11 == 30 and not g & 0x8000) or h >> 9 == 0x75
    if g >> 8 & 15 != _SP or not arithmetic:
        return Effect(4)
    frame = {0xF1AD: 1, 0xF10D: -1, 0xF2AD: 1, 0xF20D: -1}.get(h & 0xFBFF)  # SUB, ADD sp, sp, #imm
    if frame is not None:
        return Effect(4, grow=frame * (i << 11 | imm3 << 8 | imm8 if h & 0x0200 else _expand(i, imm3, imm8)))
    if h in (0xEBAD, 0xEB0D) and g & 0xF0F0 == 0:  # SUB, ADD sp, sp, rm
        return Effect(4, sp_register=(g & 15, 1 if h == 0xEBAD else -1))
    return Effect(4, sets_sp=True)


def _wide_branch(at: int, h: int, g: int) -> Effect:
    s, j1, j2 = h >> 10 & 1, g >> 13 & 1, g >> 11 & 1
    if g & 0x5000:  # BL, B.W; 0x4000 alone: a low-overhead loop, whose end jumps to code already seen
        if g & 0x5000 == 0x4000:
            return Effect(4)
        high = s << 24 | (1 - (j1 ^ s)) << 23 | (1 - (j2 ^ s)) << 22
        target = at + 4 + signed(high | (h & 0x3FF) << 12 | (g & 0x7FF) << 1, 25)
        return Effect(4, call=target) if g & 0x4000 else Effect(4, jumps=(target,), falls=False)
    if h >> 6 & 15 >= 14:  # MSR, MRS, barriers
        return Effect(4)
    offset = s << 20 | j2 << 19 | j1 << 18 | (h & 0x3F) << 12 | (g & 0x7FF) << 1
    return Effect(4, jumps=(at + 4 + signed(offset, 21),))
