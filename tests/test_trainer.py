"""The order of samples, the schedule of the rate, and an error when learning diverges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mcugrad.devices.base import StepResult
from mcugrad.errors import McugradError
from mcugrad.trainer import DIVERGED_WINDOW, Course, learn


def test_a_course_knows_its_bounds() -> None:
    with pytest.raises(McugradError, match="unknown schedule 'wavy'"):
        Course(schedule="wavy")
    assert [Course().halvings(s, 100) for s in (0, 49, 50, 75, 90, 99)] == [0, 0, 1, 2, 3, 3]


def test_the_cosine_schedule_is_within_half_a_halving_of_the_cosine() -> None:
    course = Course(schedule="cosine")
    for step in range(900):
        cosine = (1 + math.cos(math.pi * step / 1000)) / 2
        assert abs(-math.log2(cosine) - course.halvings(step, 1000)) <= 0.5 + 1e-3, step


def test_an_epoch_visits_every_sample_once() -> None:
    order = Course(epochs=2).order(np.zeros(7), 14)
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7)) and not np.array_equal(order[:7], order[7:])


def test_a_balanced_order_visits_every_class_equally_often_and_all_its_samples() -> None:
    y = np.array([0] * 50 + [2] * 3 + [5] * 7)
    order = Course(balanced=True, seed=1).order(y, 150)
    assert np.bincount(y[order]).tolist() == [50, 0, 50, 0, 0, 50]
    assert sorted(order[y[order] == 0]) == list(range(50)), "the common class is gone through once"
    assert max(np.bincount(order[y[order] == 2])[50:53]) - min(np.bincount(order[y[order] == 2])[50:53]) <= 1


class Script:
    """A device that reports given probabilities of the true class (Q15)."""

    def __init__(self, p_label: list[int]) -> None:
        self.left = iter(p_label)

    def set_control(self, **_: Any) -> None:
        pass

    def train_step(self, _x: Any, _label: int) -> StepResult:
        return StepResult(next(self.left), 0, 0, 0)


def course_of(p_label: list[int]) -> tuple[Any, ...]:
    n = len(p_label)
    return Script(p_label), np.zeros((n, 1, 1, 1), np.int8), np.arange(n) % 4, Course(steps=n)


def test_learning_that_diverges_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(McugradError, match=r"learning diverges: after \d+ steps the mean loss is 1\d\..*lower the rate"):
        learn(*course_of([8192] * DIVERGED_WINDOW + [0] * 2 * DIVERGED_WINDOW))


def test_a_bad_start_or_a_few_bad_samples_are_no_divergence() -> None:
    learned = learn(*course_of([0] * DIVERGED_WINDOW + [1] * DIVERGED_WINDOW + [8192, 0] * DIVERGED_WINDOW))
    assert len(learned.losses) == 4 * DIVERGED_WINDOW
