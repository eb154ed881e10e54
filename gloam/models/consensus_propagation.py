"""Graph-regularised consensus: an image's guesses are mixed with those of the images it resembles.

*Source*: the derivative VIReid of WSL-VIReID ("GR-CP", docs/methods/wsl_vireid.md), made safe: its graph was dense,
counted every image twice as its own neighbour, was not symmetric, and negative cosines could make a row sum negative
(NaN).
"""

from __future__ import annotations

import torch
from torch import Tensor

from gloam.search.distances import unit_rows
from gloam.search.neighbours import nearest_neighbours


@torch.no_grad()
def affinity_graph(features: Tensor, neighbours: int = 5) -> Tensor:
    """Symmetrically normalised graph of the nearest images by cosine.

    An edge weighs the cosine, clipped at 0 and averaged over the two directions; every image has one loop of weight 1,
    also one whose feature is zero, so that no row sum vanishes.

    Args:
        features: ``(n, D)``; need not have unit length.
        neighbours: nearest images per image, itself included; clamped to n.

    Returns:
        ``D^-1/2 A D^-1/2`` as a sparse COO matrix ``(n, n)`` on the CPU with at most ``(2 neighbours - 1) n`` entries.
    """
    units = unit_rows(features)
    found, squared = nearest_neighbours(units, neighbours)
    count = len(units)
    rows = torch.arange(count)[:, None].expand(found.shape).flatten()
    columns = torch.from_numpy(found).to(torch.int64).flatten()
    # Unit rows: |a - b|^2 = 2 - 2 cos. A zero row is at distance 1 of all others; its cosine is 0, not a half.
    cosines = (1 - torch.from_numpy(squared).flatten() / 2).clamp(0, 1)
    live = (units.abs().amax(dim=1) > 0).cpu()
    cosines = cosines * (live[rows] & live[columns])
    others = rows != columns
    rows, columns, half = rows[others], columns[others], cosines[others] / 2
    loops = torch.arange(count)
    graph = torch.sparse_coo_tensor(
        torch.stack([torch.cat([rows, columns, loops]), torch.cat([columns, rows, loops])]),
        torch.cat([half, half, torch.ones(count)]),
        (count, count),
        check_invariants=False,
    ).coalesce()
    scale = torch.sparse.sum(graph, dim=1).to_dense().rsqrt()
    at = graph.indices()
    values = graph.values() * scale[at[0]] * scale[at[1]]
    return torch.sparse_coo_tensor(at, values, graph.shape, is_coalesced=True, check_invariants=False)


@torch.no_grad()
def propagate_consensus(scores: Tensor, features: Tensor, share: float, neighbours: int = 5) -> Tensor:
    """``(1 - share) p + share A p`` with the affinity graph A of the features.

    Args:
        scores: ``(n, M)`` probabilities p of n images of one modality.
        features: ``(n, D)`` of the same images.
        share: weight of the neighbours' scores, 0..1; 0 returns ``scores``.
        neighbours: see :func:`affinity_graph`.

    Returns:
        ``(n, M)`` on the CPU, non-negative. Rows need not sum to 1: an image that many others resemble keeps more.
    """
    if share == 0 or len(scores) == 0:
        return scores
    own = scores.float().cpu()
    return torch.lerp(own, torch.sparse.mm(affinity_graph(features, neighbours), own), share)


def consensus_share(epoch: int, largest: float, first_epoch: int = 10, ramp: int = 10) -> float:
    """Weight of the neighbours at a 0-based epoch: 0 up to ``first_epoch``, then rising linearly over ``ramp`` epochs.

    The derivative's ``min(0.3, 0.03 (epoch - 10))`` is ``largest=0.3`` with the defaults.
    """
    return largest * min(max(epoch - first_epoch, 0) / ramp, 1.0)
