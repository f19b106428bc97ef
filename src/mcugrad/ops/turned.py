"""How much of its input the weight update of a convolution turns at once: in more scratch memory, at fewer instructions."""

from __future__ import annotations

from dataclasses import dataclass, replace

GRADS = 48
"""Inputs whose gradients the kernel holds at most (MCG_GRADS of csrc/ops/weight_step.h)."""
OUTPUTS, POSITIONS, MOST = 4, 64, 1024
"""Outputs and positions of h that are widened together, positions of x that are turned (csrc/ops/conv2d_update.c)."""
LEAST = 768
"""Elements of x, about, that are turned at once where memory is short."""


@dataclass(frozen=True)
class Turned:
    """A product of x, `kept` inputs at so many positions, and h.

    centred: outputs whose biases move with their weights, 0 where none do.  together: inputs at once (None: few)."""

    kept: int
    positions: int
    centred: int
    together: int | None = None

    @property
    def inputs(self) -> int:
        """Inputs that are turned at once: a multiple of four."""
        if self.together is not None:
            return self.together
        return min(max((LEAST // self._most + 2) // 4 * 4, 4), GRADS)

    @property
    def scratch(self) -> int:
        """Bytes: gradients of up to 48 inputs by 4 outputs, random numbers, h of 4 outputs at 64 positions and x of the
        inputs, both as int16, and how far each bias moves if that takes several rounds (csrc/ops/weight_step.h)."""
        moved = 4 * self.centred if self.kept > self.inputs else 0
        columns = OUTPUTS * min(POSITIONS, self._most) + self.inputs * self._most
        return 4 * ((OUTPUTS - 1) * GRADS + 2 * self.inputs) + 2 * columns + moved

    def within(self, room: int) -> Turned | None:
        """The fewest rounds that so many bytes allow, with the fewest inputs in each; None where these are no fewer."""
        now = -(-self.kept // self.inputs)
        for rounds in range(-(-self.kept // GRADS), now):
            one = replace(self, together=-(-self.kept // (4 * rounds)) * 4)
            if one.scratch <= room:
                return one
        return None

    @property
    def _most(self) -> int:
        return min((self.positions + 1) // 2 * 2, MOST)
