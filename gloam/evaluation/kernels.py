"""Compiled counting behind the ranking. One thread per query; nothing is sorted but a query's own matches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange


@njit(cache=True, inline="always")
def _hidden(rule: int, query_code: int, query_cam: int, gallery_code: int, gallery_cam: int) -> bool:
    """Whether the camera rule removes a gallery entry for a query."""
    if rule == 1:
        return gallery_code == query_code and gallery_cam == query_cam
    if rule == 2:
        return query_cam == 3 and gallery_cam == 2
    return False


@njit(cache=True, inline="always")
def _before(values: Any, indices: Any, count: int, value: float, index: int) -> int:
    """How many of the sorted matches come before an entry, in order of (distance, gallery index)."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < value or (values[middle] == value and indices[middle] < index):
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def _count_entries(
    row: Any,
    rule: int,
    query_code: int,
    query_cam: int,
    codes: Any,
    cams: Any,
    values: Any,
    indices: Any,
    count: int,
    bins: Any,
) -> bool:
    """Count every kept non-match in the gap between matches that it falls into. False if a distance is NaN."""
    last = values[count - 1]
    for j in range(len(row)):
        value = row[j]
        if value <= last:
            if codes[j] != query_code and not _hidden(rule, query_code, query_cam, codes[j], cams[j]):
                bins[_before(values, indices, count, value, j)] += 1
        elif value != value:
            return False
    return True


@njit(cache=True)
def _distinct_ids_before(
    row: Any,
    rule: int,
    query_code: int,
    query_cam: int,
    codes: Any,
    cams: Any,
    value: float,
    index: int,
    seen: Any,
    mark: bool,
) -> int:
    """Number of other ids that have a kept entry before the first match."""
    total = 0
    for j in range(len(row)):
        if row[j] < value or (row[j] == value and j < index):
            code = codes[j]
            if code != query_code and seen[code] != mark and not _hidden(rule, query_code, query_cam, code, cams[j]):
                seen[code] = mark
                total += 1
    return total


@njit(cache=True)
def _average_precision(
    kind: int,
    positions: Any,
    count: int,
    values: Any,
    row: Any,
    rule: int,
    query_code: int,
    query_cam: int,
    codes: Any,
    cams: Any,
) -> float:
    total = 0.0
    if kind == 1:
        return _grouped_precision(count, values, row, rule, query_code, query_cam, codes, cams)
    for j in range(count):
        precision = (j + 1) / positions[j]
        if kind == 2:
            before = 1.0 if positions[j] == 1 else j / (positions[j] - 1)
            total += (before + precision) / 2
        else:
            total += precision
    return total / count


@njit(cache=True)
def _grouped_precision(
    count: int, values: Any, row: Any, rule: int, query_code: int, query_cam: int, codes: Any, cams: Any
) -> float:
    """Equal distances form one threshold: every match of a group gets the precision at the group's end."""
    total = 0.0
    start = 0
    while start < count:
        end = start + 1
        while end < count and values[end] == values[start]:
            end += 1
        others = 0
        for j in range(len(row)):
            if row[j] <= values[start] and codes[j] != query_code:
                others += not _hidden(rule, query_code, query_cam, codes[j], cams[j])
        total += (end - start) * end / (others + end)
        start = end
    return total / count


@njit(parallel=True, cache=True)
def _rank_rows(
    distances: Any,
    query_codes: Any,
    query_cams: Any,
    codes: Any,
    cams: Any,
    by_id: Any,
    starts: Any,
    rule: int,
    cmc: int,
    ap: int,
    valid: Any,
    first_hit: Any,
    average_precision: Any,
    penalty: Any,
    bad: Any,
) -> None:
    queries = len(distances)
    ids = len(starts) - 1
    for i in prange(queries):
        row = distances[i]
        code, cam = query_codes[i], query_cams[i]
        size = starts[code + 1] - starts[code] if code >= 0 else 0
        values = np.empty(size, dtype=row.dtype)
        indices = np.empty(size, dtype=np.int64)
        count = 0
        for k in range(size):
            j = by_id[starts[code] + k]
            if not _hidden(rule, code, cam, codes[j], cams[j]):
                bad[i] |= row[j] != row[j]
                values[count] = row[j]
                indices[count] = j
                count += 1
        if count == 0:
            for j in range(len(row)):
                bad[i] |= row[j] != row[j]
            continue
        if bad[i]:
            continue
        # Entries of one id come in gallery order, so a stable sort by distance breaks ties by index.
        order = np.argsort(values[:count], kind="mergesort")
        values, indices = values[order], indices[order]
        bins = np.zeros(count + 1, dtype=np.int64)
        if not _count_entries(row, rule, code, cam, codes, cams, values, indices, count, bins):
            bad[i] = True
            continue
        positions = np.empty(count, dtype=np.int64)
        ahead = 0
        for k in range(count):
            ahead += bins[k]
            positions[k] = ahead + k + 1
        valid[i] = True
        average_precision[i] = _average_precision(ap, positions, count, values, row, rule, code, cam, codes, cams)
        penalty[i] = count / positions[count - 1]
        if cmc == 1:
            seen = np.zeros(ids, dtype=np.bool_)
            first_hit[i] = 1 + _distinct_ids_before(
                row, rule, code, cam, codes, cams, values[0], indices[0], seen, True
            )
        else:
            first_hit[i] = positions[0]


def rank_rows(distances: Any, *rest: Any) -> int:
    """Rank a block of queries into the output arrays; the row of the first NaN, or -1."""
    bad = np.zeros(len(distances), dtype=np.bool_)
    kernel: Any = _rank_rows
    kernel(distances, *rest, bad)
    rows = np.flatnonzero(bad)
    return int(rows[0]) if len(rows) else -1
