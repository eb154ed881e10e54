"""Compiled loops over k-reciprocal sets and sparse encodings. Each works on a block of rows and releases the
interpreter lock; indices are checked by ``k_reciprocal.py``.

Rows come out ordered by column; sums run in column order in float64, so the overlap of (i, j) and of (j, i) agree to
the bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def reciprocal_rows(neighbours: Any, width: int, sets: Any, sizes: Any, start: int, stop: int) -> None:
    """``sets[i]`` becomes those of the first ``width`` neighbours j of i that have i among their own first ones."""
    for i in range(start, stop):
        size = 0
        for a in range(width):
            j = neighbours[i, a]
            for b in range(width):
                if neighbours[j, b] == i:
                    sets[i, size] = j
                    size += 1
                    break
        sizes[i] = size


@njit(cache=True, nogil=True)
def expanded_rows(
    full: Any, full_sizes: Any, half: Any, half_sizes: Any, start: int, stop: int
) -> tuple[Any, Any, None]:
    """Lengths and columns of the expanded sets of a block of rows: a row's set and the half-width sets of its members
    that share more than two thirds with it.
    """
    count = len(full)
    most = min(count, full.shape[1] * (1 + half.shape[1]))
    lengths = np.zeros(stop - start, dtype=np.int64)
    columns = np.empty((stop - start) * most, dtype=np.int32)
    in_set = np.full(count, -1, dtype=np.int64)  # which row last had the item in its reciprocal set
    in_expansion = np.full(count, -1, dtype=np.int64)
    place = 0
    for i in range(start, stop):
        size = full_sizes[i]
        first = place
        for a in range(size):
            j = full[i, a]
            in_set[j] = i
            in_expansion[j] = i
            columns[place] = j
            place += 1
        for a in range(size):
            q = full[i, a]
            shared = 0
            for b in range(half_sizes[q]):
                if in_set[half[q, b]] == i:
                    shared += 1
            if 3 * shared > 2 * half_sizes[q]:
                for b in range(half_sizes[q]):
                    j = half[q, b]
                    if in_expansion[j] != i:
                        in_expansion[j] = i
                        columns[place] = j
                        place += 1
        lengths[i - start] = place - first
        columns[first:place] = np.sort(columns[first:place])
    return lengths, columns[:place].copy(), None


@njit(cache=True, nogil=True)
def averaged_rows(
    starts: Any, columns: Any, weights: Any, neighbours: Any, k2: int, start: int, stop: int
) -> tuple[Any, Any, Any]:
    """Local query expansion: every row becomes the mean of the rows of its k2 nearest."""
    count = len(starts) - 1
    most = 0
    for i in range(start, stop):
        for a in range(k2):
            j = neighbours[i, a]
            most += starts[j + 1] - starts[j]
    lengths = np.zeros(stop - start, dtype=np.int64)
    out_columns = np.empty(most, dtype=np.int32)
    out_weights = np.empty(most, dtype=np.float32)
    sums = np.zeros(count, dtype=np.float64)
    seen = np.full(count, -1, dtype=np.int64)
    place = 0
    for i in range(start, stop):
        first = place
        for a in range(k2):
            j = neighbours[i, a]
            for p in range(starts[j], starts[j + 1]):
                g = columns[p]
                if seen[g] != i:
                    seen[g] = i
                    sums[g] = 0.0
                    out_columns[place] = g
                    place += 1
                sums[g] += weights[p]
        lengths[i - start] = place - first
        out_columns[first:place] = np.sort(out_columns[first:place])
        for p in range(first, place):
            out_weights[p] = sums[out_columns[p]] / k2
    return lengths, out_columns[:place].copy(), out_weights[:place].copy()


@njit(cache=True)
def _add_overlaps(
    columns: Any,
    weights: Any,
    begin: int,
    end: int,
    list_starts: Any,
    list_rows: Any,
    list_weights: Any,
    last: int,
    shared: Any,
    touched: Any,
) -> Any:
    """Sums of minima of one row with all rows up to ``last`` into ``shared``; how many rows were ``touched``."""
    found = 0
    for p in range(begin, end):
        g = columns[p]
        weight = weights[p]
        for q in range(list_starts[g], list_starts[g + 1]):
            j = list_rows[q]
            if j > last:
                break
            common = min(weight, list_weights[q])
            if common > 0:
                if shared[j] == 0:
                    touched[found] = j
                    found += 1
                shared[j] += common
    return found


@njit(cache=True, nogil=True)
def sparse_distances(
    starts: Any,
    columns: Any,
    weights: Any,
    list_starts: Any,
    list_rows: Any,
    list_weights: Any,
    limit: Any,
    lower: bool,
    start: int,
    stop: int,
) -> tuple[Any, Any, Any]:
    """Distances below 1 and not above ``limit`` of a block of rows to all rows (``lower``: to rows j <= i).

    The inverted lists name, for every column, the rows that use it (ascending) and their weights.
    """
    count = len(starts) - 1
    shared = np.zeros(count, dtype=np.float64)
    touched = np.empty(count, dtype=np.int32)
    lengths = np.zeros(stop - start, dtype=np.int64)
    capacity = 1024
    out_columns = np.empty(capacity, dtype=np.int32)
    out_distances = np.empty(capacity, dtype=np.float32)
    place = 0
    for i in range(start, stop):
        last = i if lower else count
        found = _add_overlaps(
            columns, weights, starts[i], starts[i + 1], list_starts, list_rows, list_weights, last, shared, touched
        )
        kept = 0
        for t in range(found):
            j = touched[t]
            distance = np.float32(max(0.0, 1 - shared[j] / (2 - shared[j])))
            if distance < 1 and distance <= limit:
                touched[kept] = j  # kept <= t: never overwrites an unread entry
                kept += 1
            else:
                shared[j] = 0.0
        if place + kept > capacity:
            capacity = max(2 * capacity, place + kept)
            more_columns = np.empty(capacity, dtype=np.int32)
            more_distances = np.empty(capacity, dtype=np.float32)
            more_columns[:place] = out_columns[:place]
            more_distances[:place] = out_distances[:place]
            out_columns, out_distances = more_columns, more_distances
        order = np.sort(touched[:kept])
        for t in range(kept):
            j = order[t]
            out_columns[place] = j
            out_distances[place] = np.float32(max(0.0, 1 - shared[j] / (2 - shared[j])))
            shared[j] = 0.0
            place += 1
        lengths[i - start] = kept
    return lengths, out_columns[:place].copy(), out_distances[:place].copy()


@njit(cache=True, nogil=True)
def dense_distances(
    starts: Any,
    columns: Any,
    weights: Any,
    list_starts: Any,
    list_rows: Any,
    list_weights: Any,
    result: Any,
    start: int,
    stop: int,
) -> None:
    """``1 - s / (2 - s)`` of a block of rows to the rows of the inverted lists, into ``result``; not clipped at 0."""
    count = result.shape[1]
    shared = np.zeros(count, dtype=np.float64)
    touched = np.empty(count, dtype=np.int32)
    for i in range(start, stop):
        found = _add_overlaps(
            columns, weights, starts[i], starts[i + 1], list_starts, list_rows, list_weights, count, shared, touched
        )
        result[i] = 1
        for t in range(found):
            j = touched[t]
            result[i, j] = 1 - shared[j] / (2 - shared[j])
            shared[j] = 0.0
