"""Learning in the least memory: the firmware fits exactly so many bytes, and learns the bits of the layerwise build."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import SMALL, Setting, compiled
from benchmarks.same_bits import STEPS, layerwise, learned

SMALLEST = min(SMALL, key=lambda s: s.sram)
FEW = 2  # in the virtual MCU, but for the smallest; benchmarks/same_bits.py takes all steps of every one

pytestmark = pytest.mark.skipif(any(s.missing for s in SMALL), reason="the published models are not beside the project")


@pytest.mark.parametrize("setting", SMALL, ids=lambda s: s.name)
def test_the_least_memory_learns_the_bits_of_the_layerwise_build(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = compiled(setting, tmp_path / "small")
    monkeypatch.setattr("mcugrad.memory.forward.WORTH", -1)  # no rows where they are nearly free
    roomy = compiled(layerwise(setting), tmp_path / "roomy")
    assert all(s.segment is None for s in roomy.program.schedule)
    assert small.firmware.facts.sram_total <= setting.sram << 10
    assert small.program.plan.arena < roomy.program.plan.arena
    assert learned(small, "host") == learned(roomy, "host")
    steps = STEPS if setting == SMALLEST else FEW
    assert learned(small, "vm", steps) == learned(small, "host", steps)
