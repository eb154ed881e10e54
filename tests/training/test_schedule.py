"""Learning rates at the epochs that the specifications name."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.recipes.sections import OptimizerConfig, ScheduleConfig
from gloam.training.optimizers import create_optimizer, set_learning_rate
from gloam.training.schedule import learning_rate_factor

AGW = ScheduleConfig(milestones=(20, 50), warmup_epochs=10)
DDAG = ScheduleConfig(milestones=(30, 50), warmup_epochs=10)


@pytest.mark.parametrize(
    ("schedule", "epoch", "rate"),
    [
        (AGW, 0, 0.01), (AGW, 9, 0.1), (AGW, 10, 0.1), (AGW, 19, 0.1), (AGW, 20, 0.01), (AGW, 49, 0.01),
        (AGW, 50, 0.001),
        (DDAG, 20, 0.1), (DDAG, 29, 0.1), (DDAG, 30, 0.01), (DDAG, 50, 0.001),
    ],
)  # fmt: skip
def test_published_step_schedules(schedule: ScheduleConfig, epoch: int, rate: float) -> None:
    assert 0.1 * learning_rate_factor(schedule, epoch, 81) == pytest.approx(rate)


def test_logged_cosine_of_the_mmgl_authors() -> None:
    schedule = ScheduleConfig(name="cosine", length=80, warmup_epochs=10)
    assert 0.1 * learning_rate_factor(schedule, 10, 81) == pytest.approx(0.0962, abs=5e-5)
    assert learning_rate_factor(schedule, 80, 81) == pytest.approx(0, abs=1e-12)
    assert learning_rate_factor(schedule, 40, 81) == pytest.approx(0.5)


def test_weakly_supervised_warmup_starts_at_a_hundredth() -> None:
    schedule = ScheduleConfig(milestones=(30, 70), warmup_epochs=10, warmup_start=0.01)
    for epoch in range(10):
        assert learning_rate_factor(schedule, epoch, 120) == pytest.approx(0.01 * (1 - epoch / 10) + epoch / 10)
    assert learning_rate_factor(schedule, 70, 120) == pytest.approx(0.01)


def test_step_and_constant() -> None:
    step = ScheduleConfig(name="step", step_size=20)
    assert [learning_rate_factor(step, e, 50) for e in (0, 19, 20, 40)] == pytest.approx([1, 1, 0.1, 0.01])
    assert learning_rate_factor(ScheduleConfig(name="constant"), 77, 80) == 1.0
    assert learning_rate_factor(ScheduleConfig(name="cosine"), 25, 100) == pytest.approx(
        (1 + math.cos(math.pi / 4)) / 2
    )


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_groups_keep_their_ratio(name: str) -> None:
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
    groups = [{"params": [weights[0]], "lr": 0.01}, {"params": [weights[1]], "lr": 0.1}]
    optimizer = create_optimizer(OptimizerConfig(name=name), groups)
    assert set_learning_rate(optimizer, 0.1) == pytest.approx(0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])
