"""Losses of PF-MGCD over K stripes: identity, graph distillation, orthogonality, modality. Each is a mean over stripes.

*Source*: README and first release of PF-MGCD; soft labels and their weights carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from gloam.losses.precision import at_least_float32


def part_identity_loss(logits: Tensor, labels: Tensor, label_smoothing: float = 0.1) -> Tensor:
    """Cross-entropy averaged over images and stripes.

    Args:
        logits: ``(n, K, N)``.
        labels: ``(n,)`` int64; every stripe of an image has the image's label.
        label_smoothing: mass spread uniformly over all classes, the true one included.

    Returns:
        Scalar; 0 for an empty selection.
    """
    if len(logits) == 0:
        return logits.sum() * 0
    targets = labels[:, None].expand(logits.shape[:2])
    return cross_entropy(at_least_float32(logits.flatten(0, 1)), targets.flatten(), label_smoothing=label_smoothing)


def graph_distillation_loss(logits: Tensor, soft_labels: Tensor, weights: Tensor) -> Tensor:
    """Weighted KL divergence from the propagated soft labels to the student.

    Args:
        logits: ``(n, K, N)`` student logits, no temperature.
        soft_labels: ``(n, K, N)`` probabilities, zero outside their neighbours.
        weights: ``(n, K)`` confidence with mean 1 over the batch.

    Returns:
        Scalar >= 0 for non-negative weights.
    """
    log_p = log_softmax(at_least_float32(logits), dim=2)
    q = soft_labels.detach().to(log_p.dtype)
    # A class without soft mass contributes 0 even where the student's log-probability is -inf.
    cross = torch.where(q > 0, q * log_p, torch.zeros_like(q))
    divergence: Tensor = (torch.special.xlogy(q, q) - cross).sum(dim=2)
    return (weights.detach() * divergence).mean()


def orthogonality_loss(identity: Tensor, modality: Tensor) -> Tensor:
    """Mean squared cosine between identity and modality features ``(n, K, D)``; 0 when they share nothing."""
    first, second = (normalize(at_least_float32(x), dim=2, eps=1e-12) for x in (identity, modality))
    return (first * second).sum(dim=2).square().mean()


def part_modality_loss(logits: Tensor, modalities: Tensor) -> Tensor:
    """Cross-entropy of ``(n, K, 2)`` modality logits: not adversarial, the modality feature shall carry the light."""
    return part_identity_loss(logits, modalities, label_smoothing=0.0)
