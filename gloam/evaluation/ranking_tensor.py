"""The counting of ``ranking_kernels.py`` as tensor operations, for distances that lie on an accelerator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class RankedRows:
    """What one block of n queries gave; arrays ``(n,)``, meaningful where ``valid``."""

    valid: NDArray[np.bool_]
    first_hit: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    penalty: NDArray[np.float64]


def rank_rows(
    distances: Tensor,
    query_codes: Tensor,
    query_cams: Tensor,
    codes: Tensor,
    cams: Tensor,
    *,
    ids: int,
    own_camera_hidden: bool,
    unique_id: bool,
    ap: int,
) -> RankedRows:
    """Rank n queries against one view of the gallery.

    Every entry is placed among its query's sorted matches by ``searchsorted``; counting the entries of each gap gives
    the positions. Memory: about ten times the block of distances.

    Args:
        distances: ``(n, G)`` without NaN.
        query_codes: ``(n,)`` id codes; -1 for ids that the gallery lacks.
        query_cams: ``(n,)``.
        codes: ``(G,)`` id codes.
        cams: ``(G,)``.
        ids: number of id codes.
        own_camera_hidden: entries of the query's id and camera do not count.
        unique_id: first hit among distinct ids.
        ap: 0 standard, 1 grouped, 2 trapezoid.
    """
    rows, gallery = distances.shape
    same = codes[None] == query_codes[:, None]
    match = same & (cams[None] != query_cams[:, None]) if own_camera_hidden else same
    counts = match.sum(dim=1)
    width = int(counts.max()) if rows and gallery else 0
    if width == 0:
        nothing = np.zeros(rows)
        return RankedRows(nothing.astype(bool), nothing.astype(np.int64), nothing, nothing)
    values, indices = _sorted_matches(distances, match, counts, width)
    left = torch.searchsorted(values, distances.contiguous())
    place = _after_lower_indices(left, distances, values, indices)
    other = ~same
    ahead = _count_places(place, other, width)
    steps = torch.arange(1, width + 1, device=distances.device)
    positions = ahead + steps
    if unique_id:
        seen = torch.zeros(rows, ids, dtype=torch.bool, device=distances.device)
        row, column = ((place == 0) & other).nonzero(as_tuple=True)
        seen[row, codes[column]] = True
        first_hit = 1 + seen.sum(dim=1)
    else:
        first_hit = positions[:, 0]
    group_end = listed = None
    if ap == 1:
        # d <= t_k exactly when fewer than k + 1 matches are strictly nearer than d.
        end = torch.minimum(torch.searchsorted(values, values, right=True), counts[:, None])
        group_end = end.cpu().numpy()
        listed = (end + _count_places(left, other, width)).cpu().numpy()
    return _finish(positions.cpu().numpy(), counts.cpu().numpy(), first_hit.cpu().numpy(), ap, group_end, listed)


def _sorted_matches(distances: Tensor, match: Tensor, counts: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Distances and gallery indices of the matches in stable order, ``(n, width)``, padded with infinity and G."""
    row, column = match.nonzero(as_tuple=True)
    begin = torch.cumsum(counts, dim=0) - counts
    slot = torch.arange(len(row), device=row.device) - begin[row]
    values = torch.full((len(distances), width), torch.inf, dtype=distances.dtype, device=distances.device)
    indices = torch.full((len(distances), width), distances.shape[1], dtype=torch.int64, device=distances.device)
    values[row, slot], indices[row, slot] = distances[row, column], column
    values, order = torch.sort(values, dim=1, stable=True)
    return values.contiguous(), torch.gather(indices, 1, order)


def _after_lower_indices(left: Tensor, distances: Tensor, values: Tensor, indices: Tensor) -> Tensor:
    """Move every entry behind the equally near matches with lower gallery indices: a bisection among those ties."""
    place, end = left, torch.searchsorted(values, distances.contiguous(), right=True)
    numbers = torch.arange(distances.shape[1], device=distances.device)
    while bool((open_ := place < end).any()):
        middle = (place + end) // 2
        lower = torch.gather(indices, 1, middle.clamp(max=values.shape[1] - 1)) < numbers
        place = torch.where(open_ & lower, middle + 1, place)
        end = torch.where(open_ & ~lower, middle, end)
    return place


def _count_places(place: Tensor, other: Tensor, width: int) -> Tensor:
    """``(n, width)``: number of entries of other ids placed at or before each match."""
    bins = torch.zeros(len(place), width + 1, dtype=torch.int64, device=place.device)
    bins.scatter_add_(1, place, other.to(torch.int64))
    return bins[:, :width].cumsum(dim=1)


def _finish(
    positions: NDArray[np.int64],
    counts: NDArray[np.int64],
    first_hit: NDArray[np.int64],
    ap: int,
    group_end: NDArray[np.int64] | None,
    listed: NDArray[np.int64] | None,
) -> RankedRows:
    """Precision in float64 on the host (accelerators may lack it)."""
    valid = counts > 0
    steps = np.arange(1, positions.shape[1] + 1)
    precision = steps / positions
    if group_end is not None and listed is not None:
        precision = group_end / np.maximum(listed, 1)
    if ap == 2:
        precision = (np.where(positions == 1, 1.0, (steps - 1) / np.maximum(positions - 1, 1)) + precision) / 2
    precision[steps > counts[:, None]] = 0
    safe = np.maximum(counts, 1)
    last = positions[np.arange(len(positions)), safe - 1]
    return RankedRows(valid, np.where(valid, first_hit, 0), precision.sum(axis=1) / safe, safe / last)
