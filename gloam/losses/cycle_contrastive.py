"""Part-aware cycle-contrastive learning (PCC): agreement of stripes across unpaired spectra (MMGL's local task).

*Source*: figure of the MMGL repository; scope and negatives are this project's reading (docs/methods/mmgl.md).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gloam.losses.precision import at_least_float32

Scope = Literal["pair", "batch"]
Target = Literal["soft", "raw"]
Negatives = Literal["all", "img", "part"]


def soft_nearest(queries: Tensor, keys: Tensor, temperature: float, allowed: Tensor | None = None) -> Tensor:
    """Unit soft nearest neighbour of every query among the keys.

    Args:
        queries: ``(n, D)`` unit rows.
        keys: ``(m, D)`` unit rows.
        temperature: softness of the retrieval.
        allowed: ``(n, m)`` bool; keys that a query may use (None: all).

    Returns:
        ``(n, D)`` unit rows.
    """
    scores = queries @ keys.T / temperature
    if allowed is not None:
        scores = scores.masked_fill(~allowed, -torch.inf)
    return normalize(scores.softmax(dim=1) @ keys, dim=1, eps=1e-12)


def cycle_contrastive_loss(
    visible: Tensor,
    infrared: Tensor,
    *,
    temperature: float = 0.07,
    scope: Scope = "pair",
    target: Target = "soft",
    negatives: Negatives = "all",
    center: bool = False,
    orders: Tensor | None = None,
) -> Tensor:
    """PCC loss, mean of both directions.

    A query stripe retrieves its soft neighbour in the other spectrum and in its own; the two must recognise each other
    among all stripes of the batch.

    Args:
        visible: ``(B, P, D)`` stripe vectors of B visible pictures.
        infrared: ``(B, P, D)`` stripe vectors of B infrared pictures; picture i forms a random couple with visible i.
        temperature: of the retrieval and of the contrast.
        scope: ``pair`` retrieves inside couple i; ``batch`` anywhere.
        target: ``soft``: the own-spectrum soft neighbour (query included); ``raw``: the query itself.
        negatives: ``all`` other stripes; ``img``: of the same picture; ``part``: of a different original part.
        center: subtract each position's batch mean before normalising.
        orders: ``(B, P)`` stripe orders, needed for ``negatives="part"``.

    Returns:
        Scalar: log(B P) when all vectors are equal; log B when every picture carries the same P distinct vectors.

    Raises:
        ValueError: shapes differ, or ``part`` without orders.
    """
    if visible.shape != infrared.shape:
        raise ValueError(f"Both spectra need equally many stripes: {tuple(visible.shape)} and {tuple(infrared.shape)}.")
    if negatives == "part" and orders is None:
        raise ValueError("negatives='part' needs the stripe orders.")
    batch, parts, _ = visible.shape
    with torch.autocast(device_type=visible.device.type, enabled=False):
        both = [at_least_float32(x) for x in (visible, infrared)]
        if center:
            both = [x - x.mean(dim=0, keepdim=True) for x in both]
        v, t = (normalize(x.flatten(0, 1), dim=1, eps=1e-12) for x in both)
        image = torch.arange(batch, device=v.device).repeat_interleave(parts)
        same_image = image[:, None] == image[None, :]
        allowed = same_image if scope == "pair" else None
        contrast = _contrast_mask(same_image, negatives, orders)
        losses = [_one_direction(q, o, temperature, allowed, target, contrast) for q, o in ((v, t), (t, v))]
        return (losses[0] + losses[1]) / 2


def _contrast_mask(same_image: Tensor, negatives: Negatives, orders: Tensor | None) -> Tensor | None:
    """``(n, n)`` bool of entries that take part in the contrast; the diagonal (the positive) always does."""
    if negatives == "all":
        return None
    if negatives == "img" or orders is None:
        return same_image
    part = orders.flatten().to(same_image.device)
    diagonal = torch.eye(len(part), dtype=torch.bool, device=same_image.device)
    return (part[:, None] != part[None, :]) | diagonal


def _one_direction(
    queries: Tensor, others: Tensor, temperature: float, allowed: Tensor | None, target: Target, contrast: Tensor | None
) -> Tensor:
    across = soft_nearest(queries, others, temperature, allowed)
    own = soft_nearest(queries, queries, temperature, allowed) if target == "soft" else queries
    scores = across @ own.T / temperature
    if contrast is not None:
        scores = scores.masked_fill(~contrast, -torch.inf)
    return (scores.logsumexp(dim=1) - scores.diagonal()).mean()
