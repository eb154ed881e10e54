"""Every optimiser option against its update rule, number by number."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from gloam.training.optimizers import OptimizerConfig, create_optimizer, set_learning_rate

STEPS = 5


def _gradient(step: int, weight: float) -> float:
    """A gradient that changes its sign and depends on where the weight is."""
    return math.cos(1.3 * step) + 0.3 * weight


def _trained(rate: float = 0.1, factor: float = 1.0, **options: Any) -> list[float]:
    """Where a weight that starts at 0.7 is after every step."""
    weight = torch.nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    config = OptimizerConfig(lr=99.0, **options)  # the group's own rate is what counts
    optimizer = create_optimizer(config, [{"params": [weight], "lr": rate}])
    set_learning_rate(optimizer, factor)
    places = []
    for step in range(STEPS):
        weight.grad = torch.tensor(_gradient(step, weight.item()), dtype=torch.float64)
        optimizer.step()
        places.append(weight.item())
    return places


def _sgd(rate: float, momentum: float, nesterov: bool, decay: float) -> list[float]:
    """Sutskever's form: the decay joins the gradient; nesterov looks one step ahead."""
    weight, velocity, places = 0.7, 0.0, []
    for step in range(STEPS):
        gradient = _gradient(step, weight) + decay * weight
        velocity = momentum * velocity + gradient if step else gradient
        weight -= rate * (gradient + momentum * velocity if nesterov else velocity)
        places.append(weight)
    return places


def _adam(rate: float, betas: tuple[float, float], eps: float, decay: float, coupled: bool) -> list[float]:
    weight, first, second, places = 0.7, 0.0, 0.0, []
    for step in range(STEPS):
        gradient = _gradient(step, weight)
        if coupled:
            gradient += decay * weight
        else:
            weight -= rate * decay * weight
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        mean, square = first / (1 - betas[0] ** (step + 1)), second / (1 - betas[1] ** (step + 1))
        weight -= rate * mean / (math.sqrt(square) + eps)
        places.append(weight)
    return places


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_sgd(momentum: float, nesterov: bool, decay: float) -> None:
    found = _trained(name="sgd", momentum=momentum, nesterov=nesterov, weight_decay=decay)
    assert found == pytest.approx(_sgd(0.1, momentum, nesterov, decay), rel=1e-12)


@pytest.mark.parametrize(("name", "coupled"), [("adam", True), ("adamw", False)])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.7)])
@pytest.mark.parametrize("eps", [1e-8, 0.3])
@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_adam(name: str, coupled: bool, betas: tuple[float, float], eps: float, decay: float) -> None:
    found = _trained(name=name, betas=betas, eps=eps, weight_decay=decay)
    assert found == pytest.approx(_adam(0.1, betas, eps, decay, coupled), rel=1e-9)


def test_published_defaults() -> None:
    """Nesterov momentum 0.9 and 5e-4 on every parameter; Adam as its authors set it."""
    assert _trained() == pytest.approx(_sgd(0.1, 0.9, True, 5e-4), rel=1e-12)
    assert _trained(name="adam") == pytest.approx(_adam(0.1, (0.9, 0.999), 1e-8, 5e-4, True), rel=1e-9)
    assert OptimizerConfig().lr == 0.1


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_group_trains_at_its_own_rate_times_the_factor(name: str) -> None:
    assert _trained(rate=0.2, factor=0.5, name=name) == pytest.approx(_trained(rate=0.1, name=name), rel=1e-12)
    assert _trained(rate=0.2, name=name) != pytest.approx(_trained(rate=0.1, name=name), rel=1e-3)


def test_the_decay_reaches_every_parameter() -> None:
    """Norms and biases too, as published: no group is left out."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in (0.1, 0.01)]
    optimizer = create_optimizer(OptimizerConfig(weight_decay=0.3, momentum=0.0), groups)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0.3]
    for group in groups:
        group["params"][0].grad = torch.zeros(2)
    optimizer.step()
    assert [group["params"][0][0].item() for group in groups] == pytest.approx([1 - 0.03, 1 - 0.003])


def test_the_callers_groups_stay_as_they_are() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1}]
    create_optimizer(OptimizerConfig(), groups)
    assert set(groups[0]) == {"params", "lr"}


def test_the_largest_rate_is_returned() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in (0.1, 0.4, 0.2)]
    assert set_learning_rate(create_optimizer(OptimizerConfig(), groups), 0.5) == pytest.approx(0.2)
