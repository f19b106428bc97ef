"""Facts of a linked firmware: what it occupies, what lies where, and the worst case of its stack."""

from __future__ import annotations

import struct
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from mcugrad.devices import riscv, thumb
from mcugrad.devices.stack import Code, worst_stack
from mcugrad.errors import McugradError

_ALLOC, _EXEC, _WRITE = 2, 4, 1
LATENTS = ".latents"  # the section of flash that the firmware itself writes


@dataclass(frozen=True)
class Symbol:
    """A function or an object; `address` has no Thumb bit, `size` is in bytes."""

    name: str
    address: int
    size: int
    is_function: bool


@dataclass(frozen=True)
class Section:
    """An allocated section; `data` is empty when it occupies no flash (.bss, .stack)."""

    name: str
    address: int
    load_address: int
    size: int
    data: bytes
    executable: bool
    writable: bool


@dataclass(frozen=True)
class ElfFacts:
    """What the linker decided; sizes in bytes."""

    path: Path
    entry: int
    riscv: bool  # RV32 code, otherwise Thumb
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]  # sorted by address, sizes filled in

    def section(self, name: str) -> Section:
        """The section of that name.  Raises McugradError when the firmware has none."""
        for section in self.sections:
            if section.name == name:
                return section
        raise McugradError(f"{self.path.name} has no section {name}")

    @property
    def stack_reserved(self) -> int:
        return self.section(".stack").size

    @property
    def sram_static(self) -> int:
        """.data + .bss, without the reserved stack."""
        return sum(section.size for section in self.sections if section.writable and section.name != ".stack")

    @property
    def sram_total(self) -> int:
        """.data + .bss + the worst case of the stack: what the product must not exceed."""
        return self.sram_static + self.stack_bound

    @property
    def flash_code(self) -> int:
        return sum(section.size for section in self.sections if section.executable)

    @property
    def flash_constants(self) -> int:
        """Read-only data, the vector table included."""
        return sum(s.size for s in self.sections if not s.executable and not s.writable and s.name != LATENTS)

    @property
    def flash_total(self) -> int:
        """Code, constants and the image of .data; latents, where flash holds them."""
        return self.flash_image + self.flash_latents

    @property
    def flash_image(self) -> int:
        """What is programmed: code, constants and the image of .data."""
        return sum(len(section.data) for section in self.sections)

    @property
    def latents(self) -> Section | None:
        """The flash that the firmware itself writes."""
        return next((section for section in self.sections if section.name == LATENTS), None)

    @property
    def flash_latents(self) -> int:
        """Flash that the firmware itself writes, and the rest of the erase unit before it."""
        if self.latents is None:
            return 0
        ends = (s.load_address + len(s.data) for s in self.sections if s.data and s.load_address < self.latents.address)
        return self.latents.address + self.latents.size - max(ends)

    @property
    def functions(self) -> tuple[Symbol, ...]:
        return tuple(symbol for symbol in self.symbols if symbol.is_function)

    def symbol(self, name: str) -> Symbol:
        """The symbol of that name.  Raises McugradError when there is none."""
        for symbol in self.symbols:
            if symbol.name == name:
                return symbol
        raise McugradError(f"{self.path.name} has no symbol {name}")

    @cached_property
    def _starts(self) -> list[int]:
        return [symbol.address for symbol in self.symbols]

    def symbol_at(self, address: int) -> Symbol | None:
        """The symbol whose bytes contain `address`."""
        index = bisect_right(self._starts, address) - 1
        if index < 0:
            return None
        symbol = self.symbols[index]
        return symbol if address < symbol.address + max(symbol.size, 1) else None

    def where(self, address: int) -> str:
        """`symbol+0x12` for messages; the bare address when no symbol contains it."""
        symbol = self.symbol_at(address)
        return f"{symbol.name}+{address - symbol.address:#x}" if symbol else f"{address:#010x}"

    def read(self, address: int, size: int) -> bytes:
        """Bytes of flash at their run-time address.  Raises McugradError outside the image."""
        for section in self.sections:
            offset = address - section.address
            if offset >= 0 and offset + size <= len(section.data):
                return section.data[offset : offset + size]
        raise McugradError(f"{self.path.name}: {size} bytes at {address:#010x} are not part of the image")

    @cached_property
    def stack_bound(self) -> int:
        """Bytes of stack that no path of calls from reset can exceed.

        Raises McugradError when there is no such bound: recursion, or a call through an unknown pointer.
        """
        return worst_stack(self.code, "Reset_Handler")

    def next_call(self, address: int) -> str:
        """The function called at the end of the straight code at `address`; "" when that code ends otherwise."""
        while True:
            effect = self.code.decode(self.code, address)
            if effect.call is not None:
                return self.where(effect.call).partition("+")[0]
            if effect.jumps or not effect.falls or effect.indirect:
                return ""
            address += effect.size

    @cached_property
    def code(self) -> Code:
        """The code and its functions, for the analysis of calls."""
        functions = {symbol.address: symbol for symbol in self.functions if symbol.size}
        text = next(section for section in self.sections if section.executable)
        words = self.symbol("mcg_model")
        model = self._function_words(self.read(words.address, words.size), functions)
        vectors = b"".join(section.data for section in self.sections if section.name == ".vectors")
        pointers = {
            address
            for section in self.sections
            if section.name != ".vectors"
            for address in self._function_words(section.data, functions)
        }
        return Code(
            decode=riscv.decode if self.riscv else thumb.decode,
            base=text.address,
            data=text.data,
            functions={address: (symbol.name, symbol.size) for address, symbol in functions.items()},
            pointers=frozenset(pointers - model - self._function_words(vectors, functions)),
            through_model=frozenset(model),
            mark=self._mark,
        )

    @property
    def _mark(self) -> int:
        """What the address of a function holds beyond the place of its code: the bit of Thumb."""
        return 0 if self.riscv else 1

    def _function_words(self, data: bytes, functions: dict[int, Symbol]) -> set[int]:
        """Functions whose addresses stand in the words of an object, such as the model's infer and train."""
        words = struct.iter_unpack("<I", data[: len(data) & ~3])
        return {word - self._mark for (word,) in words if word - self._mark in functions}


