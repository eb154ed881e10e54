"""The compiled loop behind the weights of k-reciprocal re-ranking; columns come from ``gloam.search.k_reciprocal``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


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
