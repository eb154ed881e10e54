"""Part-aware cycle-contrastive loss against its loop form and the reference values of the specification."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from gloam.losses.cycle_contrastive import cycle_contrastive_loss, neighbour_masses, soft_nearest
from tests.oracles import cycle_contrastive as oracle


def _features(batch: int = 4, parts: int = 3, width: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    visible, infrared = torch.randn(2, batch, parts, width, generator=generator, dtype=torch.float64)
    orders = torch.rand(batch, parts, generator=generator).argsort(1)
    return visible, infrared, orders


@pytest.mark.parametrize(
    ("scope", "target", "negatives", "center"),
    list(itertools.product(("pair", "batch"), ("soft", "raw"), ("all", "img", "part"), (False, True))),
)
@pytest.mark.parametrize("temperature", [0.07, 0.5])
@pytest.mark.parametrize("shared", [True, False])
def test_equals_the_loop_form(
    scope: str, target: str, negatives: str, center: bool, temperature: float, shared: bool
) -> None:
    visible, infrared, orders = _features()
    other = orders if shared else orders.flip(0, 1)
    value = cycle_contrastive_loss(
        visible,
        infrared,
        temperature=temperature,
        scope=scope,
        target=target,
        negatives=negatives,
        center=center,
        orders=orders,
        infrared_orders=None if shared else other,
    )
    arrays = (visible.numpy(), infrared.numpy())
    expected = oracle.cycle_contrastive(
        *arrays, temperature, scope, target, negatives, center, orders.numpy(), other.numpy()
    )
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_the_soft_neighbour_is_the_weighted_mean_on_the_unit_sphere() -> None:
    keys = torch.eye(2, dtype=torch.float64)
    found = soft_nearest(keys[:1], keys, temperature=0.5)
    # Weights 1 / (1 + e^-2) and its rest, a ratio of e^2.
    length = math.hypot(1, math.exp(-2))
    torch.testing.assert_close(found, torch.tensor([[1 / length, math.exp(-2) / length]], dtype=torch.float64))
    only = soft_nearest(keys[:1], keys, 0.5, allowed=torch.tensor([[False, True]]))
    torch.testing.assert_close(only, keys[1:])


def test_masses_equal_their_loop_form_and_tell_the_part_from_the_place() -> None:
    visible, infrared, orders = _features()
    other = orders.flip(0, 1)
    found = neighbour_masses(visible, infrared, orders, other, temperature=0.3)
    expected = oracle.neighbour_masses(visible.numpy(), infrared.numpy(), 0.3, orders.numpy(), other.numpy())
    assert [mass.item() for mass in found] == pytest.approx(expected, rel=1e-9)
    everywhere = torch.ones(4, 3, 5)
    assert [mass.item() for mass in neighbour_masses(everywhere, everywhere, orders)] == pytest.approx([1 / 3, 1 / 3])
    part, _ = neighbour_masses(torch.eye(3)[orders], torch.eye(3)[other], orders, other)
    assert part.item() == pytest.approx(1, abs=1e-5)
    by_place = torch.eye(3).expand(4, 3, 3)
    assert neighbour_masses(by_place, by_place, orders)[1].item() == pytest.approx(1, abs=1e-5)


def test_equal_features_give_log_of_all_stripes() -> None:
    same = torch.ones(32, 6, 8, dtype=torch.float64)
    assert cycle_contrastive_loss(same, same).item() == pytest.approx(math.log(192), abs=1e-9)


def test_the_same_parts_in_every_image_give_log_of_the_batch() -> None:
    parts = torch.eye(6, dtype=torch.float64).expand(32, 6, 6)
    assert cycle_contrastive_loss(parts, parts).item() == pytest.approx(math.log(32), abs=1e-4)


def test_orthonormal_stripes_that_agree_across_modalities_give_zero() -> None:
    stripes = torch.eye(24, dtype=torch.float64).reshape(4, 6, 24)
    assert cycle_contrastive_loss(stripes, stripes).item() == pytest.approx(0, abs=1e-4)


def test_symmetries() -> None:
    visible, infrared, _ = _features()
    base = cycle_contrastive_loss(visible, infrared)
    torch.testing.assert_close(cycle_contrastive_loss(infrared, visible), base)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(cycle_contrastive_loss(visible[order], infrared[order]), base)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64))[0]
    torch.testing.assert_close(cycle_contrastive_loss(visible @ rotation, infrared @ rotation), base)


def test_gradient_flows_to_both_modalities() -> None:
    visible, infrared, _ = (x.requires_grad_() if x.is_floating_point() else x for x in _features())
    cycle_contrastive_loss(visible, infrared).backward()
    assert visible.grad.abs().sum() > 0
    assert infrared.grad.abs().sum() > 0


def test_bad_arguments_are_named() -> None:
    visible, infrared, _ = _features()
    with pytest.raises(ValueError, match="equally many"):
        cycle_contrastive_loss(visible, infrared[:2])
    with pytest.raises(ValueError, match="orders"):
        cycle_contrastive_loss(visible, infrared, negatives="part")