def read_elf(path: Path) -> ElfFacts:
    """Reads a linked firmware.  Raises McugradError when the file is no ELF or has no symbols."""
    try:
        with path.open("rb") as file:
            elf = ELFFile(file)
            riscv_code = elf.header.e_machine == "EM_RISCV"
            return ElfFacts(path, elf.header.e_entry & ~1, riscv_code, tuple(_sections(elf)), tuple(_symbols(elf)))
    except (OSError, ValueError, ELFError) as error:
        raise McugradError(f"{path} is not a linked firmware: {error}") from error


def _sections(elf: ELFFile) -> list[Section]:
    segments = [segment.header for segment in elf.iter_segments() if segment.header.p_type == "PT_LOAD"]
    found = []
    for section in elf.iter_sections():
        header = section.header
        if not header.sh_flags & _ALLOC or not header.sh_size:
            continue
        inside = (s for s in segments if s.p_vaddr <= header.sh_addr < s.p_vaddr + s.p_memsz)
        shift = next((s.p_paddr - s.p_vaddr for s in inside), 0)
        data = b"" if header.sh_type == "SHT_NOBITS" or section.name == ".stack" else section.data()
        found.append(
            Section(
                section.name,
                header.sh_addr,
                header.sh_addr + shift,
                header.sh_size,
                data,
                bool(header.sh_flags & _EXEC),
                (bool(header.sh_flags & _WRITE) and section.name != LATENTS) or section.name == ".stack",
            )
        )
    return found


def _symbols(elf: ELFFile) -> list[Symbol]:
    """Functions and objects by address; a hand-written function without a size extends to the next symbol."""
    table = elf.get_section_by_name(".symtab")
    if not isinstance(table, SymbolTableSection):
        raise ValueError("it has no symbol table")
    raw: dict[int, Symbol] = {}
    for entry in table.iter_symbols():
        kind = entry.entry.st_info.type
        if kind not in ("STT_FUNC", "STT_OBJECT"):
            continue
        function = kind == "STT_FUNC"
        address = entry.entry.st_value & ~1 if function else entry.entry.st_value
        symbol = Symbol(entry.name, address, entry.entry.st_size, function)
        if address not in raw or raw[address].size < symbol.size:
            raw[address] = symbol
    ordered = [raw[address] for address in sorted(raw)]
    following = [*ordered[1:], None]
    return [
        Symbol(s.name, s.address, s.size or (after.address - s.address if after and s.is_function else 0), s.is_function)
        for s, after in zip(ordered, following, strict=True)
    ]
