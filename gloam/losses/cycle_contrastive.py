"""Part-aware cycle-contrastive learning (PCC): agreement of stripes across unpaired modalities (MMGL's local task).

*Source*: figure of the MMGL repository; scope and negatives are this project's reading (docs/methods/mmgl.md).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from gloam.precision import at_least_float32

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
    with torch.autocast(device_type=queries.device.type, enabled=False):
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
    infrared_orders: Tensor | None = None,
) -> Tensor:
    """PCC loss, mean of both directions.

    A query stripe retrieves its soft neighbour in the other modality and in its own; the two must recognise each other
    among all stripes of the batch.

    Args:
        visible: ``(B, P, D)`` stripe vectors of B visible images.
        infrared: ``(B, P, D)`` stripe vectors of B infrared images; image i forms a random couple with visible i.
        temperature: of the retrieval and of the contrast.
        scope: ``pair`` retrieves inside couple i; ``batch`` anywhere.
        target: ``soft``: the own-modality soft neighbour (query included); ``raw``: the query itself.
        negatives: ``all`` other stripes; ``img``: of the same image; ``part``: of a different original part.
        center: subtract each position's batch mean before normalising.
        orders: ``(B, P)`` stripe orders, needed for ``negatives="part"``.
        infrared_orders: those of the infrared images, where they differ from the visible ones.

    Returns:
        Scalar: log(B P) when all vectors are equal; log B when every image carries the same P distinct vectors.

    Raises:
        ValueError: shapes differ, or ``part`` without orders.
    """
    if visible.shape != infrared.shape:
        raise ValueError(
            f"Both modalities need equally many stripes: {tuple(visible.shape)} and {tuple(infrared.shape)}."
        )
    if negatives == "part" and orders is None:
        raise ValueError("negatives='part' needs the stripe orders.")
    batch, parts, _ = visible.shape
    if infrared_orders is None:
        infrared_orders = orders
    with torch.autocast(device_type=visible.device.type, enabled=False):
        v, t = _unit_stripes(visible, center), _unit_stripes(infrared, center)
        same_image = _same_image(batch, parts, v.device)
        allowed = same_image if scope == "pair" else None
        losses = [
            _one_direction(q, o, temperature, allowed, target, _contrast_mask(same_image, negatives, own_orders))
            for q, o, own_orders in ((v, t, orders), (t, v, infrared_orders))
        ]
        return (losses[0] + losses[1]) / 2


@torch.no_grad()
def neighbour_masses(
    visible: Tensor,
    infrared: Tensor,
    orders: Tensor,
    infrared_orders: Tensor | None = None,
    *,
    temperature: float = 0.07,
) -> tuple[Tensor, Tensor]:
    """What visible stripes look for in infrared: the same part of the body, or the same place in the image.

    *Source*: a diagnostic of this project (docs/methods/mmgl.md). Neighbours come from the whole batch except the
    query's own couple.

    Args:
        visible: ``(B, P, D)`` stripe vectors of B visible images, B > 1.
        infrared: ``(B, P, D)`` stripe vectors of B infrared images.
        orders: ``(B, P)`` stripe orders.
        infrared_orders: those of the infrared images, where they differ from the visible ones.
        temperature: of the retrieval.

    Returns:
        Mean weight on stripes of the same original part, and on stripes at the same place of the shuffled image; both
        in [0, 1], chance 1 / P.
    """
    batch, parts, _ = visible.shape
    with torch.autocast(device_type=visible.device.type, enabled=False):
        v, t = _unit_stripes(visible), _unit_stripes(infrared)
        scores = (v @ t.T / temperature).masked_fill(_same_image(batch, parts, v.device), -torch.inf)
        weights = scores.softmax(dim=1)
    part = orders.flatten().to(v.device)
    other_part = part if infrared_orders is None else infrared_orders.flatten().to(v.device)
    place = torch.arange(parts, device=v.device).repeat(batch)
    same_part, same_place = part[:, None] == other_part, place[:, None] == place
    return (weights * same_part).sum(dim=1).mean(), (weights * same_place).sum(dim=1).mean()


def _unit_stripes(stripes: Tensor, center: bool = False) -> Tensor:
    """``(B, P, D)`` to ``(B P, D)`` unit rows in float32 at least, image by image."""
    stripes = at_least_float32(stripes)
    if center:
        stripes = stripes - stripes.mean(dim=0, keepdim=True)
    return normalize(stripes.flatten(0, 1), dim=1, eps=1e-12)


def _same_image(batch: int, parts: int, device: torch.device) -> Tensor:
    """``(B P, B P)`` bool: stripes of the same image, or of the two images of a couple."""
    image = torch.arange(batch, device=device).repeat_interleave(parts)
    return image[:, None] == image


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
