"""Latent replay: int8 activations of past samples, kept at the cut of the network, and learned from again.

The buffer is a class-balanced reservoir (after Chrysakis and Moens, "Online continual learning from imbalanced data", ICML
2020): it holds about as many samples of each class, whatever the stream brings, and each sample of a class that fills its
share is kept with the same chance.  All decisions are integers and functions of the seed and of how many samples came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mcugrad.quant.affine import random_bits

OFFERED, DRAWN = -1, -2
"""Tensor numbers of the random bits: no parameter has them."""
MOST_SLOTS = 65535
REPLAY_IN = ("sram", "flash")
_RETIRED = -1  # in the place of a label


@dataclass(frozen=True)
class Replay:
    """Samples that the buffer holds (None: as many as fit), and how many are learned from again after each new one.

    erase: bytes of a unit of the flash that holds the latents; 0: they lie in SRAM."""

    slots: int | None
    per_step: int = 1
    erase: int = 0

    def block_bytes(self, classes: int, latent: int) -> int:
        """Bytes of SRAM for latents of so many bytes: counts, labels, latents but those in flash.  replay.c has the same
        layout."""
        assert self.slots is not None, "how many slots there are is known once the rest is planned"
        head = 4 + 8 * classes + (2 * self.slots + 3) // 4 * 4
        return (head + (0 if self.erase else self.slots * latent) + 15) // 16 * 16

    def pitch(self, latent: int) -> int:
        """Bytes of flash for a latent of so many bytes: whole erase units; 0 where latents lie in SRAM."""
        return -(-latent // self.erase) * self.erase if self.erase else 0


def expected_writes(slots: int, samples: int) -> float:
    """Latents that a reservoir writes while so many samples come: the sum of min(1, slots / i), slots (1 + ln(samples / slots))
    (Vitter, "Random sampling with a reservoir", 1985)."""
    return float(samples) if samples <= slots else slots * (1 + math.log(samples / slots))


@dataclass
class Reservoir:
    """Which sample lies in which slot: the twin of replay.c.

    labels: of the used slots.  seen, kept: samples that came, and that are held, of each class."""

    slots: int
    classes: int
    labels: list[int] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.seen = self.seen or [0] * self.classes

    @property
    def kept(self) -> list[int]:
        return [self.labels.count(k) for k in range(self.classes)]

    def offer(self, label: int, seed: int) -> int | None:
        """The slot that a new sample goes to; None when it is not kept.

        A class that has lost samples gets another slot only where that leaves the classes closer to equal."""
        self.seen[label] += 1
        if len(self.labels) < self.slots:
            self.labels.append(label)
            return len(self.labels) - 1
        kept = self.kept
        full, bits = kept.index(max(kept)), _bits(seed, sum(self.seen), OFFERED, 0)
        lost = self.seen[label] - 1 - kept[label]
        if kept[label] + (lost > 0) < kept[full]:
            slot = self._member(full, _below(bits, kept[full]))
        else:
            number = _below(bits, self.seen[label])
            if number >= kept[label]:
                return None
            slot = self._member(label, number)
        self.labels[slot] = label
        return slot

    def retire(self, slot: int) -> None:
        """Forgets what an offer just put into a slot, and never uses it again."""
        self.labels[slot] = _RETIRED

    def draw(self, seed: int, step: int) -> int | None:
        """The slot to learn from at a step: every class that is held has the same chance.  None where none is held."""
        kept = self.kept
        present = [k for k in range(self.classes) if kept[k]]
        if not present:
            return None
        label = present[_below(_bits(seed, step, DRAWN, 0), len(present))]
        return self._member(label, _below(_bits(seed, step, DRAWN, 1), kept[label]))

    def _member(self, label: int, number: int) -> int:
        return [i for i, k in enumerate(self.labels) if k == label][number]


def _bits(seed: int, step: int, tensor: int, n: int) -> int:
    return int(random_bits(seed, step, tensor, np.array([n]))[0])


def _below(bits: int, n: int) -> int:
    """A number in [0, n) of 32 random bits."""
    return bits * n >> 32
