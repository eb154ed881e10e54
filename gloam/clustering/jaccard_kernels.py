"""The compiled loop behind the Jaccard distance's weights. It works on a block of rows and releases the interpreter
lock; columns come from ``gloam.search.k_reciprocal``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, fastmath=True)
def _dot(x: Any, y: Any) -> float:
    total = 0.0
    for d in range(len(x)):
        total += np.float64(x[d]) * np.float64(y[d])
    return total


@njit(cache=True, nogil=True)
def weigh_rows(features: Any, starts: Any, columns: Any, weights: Any, start: int, stop: int) -> None:
    """``weights`` of a block of rows: softmax of ``-(2 - 2 x.y)`` over the row's columns, summed in column order."""
    for i in range(start, stop):
        first, last = starts[i], starts[i + 1]
        scores = np.empty(last - first, dtype=np.float64)
        largest = -np.inf
        for c in range(last - first):
            # the constant 2 cancels
            scores[c] = 2 * _dot(features[i], features[columns[first + c]])
            largest = max(largest, scores[c])
        total = 0.0
        for c in range(last - first):
            scores[c] = np.exp(scores[c] - largest)
            total += scores[c]
        for c in range(last - first):
            weights[first + c] = scores[c] / total
