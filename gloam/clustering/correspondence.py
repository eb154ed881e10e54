"""Which visible identity is which infrared identity, when labels exist only inside each modality.

Everything here works on ids that are numbered independently per modality: 0..V-1 visible, 0..R-1 infrared. A map is an
int64 vector with -1 for "no partner".

*Source*: cross-modal relationship establishment of WSL-VIReID / HECCL (Zhang et al., ICCV 2025) and the mutual
assignment of this project's PF-MGCD.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

RelationRule = Literal["paper", "released"]


@dataclass(frozen=True)
class Relations:
    """Kinds of cross-modality relation, each a ``(V, R)`` bool matrix.

    Attributes:
        consistent: both directions agree; at most one entry per row and column.
        single: one direction only, and the other says nothing about either id.
        contradictory: what is left of both directions.
    """

    consistent: Tensor
    single: Tensor
    contradictory: Tensor


def count_priority_selection(probabilities: Tensor, labels: Tensor, num_labels: int) -> Tensor:
    """Match the ids of one modality to classes of the other by counting confident predictions.

    The n largest of the n x M probabilities vote for (own id, predicted class); pairs are accepted by decreasing votes,
    ties by the earlier confident prediction, as long as neither side is taken.

    Args:
        probabilities: ``(n, M)`` of n images over M classes of the other modality.
        labels: ``(n,)`` own ids.
        num_labels: number of own ids.

    Returns:
        ``(num_labels,)`` partner of every own id, or -1; injective. Without images nobody has a partner.
    """
    scores = probabilities.detach().cpu().numpy()
    own = labels.cpu().numpy()
    count, classes = scores.shape
    rows, columns = np.divmod(_largest(scores.ravel(), count), classes)
    pairs = own[rows] * classes + columns
    unique, first, votes = np.unique(pairs, return_index=True, return_counts=True)
    partner = np.full(num_labels, -1, dtype=np.int64)
    taken = np.zeros(classes, dtype=bool)
    for pair in unique[np.lexsort((first, -votes))]:
        label, column = divmod(int(pair), classes)
        if partner[label] < 0 and not taken[column]:
            partner[label] = column
            taken[column] = True
    return torch.from_numpy(partner)


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Positions of the ``count`` largest values, descending, ties by position, without sorting the rest."""
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > threshold)
    ties = np.flatnonzero(values == threshold)[: count - len(above)]
    chosen = np.sort(np.concatenate([above, ties]))
    return chosen[np.argsort(-values[chosen], kind="stable")]


def relate(visible_to_infrared: Tensor, infrared_to_visible: Tensor, rule: RelationRule = "paper") -> Relations:
    """Sort the two directed maps into consistent, single and contradictory relations.

    Args:
        visible_to_infrared: ``(V,)`` map, -1 where there is none.
        infrared_to_visible: ``(R,)`` map, -1 where there is none.
        rule: ``paper``, or ``released`` (compares ids of different label spaces and lets later entries overwrite
            earlier ones; kept for comparison with the released code).
    """
    shape = (len(visible_to_infrared), len(infrared_to_visible))
    forward = _matrix(visible_to_infrared, shape)
    backward = _matrix(infrared_to_visible, shape[::-1]).T
    consistent = forward & backward
    only_forward, only_backward = forward & ~consistent, backward & ~consistent
    if rule == "released":
        return _released_relations(consistent, only_forward, only_backward, forward, backward)
    single = (only_forward & _untouched(backward)) | (only_backward & _untouched(forward))
    return Relations(consistent, single, (only_forward | only_backward) & ~single)


def _matrix(partner: Tensor, shape: tuple[int, ...]) -> Tensor:
    matrix = torch.zeros(shape, dtype=torch.bool)
    known = torch.nonzero(partner >= 0).flatten()
    matrix[known, partner[known]] = True
    return matrix


def _untouched(matrix: Tensor) -> Tensor:
    """Entries whose row and column are both empty in ``matrix``."""
    return ~matrix.any(dim=1, keepdim=True) & ~matrix.any(dim=0, keepdim=True)


