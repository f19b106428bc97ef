"""Latent replay: the reservoir and its twin, the cut, and the same bits on interpreter, host and virtual MCU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mcugrad.compiler import Budget, Compiled, compile_model
from mcugrad.errors import BudgetError, McugradError
from mcugrad.fit import SLOTS_PER_CLASS
from mcugrad.prepare import Prepared
from mcugrad.program import Machine
from mcugrad.replay import Replay, Reservoir
from mcugrad.trainer import Course, check_new_classes, in_phases, quiet
from mcugrad.training.scheme import UpdateScheme
from noise import digits_on_noise

STEPS = 24
NEVER_SKIP = 32769
SCHEME = UpdateScheme("last", biases=2)


@pytest.fixture(scope="module")
def network() -> Prepared:
    return digits_on_noise()


def build(network: Prepared, folder: Path, replay: Replay, sram: int = 32 << 10, mode: str = "resident") -> Compiled:
    return compile_model(network, SCHEME, folder / "out", Budget("cortex-m7", sram, None, mode, "zig", replay))


def stream(network: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """Two classes first, then all."""
    rng = np.random.default_rng(0)
    y = np.concatenate([rng.integers(0, 2, STEPS // 2), rng.integers(0, 10, STEPS - STEPS // 2)])
    return network.x[rng.integers(0, len(network.x), STEPS)], y


@pytest.mark.parametrize(("mode", "per_step"), [("resident", 2), ("rows", 1)])
def test_replay_gives_the_same_bits_everywhere(network: Prepared, tmp_path: Path, mode: str, per_step: int) -> None:
    compiled = build(network, tmp_path, Replay(5, per_step), mode=mode)
    program, (x, y) = compiled.program, stream(network)
    twin = Machine(program, poison=True)
    for i in range(STEPS):
        twin.train_step(x[i : i + 1], int(y[i]), np.array([3, i, 0, NEVER_SKIP]))
    hashes = {program.state_hash(twin.state.tobytes())}
    for kind in ("host", "vm"):
        with compiled.device(kind) as device:
            device.set_control(seed=3, step=0)
            for i in range(STEPS):
                device.train_step(x[i], int(y[i]))
            hashes.add(program.state_hash(device.read_params()))
    assert len(hashes) == 1
    assert len(twin.reservoir.labels) == 5 and sum(twin.reservoir.seen) == STEPS


def test_a_replayed_step_costs_less_than_a_new_sample(network: Prepared, tmp_path: Path) -> None:
    counts = []
    for per_step in (1, 3):
        with build(network, tmp_path / str(per_step), Replay(5, per_step)).device("vm") as device:
            device.set_control(seed=3, step=0)
            x, y = stream(network)
            counts.append([device.train_step(x[i], int(y[i])).instructions or 0 for i in range(4)][-1])
    once, thrice = counts
    again = (thrice - once) // 2
    assert 0 < again < (once - again) / 2, "a replayed step skips the frozen layers"


def test_the_buffer_is_part_of_the_firmware_and_of_its_report(network: Prepared, tmp_path: Path) -> None:
    small, large = (build(network, tmp_path / str(n), Replay(n)).facts() for n in (10, 20))
    assert large["sram"]["static"] - small["sram"]["static"] == large["sram"]["replay"] - small["sram"]["replay"]
    assert large["sram"]["replay"] - small["sram"]["replay"] == pytest.approx(10 * (large["replay"]["bytes"] + 2), abs=16)
    assert large["replay"]["slots"] == 20 and large["replay"]["per_step"] == 1


def test_auto_takes_what_is_left(network: Prepared, tmp_path: Path) -> None:
    compiled = build(network, tmp_path, Replay(None), sram=24 << 10)
    facts = compiled.facts()
    slots, size = facts["replay"]["slots"], facts["replay"]["bytes"]
    assert slots > SLOTS_PER_CLASS * 10
    assert 0 <= (24 << 10) - facts["sram"]["total"] < 16 * slots + 2 * size + 512, "little is left unused"


def test_too_many_slots_say_how_many_would_fit(network: Prepared, tmp_path: Path) -> None:
    slots = 2000
    for _ in range(3):  # another plan may have another cut
        try:
            facts = build(network, tmp_path / str(slots), Replay(slots), sram=24 << 10).facts()
            break
        except BudgetError as error:
            fewer = int(str(error).rsplit("or use --replay ", 1)[1])
            assert 0 < fewer < slots
            slots = fewer
    assert facts["replay"]["slots"] == slots < 2000


def test_step_zero_empties_the_buffer(network: Prepared, tmp_path: Path) -> None:
    compiled, (x, y) = build(network, tmp_path, Replay(5)), stream(network)
    hashes = []
    with compiled.device("host") as device:
        for _ in range(2):
            device.reset()
            device.set_control(seed=3, step=0)
            for i in range(8):
                device.train_step(x[i], int(y[i]))
            hashes.append(compiled.program.state_hash(device.read_params()))
    assert hashes[0] == hashes[1]


def test_the_reservoir_is_balanced_and_keeps_each_sample_of_a_class_alike() -> None:
    kept: Counter[int] = Counter()
    for seed in range(300):
        reservoir, held, number = Reservoir(6, 3), {}, 0
        for i in range(60):
            label = 0 if i % 10 < 8 else 1 + i % 2
            slot = reservoir.offer(label, seed)
            if slot is not None:
                held[slot] = (label, number)
            number += label == 0
        assert reservoir.kept == [2, 2, 2] and [held[s][0] for s in range(6)] == reservoir.labels
        kept.update(n for label, n in held.values() if label == 0)
    shares = np.array([sum(kept[n] for n in range(at, at + 12)) for at in range(0, 48, 12)]) / 600
    assert shares.sum() == pytest.approx(1) and abs(shares - 0.25).max() < 0.08, "no part of the stream is preferred"


def test_draws_are_balanced_over_the_classes_that_are_held() -> None:
    reservoir = Reservoir(9, 4)
    for label in (0, 0, 0, 0, 0, 2, 3):
        reservoir.offer(label, 7)
    drawn = Counter(reservoir.labels[reservoir.draw(7, step)] for step in range(3000))
    assert sorted(drawn) == [0, 2, 3] and max(drawn.values()) < 1.15 * min(drawn.values())


def test_replay_needs_classes_and_a_place(network: Prepared, tmp_path: Path) -> None:
    everything = UpdateScheme("all", biases=1 << 30)
    with pytest.raises(McugradError, match=r"--replay: nowhere before the first layer"):
        compile_model(network, everything, tmp_path / "out", Budget(sram=64 << 10, input_mode="rows", replay=Replay(3)))
    assert not (tmp_path / "out").exists()


def test_new_classes_come_after_the_old_ones(network: Prepared, tmp_path: Path) -> None:
    compiled = build(network, tmp_path, Replay(10))
    x, y = network.x[:40], np.arange(40) % 4
    with compiled.device("host") as device, compiled.device("host") as twin:
        learned, found = in_phases(device, twin, (x, y), (x, y), Course(epochs=3, new=(3,)), quiet)
    assert len(learned.losses) == 3 * 30 + 3 * 10
    assert [p["learned"] for p in found["phases"]] == ["old", "new"]
    assert found["forgetting"] == found["phases"][0]["accuracy"]["old"] - found["phases"][1]["accuracy"]["old"]
    assert found["phases"][0]["accuracy"]["new"] == 0


def test_new_classes_must_be_there() -> None:
    labels = (np.array([0, 1, 2]), np.array([0, 1, 2]))
    check_new_classes((), labels)
    check_new_classes((2,), labels)
    with pytest.raises(McugradError, match="no sample has the class 7; the data has 3 classes"):
        check_new_classes((7,), labels)
    with pytest.raises(McugradError, match="leave at least one that is old"):
        check_new_classes((0, 1, 2), labels)
