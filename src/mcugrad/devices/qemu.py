"""QEMU as a second opinion: the same firmware and link on a board model written by others."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import weakref
from dataclasses import replace

from mcugrad.build import Firmware
from mcugrad.devices.base import Counters, Int8, Int32, StepResult
from mcugrad.devices.link import Link, LinkedDevice, LinkError
from mcugrad.devices.plugin import Plugin
from mcugrad.errors import McugradError

PROGRAM = "qemu-system-arm"  # of every target but those that name another
_READ = 1 << 16
_READY = 5.0  # seconds from reset to an open UART, at most


class QemuProcess:
    """A running QEMU whose first serial port is a pair of pipes."""

    window = 8  # the pipe holds back what the UART has not taken yet

    def __init__(self, firmware: Firmware, *, counting: bool = False) -> None:
        target = firmware.target
        program = shutil.which(target.qemu_program)
        if not target.qemu_machine:
            raise McugradError(f"QEMU has no board for target {target.name}; build for mps2-an500 or microbit")
        if program is None:
            raise McugradError(f"{target.qemu_program} is not installed; install QEMU, or use the virtual MCU")
        self.plugin = Plugin(program, firmware.facts) if counting else None
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process that writes to it
        command = [
            program,
            "-M",
            target.qemu_machine,
            *target.qemu_flags,
            "-display",
            "none",
            "-monitor",
            "none",
            "-serial",
            "stdio",
        ]
        counts = self.plugin.arguments if self.plugin else ()
        self._process = subprocess.Popen(
            [*command, *counts, "-kernel", str(firmware.elf)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            bufsize=0,
        )
        self._end = weakref.finalize(self, _end, self._process)
        if target.uart == "ns16550":
            self.read(_READY)  # the zero it sends when open: what came earlier is lost

    def write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
        except (BrokenPipeError, ValueError) as error:
            raise self._gone() from error

    def read(self, timeout: float) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], timeout)
        if not ready:
            return b""
        data = os.read(self._process.stdout.fileno(), _READ)
        if not data:
            raise self._gone()
        return data

    def _gone(self) -> LinkError:
        self.close()
        self._words.seek(0)
        said = self._words.read().decode(errors="replace").strip()
        return LinkError(f"QEMU ended (exit code {self._process.returncode}): {said[:500] or 'without a word'}")

    def close(self) -> None:
        self._end()
        if self.plugin:
            self.plugin.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, by force if need be, and reaps it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    process.terminate()
    try:
        process.wait(2.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Qemu(LinkedDevice):
    """A Device in QEMU; `plugin` holds its instruction counts when it is counting."""

    def __init__(self, firmware: Firmware, *, counting: bool = False) -> None:
        process = QemuProcess(firmware, counting=counting)
        self.plugin = process.plugin
        try:
            super().__init__(Link(process, firmware.facts.where))
        except BaseException:
            process.close()
            raise

    @classmethod
    def load(cls, firmware: Firmware, *, counting: bool = False) -> Qemu:
        """A device running that firmware from reset.  Raises McugradError when QEMU is missing or has no such board, or
        counting is asked for and the plugin cannot be built."""
        return cls(firmware, counting=counting)

    def infer(self, x: Int8) -> Int32:
        self._present(x)
        if self.plugin:
            self.plugin.begin()
        return self._infer()

    def train_step(self, x: Int8, label: int | Int32) -> StepResult:
        self._present(x)
        self._aim(label)
        if not self.plugin:
            return self._train(label)
        self.plugin.begin()
        return replace(self._train(label), instructions=self.plugin.counters().total)

    def counters(self) -> Counters | None:
        return self.plugin.counters() if self.plugin else None
