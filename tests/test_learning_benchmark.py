"""The learning benchmark: splits that leak nothing, and statistics of paired differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks import continual, learning_data, learning_table
from benchmarks.learning_data import Pool, TransferSet, draw
from benchmarks.learning_table import FLOAT, INT, pooled


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Pool:
    """Three classes of unequal size in groups of up to four samples."""
    monkeypatch.setitem(learning_data.SETS, "made", TransferSet(1200, 300, 600, 1))
    y = np.repeat([0, 1, 2], [1200, 600, 300])
    group = np.arange(len(y)) // 4
    empty = Pool("made", np.zeros((len(y), 1, 1, 1)), y, group, np.zeros(0, np.int64))
    return replace(empty, anchor=learning_data._anchor(empty))


def test_no_group_is_divided_and_calibration_samples_are_learned_from(pool: Pool) -> None:
    for seed in range(3):
        split = draw(pool, seed)
        parts = [set(pool.group[at]) for at in (split.train, split.validation, split.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert set(pool.anchor) <= set(split.train)


def test_splits_are_drawn_again_and_keep_the_shares_of_the_classes(pool: Pool) -> None:
    first, second = draw(pool, 0), draw(pool, 1)
    assert set(first.test) != set(second.test) and np.array_equal(draw(pool, 0).test, first.test)
    shares = np.bincount(pool.y[first.test]) / len(first.test)
    assert abs(shares - np.array([4, 2, 1]) / 7).max() < 0.06


def record(name: str, seed: int, method: str, test: float) -> Mapping[str, Any]:
    return {"model": "m", "set": name, "scheme": "49kb", "method": method, "variant": "", "seed": seed, "test": test}


def test_differences_are_paired_by_set_and_seed() -> None:
    runs = [record("a", 0, INT, 0.7), record("a", 1, INT, 0.8), record("b", 0, INT, 0.5), record("b", 9, INT, 0.1)]
    runs += [record("a", 0, FLOAT, 0.6), record("a", 1, FLOAT, 0.8), record("b", 0, FLOAT, 0.55)]
    found = pooled(list(runs), (("49kb", INT, ""), ("49kb", FLOAT, "")))
    assert found is not None and (found.pairs, found.clusters) == (3, 2)
    assert found.mean == pytest.approx((10 + 0 - 5) / 3)
    assert found.half_clustered == pytest.approx(12.706 * (5 - -5) / 2**0.5 / 2**0.5, rel=1e-3)


def test_without_pairs_there_is_no_claim() -> None:
    assert pooled([record("a", 0, INT, 0.7)], (("49kb", INT, ""), ("49kb", FLOAT, ""))) is None
    assert learning_table.half_width([1.0]) is None
    assert len(learning_table.claims([record("a", 0, INT, 0.7)])) == 2


def test_the_table_of_later_classes_has_the_means_over_seeds() -> None:
    run = {"set": "a", "scheme": "s", "way": "w", "slots": 3, "old": 50.0, "new": 90.0, "forgetting": 10.0}
    runs = [
        {**run, "seed": 0, "all": 60.0},
        {**run, "seed": 1, "all": 70.0},
        {"set": "a", "scheme": "s", "way": "t", "slots": 0, "all": 80.0},
    ]
    assert continual.rows(runs) == [
        ["a", "s", "w", "3", "65.0", "50.0", "90.0", "10.0", "2"],
        ["a", "s", "t", "0", "80.0", "-", "-", "-", "1"],
    ]
