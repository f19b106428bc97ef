"""How much of its operands the weight update of a depthwise convolution takes apart at once: in more scratch memory, at fewer
instructions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mcugrad.ops.conv2d import ceil_div, round_up
from mcugrad.ops.spatial import Window

LANES, QUAD = 4, 4
"""Channels and positions that the kernel takes at once."""
QUADS = {1: 4, 2: 8, 3: 10, 5: 14}
"""Instructions of a quad of positions by taps that are computed together (csrc/ops/depthwise_update_planes.S)."""


@dataclass(frozen=True)
class Apart:
    """A weight gradient from x and h, NHWC shapes.  rows: of h at once, with those of x under them; 0: none."""

    window: Window
    x: tuple[int, ...]
    h: tuple[int, ...]
    rows: int = 0

    @property
    def scratch(self) -> int:
        """Bytes, of four channels: int32 gradients, what each row of taps meets, int16 of the rows."""
        kh, kw = self.window.kernel
        return 4 * LANES * kh * kw + (16 * kh + 2 * LANES * self._elements if self.rows else 0)

    def within(self, room: int) -> Apart | None:
        """The fewest rounds that so many bytes allow, with the fewest rows in each; None where it does not pay."""
        if self.x[3] < LANES or self.window.dilation != (1, 1) or self.window.stride[1] > 2:
            return None
        for rounds in range(1, ceil_div(self.h[1], self.rows) if self.rows else self.h[1] + 1):
            one = replace(self, rows=ceil_div(self.h[1], rounds))
            if one.scratch <= room:
                return one if one.instructions < 0.96 * self.instructions else None
        return None

    @property
    def instructions(self) -> float:
        """Of four channels, about, without the step; the estimate is within a few percent."""
        return self._apart + self._products if self.rows else self._by_taps

    @property
    def _elements(self) -> int:
        """Of a channel's planes."""
        (kh, kw), (sh, sw) = self.window.kernel, self.window.stride
        width = round_up(self.h[2], QUAD)
        under = min((self.rows - 1) * sh + kh, self.x[1])
        return self.rows * width + sw * under * (width + max(ceil_div(kw, sw) // 2 * 2, 2))

    @property
    def _rounds(self) -> int:
        return ceil_div(self.h[1], self.rows)

    @property
    def _apart(self) -> float:
        """To take all rows apart, some of x in two rounds; what is done once per call counts by its share."""
        (kh, _), (sh, sw) = self.window.kernel, self.window.stride
        x_rows = self.x[1] + (self._rounds - 1) * max(kh - sh, 0)
        x_row, h_row = 14 + 8.5 * (self.x[2] / sw + 1.5), 14 + 8.5 * self.h[2]
        begin = (300 + 4 * self._elements) * LANES / self.x[3]
        rounds = 480 * self._rounds if self._rounds > 1 else 150  # of one, the plan is made once per call
        return begin + 200 + rounds + sw * x_rows * x_row + self.h[1] * h_row

    @property
    def _products(self) -> float:
        kh, sw = self.window.kernel[0], self.window.stride[1]
        quads = ceil_div(self.h[2], QUAD)
        groups = [n for first in range(sw) for n in together(ceil_div(self.window.kernel[1] - first, sw))]
        row = sum((11 if n > 3 else 7) + QUADS[n] * quads + 2 * ceil_div(quads, 2) for n in groups)
        return LANES * (22 * len(groups) * kh * self._rounds + self._met(0) * row)

    @property
    def _by_taps(self) -> float:
        kh, kw = self.window.kernel
        return 110 * kh * kw + self._met(0) * (13 * kw + 12 * self._met(1))

    def _met(self, axis: int) -> int:
        """Pairs of an output position and a tap along an axis that lie inside the input."""
        kernel, stride, pad = (v[axis] for v in (self.window.kernel, self.window.stride, self.window.padding))
        places = (o * stride + tap - pad for o in range(self.h[1 + axis]) for tap in range(kernel))
        return sum(0 <= at < self.x[1 + axis] for at in places)


def together(taps: int) -> list[int]:
    """Taps that share rows of x, as the kernel takes them: by twos until an odd number of them fits."""
    found = []
    while taps > 0:
        found.append(taps if taps in QUADS and taps % 2 else 2)
        taps -= found[-1]
    return found
