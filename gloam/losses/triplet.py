"""Triplet-type losses over all pairs of a batch: hard-mined, weighted regularised, squared-difference.

Distances are Euclidean between raw feature rows, computed in float32 or better.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize, relu, softplus

from gloam.errors import GloamError
from gloam.losses.registry import register
from gloam.precision import at_least_float32

WrtForm = Literal["reference", "exact"]


def pairwise_distances(x: Tensor, y: Tensor | None = None) -> Tensor:
    """Euclidean distances ``sqrt(max(|x|^2 + |y|^2 - 2 x.y, 1e-12))``.

    Args:
        x: ``(n, D)``.
        y: ``(m, D)``; x itself if not given.

    Returns:
        ``(n, m)`` float32 or float64; equal rows are 1e-6 apart.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        x = at_least_float32(x)
        y = x if y is None else at_least_float32(y)
        squared = x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * x @ y.T
        return squared.clamp_min(1e-12).sqrt()


@register("hard_triplet")
def hard_triplet(features: Tensor, labels: Tensor, margin: float = 0.3) -> Tensor:
    """Batch-hard triplet: farthest row of the same id against nearest row of another id.

    *Source*: OriTripletLoss of the AGW and DDAG releases. The anchor counts among its own positives.

    Args:
        features: ``(n, D)``.
        labels: ``(n,)``.
        margin: hinge offset.

    Returns:
        Scalar.

    Raises:
        GloamError: all rows have one label, so no anchor has a negative.
    """
    positive, negative = mine_hard(features, labels)
    return relu(positive - negative + margin).mean()


@register("soft_margin_triplet")
def soft_margin_triplet(features: Tensor, labels: Tensor) -> Tensor:
    """Batch-hard triplet without a margin: ``mean log(1 + exp(farthest positive - nearest negative))``.

    *Source*: Hermans et al., 2017, eq. 5; ``TripletLoss(margin=None)`` of the BoT release.

    Args:
        features: ``(n, D)``.
        labels: ``(n,)``.

    Returns:
        Scalar; ln 2 when all rows are equal.

    Raises:
        GloamError: all rows have one label, so no anchor has a negative.
    """
    positive, negative = mine_hard(features, labels)
    return softplus(positive - negative).mean()


def mine_hard(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of every row to its farthest positive and to its nearest negative, each ``(n,)``."""
    distances, same = _distances_and_mask(features, labels)
    return (
        distances.masked_fill(~same, -torch.inf).amax(dim=1),
        distances.masked_fill(same, torch.inf).amin(dim=1),
    )


@register("weighted_regularized_triplet")
def weighted_regularized_triplet(
    features: Tensor, labels: Tensor, form: WrtForm = "reference", normalize_feature: bool = False
) -> Tensor:
    """Softmax-weighted mean of positive against negative distances, without margin (WRT of AGW).

    Args:
        features: ``(n, D)``.
        labels: ``(n,)``.
        form: ``reference`` adds 1e-6 to the weights' sums and does not shift the negative exponents, as released: when
            distances grow beyond about 12 the negatives lose their weight and the loss only pulls (training from random
            weights then collapses). ``exact`` is the published masked softmax.
        normalize_feature: divide rows by their length first.

    Returns:
        Scalar ``mean softplus(a - b)``; ln 2 when all rows are equal.
    """
    positive, negative = weighted_distances(features, labels, form, normalize_feature=normalize_feature)
    return softplus(positive - negative).mean()


@register("squared_difference_triplet")
def squared_difference_triplet(
    features: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    gamma: float = 1.0,
    square: bool = True,
    form: WrtForm = "reference",
) -> Tensor:
    """Triplet of CAJ ("adp"): WRT weights of alpha D, and the signed square of the gap.

    Args:
        features: ``(n, D)``.
        labels: ``(n,)``.
        alpha: factor on the distances inside the weights.
        gamma: factor on the gap.
        square: False: ``softplus(gamma (a - b))``. True: ``softplus(sign(a - b) min(gamma (a - b)^2, 88))``; the clamp
            has no gradient once the gap exceeds 9.4.
        form: see :func:`weighted_regularized_triplet`.
    """
    positive, negative = weighted_distances(features, labels, form, scale=alpha)
    gap = positive - negative
    if not square:
        return softplus(gamma * gap).mean()
    squared = (gamma * gap.square()).clamp_max(88)
    return softplus(torch.where(gap > 0, squared, -squared)).mean()


def weighted_distances(
    features: Tensor, labels: Tensor, form: WrtForm, *, scale: float = 1.0, normalize_feature: bool = False
) -> tuple[Tensor, Tensor]:
    """Weighted mean distance to positives (far ones weigh more) and to negatives (near ones), each ``(n,)``."""
    if normalize_feature:
        features = normalize(features, dim=1, eps=1e-12)
    distances, same = _distances_and_mask(features, labels)
    scaled = scale * distances
    if form == "exact":
        far = scaled.masked_fill(~same, -torch.inf).softmax(dim=1)
        near = (-scaled).masked_fill(same, -torch.inf).softmax(dim=1)
    else:
        # The released code takes maxima of masked-by-multiplication rows: for the negatives that maximum is always 0.
        far = _reference_softmax(scaled, same, (scaled * same).amax(dim=1, keepdim=True))
        near = _reference_softmax(-scaled, ~same, torch.zeros_like(scaled[:, :1]))
    return (far * distances).sum(dim=1), (near * distances).sum(dim=1)


def fraction_correct(positive: Tensor, negative: Tensor) -> Tensor:
    """Share of anchors whose negatives are at least as far as their positives; a scalar for logs."""
    return (negative.detach() >= positive.detach()).float().mean()


def _reference_softmax(exponents: Tensor, mask: Tensor, shift: Tensor) -> Tensor:
    weights = (exponents - shift).exp() * mask
    return weights / (weights.sum(dim=1, keepdim=True) + 1e-6)


def _distances_and_mask(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    same = labels[:, None] == labels[None, :]
    if bool(same.all()):
        raise GloamError(
            f"A triplet loss needs at least two identities in a batch, got {len(labels)} rows of one. "
            "Raise sampler.identities."
        )
    return pairwise_distances(features), same
