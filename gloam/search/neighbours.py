"""Exact nearest neighbours by blocks: a matrix product proposes, exact distances decide.

The product's rounding depends on block sizes and threads, so it only proposes candidates (with a margin above its
error). Their distances are computed again from differences: the order, ties by index, is then the same on every
device and number of threads, and duplicates are at distance exactly 0.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gloam.errors import GloamError
from gloam.search.blocks import map_blocks

_BLOCK_BYTES = 1 << 26  # of one block of the distance matrix on a GPU
_TILE_ROWS, _TILE_COLUMNS = 1024, 4096  # of one tile of the products on the CPU, whatever N
_ROUNDING = 1e-5  # of a float32 product of two vectors of squared length 1


def as_features(features: ArrayLike | Tensor) -> Tensor:
    """``(N, D)`` as a contiguous float32 tensor where it lies (CPU or GPU).

    Raises:
        GloamError: not a matrix, empty, or with a NaN or infinite entry.
    """
    tensor = features.detach() if isinstance(features, Tensor) else torch.as_tensor(np.asarray(features))
    if tensor.ndim != 2 or 0 in tensor.shape:
        raise GloamError(f"Features must be a matrix (N, D) with at least one row, not {tuple(tensor.shape)}.")
    tensor = tensor.to(torch.float32).contiguous()
    # A sum is finite if no entry is NaN or infinite (nor the sum overflows): one pass, no copy of the matrix.
    if not bool(torch.isfinite(tensor.sum(dim=1)).all()):
        raise GloamError(
            "Some features are NaN or infinite, so no neighbours can be found. The network has diverged: lower the "
            "learning rate, or train with precision 32."
        )
    return tensor


def nearest_neighbours(features: ArrayLike | Tensor, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k nearest rows of every row by squared Euclidean distance, itself included, ties by index.

    Needs tiles of products (34 MB; on a GPU 64 MB) and N (7 k + 128) numbers beyond the features, never N x N.

    Args:
        features: ``(N, D)``.
        k: neighbours; clamped to N (the flat index of the references pads with -1 instead).

    Returns:
        ``(N, k)`` int32 indices, nearest first, and ``(N, k)`` float32 squared distances.
    """
    tensor = as_features(features)
    count = len(tensor)
    k = min(k, count)
    squares = tensor.square().sum(dim=1)
    tolerance = _ROUNDING * float(squares.max())
    pool = _Pool(count, k)
    if tensor.is_cuda:
        _propose_on_device(tensor, squares, pool)
    else:
        _propose_by_tiles(tensor, squares, pool, tolerance)
    values = tensor.cpu().numpy()
    indices = np.empty((count, k), dtype=np.int32)
    distances = np.empty((count, k), dtype=np.float32)
    limits = pool.nearest[:, 0] + np.float32(tolerance)
    refine = partial(_refine, values, limits, pool.indices, pool.scores, pool.sizes, indices, distances)
    for _ in map_blocks(refine, count, 256):
        pass
    return indices, distances


class _Pool:
    """Candidates of every row: what may be among the k nearest in spite of rounding.

    Args:
        count: N.
        k: neighbours wanted.
    """

    def __init__(self, count: int, k: int) -> None:
        self.capacity = 2 * k + 64
        self.nearest = np.full((count, k), np.inf, dtype=np.float32)  # max-heaps of the k smallest scores
        self.indices = np.empty((count, self.capacity), dtype=np.int32)
        self.scores = np.zeros((count, self.capacity), dtype=np.float32)
        self.sizes = np.zeros(count, dtype=np.int32)

    def absorb(
        self, products: NDArray[np.float32], squares: NDArray[np.float32], row: int, column: int, tolerance: float
    ) -> None:
        """Look at the dot products of rows ``row`` ... with columns ``column`` ..., which come in ascending order."""
        step = partial(
            _absorb, products, squares, row, column, tolerance, self.nearest, self.indices, self.scores, self.sizes
        )
        for _ in map_blocks(step, len(products), 64):
            pass


