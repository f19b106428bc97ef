"""An update's shifts made of the forward pass's multipliers."""

import numpy as np
import pytest

from mcugrad.ops.rate import rate, thresholds
from mcugrad.quant.affine import log2_shift, multipliers


def shifts(found: tuple[int, int, int], forward: tuple[float, ...]) -> list[int]:
    """What csrc/ops/backward.h makes of them."""
    most, first, second = found
    pairs = zip(*multipliers(forward), strict=True)
    return [most - 2 * int(sh) - (int(m) < first) - (int(m) < second) for m, sh in pairs]


@pytest.mark.parametrize("seed", range(20))
def test_thresholds_make_every_shift_of_weight_scales(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scales = [float(s) for s in (2.0 ** rng.uniform(-12, -3, 300)).astype(np.float32)]
    per_step, per_output = 10.0 ** rng.uniform(-6, 2), 10.0 ** rng.uniform(-2, 1)
    base = tuple(log2_shift(per_step / (s * s)) for s in scales)
    forward = tuple(s * per_output for s in scales)
    found = thresholds(base, forward)
    assert found is not None and shifts(found, forward) == list(base)


def test_shifts_of_other_origin_have_a_table() -> None:
    base, forward = (3, 9, -4), (0.1, 0.1, 0.2)
    assert thresholds(base, forward) is None
    fields = dict(rate(base, 2, forward).fields)
    assert fields["slot"] == 2 and fields["base"].data == base
    assert dict(rate(base, None, ()).fields)["slot"] == -1
