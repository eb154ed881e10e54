"""Compiled loops of the nearest-neighbour search. They work on blocks of rows and release the interpreter lock.

Positions come from loops over the arrays' own lengths; whoever calls them has checked shapes and that numbers are
finite (``Points``, ``nearest_columns``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gloam.search.kinds import COSINE, ROOT

_CHUNK = 64  # columns that are compared with the limit at once


@njit(cache=True)
def _sift_down(heap: Any, size: int) -> None:
    """Restore the max-heap below a replaced root."""
    place, value = 0, heap[0]
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        if child + 1 < size and heap[child + 1] > heap[child]:
            child += 1
        if heap[child] <= value:
            break
        heap[place] = heap[child]
        place = child
    heap[place] = value


@njit(cache=True)
def _replace_last(values: Any, numbers: Any, value: float, number: int) -> None:
    """Put an entry in place of the last one (largest value, then largest number) of a max-heap."""
    size, place = values.shape[0], 0
    while True:
        child = 2 * place + 1
        if child >= size:
            break
        other = child + 1
        if other < size and (
            values[other] > values[child] or (values[other] == values[child] and numbers[other] > numbers[child])
        ):
            child = other
        if values[child] < value or (values[child] == value and numbers[child] < number):
            break
        values[place] = values[child]
        numbers[place] = numbers[child]
        place = child
    values[place] = value
    numbers[place] = number


@njit(cache=True)
def _in_order(values: Any, numbers: Any) -> Any:
    """Order of a heap's entries: by value, then by number."""
    by_number = np.argsort(numbers, kind="mergesort")
    return by_number[np.argsort(values[by_number], kind="mergesort")]


@njit(cache=True, nogil=True)
def nearest_of_rows(distances: Any, hidden: Any, found: Any, first: int, last: int) -> None:
    """The nearest columns of rows ``first`` .. ``last`` in order, ties by index; -1 where there are no more.

    Args:
        distances: ``(n, G)``; infinite and NaN entries are never found.
        hidden: ``(n, G)`` bool, or ``(0, 0)``.
        found: output ``(n, k)``.
    """
    count = found.shape[1]
    masked = hidden.shape[0] > 0
    values = np.empty(count, dtype=distances.dtype)
    numbers = np.empty(count, dtype=np.int64)
    for i in range(first, last):
        values[:] = np.inf
        numbers[:] = -1
        row = distances[i]
        for j in range(row.shape[0]):
            if -np.inf < row[j] < values[0] and not (masked and hidden[i, j]):
                _replace_last(values, numbers, row[j], j)
        order = _in_order(values, numbers)
        for c in range(count):
            found[i, c] = numbers[order[c]]


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz"})
def squares_of_rows(rows: Any, squares: Any, first: int, last: int) -> None:
    """Squared lengths in float64."""
    for i in range(first, last):
        total = 0.0
        for d in range(rows.shape[1]):
            value = np.float64(rows[i, d])
            total += value * value
        squares[i] = total


@njit(cache=True, fastmath=True)
def _squared_distance(x: Any, y: Any) -> float:
    total = 0.0
    for d in range(len(x)):
        gap = np.float64(x[d]) - np.float64(y[d])
        total += gap * gap
    return total


# Without contraction: a fused product would leave equal rows at a distance above 0.
@njit(cache=True, fastmath={"reassoc", "nsz"})
def _scaled_distance(x: Any, y: Any, a: float, b: float) -> float:
    total = 0.0
    for d in range(len(x)):
        gap = a * np.float64(x[d]) - b * np.float64(y[d])
        total += gap * gap
    return total


@njit(cache=True)
def _exact(kind: int, x: Any, y: Any, a: float, b: float) -> float:
    """Squared distance, or 1 - cosine from differences of unit vectors (1 where a row is zero)."""
    if kind != COSINE:
        return _squared_distance(x, y)
    if a == 0 or b == 0:
        return 1.0
    return _scaled_distance(x, y, a, b) / 2


@njit(cache=True)
def _drop_far(indices: Any, lows: Any, size: int, limit: float) -> int:
    """Drop candidates beyond the limit, which has come nearer since they were taken; the new size."""
    kept = 0
    for c in range(size):
        if lows[c] <= limit:
            indices[kept] = indices[c]
            lows[kept] = lows[c]
            kept += 1
    return kept


@njit(cache=True)
def _any_below(products: Any, base: Any, slope: Any, length: float, limit: float) -> Any:
    """Whether some lower end is not above the limit. The 32-bit sum lets the compiler use vector registers."""
    total = np.uint32(0)
    for c in range(products.shape[0]):
        low = base[c] - length * slope[c] - (products[c] + products[c])
        total = np.uint32(total + np.uint32(low <= limit))
    return total > 0


