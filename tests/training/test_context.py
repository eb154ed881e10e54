"""What a method may see and report at the start of an epoch."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from gloam.methods import create_method
from gloam.training.context import TrainingContext, mix_seed, pseudo_label_quality


def _context(**changes: Any) -> TrainingContext:
    options: dict[str, Any] = {
        "stage": "train",
        "epoch": 2,
        "num_epochs": 5,
        "labels": torch.arange(6),
        "modalities": torch.zeros(6, dtype=torch.int64),
        "cams": torch.zeros(6, dtype=torch.int64),
        "seed": 3,
        "extract": lambda function, rows: torch.zeros(6, 2),
        "score_labels": lambda labels: pseudo_label_quality(labels, torch.tensor([0, 0, 0, 1, 1, 2])),
        "partners": torch.tensor([2, 0, -1]),
    }
    return TrainingContext(create_method("base", 3, arch="tiny"), **(options | changes))


def test_draws_depend_on_seed_stage_and_epoch_only() -> None:
    def draw(**changes: Any) -> Tensor:
        return torch.rand(4, generator=_context(**changes).generator)

    assert torch.equal(draw(), draw(num_epochs=9))
    assert not torch.equal(draw(), draw(epoch=3))
    assert not torch.equal(draw(), draw(seed=4))
    assert not torch.equal(draw(), draw(stage="other"))
    assert mix_seed(0, "train", 1) == mix_seed(0, "train", 1) < 2**63


def test_labels_are_replaced_as_a_whole() -> None:
    context = _context()
    context.set_labels(torch.tensor([0, 0, 1, 1, -1, -1], dtype=torch.int32))
    assert context.labels.dtype == torch.int64
    assert context.labels.tolist() == [0, 0, 1, 1, -1, -1]
    with pytest.raises(ValueError, match="6 samples"):
        context.set_labels(torch.zeros(5))


@pytest.mark.parametrize("seed", range(4))
def test_pair_f_score_counts_pairs_of_clustered_samples(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 4, (30,), generator=generator)
    labels = torch.randint(-1, 5, (30,), generator=generator)
    kept = [i for i in range(30) if labels[i] >= 0]
    both = found = true = 0
    for i, j in combinations(kept, 2):
        together, same = bool(labels[i] == labels[j]), bool(truth[i] == truth[j])
        both, found, true = both + (together and same), found + together, true + same
    quality = pseudo_label_quality(labels, truth)
    assert quality["pair_f"] == pytest.approx(2 * both / (found + true))
    assert quality["outliers"] == 30 - len(kept)
    assert quality["clusters"] == len({int(labels[i]) for i in kept})


def test_perfect_labels_score_one_whatever_their_names() -> None:
    quality = pseudo_label_quality(torch.tensor([7, 7, 2, 2, 5]), torch.tensor([0, 0, 1, 1, 2]))
    assert (quality["nmi"], quality["ari"], quality["pair_f"]) == pytest.approx((1, 1, 1))
    assert pseudo_label_quality(torch.full((3,), -1), torch.arange(3)) == {"clusters": 0.0, "outliers": 3.0}


def test_reports_become_numbers_of_the_epoch() -> None:
    context = _context()
    context.report_pseudo_labels(torch.tensor([0, 0, 0, 1, 1, -1]))
    context.report_correspondence(torch.tensor([0, 1, 1]), torch.tensor([2, 1, 0]), "pair")
    assert context.logged["pseudo_labels_nmi"] == pytest.approx(1)
    assert context.logged["pair_precision"] == pytest.approx(2 / 3)
    assert context.logged["pair_recall"] == pytest.approx(1)
    assert context.logged["pair_count"] == 3


def test_without_weak_labels_only_the_number_of_pairs_is_known() -> None:
    context = _context(partners=None)
    context.report_correspondence(torch.tensor([0]), torch.tensor([1]))
    assert context.logged == {"match_count": 1.0}


def test_no_attribute_hands_out_the_hidden_truth() -> None:
    truth, partners = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([2, 0, -1])
    context = _context(score_labels=lambda labels: pseudo_label_quality(labels, truth), partners=partners)
    reachable = [value for value in vars(context).values() if isinstance(value, Tensor)]
    assert len(reachable) == 3
    assert not any(value.shape == truth.shape and torch.equal(value, truth) for value in reachable)
    assert not any(value.shape == partners.shape for value in reachable)
