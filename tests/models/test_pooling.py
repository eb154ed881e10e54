"""Poolings by hand: which values count, where the epsilons stand."""

from __future__ import annotations

import pytest
import torch

from gloam.errors import GloamError
from gloam.models.multi_view_attention import MultiViewAttention
from gloam.models.pooling import GeM, create_pooling

# One image; channels: mixed signs, zero, negative.
MAPS = torch.tensor([[[[2.0, 4.0], [0.0, -1.0]], [[0.0, 0.0], [0.0, 0.0]], [[-3.0, -1.0], [-2.0, -2.0]]]]).double()


def test_average_and_maximum() -> None:
    assert create_pooling("avg")(MAPS).tolist() == [[1.25, 0.0, -2.0]]
    assert create_pooling("max")(MAPS).tolist() == [[4.0, 0.0, -1.0]]


def test_the_learnable_mean_clamps_at_a_millionth() -> None:
    """``(mean max(x, 1e-6)^p)^(1/p)``: a channel without activation gives exactly the floor, a negative one too."""
    pool = create_pooling("gem_learnable").double()
    assert pool(MAPS)[0].tolist() == pytest.approx([((8 + 64) / 4) ** (1 / 3), 1e-6, 1e-6], rel=1e-9)
    with torch.no_grad():
        pool.p.fill_(2.0)  # type: ignore[union-attr]
    assert pool(MAPS)[0].tolist() == pytest.approx([(20 / 4) ** 0.5, 1e-6, 1e-6], rel=1e-9)


def test_the_fixed_mean_adds_its_epsilon_under_the_root() -> None:
    """``(mean x^3 + 1e-12)^(1/3)`` as released: no activation gives 1e-4, a negative entry counts as 0."""
    pool = create_pooling("gem").double()
    assert pool(MAPS[:, :2])[0].tolist() == pytest.approx([(72 / 4 + 1e-12) ** (1 / 3), 1e-4], rel=1e-9)
    assert GeM(exponent=2.0)(MAPS[:, :2])[0].tolist() == pytest.approx([(20 / 4) ** 0.5, 1e-6], rel=1e-6)


@pytest.mark.parametrize("name", ["gem", "gem_learnable"])
def test_a_dark_channel_has_a_finite_gradient(name: str) -> None:
    maps = torch.zeros(2, 3, 4, 2, requires_grad=True)
    pool = create_pooling(name)
    pool(maps).sum().backward()
    assert torch.isfinite(maps.grad).all()  # type: ignore[arg-type]
    assert all(torch.isfinite(p.grad).all() for p in pool.parameters())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["gem", "gem_learnable"])
def test_cubes_beyond_half_precision_stay_finite(name: str) -> None:
    maps = torch.full((1, 2, 2, 2), 3e4, dtype=torch.float16)
    assert create_pooling(name)(maps)[0].tolist() == pytest.approx([3e4] * 2, rel=1e-3)


def test_unknown_pooling_names_the_nearest() -> None:
    with pytest.raises(GloamError, match="gem_learnable"):
        create_pooling("gem_learned")


def test_frames_under_a_mask_add_the_epsilon_under_the_root_too() -> None:
    """``(mean (m x)^3 + 1e-12)^(1/3)`` with m = 1/2: dark and negative channels give 1e-4."""
    attention = MultiViewAttention(3, heads=1).double()
    for view in (attention.view_attention_hw, attention.view_attention_tw, attention.view_attention_th):
        torch.nn.init.zeros_(view.weight)
    pooled, _ = attention(MAPS, clip_length=1)
    expected = [((8 + 64) / 8 / 4 + 1e-12) ** (1 / 3), 1e-4, 1e-4]
    assert pooled[0].tolist() == pytest.approx(expected * 3, rel=1e-9)
