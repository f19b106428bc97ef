"""Boards that people have on their desks, and what their microcontrollers hold: for a first answer, not for a build."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """A board with the core of its microcontroller, its largest contiguous SRAM and its flash in bytes."""

    name: str
    core: str
    sram: int
    flash: int


BOARDS = (
    Board("micro:bit", "cortex-m0plus", 16 << 10, 256 << 10),
    Board("Pi Pico (RP2040)", "cortex-m0plus", 264 << 10, 2 << 20),
    Board("Nucleo-F103RB", "cortex-m3", 20 << 10, 128 << 10),
    Board("micro:bit v2 (nRF52833)", "cortex-m4", 128 << 10, 512 << 10),
    Board("Nucleo-F446RE", "cortex-m4", 128 << 10, 512 << 10),
    Board("Nano 33 BLE (nRF52840)", "cortex-m4", 256 << 10, 1 << 20),
    Board("Nucleo-U575ZI", "cortex-m33", 768 << 10, 2 << 20),
    Board("STM32F746 Discovery", "cortex-m7", 320 << 10, 1 << 20),
    Board("Nucleo-H743ZI", "cortex-m7", 512 << 10, 2 << 20),
)
