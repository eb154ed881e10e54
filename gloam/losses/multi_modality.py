"""Losses of M3-ReID: multi-modality alignment (MMA) and the separation loss behind OFR and DAC.

*Source*: release of M3-ReID (Liang et al., IEEE TIFS 2025); batches of one modality, one clip or one frame give a
differentiable zero instead of the release's crashes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from gloam.precision import at_least_float32, dot_products


def separation_loss(vectors: Tensor) -> Tensor:
    """Mean squared cosine between different vectors of each group.

    Args:
        vectors: ``(G, Q, D)`` G groups of Q vectors.

    Returns:
        Scalar in [0, 1]; 0 when a group has one vector.
    """
    count = vectors.shape[1]
    if count < 2:
        return vectors.sum() * 0
    squared = _cosines(vectors).square()
    off_diagonal = squared.sum(dim=(1, 2)) - squared.diagonal(dim1=1, dim2=2).sum(dim=1)
    return off_diagonal.mean() / (count * (count - 1))


def multi_modality_alignment(embeddings: Tensor, labels: Tensor, modalities: Tensor) -> Tensor:
    """Soft-margin comparison of the mean cross-modality distances to the own id and to all others.

    Args:
        embeddings: ``(n, D)``.
        labels: ``(n,)`` ids.
        modalities: ``(n,)``; any number of modalities.

    Returns:
        Scalar in [0.3133, 1.3133] (ln 2 at chance); 0 when no row has both a match and a non-match in other modalities.
    """
    distance = (1 - _cosines(embeddings)) / 2
    other = modalities[:, None] != modalities[None, :]
    positive = other & (labels[:, None] == labels[None, :])
    negative = other & ~positive
    valid = positive.any(dim=1) & negative.any(dim=1)
    gap = _masked_mean(distance, negative) - _masked_mean(distance, positive)
    # A modality counts once, however many of its rows are valid; exact weights, because the classes are few.
    shares = torch.stack([valid & (modalities == m) for m in torch.unique(modalities)])
    weights = shares.to(gap.dtype) / shares.sum(dim=1, keepdim=True).clamp_min(1)
    total = (weights * softplus(-gap)).sum(dim=1)
    return total.sum() / shares.any(dim=1).sum().clamp_min(1)


def _cosines(vectors: Tensor) -> Tensor:
    """``(..., n, n)`` cosines between the rows of ``(..., n, D)``."""
    units = normalize(at_least_float32(vectors), dim=-1, eps=1e-8)
    return dot_products(units, units)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Row means over a mask; 0 for an empty row."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1).clamp_min(1)