@njit(cache=True, nogil=True)
def absorb(
    products: Any,
    lengths: Any,
    row: int,
    column: int,
    base: Any,
    slope: Any,
    spread: Any,
    hidden: Any,
    nearest: Any,
    indices: Any,
    lows: Any,
    sizes: Any,
    overflowed: Any,
    first: int,
    last: int,
) -> None:
    """Offer the products of rows ``first`` .. ``last`` of a block to their candidate lists, in column order.

    The score of a column (its squared distance without the row's own square) lies between ``low = base - slope length
    - 2 product`` and ``low + spread + 2 slope length``. A list keeps what may be among the k nearest; one that runs
    over is given up.

    Args:
        products: ``(n, m)`` of rows ``row`` .. and columns ``column`` .., which come in ascending order.
        lengths: ``(n,)`` of these rows.
        row: number of the first row.
        column: number of the first column.
        base: ``(G,)`` see above.
        slope: ``(G,)`` see above.
        spread: ``(G,)`` see above.
        hidden: ``(Q, G)`` bool, or ``(0, 0)``.
        nearest: ``(Q, k)`` max-heaps of the smallest upper ends.
        indices: ``(Q, capacity)`` candidates.
        lows: ``(Q, capacity)`` their lower ends.
        sizes: ``(Q,)`` candidates per row.
        overflowed: ``(Q,)`` bool.
        first: first row of ``products`` to look at.
        last: row after the last one.
    """
    width, capacity, columns = nearest.shape[1], indices.shape[1], products.shape[1]
    masked = hidden.shape[0] > 0
    for r in range(first, last):
        i = row + r
        if overflowed[i]:
            continue
        heap, length, size = nearest[i], lengths[r], sizes[i]
        limit = heap[0]
        for start in range(0, columns, _CHUNK):
            stop = min(start + _CHUNK, columns)
            here = slice(column + start, column + stop)
            if not _any_below(products[r, start:stop], base[here], slope[here], length, limit):
                continue
            for c in range(start, stop):
                j = column + c
                low = base[j] - length * slope[j] - (products[r, c] + products[r, c])
                if low > limit or (masked and hidden[i, j]):
                    continue
                high = low + spread[j] + (length * slope[j] + length * slope[j])
                if high < heap[0]:
                    heap[0] = high
                    _sift_down(heap, width)
                    limit = heap[0]
                if size == capacity:
                    size = _drop_far(indices[i], lows[i], size, limit)
                    if size == capacity:
                        overflowed[i] = True
                        break
                indices[i, size] = j
                lows[i, size] = low
                size += 1
            if overflowed[i]:
                break
        sizes[i] = size


@njit(cache=True, nogil=True)
def refine(
    kind: int,
    queries: Any,
    query_factors: Any,
    gallery: Any,
    gallery_factors: Any,
    nearest: Any,
    candidates: Any,
    lows: Any,
    sizes: Any,
    overflowed: Any,
    indices: Any,
    distances: Any,
    first: int,
    last: int,
) -> None:
    """The k nearest of rows ``first`` .. ``last`` among their ascending candidates, by exact distance, then index.

    Rows that ran over are left alone; missing entries are -1 at infinity.
    """
    k = indices.shape[1]
    exact = np.empty(candidates.shape[1], dtype=np.float64)
    for i in range(first, last):
        if overflowed[i]:
            continue
        found = _drop_far(candidates[i], lows[i], sizes[i], nearest[i, 0])
        for c in range(found):
            j = candidates[i, c]
            exact[c] = _exact(kind, queries[i], gallery[j], query_factors[i], gallery_factors[j])
        # Candidates are in ascending order and the sort is stable.
        order = np.argsort(exact[:found], kind="mergesort")
        for c in range(k):
            if c < found:
                indices[i, c] = candidates[i, order[c]]
                value = exact[order[c]]
                distances[i, c] = np.sqrt(value) if kind == ROOT else value
            else:
                indices[i, c] = -1
                distances[i, c] = np.inf


@njit(cache=True, nogil=True)
def scan(
    kind: int,
    queries: Any,
    query_factors: Any,
    gallery: Any,
    gallery_factors: Any,
    hidden: Any,
    indices: Any,
    distances: Any,
    first: int,
    last: int,
) -> None:
    """The k nearest of rows ``first`` .. ``last`` by the exact distance to every row of the gallery."""
    k = indices.shape[1]
    masked = hidden.shape[0] > 0
    values = np.empty(k, dtype=np.float64)
    numbers = np.empty(k, dtype=np.int64)
    for i in range(first, last):
        values[:] = np.inf
        numbers[:] = -1
        for j in range(gallery.shape[0]):
            if masked and hidden[i, j]:
                continue
            value = _exact(kind, queries[i], gallery[j], query_factors[i], gallery_factors[j])
            if value < values[0]:
                _replace_last(values, numbers, value, j)
                if values[0] == 0:
                    break  # nothing is nearer, and later rows lose the tie
        order = _in_order(values, numbers)
        for c in range(k):
            value = values[order[c]]
            indices[i, c] = numbers[order[c]]
            distances[i, c] = np.sqrt(value) if kind == ROOT else value
