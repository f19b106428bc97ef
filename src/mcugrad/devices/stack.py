"""The worst case of a stack, from linked code: each function's frame at each call, then the deepest path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from mcugrad.errors import McugradError

_REALIGN = 16  # bytes a `mov sp, rN` may cost: aligning the frame of a local with a stricter alignment
_ABSURD = 1 << 20  # bytes; a frame beyond this grows in a loop
_MODEL_CALLERS = ("mcg_infer", "mcg_train_step", "mcg_train_target")


@dataclass(frozen=True)
class Code:
    """Linked code: how to read it, its bytes, its functions {address: (name, size)} and whose addresses are taken."""

    decode: Callable[[Code, int], Effect]  # what the instruction at an address does
    base: int
    data: bytes
    functions: dict[int, tuple[str, int]]
    pointers: frozenset[int]  # functions a call through a pointer may reach
    through_model: frozenset[int]  # functions mcg_infer and mcg_train_step may reach
    mark: int = 1  # bit set in the address of a function: that of Thumb

    def halfword(self, address: int) -> int:
        offset = address - self.base
        return int.from_bytes(self.data[offset : offset + 2], "little")

    def word(self, address: int) -> int:
        return self.halfword(address) | self.halfword(address + 2) << 16


@dataclass
class Effect:
    """What one instruction does to the stack and to the flow; `grow` in bytes, addresses absolute."""

    size: int = 2
    grow: int = 0
    jumps: tuple[int, ...] = ()
    falls: bool = True
    call: int | None = None
    indirect: bool = False  # calls (or, when it does not fall, jumps) through a register
    sets_sp: bool = False
    conditional: int = 0  # the following n instructions are (IT)
    load: tuple[int, int] | None = None  # (register, constant) it sets
    low: tuple[int, int] | None = None  # MOVW (register, value)
    high: tuple[int, int] | None = None  # MOVT (register, value)
    sum: tuple[int, int, int] | None = None  # (register, source, constant): register = source + constant
    sp_register: tuple[int, int] | None = None  # (register, sign): sp -= sign * register


@dataclass
class Frame:
    """One function: its deepest point and the depth at each call, bytes."""

    name: str
    deepest: int = 0
    calls: list[tuple[int, int | None]] = field(default_factory=list)  # (depth, callee; None: through a pointer)
    taken: set[int] = field(default_factory=set)  # addresses of functions it forms in registers


def signed(value: int, bits: int) -> int:
    """The number that the lowest `bits` bits of `value`, and none above, stand for in two's complement."""
    return value - (1 << bits) if value >> (bits - 1) & 1 else value


class _Walk:
    """Follows every path through one function and notes the stack's depth at each call."""

    def __init__(self, code: Code, start: int) -> None:
        self.code, self.start = code, start
        name, size = code.functions[start]
        self.end = start + size
        self.frame = Frame(name)
        self.seen: dict[int, int] = {}
        self.todo = [(start, 0, 0)]  # (address, depth, conditional instructions left)
        self.constants: dict[int, int] = {}

    def run(self) -> Frame:
        while self.todo:
            at, depth, conditional = self.todo.pop()
            if self.seen.get(at, -1) >= depth or not self.start <= at < self.end:
                continue
            self.seen[at] = depth
            self._step(at, depth, conditional)
        return self.frame

    def _step(self, at: int, depth: int, conditional: int) -> None:
        effect = self.code.decode(self.code, at)
        if effect.call is not None and self.start < effect.call < self.end:  # BL, the only jump of Thumb-1 beyond 2 KiB
            effect = replace(effect, call=None, jumps=(effect.call,), falls=False)
        self._note_constant(effect)
        after = depth + effect.grow + self._growth(effect, at)
        if after > _ABSURD:
            raise McugradError(f"the frame of {self.frame.name} grows in a loop at {at:#010x}")
        self.frame.deepest = max(self.frame.deepest, after)
        if effect.call is not None or effect.indirect:
            self.frame.calls.append((after, effect.call))
        left = effect.conditional or max(conditional - 1, 0)
        for target in effect.jumps:
            if self.start <= target < self.end:
                self.todo.append((target, after, 0))
            else:
                self.frame.calls.append((after, target))  # a tail call
        if effect.falls:
            self.todo.append((at + effect.size, after, left))
        if conditional and (effect.grow or not effect.falls):
            self.todo.append((at + effect.size, depth, left))

    def _growth(self, effect: Effect, at: int) -> int:
        if effect.sets_sp:
            return _REALIGN
        if effect.sp_register is None:
            return 0
        register, sign = effect.sp_register
        if register not in self.constants:
            raise McugradError(f"the frame of {self.frame.name} is not a constant at {at:#010x}")
        return sign * signed(self.constants[register], 32)

    def _note_constant(self, effect: Effect) -> None:
        if effect.low:
            self.constants[effect.low[0]] = effect.low[1]
        if effect.load:
            self.constants[effect.load[0]] = effect.load[1]
        if effect.high:
            register, value = effect.high
            self._form(register, self.constants.get(register, 0) & 0xFFFF | value << 16)
        if effect.sum and effect.sum[1] in self.constants:
            register, source, value = effect.sum
            self._form(register, self.constants[source] + value & 0xFFFFFFFF)

    def _form(self, register: int, value: int) -> None:
        """A constant made of two parts, which may be the address of a function."""
        self.constants[register] = value
        address = value - self.code.mark
        if address in self.code.functions:
            self.frame.taken.add(address)


def frames(code: Code) -> dict[int, Frame]:
    """The frame of every function, by address."""
    return {start: _Walk(code, start).run() for start in code.functions}


def worst_stack(code: Code, root: str) -> int:
    """Bytes of stack on the deepest path of calls from the function `root`.

    Raises McugradError when there is no bound: recursion, or a call through a pointer nobody's address fits.
    """
    found = frames(code)
    formed = {address for frame in found.values() for address in frame.taken}
    pointers = (code.pointers | formed) - code.through_model
    bounds: dict[int, int] = {}

    def bound(start: int, path: tuple[str, ...]) -> int:
        if start in bounds:
            return bounds[start]
        if start not in found:
            raise McugradError(f"{path[-1]} calls {start:#010x}, which is no known function")
        frame = found[start]
        if frame.name in path:
            raise McugradError(f"recursion has no bound of its stack: {' -> '.join((*path, frame.name))}")
        deeper = (
            depth + bound(callee, (*path, frame.name))
            for depth, called in frame.calls
            for callee in _callees(code, frame, called, pointers)
        )
        bounds[start] = max(frame.deepest, max(deeper, default=0))
        return bounds[start]

    return bound(next(start for start, (name, _) in code.functions.items() if name == root), ())


def _callees(code: Code, frame: Frame, called: int | None, pointers: frozenset[int]) -> Iterator[int]:
    if called is not None:
        yield called
        return
    candidates = code.through_model if frame.name in _MODEL_CALLERS else pointers
    if not candidates:
        raise McugradError(f"{frame.name} calls through a pointer, and no function's address is known to be taken")
    yield from sorted(candidates)
