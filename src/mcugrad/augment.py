"""What a training step does to its sample: the numpy twin of csrc/ops/augment.c, and how it is written on the command line."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mcugrad.errors import McugradError
from mcugrad.ir import TensorType
from mcugrad.quant.affine import random_bits, rsh

Array = NDArray[Any]

TENSOR = 0xA093
"""Names the random numbers of augmentation; no parameter has this number."""
AUGMENT = "augment"  # its place in the facts of a training graph
SHIFT_SHARE = 16  # a shift is by up to so many parts of the shorter side, when nothing is said
DEFAULT = {"brightness": 16, "contrast": 16}
MOST = {"shift": 127, "brightness": 127, "contrast": 127}
FORM = "write it as flip,shift=8,brightness=16,contrast=16; each part and each number may be left out"


@dataclass(frozen=True)
class Augment:
    """flip: mirror every other sample, left to right.  shift: pixels by which it moves at most, each way; what comes in is
    the zero point.  brightness: units of the int8 input added or taken off at most.  contrast: 128ths by which the distance
    from the zero point grows or shrinks at most.  All uniform, drawn from the seed and the number of the step."""

    flip: bool = False
    shift: int = 0
    brightness: int = 0
    contrast: int = 0

    def drawn(self, seed: int, step: int, shape: tuple[int, ...]) -> tuple[bool, int, int, int, int]:
        """(mirrored, rows down, pixels right, added, gain in 128ths) of a step, for a sample [1,H,W,C]."""
        bits = [int(v) for v in random_bits(seed, step, TENSOR, np.arange(5))]
        limits = (self.shift * (shape[1] > 1), self.shift * (shape[2] > 1), self.brightness, self.contrast)
        down, right, add, gain = (((b >> 16) * (2 * m + 1) >> 16) - m for b, m in zip(bits[1:], limits, strict=True))
        return self.flip and bool(bits[0] & 1), down, right, add, 128 + gain

    def apply(self, x: Array, zero: int, seed: int, step: int) -> Array:
        """The sample int8 [1,H,W,C] that this step learns from; zero: its zero point."""
        flip, down, right, add, gain = self.drawn(seed, step, x.shape)
        mirrored = (x[:, :, ::-1] if flip else x).astype(np.int64)
        lit = np.clip(rsh((mirrored - zero) * gain, 7) + zero + add, -128, 127)
        moved = np.full_like(lit, zero)
        h, w = x.shape[1:3]
        moved[:, max(down, 0) : h + min(down, 0), max(right, 0) : w + min(right, 0)] = lit[
            :, max(-down, 0) : h + min(-down, 0), max(-right, 0) : w + min(-right, 0)
        ]
        seen: Array = moved.astype(np.int8)
        return seen


def parse_augment(text: str, input_: TensorType) -> Augment:
    """The augmentation of samples of type `input_` [1,H,W,C].

    Raises McugradError for a part that is unknown or out of range, and for one that such samples cannot have."""
    _, h, w, _ = input_.shape if len(input_.shape) == 4 else (1, 1, 1, 1)
    sides = [n for n in (h, w) if n > 1]
    if not sides:
        raise McugradError(f"--augment needs images or signals; the model reads {list(input_.shape)}: leave it out")
    shift = max(1, min(sides) // SHIFT_SHARE)
    found: dict[str, Any] = {}
    for part in text.split(","):
        match = re.fullmatch(r"(flip)|(shift|brightness|contrast)(?:=(\d+))?", part.strip())
        if not match:
            raise McugradError(f"--augment {part.strip()!r} is unknown: {FORM}")
        name = match[1] or match[2]
        number = True if match[1] else int(match[3]) if match[3] else {**DEFAULT, "shift": shift}[name]
        most = min(MOST[name], min(sides) - 1) if name == "shift" else MOST.get(name, 1)
        if not 1 <= number <= most:
            raise McugradError(f"--augment {name} must be between 1 and {most} for this model, got {number}")
        found[name] = number
    if found.get("flip") and len(sides) < 2:
        raise McugradError("--augment flip needs images; the model reads a signal, which shift, brightness and contrast suit")
    return Augment(**found)
