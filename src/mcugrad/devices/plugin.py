"""Exact instruction counts in QEMU: a small TCG plugin of ours, built for this machine, writes into a file mapped here too."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from mcugrad import toolchain
from mcugrad.devices.base import Counters
from mcugrad.devices.elf import ElfFacts
from mcugrad.devices.probe import Kind
from mcugrad.devices.virtual import kind_of

_SOURCE = Path(__file__).parents[1] / "csrc" / "virtual" / "qemu.c"
_ENTRY = 0x80
_LOG = 1 << 14  # calls of kernels in a step
_HEAD = np.dtype([("base", "<u8"), ("halfwords", "<u8"), ("phases", "<u8", (len(Kind),)), ("phase", "<u8"),
                  ("before", "<u8"), ("logged", "<u8"), ("capacity", "<u8")])  # fmt: skip
_CALL = np.dtype([("address", "<u8"), ("instructions", "<u8")])


class Plugin:
    """The counts of one QEMU process.  Raises McugradError when the plugin cannot be built."""

    def __init__(self, program: str, elf: ElfFacts) -> None:
        self.elf = elf
        library = _library(program)
        text = next(s for s in elf.sections if s.executable)
        n = len(text.data) // 2
        padded = (n + 7) // 8 * 8
        self._folder = tempfile.TemporaryDirectory()
        path = Path(self._folder.name) / "counts"
        shape = (_HEAD.itemsize + padded + 8 * n + _CALL.itemsize * _LOG,)
        whole = np.memmap(path, np.uint8, "w+", shape=shape)
        kinds, executed, log = np.split(whole[_HEAD.itemsize :], [padded, padded + 8 * n])
        self._head, self._executed, self._log = whole[: _HEAD.itemsize].view(_HEAD), executed.view("<u8"), log.view(_CALL)
        self._head[0] = (text.address, n, [0] * len(Kind), Kind.SITE, Kind.SHELL, 0, _LOG)
        kinds[:] = Kind.KERNEL
        for symbol in elf.functions:
            first, kind = (symbol.address - text.address) // 2, kind_of(symbol.name)
            if 0 <= first < n:
                kinds[first : first + (symbol.size + 1) // 2] = kind
                kinds[first] |= _ENTRY if kind not in (Kind.SHELL, Kind.SITE) else 0
        whole.flush()
        self.arguments = ("-plugin", f"{library},counts={path}")

    def begin(self) -> None:
        """Forgets all counts.  To be called while the firmware waits for a request."""
        self._head["phases"] = 0
        self._head["phase"], self._head["logged"] = Kind.SITE, 0
        self._executed[:] = 0

    def counters(self) -> Counters:
        """Since `begin`; those of the link depend on how long it waited."""
        phases = [int(n) for n in self._head["phases"][0]]
        forward = phases[Kind.SITE] + phases[Kind.KERNEL]
        return Counters(forward, phases[Kind.BACKWARD], phases[Kind.UPDATE], phases[Kind.SHELL])

    def calls(self) -> list[tuple[str, int]]:
        """Kernels that generated code called since `begin`, and the instructions before each."""
        entered = self._log[: int(self._head["logged"][0])]
        return [(self.elf.where(int(e["address"])).partition("+")[0], int(e["instructions"])) for e in entered]

    def symbols(self) -> dict[str, int]:
        """Instructions since `begin` by function."""
        found: dict[str, int] = {}
        base = int(self._head["base"][0])
        for at in np.flatnonzero(self._executed):
            name = self.elf.where(base + 2 * int(at)).partition("+")[0]
            found[name] = found.get(name, 0) + int(self._executed[at])
        return found

    def close(self) -> None:
        self._folder.cleanup()


def _library(program: str) -> Path:
    """The plugin for that QEMU: from version 9 on the interface has another number, with these functions unchanged."""
    words = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    major = re.search(r"version (\d+)", words)
    number = 2 if major and int(major[1]) >= 9 else 1
    driver = toolchain.zig()
    flags = ("-O2", "-fPIC", "-std=gnu99", f"-DPLUGIN_VERSION={number}", *toolchain.WARNINGS)
    objects = toolchain.compile_objects(driver, [(_SOURCE, flags)], ())
    folder = toolchain.cache_folder() / "virtual"
    return toolchain.shared_library(driver, objects, ("-Wl,-z,undefs",), folder, "qemu")
