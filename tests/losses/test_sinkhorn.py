"""The Sinkhorn operator round by round: rows are normalised first, columns last."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch

from gloam.losses.permutation import gumbel_noise, permutation_loss, sinkhorn

HAND = [[1, 2], [3, 4]]


def _rounds(entries: list[list[float]], iterations: int) -> list[list[float]]:
    """Divide every row by its sum, then every column, ``iterations`` times."""
    for _ in range(iterations):
        entries = [[x / sum(row) for x in row] for row in entries]
        columns = [sum(column) for column in zip(*entries, strict=True)]
        entries = [[x / total for x, total in zip(row, columns, strict=True)] for row in entries]
    return entries


def test_one_round_of_the_hand_example() -> None:
    """Rows give [1/3, 2/3], [3/7, 4/7]; columns then [7/16, 7/13], [9/16, 6/13]."""
    result = sinkhorn(torch.tensor(HAND, dtype=torch.float64).log(), iterations=1)
    expected = [[Fraction(7, 16), Fraction(7, 13)], [Fraction(9, 16), Fraction(6, 13)]]
    torch.testing.assert_close(result, torch.tensor([[float(x) for x in row] for row in expected], dtype=torch.float64))


@pytest.mark.parametrize("iterations", [1, 2, 3, 7])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_few_rounds_are_the_loops(iterations: int, temperature: float) -> None:
    scores = 3 * torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(iterations), dtype=torch.float64)
    result = sinkhorn(scores, iterations=iterations, temperature=temperature)
    for matrix, found in zip(scores.tolist(), result, strict=True):
        expected = _rounds([[math.exp(x / temperature) for x in row] for row in matrix], iterations)
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(result.sum(-2), torch.ones(2, 4).double())
    assert (result.sum(-1) - 1).abs().max() > 1e-6


def test_twenty_rounds_at_temperature_one_unless_told_otherwise() -> None:
    scores = 6 * torch.randn(5, 5, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    expected = _rounds([[math.exp(x) for x in row] for row in scores.tolist()], 20)
    torch.testing.assert_close(sinkhorn(scores), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-12)
    assert (sinkhorn(scores) - sinkhorn(scores, iterations=21)).abs().max() > 1e-9


def test_noise_is_the_double_logarithm_of_the_draws() -> None:
    draws = torch.rand((3, 2), generator=torch.Generator().manual_seed(5))
    expected = [-math.log(-math.log(u)) for u in draws.flatten().tolist()]
    noise = gumbel_noise((3, 2), torch.Generator().manual_seed(5))
    assert noise.flatten().tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_the_logarithm_sees_small_masses_and_has_no_infinity() -> None:
    """Rows that give the right column 0.25, 1e-5 and nothing: the floor is the smallest normal number."""
    predicted = torch.zeros(1, 3, 3, dtype=torch.float32)
    predicted[0, 0, 2], predicted[0, 1, 0] = 0.25, 1e-5
    orders = torch.tensor([[2, 0, 1]])
    tiny = torch.finfo(torch.float32).tiny
    expected = -(math.log(0.25) + math.log(1e-5) + math.log(tiny)) / 3
    assert permutation_loss(predicted, orders, "ce").item() == pytest.approx(expected, rel=1e-5)
