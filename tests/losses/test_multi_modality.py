"""MMA, OFR and DAC against loops; the release's crashes give zeros."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gloam.losses.multi_modality import multi_modality_alignment, separation_loss
from tests.oracles import multi_modality as oracle


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [2, 3])
def test_alignment_equals_the_loops(seed: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.standard_normal((11, 4))
    labels, modalities = generator.integers(0, 3, 11), generator.integers(0, count, 11)
    value = multi_modality_alignment(torch.from_numpy(rows), torch.from_numpy(labels), torch.from_numpy(modalities))
    assert value.item() == pytest.approx(oracle.alignment(rows, labels, modalities), abs=1e-9)


@pytest.mark.parametrize("modalities", [[0, 0, 0, 0], [0, 1, 1, 1]])
def test_nothing_to_compare_gives_a_differentiable_zero(modalities: list[int]) -> None:
    rows = torch.randn(4, 3, requires_grad=True)
    value = multi_modality_alignment(rows, torch.zeros(4, dtype=torch.long), torch.tensor(modalities))
    value.backward()
    assert value.item() == 0


def test_range_of_the_alignment_loss() -> None:
    own = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    labels, modalities = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    assert multi_modality_alignment(own, labels, modalities).item() == pytest.approx(math.log1p(math.exp(-1)), abs=1e-6)
    assert multi_modality_alignment(own[[0, 2, 2, 0]], labels, modalities).item() == pytest.approx(
        math.log1p(math.e), abs=1e-6
    )
    assert multi_modality_alignment(torch.ones(4, 2), labels, modalities).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 1, 5), (1, 2, 3)])
def test_separation_equals_the_loops(shape: tuple[int, int, int]) -> None:
    groups = np.random.default_rng(0).standard_normal(shape)
    assert separation_loss(torch.from_numpy(groups)).item() == pytest.approx(oracle.separation(groups), abs=1e-9)


def test_gradients_equal_finite_differences() -> None:
    rows = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels, modalities = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda x: multi_modality_alignment(x, labels, modalities), rows)
    assert torch.autograd.gradcheck(lambda x: separation_loss(x.reshape(2, 3, 3)), rows)


def test_autocast_leaves_cosines_in_full_precision() -> None:
    rows = torch.randn(12, 64, generator=torch.Generator().manual_seed(0)) + 1
    labels, modalities = torch.arange(12) // 4, torch.arange(12) % 2

    def losses() -> list[torch.Tensor]:
        return [multi_modality_alignment(rows, labels, modalities), separation_loss(rows.reshape(4, 3, 64))]

    expected = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses()
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
