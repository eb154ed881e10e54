"""Agreement of two views' predictions, against loops over rows and classes in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gloam.losses.consistency import soft_cross_entropy, softened_divergence

LOSSES = [softened_divergence, soft_cross_entropy]


def _logits(*shape: int, scale: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(shape, generator=generator, dtype=torch.float64)


def _probabilities(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def _divergence_by_loops(student: Tensor, target: Tensor, temperature: float) -> float:
    total = 0.0
    for own, other in zip(student.tolist(), target.tolist(), strict=True):
        p, t = _probabilities(own, temperature), [q + 1e-7 for q in _probabilities(other, temperature)]
        total += sum(b * (math.log(b) - math.log(a)) for a, b in zip(p, t, strict=True))
    return temperature**2 * total / len(student)


def _cross_entropy_by_loops(student: Tensor, target: Tensor) -> float:
    total = 0.0
    for own, other in zip(student.tolist(), target.tolist(), strict=True):
        p, t = _probabilities(own, 1.0), _probabilities(other, 1.0)
        total -= sum(b * math.log(a) for a, b in zip(p, t, strict=True))
    return total / len(student)


@pytest.mark.parametrize("temperature", [1.0, 3.0, 7.5])
@pytest.mark.parametrize("shape", [(1, 2), (4, 5), (3, 40)])
def test_divergence_equals_its_definition(shape: tuple[int, int], temperature: float) -> None:
    student, target = _logits(*shape, seed=1), _logits(*shape, seed=2)
    found = softened_divergence(student, target, temperature).item()
    assert found == pytest.approx(_divergence_by_loops(student, target, temperature), rel=1e-12)


@pytest.mark.parametrize("shape", [(1, 2), (4, 5), (3, 40)])
def test_cross_entropy_equals_its_definition(shape: tuple[int, int]) -> None:
    student, target = _logits(*shape, seed=1), _logits(*shape, seed=2)
    assert soft_cross_entropy(student, target).item() == pytest.approx(
        _cross_entropy_by_loops(student, target), rel=1e-12
    )


def test_equal_predictions_diverge_by_nothing() -> None:
    logits = _logits(4, 6)
    # The target's 1e-7 per class is all that is left.
    assert abs(softened_divergence(logits, logits + 5).item()) < 9 * 6 * 1e-6


@pytest.mark.parametrize("loss", LOSSES)
def test_no_gradient_reaches_the_target(loss) -> None:
    student, target = _logits(4, 6, seed=1).requires_grad_(), _logits(4, 6, seed=2).requires_grad_()
    (loss(student, target) + 0 * target.sum()).backward()
    assert student.grad is not None
    assert student.grad.abs().max() > 0.01
    assert target.grad is not None
    assert target.grad.abs().max() == 0


@pytest.mark.parametrize(("loss", "temperature"), [(softened_divergence, 3.0), (soft_cross_entropy, 1.0)])
def test_gradient_pulls_the_student_to_the_target(loss, temperature: float) -> None:
    """Both have the gradient ``temperature (p - t) / n`` of a cross-entropy with soft targets."""
    student, target = _logits(4, 6, seed=1).requires_grad_(), _logits(4, 6, seed=2)
    loss(student, target).backward()
    p, t = ((x.detach() / temperature).softmax(dim=1) for x in (student, target))
    torch.testing.assert_close(student.grad, temperature * (p - t) / 4, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_gives_the_float32_loss(loss) -> None:
    student, target = (_logits(4, 6, scale=20, seed=s).to(torch.bfloat16) for s in (1, 2))
    found = loss(student, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, loss(student.float(), target.float()))
