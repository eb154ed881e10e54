from __future__ import annotations

import torch
from torch.nn.functional import normalize

from gloam.losses.cluster_nce import cluster_nce_loss, hybrid_memory_loss


def test_cluster_nce_of_one_sample_by_hand() -> None:
    memory = torch.eye(2, dtype=torch.float64)
    feature = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    expected = torch.log1p(torch.exp(torch.tensor((0.8 - 0.6) / 0.05, dtype=torch.float64)))
    torch.testing.assert_close(cluster_nce_loss(feature, memory, torch.tensor([0])), expected)


def test_cluster_nce_gradient_is_tangent_and_stays_out_of_the_memory() -> None:
    feature = normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1).requires_grad_(True)
    memory = torch.eye(8).requires_grad_(True)
    cluster_nce_loss(feature, memory, torch.arange(4)).backward()
    assert memory.grad is None
    assert (feature.grad * feature).sum(1).abs().max() < 1e-5


def test_hybrid_loss_is_the_loop_over_classes() -> None:
    g = torch.Generator().manual_seed(0)
    bank = normalize(torch.randn(20, 6, generator=g, dtype=torch.float64), dim=1)
    labels = torch.randint(0, 9, (20,), generator=g)
    labels[labels == 3] = 4  # a class that does not occur
    x = normalize(torch.randn(5, 6, generator=g, dtype=torch.float64), dim=1)
    targets = labels[torch.tensor([0, 5, 9, 9, 17])]
    expected = 0.0
    for row, target in zip(x, targets, strict=True):
        scores = {c: (bank[labels == c] @ row / 0.05).mean().exp() for c in set(labels.tolist())}
        p = scores[int(target)] / (sum(scores.values()) + 1e-6)
        expected = expected - (p + 1e-6).log() / 5
    torch.testing.assert_close(hybrid_memory_loss(x, bank, labels, targets), expected, rtol=1e-9, atol=1e-9)


def test_autocast_leaves_the_cosines_in_full_precision() -> None:
    g = torch.Generator().manual_seed(1)
    memory, x = (normalize(torch.randn(n, 64, generator=g), dim=1) for n in (30, 8))
    labels = torch.arange(8)
    plain = cluster_nce_loss(x, memory, labels), hybrid_memory_loss(x, memory, torch.arange(30), labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = cluster_nce_loss(x, memory, labels), hybrid_memory_loss(x, memory, torch.arange(30), labels)
    assert plain == mixed
