"""Compiled set and sparse-row operations behind k-reciprocal re-ranking."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True)
def _holds(items: Any, count: int, item: int) -> bool:
    """Whether ``item`` is among the first ``count`` items."""
    for k in range(count):  # noqa: SIM110 (compiled)
        if items[k] == item:
            return True
    return False


@njit(cache=True)
def _reciprocal(neighbours: Any, i: int, width: int, found: Any) -> int:
    """Write the mutual neighbours of i into ``found``; their number."""
    count = 0
    for k in range(width):
        j = neighbours[i, k]
        if _holds(neighbours[j], width, i):
            found[count] = j
            count += 1
    return count


@njit(cache=True)
def _expand(neighbours: Any, i: int, full: int, half: int, members: Any, other: Any) -> int:
    """Reciprocal set of i and those half-width sets of its members that share more than two thirds with it."""
    own = _reciprocal(neighbours, i, full, members)
    count = own
    for k in range(own):
        size = _reciprocal(neighbours, members[k], half, other)
        shared = 0
        for m in range(size):
            shared += _holds(members, own, other[m])
        if 3 * shared > 2 * size:
            for m in range(size):
                if not _holds(members, count, other[m]):
                    members[count] = other[m]
                    count += 1
    return count


@njit(cache=True)
def expanded_sets(neighbours: Any, full: int, half: int) -> Any:
    """``R*`` of every item as sparse rows: ``pointers (N + 1,)`` and ``columns``.

    Args:
        neighbours: ``(N, width)`` nearest items in order.
        full: width of the item's own reciprocal set.
        half: width of its members' sets.
    """
    items = neighbours.shape[0]
    pointers = np.zeros(items + 1, dtype=np.int64)
    limit = full + full * half
    for i in range(items):
        members, other = np.empty(limit, dtype=np.int32), np.empty(half, dtype=np.int32)
        pointers[i + 1] = _expand(neighbours, i, full, half, members, other)
    for i in range(items):
        pointers[i + 1] += pointers[i]
    columns = np.empty(pointers[items], dtype=np.int32)
    for i in range(items):
        members, other = np.empty(limit, dtype=np.int32), np.empty(half, dtype=np.int32)
        count = _expand(neighbours, i, full, half, members, other)
        columns[pointers[i] : pointers[i] + count] = np.sort(members[:count])
    return pointers, columns


@njit(cache=True)
def weigh(block: Any, first: int, largest: Any, pointers: Any, columns: Any, values: Any) -> None:
    """Weights ``exp(-d)`` of a block's rows, each row divided by its sum; d is the block divided by ``largest``."""
    for r in range(block.shape[0]):
        i = first + r
        total = 0.0
        for place in range(pointers[i], pointers[i + 1]):
            value = np.exp(-block[r, columns[place]] / largest[i])
            values[place] = value
            total += value
        for place in range(pointers[i], pointers[i + 1]):
            values[place] /= total


@njit(cache=True)
def _sum_rows(
    pointers: Any, columns: Any, values: Any, neighbours: Any, i: int, expand: int, total: Any, found: Any
) -> int:
    """Add the rows of i's neighbours into ``total``; the columns touched go to ``found``, their number is returned."""
    count = 0
    for k in range(expand):
        j = neighbours[i, k]
        for place in range(pointers[j], pointers[j + 1]):
            column = columns[place]
            if total[column] == 0:
                found[count] = column
                count += 1
            total[column] += values[place]
    return count


@njit(cache=True)
def average_rows(pointers: Any, columns: Any, values: Any, neighbours: Any, expand: int) -> Any:
    """Local query expansion: every row becomes the mean of its ``expand`` nearest items' rows, as new sparse rows."""
    items = pointers.shape[0] - 1
    new_pointers = np.zeros(items + 1, dtype=np.int64)
    total = np.zeros(items, dtype=np.float64)
    found = np.empty(items, dtype=np.int32)
    for i in range(items):
        count = _sum_rows(pointers, columns, values, neighbours, i, expand, total, found)
        total[found[:count]] = 0
        new_pointers[i + 1] = new_pointers[i] + count
    new_columns = np.empty(new_pointers[items], dtype=np.int32)
    new_values = np.empty(new_pointers[items], dtype=np.float32)
    for i in range(items):
        count = _sum_rows(pointers, columns, values, neighbours, i, expand, total, found)
        start = new_pointers[i]
        for m in range(count):
            new_columns[start + m] = found[m]
            new_values[start + m] = total[found[m]] / expand
            total[found[m]] = 0
    return new_pointers, new_columns, new_values


@njit(cache=True)
def invert(pointers: Any, columns: Any, values: Any, first: int, stop: int) -> Any:
    """Rows ``first..stop-1`` by column: ``starts (N + 1,)``, row numbers from 0 and values."""
    items = pointers.shape[0] - 1
    starts = np.zeros(items + 1, dtype=np.int64)
    for place in range(pointers[first], pointers[stop]):
        starts[columns[place] + 1] += 1
    for column in range(items):
        starts[column + 1] += starts[column]
    used = starts[:-1].copy()
    rows = np.empty(starts[items], dtype=np.int32)
    weights = np.empty(starts[items], dtype=np.float32)
    for i in range(first, stop):
        for place in range(pointers[i], pointers[i + 1]):
            column = columns[place]
            rows[used[column]], weights[used[column]] = i - first, values[place]
            used[column] += 1
    return starts, rows, weights


@njit(cache=True)
def jaccard(
    pointers: Any, columns: Any, values: Any, first: int, stop: int, starts: Any, rows: Any, weights: Any, gallery: int
) -> Any:
    """``1 - s / (2 - s)``, s the sum of minima over shared columns: ``(stop - first, gallery)``."""
    result = np.empty((stop - first, gallery), dtype=np.float32)
    for r in range(stop - first):
        shared = np.zeros(gallery, dtype=np.float64)
        for place in range(pointers[first + r], pointers[first + r + 1]):
            value = values[place]
            for entry in range(starts[columns[place]], starts[columns[place] + 1]):
                shared[rows[entry]] += min(value, weights[entry])
        for j in range(gallery):
            result[r, j] = 1 - shared[j] / (2 - shared[j])
    return result
