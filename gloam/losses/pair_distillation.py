"""Hard sample deduction and positive pair alignment of MetaPRD.

*Source*: ``mprd/models/cm.py`` and ``mprd/trainers.py`` of the MetaPRD release; docs/methods/metaprd.md has the
formulas. Deliberate differences: exact gradients, and an image without hard positives falls back to its own cluster
(the release takes the cluster of the image before it in the file list).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gloam.models.memory import occurrences
from gloam.precision import at_least_float32, dot_products


class PairSets(NamedTuple):
    """What changed around every image of a batch.

    Attributes:
        became_positive: ``(B, N)`` bool: same class now, another one in the previous epoch (never the image itself).
        became_negative: ``(B, N)`` bool: same class in the previous epoch, another one now.
    """

    became_positive: Tensor
    became_negative: Tensor


def pair_sets(current: Tensor, previous: Tensor, indices: Tensor) -> PairSets:
    """Compare the pair labels of two epochs.

    Args:
        current: ``(N,)`` classes, every outlier alone.
        previous: ``(N,)`` the same of the previous epoch; only equality means anything.
        indices: ``(B,)``.
    """
    now = current[indices, None] == current
    before = previous[indices, None] == previous
    return PairSets(now & ~before, before & ~now)


def positives_or_cluster(
    became_positive: Tensor, current: Tensor, indices: Tensor, *, from_previous_image: bool = False
) -> Tensor:
    """Hard positives, or the image's whole cluster (itself included) where there are none: ``(B, N)`` bool.

    Args:
        became_positive: ``(B, N)``.
        current: ``(N,)`` classes.
        indices: ``(B,)``.
        from_previous_image: the release's slip: the cluster of image i - 1 instead.
    """
    owners = indices - 1 if from_previous_image else indices
    fallback = current[owners % len(current), None] == current
    return torch.where(became_positive.any(dim=1, keepdim=True), became_positive, fallback)


def draw_one(choices: Tensor, generator: torch.Generator) -> Tensor:
    """One uniformly random True column per row: ``(B, N)`` bool -> ``(B,)``; rows without any give 0."""
    running = choices.cumsum(dim=1, dtype=torch.int32)
    sizes = running[:, -1]
    draws = torch.rand(len(choices), generator=generator, dtype=torch.float64).to(choices.device)
    wanted = (draws * sizes).floor().to(torch.int32) + 1
    return torch.searchsorted(running, wanted[:, None]).squeeze(1).clamp_max(choices.shape[1] - 1)


def hard_sample_deduction(
    features: Tensor,
    memory: Tensor,
    labels: Tensor,
    positives: Tensor,
    negatives: Tensor,
    is_negative: Tensor,
    *,
    alpha: float = 0.2,
    negative_weight: float = 0.05,
    temperature: float = 0.05,
) -> Tensor:
    """ClusterNCE with prototypes mixed with hard positives, and hard negatives in the denominator.

    The positive prototype of a class is mixed once per sample of that class, in batch order and without normalising,
    before any of them is used.

    Args:
        features: ``(B, D)``.
        memory: ``(C, D)`` unit rows.
        labels: ``(B,)``.
        positives: ``(B, D)`` the hard positive drawn for each sample.
        negatives: ``(U, D)`` all hard negatives of the batch.
        is_negative: ``(B, U)`` bool: whose they are.
        alpha: weight of a hard positive in a prototype.
        negative_weight: lambda, weight of a hard negative in the denominator.
        temperature: tau.
    """
    units = normalize(at_least_float32(features), dim=1, eps=1e-12)
    mixed = memory.detach().clone()
    numbers = occurrences(labels)
    for number in range(int(numbers.max()) + 1):
        chosen = numbers == number
        mixed[labels[chosen]] = alpha * positives[chosen] + (1 - alpha) * mixed[labels[chosen]]
    scores = dot_products(units, memory.detach()) / temperature
    own = (units * mixed[labels]).sum(dim=1, keepdim=True) / temperature
    scores = scores.scatter(1, labels[:, None], own)
    hard = dot_products(units, negatives.detach()) / temperature + torch.log(scores.new_tensor(negative_weight))
    hard = hard.masked_fill(~is_negative, -torch.inf)
    return (torch.cat([scores, hard], dim=1).logsumexp(dim=1) - own.squeeze(1)).mean()


def mix_memory(
    memory: Tensor,
    labels: Tensor,
    positives: Tensor,
    negatives: Tensor,
    is_negative: Tensor,
    negative_classes: Tensor,
    rate: float = 0.1,
) -> Tensor:
    """A copy of the memory mixed with hard samples, sample after sample: ``(C, D)``.

    For each sample its class row takes its hardest positive, then the rows of the classes of its hard negatives take
    those (not outliers). Rows are normalised at every step and are independent of each other, so the r-th steps of all
    rows run together.

    Args:
        memory: ``(C, D)``.
        labels: ``(B,)``.
        positives: ``(B, D)`` hardest positive of each sample.
        negatives: ``(U, D)``.
        is_negative: ``(B, U)`` bool.
        negative_classes: ``(U,)`` classes now; C and above are outliers.
        rate: weight of the new vector.
    """
    count, size = len(memory), len(labels)
    owners, columns = torch.nonzero(
        is_negative & (negative_classes < count) & (negative_classes != labels[:, None]), as_tuple=True
    )
    rows = torch.cat([labels, negative_classes[columns]])
    sources = torch.cat([torch.arange(size, device=labels.device), size + columns])
    # Samples in batch order, the positive first; nonzero lists the negatives of a sample by column.
    order = torch.argsort(torch.cat([2 * torch.arange(size, device=labels.device), 2 * owners + 1]), stable=True)
    rows, sources = rows[order], sources[order]
    table = torch.cat([positives, negatives])
    mixed = memory.detach().clone()
    steps = occurrences(rows)
    by_step = torch.argsort(steps, stable=True)
    start = 0
    for length in torch.bincount(steps).tolist():
        chosen = by_step[start : start + length]
        moved = rate * table[sources[chosen]] + (1 - rate) * mixed[rows[chosen]]
        mixed[rows[chosen]] = normalize(moved, dim=1, eps=1e-12)
        start += length
    return mixed


def positive_pair_alignment(
    features: Tensor, partners: Tensor, memory: Tensor, partner_memory: Tensor, temperature: float = 0.05
) -> Tensor:
    """Kullback-Leibler divergence between the cluster distributions of an image and its partner; both get gradients.

    Args:
        features: ``(B, D)`` unit vectors.
        partners: ``(B, D)`` unit vectors of images of the same clusters.
        memory: ``(C, D)`` prototypes mixed for the images.
        partner_memory: ``(C, D)`` prototypes mixed for the partners.
        temperature: tau.
    """
    first = (dot_products(features, memory.detach()) / temperature).log_softmax(dim=1)
    second = (dot_products(partners, partner_memory.detach()) / temperature).log_softmax(dim=1)
    return (first.exp() * (first - second)).sum(dim=1).mean()
