"""Compiled counting behind the ranking on CPUs. Only a query's own matches are sorted.

With few matches (the usual case) the entries ahead of each match are counted by one vectorised comparison per match,
which is several times faster than a binary search per entry; with many matches the search wins. Threads are the
caller's (the kernel holds no interpreter lock): a compiled parallel loop would end every forked process that ranks too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

# Matches up to which one pass per match beats a search per entry; measured with benchmarks/ranking.py.
_FEW = 256
# Entries per tile: a tile of float32 stays in the first-level cache while every match is compared with it.
_TILE = 4096


@njit(cache=True)
def _nearer(tile: Any, value: float) -> Any:
    """Entries below ``value``. The 32-bit sum lets the compiler use vector registers."""
    total = np.uint32(0)
    for j in range(tile.shape[0]):
        total = np.uint32(total + np.uint32(tile[j] < value))
    return np.int64(total)


@njit(cache=True)
def _nearer_or_equal(tile: Any, value: float) -> Any:
    """Entries not above ``value``."""
    total = np.uint32(0)
    for j in range(tile.shape[0]):
        total = np.uint32(total + np.uint32(tile[j] <= value))
    return np.int64(total)


@njit(cache=True)
def _has_nan(row: Any) -> Any:
    total = np.uint32(0)
    for j in range(row.shape[0]):
        total = np.uint32(total + np.uint32(row[j] != row[j]))
    return total > 0


@njit(cache=True)
def _count_ahead(row: Any, values: Any, indices: Any, ahead: Any) -> None:
    """Add to ``ahead[k]`` the entries before match k in a stable sort: nearer, or as near with a lower index."""
    for start in range(0, row.shape[0], _TILE):
        stop = min(start + _TILE, row.shape[0])
        tile = row[start:stop]
        for k in range(values.shape[0]):
            split = min(max(indices[k] - start, 0), stop - start)
            if split == 0:
                ahead[k] += _nearer(tile, values[k])
            elif split == stop - start:
                ahead[k] += _nearer_or_equal(tile, values[k])
            else:
                ahead[k] += _nearer_or_equal(tile[:split], values[k]) + _nearer(tile[split:], values[k])


@njit(cache=True)
def _search_ahead(row: Any, codes: Any, code: int, values: Any, indices: Any, ahead: Any) -> None:
    """The same for many matches: a binary search per entry of another id, plus the matches themselves."""
    count = values.shape[0]
    bins = np.zeros(count + 1, dtype=np.int64)
    for j in range(row.shape[0]):
        value = row[j]
        if value <= values[count - 1] and codes[j] != code:
            low, high = 0, count
            while low < high:
                middle = (low + high) >> 1
                if values[middle] < value or (values[middle] == value and indices[middle] < j):
                    low = middle + 1
                else:
                    high = middle
            bins[low] += 1
    total = 0
    for k in range(count):
        total += bins[k]
        ahead[k] = total + k


@njit(cache=True)
def _distinct_ids_ahead(row: Any, codes: Any, code: int, value: float, index: int, ids: int) -> int:
    """Number of other ids with an entry ahead of the first match: each id's nearest entry is what counts."""
    seen = np.zeros(ids, dtype=np.bool_)
    total = 0
    for j in range(row.shape[0]):
        if row[j] <= value and (row[j] < value or j < index):
            other = codes[j]
            if other != code and not seen[other]:
                seen[other] = True
                total += 1
    return total


@njit(cache=True)
def _grouped_precision(row: Any, values: Any, hidden: Any) -> Any:
    """Equal distances form one threshold: every match of a group gets the precision at the group's end."""
    count = values.shape[0]
    total = 0.0
    start = 0
    while start < count:
        end = start + 1
        while end < count and values[end] == values[start]:
            end += 1
        listed = _nearer_or_equal(row, values[start]) - _nearer_or_equal(hidden, values[start])
        total += (end - start) * end / listed
        start = end
    return total / count


