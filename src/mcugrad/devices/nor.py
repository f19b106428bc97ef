"""The virtual MCU's flash controller: registers through which the firmware erases and programs the flash of its latents."""

from __future__ import annotations

from typing import Any

from unicorn import unicorn_const

from mcugrad.nor import WORD, NorFlash, PowerCut

_ADDRESS, _PROGRAM, _ERASE, _STATUS = 0x00, 0x04, 0x08, 0x0C  # as in csrc/firmware/mmio.c
_REGISTERS = 0x1000  # bytes


class Controller:
    """Carries out what is written to the registers on `flash`, which lies at the address `start`.

    stopped: why the program may not go on: an access that the flash does not allow, or a PowerCut."""

    def __init__(self, flash: NorFlash, start: int) -> None:
        self.flash, self.start = flash, start
        self.stopped: IndexError | PowerCut | None = None
        self._address, self._failed = 0, False

    def attach(self, uc: Any, registers: int) -> None:
        """Maps the flash, to be read only, and the registers."""
        data = self.flash.data
        uc.mem_map_ptr(self.start, len(data), unicorn_const.UC_PROT_READ, data.ctypes.data)
        uc.mmio_map(registers, _REGISTERS, self._read, None, self._write, None)

    def _read(self, _uc: Any, offset: int, _size: int, _user: Any) -> int:
        if offset != _STATUS:
            return 0
        failed, self._failed = self._failed, False
        return int(failed)

    def _write(self, uc: Any, offset: int, _size: int, value: int, _user: Any) -> None:
        try:
            self._execute(offset, value)
        except (IndexError, PowerCut) as error:
            self.stopped = error
            uc.emu_stop()

    def _execute(self, offset: int, value: int) -> None:
        if offset == _ADDRESS:
            self._address = value - self.start
        elif offset == _PROGRAM:
            self._failed |= not self.flash.program(self._address, value.to_bytes(WORD, "little"))
            self._address += WORD
        elif offset == _ERASE:
            self._failed |= not self.flash.erase_unit(self._address)
