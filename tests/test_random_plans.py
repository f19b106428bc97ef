"""Memory plans of random training graphs: the independent validator accepts them, and a cap is kept or refused."""

import pytest

from graphs import random_training
from mcugrad.errors import BudgetError
from mcugrad.memory.modes import Planned, plan
from mcugrad.passes import TRAIN, run


def live_peak(planned: Planned) -> int:
    return planned.scheduled.plan.certificate.live_peak


@pytest.mark.parametrize("seed", range(24))
def test_a_plan_is_valid_and_not_above_twice_its_live_peak(seed: int) -> None:
    """`plan` plays every schedule on an arena whose bytes know their owner, and raises when one was lost."""
    _, graph = random_training(seed)
    planned = plan(run(graph, TRAIN))
    assert live_peak(planned) <= planned.arena <= 2 * live_peak(planned)


@pytest.mark.parametrize("seed", range(12))
def test_a_cap_is_kept_or_refused_with_the_miss(seed: int) -> None:
    _, graph = random_training(seed)
    fused = run(graph, TRAIN)
    free = plan(fused).arena
    assert plan(fused, sram_for_arena=free).arena <= free
    try:
        assert plan(fused, sram_for_arena=free * 3 // 4, input_rows=None).arena <= free * 3 // 4
    except BudgetError as error:
        assert str(free * 3 // 4) in str(error).replace(",", "")
