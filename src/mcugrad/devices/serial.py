"""A real board on a serial port, by the same framed protocol."""

from __future__ import annotations

from typing import Any

from mcugrad.devices.link import Link, LinkedDevice, LinkError
from mcugrad.errors import McugradError


class SerialPort:
    """A serial port opened by pyserial; frames go one at a time because a UART without a buffer drops the rest."""

    window = 1

    def __init__(self, port: str, baud: int) -> None:
        try:
            import serial
        except ImportError as error:
            raise McugradError("serial ports need pyserial: pip install 'mcugrad[serial]'") from error
        self._failure = serial.SerialException
        try:
            self._port: Any = serial.Serial(port, baud, timeout=0)
        except (serial.SerialException, ValueError) as error:
            raise McugradError(f"cannot open {port} at {baud} baud: {error}") from error

    def write(self, data: bytes) -> None:
        try:
            self._port.write(data)
        except self._failure as error:
            raise LinkError(f"writing to {self._port.port} failed: {error}; is the board still connected?") from error

    def read(self, timeout: float) -> bytes:
        try:
            self._port.timeout = timeout
            first: bytes = self._port.read(1)
            return first + self._port.read(self._port.in_waiting) if first else b""
        except self._failure as error:
            raise LinkError(f"reading from {self._port.port} failed: {error}; is the board still connected?") from error

    def close(self) -> None:
        self._port.close()


class Serial(LinkedDevice):
    """A Device on a board that runs mcugrad firmware."""

    def __init__(self, port: str, baud: int = 115200) -> None:
        opened = SerialPort(port, baud)
        try:
            super().__init__(Link(opened))
        except BaseException:
            opened.close()
            raise

    @classmethod
    def load(cls, port: str, baud: int = 115200) -> Serial:
        """Connects to the firmware already on the board at `port`."""
        return cls(port, baud)
