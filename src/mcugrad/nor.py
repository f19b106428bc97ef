"""NOR flash as it behaves: erasing sets a whole unit to ones, programming only clears bits; units wear, operations fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError

WORD = 4  # bytes that are programmed at once
ERASED = 0xFF


class StoreError(McugradError):
    """Flash did not take a sample's latent, or has no place left that does: the sample was learned from, but is not kept."""


class PowerCut(Exception):
    """The supply failed in the middle of an operation: what it changed is half done."""


@dataclass
class NorFlash:
    """`size` bytes in units of `erase` bytes; addresses count from its start.

    data: uint8 [size], arbitrary at first.  erased: how often each unit was.  operations: erases and programmed words so far.
    fails: does the operation of that number fail?  cut: the one in which the power is cut."""

    size: int
    erase: int
    fails: Callable[[int], bool] | None = None
    cut: int | None = None
    operations: int = 0
    data: NDArray[np.uint8] = field(init=False)
    erased: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.data = np.random.default_rng(self.size).integers(0, 256, self.size, dtype=np.uint8)
        self.erased = np.zeros(self.size // self.erase, np.int64)

    def erase_unit(self, at: int) -> bool:
        """Sets the unit that begins at `at` to ones; False: it failed half-way.

        Raises IndexError where no unit begins, PowerCut when the power is cut."""
        if at % self.erase or not 0 <= at < self.size:
            raise IndexError(f"no erase unit begins at {at:#x}: they are {self.erase} bytes each, {self.size} in all")
        self.erased[at // self.erase] += 1
        return self._operate(lambda done: self.data[at : at + int(self.erase * done)].fill(ERASED))

    def program(self, at: int, word: bytes) -> bool:
        """Clears the bits of the word at `at` that are 0 in `word`; False: it failed half-way.

        Raises IndexError for a place that holds no word, PowerCut when the power is cut."""
        if at % WORD or not 0 <= at < self.size:
            raise IndexError(f"no word begins at {at:#x} of {self.size} bytes")

        def clear(done: float) -> None:
            end = int(WORD * done)
            self.data[at : at + end] &= np.frombuffer(word[:end], np.uint8)

        return self._operate(clear)

    def _operate(self, change: Callable[[float], None]) -> bool:
        """Carries out an operation, half of it where it fails."""
        number = self.operations
        self.operations += 1
        cut, failed = number == self.cut, self.fails is not None and self.fails(number)
        change(0.5 if cut or failed else 1.0)
        if cut:
            raise PowerCut(f"the power was cut in operation {number} of the flash")
        return not failed

    def write(self, at: int, size: int, data: bytes) -> bool:
        """What a firmware does: erases `size` bytes, programs `data` at their start and reads it back; False: it failed."""
        if not all(self.erase_unit(unit) for unit in range(at, at + size, self.erase)):
            return False
        padded = data.ljust(-(-len(data) // WORD) * WORD, bytes((ERASED,)))
        if not all(self.program(at + i, padded[i : i + WORD]) for i in range(0, len(padded), WORD)):
            return False
        return self.data[at : at + len(data)].tobytes() == data
