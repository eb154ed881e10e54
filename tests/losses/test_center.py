"""The centre loss and its centres, against loops and against a second optimiser as the release has one."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.losses.center import center_loss
from gloam.models.class_centers import ClassCenters


def _rows(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("labels", [[0, 1, 2, 2], [1, 1, 1, 1], [3]])
def test_mean_of_squared_distances(labels: list[int]) -> None:
    features, centers = _rows(len(labels), 5, 0), _rows(4, 5, 1)
    total = 0.0
    for row, label in zip(features.tolist(), labels, strict=True):
        total += sum((x - c) ** 2 for x, c in zip(row, centers[label].tolist(), strict=True))
    found = center_loss(features, torch.tensor(labels), centers)
    assert found.item() == pytest.approx(total / len(labels), rel=1e-12)


def test_distances_are_kept_from_zero_and_from_infinity() -> None:
    centers = torch.zeros(1, 2, dtype=torch.float64)
    assert center_loss(centers.clone(), torch.tensor([0]), centers).item() == 1e-12
    far = torch.full((1, 2), 1e9, dtype=torch.float64, requires_grad=True)
    loss = center_loss(far, torch.tensor([0]), centers)
    loss.backward()
    assert loss.item() == 1e12
    assert far.grad is not None
    assert far.grad.abs().max() == 0


def test_half_precision_features_are_compared_in_float32() -> None:
    features, centers = torch.full((1, 4), 300.0, dtype=torch.float16), torch.zeros(1, 4)
    found = center_loss(features, torch.tensor([0]), centers)
    assert found.dtype == torch.float32
    assert found.item() == 360_000.0


def test_centres_move_as_under_a_second_optimiser() -> None:
    """*Source*: ``optimizer_center`` of the release: SGD at 0.5, gradients divided by the weight of the loss."""
    weight, rate = 5e-4, 0.5
    centers = ClassCenters(4, 5, rate).double()
    theirs = torch.nn.Parameter(centers.rows.clone())
    optimizer = torch.optim.SGD([theirs], lr=rate)
    start = centers.rows.clone()
    for step in range(3):
        labels = torch.tensor([0, 2, 2, 1, 2, 0]) if step else torch.tensor([3, 3, 2])
        features = _rows(len(labels), 5, step)
        own, other = (features.clone().requires_grad_() for _ in range(2))
        loss = weight * center_loss(own, labels, centers(own, labels))
        expected = weight * ((other - theirs[labels]) ** 2).sum(dim=1).mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
        optimizer.zero_grad()
        loss.backward()
        expected.backward()
        torch.testing.assert_close(own.grad, other.grad)
        theirs.grad *= 1 / weight  # type: ignore[operator]
        optimizer.step()
        centers.move()
        torch.testing.assert_close(centers.rows, theirs.detach())
    assert (centers.rows - start).abs().amin(dim=1).max() > 0.01


def test_centres_stand_still_without_a_batch() -> None:
    centers = ClassCenters(3, 2, 0.5)
    before = centers.rows.clone()
    centers.move()
    centers(torch.ones(2, 2), torch.tensor([0, 1]))
    centers.move()
    after = centers.rows.clone()
    centers.move()
    assert not torch.equal(before, after)
    assert torch.equal(centers.rows, after)
    assert list(centers.state_dict()) == ["rows"]


def test_centres_start_from_a_standard_normal() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        rows = ClassCenters(100, 100, 0.5).rows
    assert rows.mean().abs() < 0.05
    assert rows.std().item() == pytest.approx(1, abs=0.05)
    assert math.isfinite(rows.sum().item())
