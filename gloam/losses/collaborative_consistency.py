"""Losses of the second phase of WSL-VIReID: asymmetric experts, strong and weak cross-modality identities.

*Source*: Zhang et al., "Weakly Supervised Visible-Infrared Person Re-Identification via Heterogeneous Expert
Collaborative Consistency Learning", ICCV 2025, and its release, with 0 log 0 = 0 and tests for empty selections instead
of NaN checks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from gloam.precision import at_least_float32


def prediction_entropy(logits: Tensor) -> Tensor:
    """Mean over samples and classes of ``-p log2 p``; a scalar without gradient that weighs an expert's doubt."""
    p = at_least_float32(logits.detach()).softmax(dim=1)
    entropy: Tensor = -torch.special.xlogy(p, p).mean() / math.log(2)
    return entropy


def expert_agreement(logits: Tensor, prototype_logits: Tensor) -> Tensor:
    """Mean squared difference between an expert's logits of samples and of their partners' prototypes, both ``(n, N)``.

    0 for an empty selection.
    """
    if len(logits) == 0:
        return logits.sum() * 0
    return (at_least_float32(logits) - at_least_float32(prototype_logits)).square().mean()


def weak_identity_loss(logits: Tensor, doubtful: Tensor) -> Tensor:
    """Push down the classes that are less likely than a doubtful partner.

    Args:
        logits: ``(n, R)`` shared-classifier logits of visible samples.
        doubtful: ``(n, R)`` bool, contradictory partners of each sample's identity; rows without any are ignored.

    Returns:
        Scalar: mean over the samples that have a doubtful partner of the sum over classes j with p_j below the least
        likely doubtful partner of ``-log(1 - p_j + 1e-10)``. 0 if there is no such sample. The choice of classes has no
        gradient.
    """
    rows = doubtful.any(dim=1)
    if not bool(rows.any()):
        return logits.sum() * 0
    p = log_softmax(at_least_float32(logits[rows]), dim=1).exp()
    threshold = p.detach().masked_fill(~doubtful[rows], torch.inf).amin(dim=1, keepdim=True)
    below = p.detach() < threshold
    return torch.where(below, -torch.log(1 - p + 1e-10), torch.zeros_like(p)).sum(dim=1).mean()