@njit(cache=True)
def _average_precision(kind: int, positions: Any, row: Any, values: Any, hidden: Any) -> Any:
    if kind == 1:
        return _grouped_precision(row, values, hidden)
    total = 0.0
    count = positions.shape[0]
    for k in range(count):
        precision = (k + 1) / positions[k]
        if kind == 2:
            before = 1.0 if positions[k] == 1 else k / (positions[k] - 1)
            precision = (before + precision) / 2
        total += precision
    return total / count


@njit(cache=True, nogil=True)
def rank_rows(
    distances: Any,
    rows: Any,
    first: int,
    query_codes: Any,
    query_cams: Any,
    whole: bool,
    columns: Any,
    codes: Any,
    cams: Any,
    by_id: Any,
    starts: Any,
    own_camera_hidden: bool,
    unique_id: bool,
    ap: int,
    valid: Any,
    first_hit: Any,
    average_precision: Any,
    penalty: Any,
    bad: Any,
) -> None:
    """Rank ``rows`` of a block against one view of the gallery, into the output arrays ``(Q,)``.

    Args:
        distances: ``(n, P)`` block, C order.
        rows: rows of the block to rank.
        first: number of the query in row 0.
        query_codes: ``(Q,)`` id codes; -1 for ids that the gallery lacks.
        query_cams: ``(Q,)``.
        whole: True when the view is the whole block; ``columns`` is then unused.
        columns: ``(G,)`` columns of the block that form the view, ascending where ties shall follow the block.
        codes: ``(G,)`` id codes of the view.
        cams: ``(G,)`` cameras of the view.
        by_id: ``(G,)`` positions in the view, id by id, ascending within an id.
        starts: ``(ids + 1,)`` where each id begins in ``by_id``.
        own_camera_hidden: entries of the query's id and camera do not count.
        unique_id: first hit among distinct ids.
        ap: 0 standard, 1 grouped, 2 trapezoid.
        valid: output.
        first_hit: output.
        average_precision: output.
        penalty: output.
        bad: output ``(len(rows),)``, True where a distance is NaN.
    """
    for i in range(rows.shape[0]):
        source = distances[rows[i]]
        if _has_nan(source):
            bad[i] = True
            continue
        query = first + rows[i]
        code, cam = query_codes[query], query_cams[query]
        if code < 0 or starts[code] == starts[code + 1]:
            continue
        if whole:
            row = source
        else:
            row = np.empty(columns.shape[0], dtype=distances.dtype)
            for j in range(columns.shape[0]):
                row[j] = source[columns[j]]
        size = starts[code + 1] - starts[code]
        values = np.empty(size, dtype=distances.dtype)
        hidden = np.empty(size, dtype=distances.dtype)
        indices = np.empty(size, dtype=np.int64)
        hidden_indices = np.empty(size, dtype=np.int64)
        count, removed = 0, 0
        for place in range(starts[code], starts[code + 1]):
            j = by_id[place]
            if own_camera_hidden and cams[j] == cam:
                hidden[removed], hidden_indices[removed] = row[j], j
                removed += 1
            else:
                values[count], indices[count] = row[j], j
                count += 1
        if count == 0:
            continue
        # Entries of one id come in gallery order, so a stable sort by distance breaks ties by index.
        order = np.argsort(values[:count], kind="mergesort")
        values, indices = values[order], indices[order]
        hidden, hidden_indices = hidden[:removed], hidden_indices[:removed]
        ahead = np.zeros(count, dtype=np.int64)
        if count <= _FEW:
            _count_ahead(row, values, indices, ahead)
            for k in range(count):
                for h in range(removed):
                    if hidden[h] < values[k] or (hidden[h] == values[k] and hidden_indices[h] < indices[k]):
                        ahead[k] -= 1
        else:
            _search_ahead(row, codes, code, values, indices, ahead)
        positions = ahead + 1
        valid[query] = True
        average_precision[query] = _average_precision(ap, positions, row, values, hidden)
        penalty[query] = count / positions[count - 1]
        if unique_id:
            first_hit[query] = 1 + _distinct_ids_ahead(row, codes, code, values[0], indices[0], starts.shape[0] - 1)
        else:
            first_hit[query] = positions[0]
