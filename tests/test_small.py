"""Learning in the least memory: the firmware fits exactly so many bytes, and learns the bits of the layerwise build."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.models import SMALL, Setting, compiled

from mcugrad.compiler import Compiled
from mcugrad.trainer import loss_of

SEED, STEPS, IN_THE_MCU = 3, 20, 2
ROOMY = 4096  # KiB: every node runs whole

pytestmark = pytest.mark.skipif(any(s.missing for s in SMALL), reason="the published models are not beside the project")


def learn(build: Compiled, kind: str, steps: int) -> tuple[list[float], str]:
    """Losses, and the hash of the learned parameters."""
    x, y = build.prepared.x[:steps], build.prepared.y[:steps]
    with build.device(kind) as device:
        device.set_control(seed=SEED, step=0, skip=1 << 16)
        losses = [loss_of(device.train_step(sample, int(label)).p_label) for sample, label in zip(x, y, strict=True)]
        return losses, build.program.state_hash(device.read_params())


@pytest.mark.parametrize("setting", SMALL, ids=lambda s: s.name)
def test_the_least_memory_learns_the_bits_of_the_layerwise_build(setting: Setting, tmp_path: Path) -> None:
    small = compiled(setting, tmp_path / "small")
    roomy = compiled(replace(setting, sram=ROOMY, input_mode="resident"), tmp_path / "roomy")
    assert small.firmware.facts.sram_total <= setting.sram << 10
    assert small.program.plan.arena < roomy.program.plan.arena
    assert learn(small, "host", STEPS) == learn(roomy, "host", STEPS)
    assert learn(small, "vm", IN_THE_MCU) == learn(small, "host", IN_THE_MCU)
