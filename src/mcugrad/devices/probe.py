"""Counts instructions and carries the UART of the virtual MCU: natively where a C compiler works, else in Python."""

from __future__ import annotations

import ctypes
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from unicorn import unicorn_const
from unicorn.unicorn_py3 import unicorn as _binding

from mcugrad import toolchain
from mcugrad.errors import McugradError

Engine: Any = _binding.Uc  # unicorn's methods carry no types
UcError = _binding.UcError
uclib: Any = _binding.uclib

_SOURCE = Path(__file__).parents[1] / "csrc" / "virtual" / "probe.c"
_TX_BYTES = 1 << 16
_TX_MARGIN = 64  # a stop takes effect at the end of the block, which may send more
_UART_BYTES = 0x1000


class Kind(IntEnum):
    """What a function counts as: see csrc/virtual/probe.c."""

    SHELL = 0
    SITE = 1
    KERNEL = 2
    BACKWARD = 3
    UPDATE = 4


class _State(ctypes.Structure):
    """probe_t"""

    _fields_ = (
        ("base", ctypes.c_uint64),
        ("halfwords", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("code", "kind", "shape", "executed", "site")),
        ("phases", ctypes.c_uint64 * len(Kind)),
        *((name, ctypes.c_uint64) for name in ("slot", "phase", "total", "budget")),
        ("rx", ctypes.c_void_p),
        ("rx_size", ctypes.c_uint64),
        ("rx_at", ctypes.c_uint64),
        ("tx", ctypes.c_void_p),
        ("tx_capacity", ctypes.c_uint64),
        ("tx_size", ctypes.c_uint64),
        ("stop", ctypes.c_void_p),
        ("starved", ctypes.c_uint64),
    )


class Probe:
    """Tables over the halfwords of the code, filled while the emulator runs; the UART is a pair of buffers."""

    def __init__(self, base: int, code: bytes, kinds: NDArray[np.uint8]) -> None:
        n = len(kinds)
        self.base = base
        self.code = np.frombuffer(code[: 2 * n], "<u2").copy()
        self.kinds = np.ascontiguousarray(kinds)
        self.shape = np.zeros(n, np.uint32)
        self.executed = np.zeros(n, np.uint64)
        self.site = np.zeros(n + 1, np.uint64)
        self._tx = ctypes.create_string_buffer(_TX_BYTES)
        self._rx = b""
        self.state = _State(base=base, halfwords=n, slot=n, phase=Kind.SITE, budget=2**64 - 1)
        for name, table in (
            ("code", self.code),
            ("kind", self.kinds),
            ("shape", self.shape),
            ("executed", self.executed),
            ("site", self.site),
        ):
            setattr(self.state, name, table.ctypes.data)
        self.state.tx, self.state.tx_capacity = ctypes.addressof(self._tx), _TX_BYTES

    def attach(self, uc: Any, uart: int) -> None:
        """Hooks every block and maps the UART's registers at the address `uart`."""
        raise NotImplementedError

    def begin(self) -> None:
        """Forgets all counts."""
        self.executed[:] = 0
        self.site[:] = 0
        for kind in Kind:
            self.state.phases[kind] = 0
        self.state.slot, self.state.phase = len(self.kinds), Kind.SITE

    def feed(self, data: bytes) -> None:
        """Adds bytes to what the firmware will receive."""
        self._receive(self._rx[self.state.rx_at :] + data)

    def clear(self) -> None:
        """Forgets what is on its way in both directions."""
        self._receive(b"")
        self.drain()

    def _receive(self, data: bytes) -> None:
        self._rx = data
        self.state.rx = ctypes.cast(ctypes.c_char_p(self._rx), ctypes.c_void_p).value
        self.state.rx_size, self.state.rx_at = len(self._rx), 0

    def drain(self) -> bytes:
        """Takes what the firmware has sent."""
        data = ctypes.string_at(self.state.tx, self.state.tx_size)
        self.state.tx_size = 0
        return data


