"""What RV32IMC instructions do to the stack and to the flow."""

from __future__ import annotations

from mcugrad.devices.stack import Code, Effect, signed
from mcugrad.errors import McugradError

_ZERO, _RA, _SP, _T0 = 0, 1, 2, 5
_LINKS = (_RA, _T0)  # a jump through one of them returns
_BRANCH, _JALR, _JAL, _OP, _OP_IMM, _AUIPC, _LUI, _LOAD, _SYSTEM = 0x63, 0x67, 0x6F, 0x33, 0x13, 0x17, 0x37, 0x03, 0x73
_ENDS = (0x00100073, 0xC0001073, 0x30200073)  # EBREAK, UNIMP, MRET


def decode(code: Code, at: int) -> Effect:
    """What the instruction at `at` does.  Raises McugradError where that moves the stack by an unknown distance."""
    half = code.halfword(at)
    return _whole(code, at, code.word(at)) if half & 3 == 3 else _compressed(at, half)


def _gather(word: int, *places: int) -> int:
    """The bits of `word` at those places, the first the most significant."""
    value = 0
    for place in places:
        value = value << 1 | (word >> place & 1)
    return value


def _compressed(at: int, h: int) -> Effect:
    kind, rd = (h & 3, h >> 13), h >> 7 & 31
    small = signed(_gather(h, 12, 6, 5, 4, 3, 2), 6)
    if kind == (1, 0) and rd == _SP:  # C.ADDI
        return Effect(grow=-small)
    if kind == (1, 3) and rd == _SP:  # C.ADDI16SP
        return Effect(grow=-signed(_gather(h, 12, 4, 3, 5, 2, 6) << 4, 10))
    if kind in ((1, 1), (1, 5)):  # C.JAL, C.J
        target = at + signed(_gather(h, 12, 8, 10, 9, 6, 7, 2, 11, 5, 4, 3) << 1, 12)
        return Effect(call=target) if kind == (1, 1) else Effect(jumps=(target,), falls=False)
    if kind in ((1, 6), (1, 7)):  # C.BEQZ, C.BNEZ
        return Effect(jumps=(at + signed(_gather(h, 12, 6, 5, 2, 11, 10, 4, 3) << 1, 9),))
    if kind == (2, 4):
        return _compressed_register(h, rd, h >> 2 & 31)
    return _compressed_constant(kind, h, rd, small)


def _compressed_constant(kind: tuple[int, int], h: int, rd: int, small: int) -> Effect:
    if kind == (1, 0):  # C.ADDI
        return Effect(sum=(rd, rd, small))
    if kind == (1, 2):  # C.LI
        return Effect(load=(rd, small & 0xFFFFFFFF))
    if kind == (1, 3):  # C.LUI
        return Effect(load=(rd, small << 12 & 0xFFFFFFFF))
    return Effect(falls=h != 0)  # 0: C.UNIMP


def _compressed_register(h: int, rd: int, rs: int) -> Effect:
    """C.JR, C.MV; C.EBREAK, C.JALR, C.ADD."""
    second = bool(h & 0x1000)
    if rs == _ZERO:
        if rd == _ZERO:
            return Effect(falls=False)
        return Effect(falls=second, indirect=second or rd not in _LINKS)
    if rd == _SP:
        return Effect(sp_register=(rs, -1)) if second else Effect(sets_sp=True)
    return Effect()


def _whole(code: Code, at: int, w: int) -> Effect:
    opcode, rd = w & 0x7F, w >> 7 & 31
    if opcode == _JAL:
        target = at + signed(_gather(w, 31, *range(19, 11, -1), 20, *range(30, 20, -1)) << 1, 21)
        return Effect(4, call=target) if rd != _ZERO else Effect(4, jumps=(target,), falls=False)
    if opcode == _BRANCH:
        return Effect(4, jumps=(at + signed(_gather(w, 31, 7, *range(30, 24, -1), *range(11, 7, -1)) << 1, 13),))
    if opcode == _JALR:
        return _through_register(code, at, w)
    if rd == _SP and opcode in (_OP, _OP_IMM, _AUIPC, _LUI, _LOAD, _SYSTEM):
        return _stack_pointer(at, w)
    return _constant(at, w)


def _constant(at: int, w: int) -> Effect:
    """LUI, AUIPC and ADDI make constants; all else falls through, but for what ends a path."""
    opcode, rd = w & 0x7F, w >> 7 & 31
    if opcode in (_AUIPC, _LUI):
        return Effect(4, load=(rd, (w & 0xFFFFF000) + (at if opcode == _AUIPC else 0) & 0xFFFFFFFF))
    if opcode == _OP_IMM and w >> 12 & 7 == 0:  # ADDI
        source, value = w >> 15 & 31, signed(w >> 20, 12)
        return Effect(4, load=(rd, value & 0xFFFFFFFF)) if source == _ZERO else Effect(4, sum=(rd, source, value))
    return Effect(4, falls=w not in _ENDS)


def _through_register(code: Code, at: int, w: int) -> Effect:
    """JALR; after an AUIPC of its register it is the second half of a far call or jump."""
    rd, source = w >> 7 & 31, w >> 15 & 31
    before = code.word(at - 4) if at >= code.base + 4 else 0
    if before & 0x7F == _AUIPC and before >> 7 & 31 == source:
        target = at - 4 + (before & 0xFFFFF000) + signed(w >> 20, 12) & 0xFFFFFFFF
        return Effect(4, call=target) if rd != _ZERO else Effect(4, jumps=(target,), falls=False)
    return Effect(4, falls=rd != _ZERO, indirect=rd != _ZERO or source not in _LINKS)


def _stack_pointer(at: int, w: int) -> Effect:
    """ADDI, ANDI, ADD and SUB whose result is sp."""
    opcode, function, source, other = w & 0x7F, w >> 12 & 7, w >> 15 & 31, w >> 20 & 31
    if opcode == _OP_IMM and function == 0:
        return Effect(4, grow=-signed(w >> 20, 12)) if source == _SP else Effect(4, sets_sp=True)
    if opcode in (_AUIPC, _LUI):
        return Effect(4, sets_sp=True)  # a fresh stack, of the entry or of the report of a fault
    if opcode == _OP_IMM and function == 7 and source == _SP and signed(w >> 20, 12) == -32:
        return Effect(4, sets_sp=True)  # alignment to 32 bytes, where every frame has 16
    if opcode == _OP and function == 0 and source == _SP and w >> 25 in (0, 0x20):
        return Effect(4, sp_register=(other, 1 if w >> 25 else -1))
    raise McugradError(f"the stack pointer moves by an unknown distance at {at:#010x}")
