"""Mixed memories of MetaPRD at their borders: own classes, outliers, several negatives of one class."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from gloam.losses.pair_distillation import mix_memory, positive_pair_alignment, positives_or_cluster
from gloam.models.memory import cluster_means


def _rows(seed: int, count: int) -> torch.Tensor:
    return normalize(torch.randn(count, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def _step(row: torch.Tensor, new: torch.Tensor, rate: float) -> torch.Tensor:
    return normalize(rate * new + (1 - rate) * row, dim=0)


def test_negatives_of_the_own_class_and_outliers_move_nothing() -> None:
    memory, positives, negatives = _rows(0, 3), _rows(1, 2), _rows(2, 4)
    labels = torch.tensor([0, 2])
    classes = torch.tensor([0, 1, 3, 7])  # own class of sample 0; another; outliers
    whose = torch.tensor([[True, True, True, True], [False, False, False, True]])
    mixed = mix_memory(memory, labels, positives, negatives, whose, classes, rate=0.3)
    torch.testing.assert_close(mixed[0], _step(memory[0], positives[0], 0.3))
    torch.testing.assert_close(mixed[1], _step(memory[1], negatives[1], 0.3))
    torch.testing.assert_close(mixed[2], _step(memory[2], positives[1], 0.3))


def test_a_row_takes_its_vectors_in_the_order_of_the_samples() -> None:
    """Class 1 takes a negative of sample 0, the positive of sample 1, a negative of sample 2."""
    memory, positives, negatives = _rows(0, 2), _rows(1, 3), _rows(2, 2)
    whose = torch.tensor([[True, False], [False, False], [False, True]])
    mixed = mix_memory(memory, torch.tensor([0, 1, 0]), positives, negatives, whose, torch.tensor([1, 1]), rate=0.4)
    row = memory[1]
    for new in (negatives[0], positives[1], negatives[1]):
        row = _step(row, new, 0.4)
    torch.testing.assert_close(mixed[1], row)
    torch.testing.assert_close(mixed[0], _step(_step(memory[0], positives[0], 0.4), positives[2], 0.4))


def test_the_alignment_divides_by_its_temperature() -> None:
    first, second, memory = _rows(3, 4), _rows(4, 4), _rows(5, 3)
    for temperature in (0.05, 0.5):
        p, q = ((x @ memory.T / temperature).softmax(1) for x in (first, second))
        expected = (p * (p.log() - q.log())).sum(1).mean()
        found = positive_pair_alignment(first, second, memory, memory, temperature)
        torch.testing.assert_close(found, expected)


def test_the_slip_takes_the_cluster_of_the_image_before_and_wraps_around() -> None:
    current = torch.tensor([0, 1, 1, 2])
    nothing = torch.zeros(2, 4, dtype=torch.bool)
    found = positives_or_cluster(nothing, current, torch.tensor([0, 2]), from_previous_image=True)
    assert found.tolist() == [[False, False, False, True], [False, True, True, False]]


def test_means_of_clusters_have_unit_length() -> None:
    features, labels = _rows(6, 8) * 3, torch.tensor([0, 0, 0, 1, 1, -1, 3, 3])
    means = cluster_means(features, labels)
    torch.testing.assert_close(means[[0, 1, 3]].norm(dim=1), torch.ones(3, dtype=torch.float64))
    assert means[2].tolist() == [0.0] * 5  # nobody carries label 2
    torch.testing.assert_close(means[0], normalize((features[:3] / 3).mean(0), dim=0))
