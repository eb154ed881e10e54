"""Exact nearest neighbours of every row among all rows, by blocks. What exact means stands in ``exact.py``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.search.arrays import as_whole_number
from gloam.search.exact import ExactSearch, Pool, exact_search, multiply
from gloam.search.kinds import SQUARED
from gloam.search.points import Points, as_points

_TILE_ROWS, _TILE_COLUMNS = 1024, 4096  # of one tile of the products on the CPU, whatever N


def nearest_neighbours(features: Any, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest rows of every row by squared Euclidean distance, itself included, ties by index.

    Needs tiles of products (34 MB and 5000 D numbers; on a GPU 64 MB and a copy of the features) and N (7 k + 128)
    numbers beyond the features, never N x N.

    Args:
        features: ``(N, D)``, read as float32.
        k: neighbours; clamped to N (the flat index of the references pads with -1 instead).

    Returns:
        ``(N, k)`` int32 indices, nearest first, and ``(N, k)`` float32 squared distances.

    Raises:
        GloamError: no matrix of numbers, no row, NaN or infinite entries, distances beyond float32, or k below 1.
    """
    return neighbours_of(as_rows(features), k)


def as_rows(features: Any) -> Points:
    """Features with at least one row as points.

    Raises:
        GloamError: no matrix of finite numbers, or no row.
    """
    points = as_points(features, "euclidean")
    if len(points) == 0:
        raise GloamError("There are no features (0 rows), so nothing has neighbours. Check the list of images.")
    return points


def neighbours_of(points: Points, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """:func:`nearest_neighbours` of rows that have passed the door."""
    k = min(as_whole_number(k, "k, the number of neighbours,"), len(points))
    search = exact_search(points, k, SQUARED)
    if points.on_cpu:
        pool = _propose_by_tiles(points, search)
        indices, distances = search.refine(points, pool)
        rest = np.flatnonzero(pool.overflowed)
        del pool
        for rows in np.array_split(rest, -(-len(rest) // 4096)) if len(rest) else ():
            indices[rows], distances[rows] = search.find(points.take(rows), again=True)
    else:
        indices, distances = search.find(points)
    if not np.isfinite(distances[:, -1]).all():
        raise GloamError(
            f"Some features are up to {points.span():.3g} long, so that squared distances exceed float32. Divide all "
            "features by one number (or each by its length): that changes no order."
        )
    return indices.astype(np.int32), distances


def _propose_by_tiles(points: Points, search: ExactSearch) -> Pool:
    """Candidates by products on the CPU: they are symmetric, so each is computed once and looked at from both sides."""
    count = len(points)
    pool, ends = Pool(count, search.k, count), search.ends(torch.float32)
    memory = torch.empty(min(_TILE_ROWS, count) * min(_TILE_COLUMNS, count))
    for start in range(0, count, _TILE_ROWS):
        stop = min(start + _TILE_ROWS, count)
        rows = search.moved(points, start, stop, torch.float32)
        for column in range(start, count, _TILE_COLUMNS):
            end = min(column + _TILE_COLUMNS, count)
            products = memory[: (stop - start) * (end - column)].view(stop - start, end - column)
            multiply(rows, search.moved(points, column, end, torch.float32), out=products)
            pool.absorb(products, ends.lengths[start:stop], ends, start, column)
            # Columns inside this block of rows have met all of it already.
            first = max(column, stop)
            if first < end:
                turned = products[:, first - column :].T.contiguous()
                pool.absorb(turned, ends.lengths[first:end], ends, first, start)
    return pool
