"""Stripe orders, Sinkhorn, permutation loss and accuracy: the facts of MMGL's specification."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.losses.permutation import (
    draw_orders,
    gumbel_noise,
    order_matrix,
    permutation_accuracy,
    permutation_loss,
    shuffle_stripes,
    sinkhorn,
)

FIGURE_ORDER = torch.tensor([[2, 4, 1, 3, 0, 5]])


def test_figure_order_puts_ones_where_the_figure_does() -> None:
    expected = torch.zeros(6, 6)
    for row, column in ((0, 2), (1, 4), (2, 1), (3, 3), (4, 0), (5, 5)):
        expected[row, column] = 1
    assert torch.equal(order_matrix(FIGURE_ORDER)[0], expected)


def test_shuffling_moves_whole_stripes_and_the_inverse_order_restores_the_image() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 12, 4, generator=generator)
    orders = draw_orders(5, 6, generator)
    shuffled = shuffle_stripes(images, orders)
    for image, order, result in zip(images, orders, shuffled, strict=True):
        for position, original in enumerate(order):
            assert torch.equal(result[:, 2 * position : 2 * position + 2], image[:, 2 * original : 2 * original + 2])
    assert torch.equal(shuffle_stripes(shuffled, orders.argsort(dim=1)), images)


def test_matrix_times_stripes_is_the_shuffled_image() -> None:
    stripes = torch.arange(6.0)[None, None, :, None]
    assert torch.equal(
        shuffle_stripes(stripes, FIGURE_ORDER)[0, 0, :, 0], order_matrix(FIGURE_ORDER)[0] @ torch.arange(6.0)
    )


def test_height_must_be_a_multiple_of_the_stripes() -> None:
    with pytest.raises(ValueError, match="height 10"):
        shuffle_stripes(torch.zeros(1, 3, 10, 4), FIGURE_ORDER)


def test_orders_are_uniform_and_repeatable() -> None:
    first = draw_orders(6000, 3, torch.Generator().manual_seed(1))
    assert torch.equal(first, draw_orders(6000, 3, torch.Generator().manual_seed(1)))
    codes, counts = torch.unique(first @ torch.tensor([9, 3, 1]), return_counts=True)
    assert len(codes) == 6
    assert counts.min() > 850


def test_sinkhorn_of_the_hand_example() -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64).log()
    result = sinkhorn(scores)
    assert result[0, 0].item() == pytest.approx(1 / (1 + math.sqrt(2 * 3 / (1 * 4))), abs=1e-9)
    assert result[0, 0].item() == pytest.approx(0.449490, abs=1e-6)


def test_sinkhorn_is_invariant_to_row_and_column_offsets_and_equivariant_to_permutations() -> None:
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    base = sinkhorn(scores, iterations=200)
    offset = scores + torch.randn(6, 1, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(offset, iterations=200), base)
    rows = torch.randperm(6, generator=generator)
    torch.testing.assert_close(sinkhorn(scores[rows], iterations=200), base[rows])
    torch.testing.assert_close(base.sum(0), torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(base.sum(1), torch.ones(6, dtype=torch.float64))


def test_sinkhorn_gradient_is_finite_for_large_scores() -> None:
    scores = (torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(3)) * 120 - 60).requires_grad_()
    permutation_loss(sinkhorn(scores), FIGURE_ORDER.repeat(3, 1)).backward()
    assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize(("form", "uniform"), [("mse_sum", 5.0), ("mse_mean", 5 / 36), ("ce", math.log(6))])
def test_loss_of_uniform_and_perfect_predictions(form: str, uniform: float) -> None:
    prediction = torch.full((2, 6, 6), 1 / 6)
    orders = FIGURE_ORDER.repeat(2, 1)
    assert permutation_loss(prediction, orders, form).item() == pytest.approx(uniform, abs=1e-5)
    assert permutation_loss(order_matrix(orders), orders, form).item() == pytest.approx(0, abs=1e-6)


def test_a_row_that_is_surely_wrong_adds_two() -> None:
    swapped = order_matrix(FIGURE_ORDER).clone()
    swapped[0, [0, 1]] = swapped[0, [1, 0]]
    assert permutation_loss(swapped, FIGURE_ORDER).item() == pytest.approx(4.0)


def test_accuracy_counts_the_assignment_and_not_its_transpose() -> None:
    order = torch.tensor([[1, 2, 0]])
    right, exact = permutation_accuracy(order_matrix(order), order)
    assert (right.item(), exact.item()) == (1, 1)
    right, exact = permutation_accuracy(order_matrix(order).transpose(1, 2), order)
    assert (right.item(), exact.item()) == (0, 0)


def test_gumbel_noise_has_the_mean_of_the_distribution() -> None:
    noise = gumbel_noise((200_000,), torch.Generator().manual_seed(4))
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.01)