class NativeProbe(Probe):
    """The callbacks of csrc/virtual/probe.c: the emulator runs as fast as without them."""

    def __init__(self, base: int, code: bytes, kinds: NDArray[np.uint8]) -> None:
        super().__init__(base, code, kinds)
        self._library = _library()
        self.state.stop = ctypes.cast(uclib.uc_emu_stop, ctypes.c_void_p).value

    def attach(self, uc: Any, uart: int) -> None:
        user = ctypes.c_void_p(ctypes.addressof(self.state))
        function = {name: ctypes.cast(getattr(self._library, name), ctypes.c_void_p) for name in _FUNCTIONS}
        handle = ctypes.c_size_t()
        begin, end = ctypes.c_uint64(1), ctypes.c_uint64(0)
        block = unicorn_const.UC_HOOK_BLOCK
        _check(uclib.uc_hook_add(uc._uch, ctypes.byref(handle), block, function["probe_block"], user, begin, end))
        read, write = function["probe_read"], function["probe_write"]
        _check(uclib.uc_mmio_map(uc._uch, uart, _UART_BYTES, read, user, write, user))


class PythonProbe(Probe):
    """The same in Python, about ten times slower: for machines where no C compiler works."""

    def attach(self, uc: Any, uart: int) -> None:
        uc.hook_add(unicorn_const.UC_HOOK_BLOCK, self._block)
        uc.mmio_map(uart, _UART_BYTES, self._read, None, self._write, None)

    def _block(self, uc: Any, address: int, size: int, _: Any) -> None:
        state, at = self.state, (address - self.base) >> 1
        if not 0 <= at < len(self.kinds):
            return
        if int(self.shape[at]) >> 16 != size:
            self.shape[at] = size << 16 | _count(self.code[at : at + size // 2])
        n, kind = int(self.shape[at]) & 0xFFFF, Kind(self.kinds[at])
        self.executed[at] += np.uint64(n)
        if kind == Kind.SHELL:
            state.phases[Kind.SHELL] += n
        else:
            state.phase = state.phase if kind == Kind.KERNEL else kind
            state.slot = at if kind == Kind.SITE else state.slot
            self.site[state.slot] += np.uint64(n)
            state.phases[state.phase] += n
        state.total += n
        if state.total > state.budget:
            uc.emu_stop()

    def _read(self, uc: Any, offset: int, _size: int, _user: Any) -> int:
        state = self.state
        if offset:
            return 0
        if state.rx_at < state.rx_size:
            state.rx_at += 1
            return self._rx[int(state.rx_at) - 1]
        state.starved = 1
        uc.emu_stop()
        return 0xFFFFFFFF

    def _write(self, uc: Any, offset: int, _size: int, value: int, _user: Any) -> None:
        if offset != 4:
            return
        self._tx[self.state.tx_size] = bytes((value & 0xFF,))
        self.state.tx_size += 1
        if self.state.tx_size + _TX_MARGIN > _TX_BYTES:
            uc.emu_stop()


def make_probe(base: int, code: bytes, kinds: NDArray[np.uint8]) -> Probe:
    """The native probe, or the Python one when no compiler for this machine works."""
    try:
        return NativeProbe(base, code, kinds)
    except (McugradError, OSError):
        return PythonProbe(base, code, kinds)


_FUNCTIONS = ("probe_block", "probe_read", "probe_write")


def _library() -> ctypes.CDLL:
    driver = toolchain.zig()
    flags = ("-O2", "-fPIC", "-std=c99", *toolchain.WARNINGS)
    objects = toolchain.compile_objects(driver, [(_SOURCE, flags)], ())
    folder = toolchain.cache_folder() / "virtual"
    return ctypes.CDLL(str(toolchain.shared_library(driver, objects, ("-nostdlib",), folder, "probe")))


def _check(status: int) -> None:
    if status != unicorn_const.UC_ERR_OK:
        raise McugradError(f"unicorn refused a hook: {uclib.uc_strerror(status).decode()}")


def _count(halfwords: NDArray[np.uint16]) -> int:
    at = instructions = 0
    while at < len(halfwords):
        at += 2 if halfwords[at] >> 11 >= 29 else 1
        instructions += 1
    return instructions