def _propose_on_device(tensor: Tensor, squares: Tensor, pool: _Pool) -> None:
    """The nearest candidates of every row by products on a GPU."""
    count = len(tensor)
    for start in range(0, count, block := max(1, _BLOCK_BYTES // (4 * count))):
        stop = min(start + block, count)
        scores = torch.addmm(squares, tensor[start:stop], tensor.T, alpha=-2)
        found = scores.topk(min(pool.capacity, count), dim=1, largest=False).indices.sort(dim=1).values
        pool.indices[start:stop, : found.shape[1]] = found.to(torch.int32).cpu().numpy()
        pool.sizes[start:stop] = found.shape[1]


def _propose_by_tiles(tensor: Tensor, squares: Tensor, pool: _Pool, tolerance: float) -> None:
    """Candidates by products on the CPU: they are symmetric, so each is computed once and looked at from both sides."""
    count, lengths = len(tensor), squares.numpy()
    memory = torch.empty(min(_TILE_ROWS, count) * min(_TILE_COLUMNS, count))
    for start in range(0, count, _TILE_ROWS):
        stop = min(start + _TILE_ROWS, count)
        for column in range(start, count, _TILE_COLUMNS):
            end = min(column + _TILE_COLUMNS, count)
            products = memory[: (stop - start) * (end - column)].view(stop - start, end - column)
            torch.mm(tensor[start:stop], tensor[column:end].T, out=products)
            pool.absorb(products.numpy(), lengths, start, column, tolerance)
            # Columns inside this block of rows have met all of it already.
            first = max(column, stop)
            if first < end:
                pool.absorb(products[:, first - column :].T.contiguous().numpy(), lengths, first, start, tolerance)


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


@njit(cache=True, fastmath=True)
def _squared_distance(x: Any, y: Any) -> float:
    total = 0.0
    for d in range(len(x)):
        gap = np.float64(x[d]) - np.float64(y[d])
        total += gap * gap
    return total


@njit(cache=True)
def _drop_far(indices: Any, scores: Any, size: int, limit: float) -> int:
    """Drop candidates beyond the limit, which has come nearer since they were taken; the new size."""
    kept = 0
    for c in range(size):
        if scores[c] <= limit:
            indices[kept] = indices[c]
            scores[kept] = scores[c]
            kept += 1
    return kept


@njit(cache=True)
def _drop_border(indices: Any, scores: Any, size: int, sure: float) -> int:
    """Drop the last candidate that is not surely inside (fewer than k are); the new size."""
    last = size - 1
    while last > 0 and scores[last] < sure:
        last -= 1
    for c in range(last, size - 1):
        indices[c] = indices[c + 1]
        scores[c] = scores[c + 1]
    return size - 1


@njit(cache=True, nogil=True)
def _absorb(
    products: Any,
    squares: Any,
    row: int,
    column: int,
    tolerance: float,
    nearest: Any,
    indices: Any,
    scores: Any,
    sizes: Any,
    first: int,
    last: int,
) -> None:
    """Offer the products of rows ``first`` .. ``last`` of a block to their candidate lists, in column order.

    A score is the squared distance without the row's own square. Among too many equal ones the lowest indices stay.
    """
    width = nearest.shape[1]
    capacity = indices.shape[1]
    for r in range(first, last):
        i = row + r
        heap = nearest[i]
        size = sizes[i]
        limit = heap[0] + tolerance
        for c in range(products.shape[1]):
            score = squares[column + c] - 2 * products[r, c]
            if score <= limit:
                nearer = score < heap[0]
                if nearer:
                    heap[0] = score
                    _sift_down(heap, width)
                    limit = heap[0] + tolerance
                if size == capacity:
                    kept = _drop_far(indices[i], scores[i], size, limit)
                    if kept == size:
                        if score >= heap[0] - tolerance:
                            continue
                        kept = _drop_border(indices[i], scores[i], size, heap[0] - tolerance)
                    size = kept
                indices[i, size] = column + c
                scores[i, size] = score
                size += 1
        sizes[i] = size


@njit(cache=True, nogil=True)
def _refine(
    features: Any,
    limits: Any,
    candidates: Any,
    scores: Any,
    sizes: Any,
    indices: Any,
    distances: Any,
    first: int,
    last: int,
) -> None:
    """The k nearest of rows ``first`` .. ``last`` among their candidates, by exact distance, then index."""
    k = indices.shape[1]
    exact = np.empty(candidates.shape[1], dtype=np.float64)
    for i in range(first, last):
        found = _drop_far(candidates[i], scores[i], sizes[i], limits[i])
        for c in range(found):
            exact[c] = _squared_distance(features[i], features[candidates[i, c]])
        # Candidates are in ascending order and the sort is stable.
        order = np.argsort(exact[:found], kind="mergesort")
        for c in range(k):
            indices[i, c] = candidates[i, order[c]]
            distances[i, c] = exact[order[c]]
