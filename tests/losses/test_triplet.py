"""Triplet losses against loops in float64, and the facts that the specification quantifies."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.errors import GloamError
from gloam.losses.triplet import (
    fraction_correct,
    hard_triplet,
    mine_hard,
    pairwise_distances,
    soft_margin_triplet,
    squared_difference_triplet,
    weighted_regularized_triplet,
)
from tests.oracles import triplet as oracle


def _batch(seed: int = 0, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(12, 5, generator=generator, dtype=torch.float64), torch.arange(12) % 3


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scale", [0.01, 1.0, 6.0])
def test_values_equal_the_loops(seed: int, scale: float) -> None:
    rows, labels = _batch(seed, scale)
    listed, ids = rows.tolist(), labels.tolist()
    assert hard_triplet(rows, labels, 0.3).item() == pytest.approx(oracle.hard(listed, ids, 0.3), abs=1e-9)
    expected = sum(oracle.softplus(gap) for gap in oracle.hardest_gaps(listed, ids)) / len(ids)
    assert soft_margin_triplet(rows, labels).item() == pytest.approx(expected, abs=1e-9)
    for form in ("reference", "exact"):
        pairs = oracle.weighted(listed, ids, form)
        expected = sum(oracle.softplus(a - b) for a, b in pairs) / len(pairs)
        assert weighted_regularized_triplet(rows, labels, form).item() == pytest.approx(expected, abs=1e-9)
        pairs = oracle.weighted(listed, ids, form, alpha=2.0)
        plain = sum(oracle.softplus(1.5 * (a - b)) for a, b in pairs) / len(pairs)
        squared = sum(oracle.softplus(math.copysign(min(1.5 * (a - b) ** 2, 88), a - b)) for a, b in pairs) / len(pairs)
        options = {"alpha": 2.0, "gamma": 1.5, "form": form}
        assert squared_difference_triplet(rows, labels, square=False, **options).item() == pytest.approx(
            plain, abs=1e-9
        )
        assert squared_difference_triplet(rows, labels, square=True, **options).item() == pytest.approx(
            squared, abs=1e-9
        )


@pytest.mark.parametrize("loss", [hard_triplet, weighted_regularized_triplet, squared_difference_triplet])
def test_gradients_equal_finite_differences(loss) -> None:
    rows, labels = _batch(1)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), rows.requires_grad_())


def test_equal_rows_give_the_margin_and_ln_two() -> None:
    rows, labels = torch.ones(8, 4), torch.arange(8) // 4
    assert hard_triplet(rows, labels).item() == pytest.approx(0.3, abs=1e-5)
    for form in ("reference", "exact"):
        assert weighted_regularized_triplet(rows, labels, form).item() == pytest.approx(math.log(2), abs=1e-5)


def test_one_far_point_per_id_costs_nothing() -> None:
    rows = 10 * torch.eye(3).repeat_interleave(4, 0)
    assert hard_triplet(rows, torch.arange(3).repeat_interleave(4)).item() == 0


def test_the_released_weights_degenerate_at_large_distances_and_the_exact_ones_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) // 8
    for mean, released, exact in ((11.3, 1.602, 1.593), (34, 36.7, 8.29), (112, 123.7, 32.1)):
        rows = torch.randn(64, 2048, generator=generator, dtype=torch.float64) * mean / 64
        close = {form: weighted_regularized_triplet(rows, labels, form).item() for form in ("reference", "exact")}
        # The specification measured other random batches; the regimes must agree.
        assert close["reference"] == pytest.approx(released, rel=0.6)
        assert close["exact"] < exact * 1.6
    assert close["reference"] > 3 * close["exact"]


def test_clamped_squares_have_no_gradient() -> None:
    rows = torch.tensor([[0.0], [30.0], [1.0], [31.0]], dtype=torch.float64, requires_grad=True)
    squared_difference_triplet(rows, torch.tensor([0, 0, 1, 1]), form="exact").backward()
    assert rows.grad is not None
    assert rows.grad.abs().max() < 1e-9


def test_half_precision_is_computed_in_float32() -> None:
    rows, labels = _batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = hard_triplet(rows.float(), labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, hard_triplet(rows.float(), labels))


def test_distances_of_equal_rows_are_a_millionth() -> None:
    assert pairwise_distances(torch.ones(2, 3, dtype=torch.float64)).max().item() == pytest.approx(1e-6)


def test_one_identity_is_an_error_with_a_cure() -> None:
    with pytest.raises(GloamError, match=r"sampler\.identities"):
        hard_triplet(torch.randn(4, 2), torch.zeros(4))


def test_fraction_correct_counts_anchors() -> None:
    rows = torch.tensor([[0.0], [1.0], [10.0], [11.0]])
    assert fraction_correct(*mine_hard(rows, torch.tensor([0, 0, 1, 1]))).item() == 1.0
    assert fraction_correct(*mine_hard(rows, torch.tensor([0, 1, 0, 1]))).item() == 0.0
