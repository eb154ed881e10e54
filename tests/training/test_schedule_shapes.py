"""Factors of every schedule at its borders: first and last epoch of the warm-up, milestones, the cosine's end."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gloam.training.schedule import ScheduleConfig, learning_rate_factor


def _factors(epochs: int, num_epochs: int = 20, **options: Any) -> list[float]:
    return [learning_rate_factor(ScheduleConfig(**options), epoch, num_epochs) for epoch in range(epochs)]


def test_a_milestone_is_the_first_epoch_at_the_lower_rate() -> None:
    assert _factors(6, milestones=(2, 4), gamma=0.5) == pytest.approx([1, 1, 0.5, 0.5, 0.25, 0.25])
    # Equal milestones count twice, unordered ones alike.
    assert _factors(5, milestones=(4, 2, 2), gamma=0.5) == pytest.approx([1, 1, 0.25, 0.25, 0.125])


def test_steps() -> None:
    assert _factors(7, name="step", step_size=3, gamma=0.2) == pytest.approx([1, 1, 1, 0.2, 0.2, 0.2, 0.04])


def test_the_cosine_ends_at_its_minimum_and_stays_there() -> None:
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * min(e / 4, 1))) / 2 for e in range(7)]
    assert _factors(7, name="cosine", length=4, minimum=0.1) == pytest.approx(expected)
    assert expected[4:] == pytest.approx([0.1] * 3)
    assert _factors(3, num_epochs=2, name="cosine") == pytest.approx([1, 0.5, 0])


def test_warm_up_replaces_the_shape_and_the_shape_counts_from_the_start() -> None:
    assert _factors(6, warmup_epochs=4, milestones=(2, 5)) == pytest.approx([0.25, 0.5, 0.75, 1, 0.1, 0.01])
    assert _factors(5, warmup_epochs=3, warmup_start=0.4, name="constant") == pytest.approx([0.4, 0.6, 0.8, 1, 1])
    assert _factors(3, warmup_epochs=2, warmup_start=0.0, name="constant") == pytest.approx([0, 0.5, 1])
    cosine = _factors(4, num_epochs=8, warmup_epochs=2, name="cosine")
    assert cosine[2:] == pytest.approx([(1 + math.cos(math.pi * e / 8)) / 2 for e in (2, 3)])
