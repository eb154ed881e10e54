"""Losses of PF-MGCD over K stripes: identity, graph distillation, orthogonality, modality. Each is a mean over stripes.

*Source*: README and first release of PF-MGCD; soft labels and their weights carry no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax, normalize

from gloam.losses.triplet import pairwise_distances
from gloam.precision import at_least_float32


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
    """Cross-entropy of ``(n, K, 2)`` modality logits: not adversarial, the modality feature shall name the modality."""
    return part_identity_loss(logits, modalities, label_smoothing=0.0)


def known_pairs_triplet(
    features: Tensor, own: Tensor, shared: Tensor, visible: Tensor, *, margin: float = 0.3
) -> Tensor:
    """Batch-hard triplet over the pairs whose relation is known.

    *Source*: triplet of PF-MGCD's later versions (docs/methods/pf_mgcd.md). Inside a modality its own labels decide; a
    visible and an infrared image are compared only if both have a label in the shared space, because an unmatched
    infrared identity may be any of the visible ones. Anchors without a positive other than themselves, or without a
    negative, are left out.

    Args:
        features: ``(n, D)`` unit rows.
        own: ``(n,)`` labels inside each modality.
        shared: ``(n,)`` labels in the space that both share, -1 where unknown.
        visible: ``(n,)`` bool.
        margin: hinge offset.

    Returns:
        Scalar; 0 if no anchor is left.
    """
    alike = visible[:, None] == visible[None, :]
    known = shared >= 0
    compared = alike | (known[:, None] & known[None, :])
    same = torch.where(alike, own[:, None] == own[None, :], shared[:, None] == shared[None, :]) & compared
    positives = same & ~torch.eye(len(own), dtype=torch.bool, device=own.device)
    negatives = compared & ~same
    anchors = positives.any(dim=1) & negatives.any(dim=1)
    if not bool(anchors.any()):
        return features.sum() * 0
    distances = pairwise_distances(features)[anchors]
    far = distances.masked_fill(~positives[anchors], -torch.inf).amax(dim=1)
    near = distances.masked_fill(~negatives[anchors], torch.inf).amin(dim=1)
    return (far - near + margin).clamp_min(0).mean()
