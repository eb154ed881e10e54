"""Softmax over a memory: ClusterNCE (Cluster Contrast) and the hybrid memory loss (SpCL)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from gloam.precision import at_least_float32, dot_products


def cluster_nce_loss(features: Tensor, memory: Tensor, labels: Tensor, temperature: float = 0.05) -> Tensor:
    """Cross-entropy of the cosines to all cluster prototypes.

    *Source*: ``clustercontrast/models/cm.py`` of the Cluster Contrast release; features are normalised here too, so the
    gradient is tangent to the sphere.

    Args:
        features: ``(B, D)``.
        memory: ``(C, D)`` unit rows, without gradient.
        labels: ``(B,)`` 0..C-1.
        temperature: tau.
    """
    units = normalize(at_least_float32(features), dim=1, eps=1e-12)
    return cross_entropy(dot_products(units, memory.detach()) / temperature, labels)


def hybrid_memory_loss(
    features: Tensor, bank: Tensor, bank_labels: Tensor, labels: Tensor, temperature: float = 0.05
) -> Tensor:
    """Softmax over classes of the MEAN similarity to their instances, outliers being classes of one.

    *Source*: ``spcl/models/hm.py`` of the SpCL release. ``-log(e^s_y / (sum e^s + 1e-6) + 1e-6)``, evaluated without
    overflow.

    Args:
        features: ``(B, D)``.
        bank: ``(N, D)`` unit rows, without gradient.
        bank_labels: ``(N,)`` class 0..L-1 of every instance.
        labels: ``(B,)`` classes of the batch.
        temperature: tau.
    """
    units = normalize(at_least_float32(features), dim=1, eps=1e-12)
    # The mean of similarities is the similarity to the mean: (L, D) instead of (B, N).
    count = int(bank_labels.max()) + 1
    sums = bank.new_zeros(count, bank.shape[1]).index_add_(0, bank_labels, bank.detach())
    sizes = torch.bincount(bank_labels, minlength=count)
    means = (sums / sizes.clamp_min(1)[:, None]).to(units.dtype)
    scores = dot_products(units, means) / temperature
    scores = scores.masked_fill(sizes == 0, -torch.inf)
    # log(sum e^s + 1e-6)
    small = scores.new_full((len(scores), 1), 1e-6).log()
    total = torch.cat([scores, small], dim=1).logsumexp(dim=1)
    own = scores.gather(1, labels[:, None]).squeeze(1)
    return -((own - total).exp() + 1e-6).log().mean()