def _released_relations(
    consistent: Tensor, only_forward: Tensor, only_backward: Tensor, forward: Tensor, backward: Tensor
) -> Relations:
    visible_keys = set(torch.nonzero(forward.any(dim=1)).flatten().tolist())
    infrared_values = set(torch.nonzero(forward.any(dim=0)).flatten().tolist())
    free_backward = _untouched(backward)
    single: dict[int, int] = {}
    contradictory: dict[int, int] = {}
    for visible, infrared in torch.nonzero(only_forward).tolist():
        (single if free_backward[visible, infrared] else contradictory)[visible] = infrared
    for infrared, visible in torch.nonzero(only_backward.T).tolist():
        # The released test mixes label spaces: a visible id is looked up among infrared ids and the other way round.
        free = visible not in infrared_values and infrared not in visible_keys
        (single if free else contradictory)[visible] = infrared
    return Relations(consistent, _from_pairs(single, consistent), _from_pairs(contradictory, consistent))


def _from_pairs(pairs: dict[int, int], like: Tensor) -> Tensor:
    matrix = torch.zeros_like(like)
    for visible, infrared in pairs.items():
        matrix[visible, infrared] = True
    return matrix


def mutual_assignment(votes: Tensor) -> Tensor:
    """Row j is matched to column n iff each is the other's best and the vote is positive.

    Args:
        votes: ``(R, V)`` non-negative affinities; ties go to the lowest index.

    Returns:
        ``(R,)`` column of every row, or -1; injective.
    """
    best_column, best_row = _first_argmax(votes), _first_argmax(votes.T)
    rows = torch.arange(len(votes), device=votes.device)
    mutual = (best_row[best_column] == rows) & (votes[rows, best_column] > 0)
    return torch.where(mutual, best_column, -1)


def _first_argmax(matrix: Tensor) -> Tensor:
    """Argmax of every row; torch does not promise which of several equal maxima it returns, so take the first."""
    return (matrix == matrix.amax(dim=1, keepdim=True)).int().argmax(dim=1)


def sinkhorn_assignment(
    visible: Tensor, infrared: Tensor, *, temperature: float = 0.05, iterations: int = 10, minimum: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Directed maps from an optimal-transport plan between two sets of prototypes.

    *Source*: Sinkhorn variant of the VIReid derivative. Cost 1 - cosine, plan exp(-cost / temperature), alternating row
    and column normalisation with +1e-8.

    Args:
        visible: ``(V, D)`` prototypes; a zero row is an identity without images and stays unmatched.
        infrared: ``(R, D)`` prototypes, likewise.
        temperature: entropy of the plan.
        iterations: row-column rounds.
        minimum: smallest mass that counts as a match.

    Returns:
        ``(V,)`` and ``(R,)`` maps, -1 where the best mass is not above ``minimum``.
    """
    normalize = torch.nn.functional.normalize
    plan = ((normalize(visible, dim=1) @ normalize(infrared, dim=1).T - 1) / temperature).exp()
    # Row normalisation would give an identity without images as much mass as any other.
    plan = plan * visible.any(dim=1)[:, None] * infrared.any(dim=1)[None, :]
    for _ in range(iterations):
        plan = plan / (plan.sum(dim=1, keepdim=True) + 1e-8)
        plan = plan / (plan.sum(dim=0, keepdim=True) + 1e-8)
    forward, backward = plan.max(dim=1), plan.max(dim=0)
    return (
        torch.where(forward.values > minimum, forward.indices, -1),
        torch.where(backward.values > minimum, backward.indices, -1),
    )


def correspondence_quality(visible: Tensor, infrared: Tensor, partners: Tensor | None) -> dict[str, float]:
    """Precision and recall of matched pairs against the hidden truth. For analysis only: no method may call it.

    Args:
        visible: ``(M,)`` visible ids; an id may occur in several pairs (contradictory relations).
        infrared: ``(M,)`` their infrared partners. Repeated pairs count once.
        partners: ``(V,)`` true infrared partner of every visible id, -1 where the person is not in infrared; None where
            the truth is unknown.

    Returns:
        ``count`` and, where the truth is known, ``precision`` (1 without pairs) and ``recall``.
    """
    pairs = torch.stack([visible.cpu().long(), infrared.cpu().long()], dim=1).unique(dim=0)
    if partners is None:
        return {"count": float(len(pairs))}
    inside = pairs[pairs[:, 0] < len(partners)]
    right = int((partners[inside[:, 0]] == inside[:, 1]).sum())
    return {
        "precision": right / len(pairs) if len(pairs) else 1.0,
        "recall": right / max(int((partners >= 0).sum()), 1),
        "count": float(len(pairs)),
    }
