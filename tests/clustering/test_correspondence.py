"""Matching of identities between modalities: against loops, and the properties that the specification lists."""

from __future__ import annotations

import pytest
import torch

from gloam.clustering.correspondence import (
    correspondence_quality,
    count_priority_selection,
    mutual_assignment,
    relate,
    sinkhorn_assignment,
)
from tests.oracles import correspondence as oracle


def _random_map(size: int, others: int, generator: torch.Generator) -> torch.Tensor:
    partner = torch.randperm(max(size, others), generator=generator)[:size]
    return torch.where((partner < others) & (torch.rand(size, generator=generator) < 0.7), partner, -1)


def _pairs(matrix: torch.Tensor) -> set[tuple[int, int]]:
    return {tuple(pair) for pair in torch.nonzero(matrix).tolist()}


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [3, 1000])
def test_count_priority_equals_the_loops_also_with_ties(seed: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (40, 6), generator=generator).double() / levels
    labels = torch.randint(7, (40,), generator=generator)
    result = count_priority_selection(scores, labels, 7)
    assert result.tolist() == oracle.count_priority(scores.tolist(), labels.tolist(), 7)


def test_perfect_experts_find_the_true_permutation() -> None:
    truth = torch.tensor([2, 0, 3, 1])
    labels = torch.arange(4).repeat_interleave(3)
    forward = count_priority_selection(torch.eye(4)[truth[labels]], labels, 4)
    backward = count_priority_selection(torch.eye(4)[truth.argsort()[labels]], labels, 4)
    relations = relate(forward, backward)
    assert _pairs(relations.consistent) == {(v, int(r)) for v, r in enumerate(truth)}
    assert not relations.single.any()
    assert not relations.contradictory.any()
    assert correspondence_quality(torch.arange(4), forward, truth) == {"precision": 1.0, "recall": 1.0, "count": 4.0}


def test_uniform_experts_still_give_injective_maps() -> None:
    partner = count_priority_selection(torch.full((20, 5), 0.2), torch.arange(20) % 5, 5)
    known = partner[partner >= 0]
    assert len(known) == len(known.unique())


@pytest.mark.parametrize("seed", range(10))
def test_paper_relations_equal_the_sets_and_add_up(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    forward, backward = _random_map(6, 7, generator), _random_map(7, 6, generator)
    relations = relate(forward, backward)
    consistent, single, contradictory = oracle.relations(forward.tolist(), backward.tolist())
    assert _pairs(relations.consistent) == consistent
    assert _pairs(relations.single) == single
    assert _pairs(relations.contradictory) == contradictory
    trusted = (relations.consistent | relations.single).int()
    assert trusted.sum(0).max() <= 1
    assert trusted.sum(1).max() <= 1
    total = 2 * relations.consistent.int() + relations.single.int() + relations.contradictory.int()
    assert total.sum().item() == (forward >= 0).sum().item() + (backward >= 0).sum().item()


def _renamed(forward: torch.Tensor, backward: torch.Tensor, rule: str) -> bool:
    """Whether renaming the infrared ids only renames the relations."""
    order = torch.tensor([3, 0, 2, 1, 4])
    renamed_forward = torch.where(forward >= 0, order[forward.clamp_min(0)], -1)
    renamed_backward = torch.empty_like(backward)
    renamed_backward[order] = backward
    before, after = relate(forward, backward, rule), relate(renamed_forward, renamed_backward, rule)
    return all(
        torch.equal(getattr(after, kind)[:, order], getattr(before, kind))
        for kind in ("consistent", "single", "contradictory")
    )


def test_paper_rule_does_not_depend_on_names_and_the_released_rule_does() -> None:
    outcomes: dict[str, list[bool]] = {"paper": [], "released": []}
    for seed in range(40):
        generator = torch.Generator().manual_seed(seed)
        maps = _random_map(5, 5, generator), _random_map(5, 5, generator)
        for rule, results in outcomes.items():
            results.append(_renamed(*maps, rule))
    assert all(outcomes["paper"])
    assert not all(outcomes["released"])


def test_mutual_assignment_is_injective_and_breaks_ties_by_index() -> None:
    votes = torch.tensor([[0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])
    assert mutual_assignment(votes).tolist() == [-1, 0, -1]
    assert mutual_assignment(torch.tensor([[0.5, 0.5], [0.5, 0.5]])).tolist() == [0, -1]


def test_sinkhorn_finds_a_hidden_permutation() -> None:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(12, 16, generator=generator)
    truth = torch.randperm(12, generator=generator)
    noisy = prototypes[truth.argsort()] + 0.1 * torch.randn(12, 16, generator=generator)
    forward, backward = sinkhorn_assignment(prototypes, noisy)
    assert forward.tolist() == truth.tolist()
    assert backward.tolist() == truth.argsort().tolist()


def test_quality_counts_missing_partners() -> None:
    truth = torch.tensor([1, 0, 2, -1])
    # Visible 3 has no partner, 9 does not exist; the repeated pair counts once.
    quality = correspondence_quality(torch.tensor([0, 0, 2, 3, 9]), torch.tensor([1, 1, 0, 2, 2]), truth)
    assert quality == {"precision": pytest.approx(1 / 4), "recall": pytest.approx(1 / 3), "count": 4.0}
    nothing = torch.zeros(0, dtype=torch.int64)
    assert correspondence_quality(nothing, nothing, truth) == {"precision": 1.0, "recall": 0.0, "count": 0.0}
    assert correspondence_quality(torch.tensor([0]), torch.tensor([1]), None) == {"count": 1.0}


def test_without_images_nobody_is_matched() -> None:
    assert count_priority_selection(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), 2).tolist() == [-1, -1]


def test_sinkhorn_leaves_identities_without_images_alone() -> None:
    visible = torch.tensor([[1.0, 0, 0], [0, 0, 0], [0, 0, 1]])
    infrared = torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 0, 0]])
    forward, backward = sinkhorn_assignment(visible, infrared)
    assert forward.tolist() == [2, -1, 0]
    assert backward.tolist() == [2, -1, 0]
