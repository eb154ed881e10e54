"""Graph-smoothed guesses: a dense slow form, safe corners, the ramp, and what they do to the matching."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gloam.models.consensus_propagation import affinity_graph, consensus_share, propagate_consensus


def _dense(features: Tensor, neighbours: int) -> Tensor:
    """The graph from its definition, one pair at a time, in float64."""
    count = len(features)
    x = features.double()
    cosine = torch.zeros(count, count, dtype=torch.float64)
    for i in range(count):
        for j in range(count):
            lengths = x[i].norm() * x[j].norm()
            cosine[i, j] = x[i] @ x[j] / lengths if lengths > 0 else 0
    graph = torch.zeros_like(cosine)
    for i in range(count):
        order = sorted((j for j in range(count) if j != i), key=lambda j: -float(cosine[i, j]))
        for j in order[: neighbours - 1]:
            weight = max(float(cosine[i, j]), 0) / 2
            graph[i, j] += weight
            graph[j, i] += weight
    graph += torch.eye(count)
    degree = graph.sum(dim=1)
    return graph / (degree[:, None] * degree[None, :]).sqrt()


def test_equals_the_definition() -> None:
    features = torch.randn(40, 6) + 0.3
    graph = affinity_graph(features, 5).to_dense()
    torch.testing.assert_close(graph, _dense(features, 5).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(graph, graph.T)
    scores = torch.rand(40, 7)
    expected = 0.7 * scores + 0.3 * graph @ scores
    torch.testing.assert_close(propagate_consensus(scores, features, 0.3), expected)


def test_opposite_zero_and_repeated_features_give_numbers() -> None:
    # Two opposite clusters with fewer members than neighbours, copies, and a feature that is zero.
    features = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0], [0, 0]])
    graph = affinity_graph(features, 5).to_dense()
    assert torch.isfinite(graph).all()
    assert (graph >= 0).all()
    expected = torch.zeros(5, 5)
    expected[:2, :2] = expected[2:4, 2:4] = 0.5
    expected[4, 4] = 1
    torch.testing.assert_close(graph, expected)
    assert torch.equal(affinity_graph(features[:1], 5).to_dense(), torch.ones(1, 1))


def test_no_share_is_no_change_and_one_neighbour_is_itself() -> None:
    scores, features = torch.rand(6, 3), torch.randn(6, 4)
    assert propagate_consensus(scores, features, 0.0) is scores
    torch.testing.assert_close(propagate_consensus(scores, features, 0.3, neighbours=1), scores)
    assert propagate_consensus(scores[:0], features[:0], 0.3).shape == (0, 3)


def test_the_order_of_images_does_not_matter() -> None:
    scores, features, order = torch.rand(20, 3), torch.randn(20, 4), torch.randperm(20)
    plain = propagate_consensus(scores, features, 0.3)
    torch.testing.assert_close(propagate_consensus(scores[order], features[order], 0.3), plain[order])


def test_ramp_of_the_derivative() -> None:
    shares = [consensus_share(epoch, 0.3) for epoch in (0, 9, 10, 11, 15, 20, 90)]
    assert shares == pytest.approx([0, 0, 0, 0.03, 0.15, 0.3, 0.3])


def test_neighbours_outvote_one_confident_error() -> None:
    features = torch.tensor([[1.0, 0.0]]).repeat(5, 1)
    scores = torch.tensor([[0.7, 0.3]] * 4 + [[0.05, 0.95]])
    assert propagate_consensus(scores, features, 0.0)[4].argmax() == 1
    assert propagate_consensus(scores, features, 1.0)[4].argmax() == 0
