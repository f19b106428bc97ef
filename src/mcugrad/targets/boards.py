"""Boards that people have on their desks, and what their microcontrollers hold: for a first answer, not for a build."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Board:
    """A board with the core of its microcontroller, its largest contiguous SRAM and its flash in bytes, and the maker's
    document that says so."""

    name: str
    core: str
    sram: int
    flash: int
    source: str


BOARDS = (
    Board("micro:bit", "cortex-m0plus", 16 << 10, 256 << 10, "nRF51822 product specification"),
    Board("Pi Pico (RP2040)", "cortex-m0plus", 264 << 10, 2 << 20, "RP2040 and Raspberry Pi Pico datasheets"),
    Board("Nucleo-F103RB", "cortex-m3", 20 << 10, 128 << 10, "STM32F103x8/xB datasheet, DS5319"),
    Board("micro:bit v2 (nRF52833)", "cortex-m4", 128 << 10, 512 << 10, "nRF52833 product specification"),
    Board("Nucleo-F446RE", "cortex-m4", 128 << 10, 512 << 10, "STM32F446xC/E datasheet, DS10693"),
    Board("Nano 33 BLE (nRF52840)", "cortex-m4", 256 << 10, 1 << 20, "nRF52840 product specification"),
    Board("Nucleo-U575ZI", "cortex-m33", 768 << 10, 2 << 20, "STM32U575xx datasheet, DS13737"),
    Board("STM32F746 Discovery", "cortex-m7", 320 << 10, 1 << 20, "STM32F745xx/F746xx datasheet, DS10916"),
    Board("Nucleo-H743ZI", "cortex-m7", 512 << 10, 2 << 20, "STM32H742xI/G, H743xI/G datasheet, DS12110"),
)
