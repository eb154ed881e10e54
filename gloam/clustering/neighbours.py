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

from gloam.clustering.blocks import map_blocks
from gloam.errors import GloamError

_BLOCK_BYTES = 1 << 26  # of one block of the distance matrix
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

    Needs one block of distances (64 MB) beyond the features, never N x N.

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
    values = tensor.cpu().numpy()
    indices = np.empty((count, k), dtype=np.int32)
    distances = np.empty((count, k), dtype=np.float32)
    for start in range(0, count, block := max(1, _BLOCK_BYTES // (4 * count))):
        # Without the row's own square, which does not change its order.
        scores = torch.addmm(squares, tensor[start : start + block], tensor.T, alpha=-2)
        if scores.is_cuda:
            _, proposed = scores.topk(min(2 * k + 16, count), dim=1, largest=False)
            proposed, _ = proposed.sort(dim=1)  # ascending indices, so that ties go to the lower one
            candidates, table = proposed.to(torch.int32).cpu().numpy(), np.empty((0, 0), dtype=np.float32)
        else:
            candidates, table = np.empty((0, 0), dtype=np.int32), scores.numpy()
        refine = partial(_refine, table, candidates, values, start, tolerance, indices, distances)
        for _ in map_blocks(refine, len(scores), 64):
            pass
    return indices, distances


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
def _kth_smallest(row: Any, heap: Any) -> float:
    """The k-th smallest entry, k the size of the scratch heap."""
    k = len(heap)
    heap[:] = np.inf
    for j in range(len(row)):
        if row[j] < heap[0]:
            heap[0] = row[j]
            _sift_down(heap, k)
    border: float = heap[0]
    return border


@njit(cache=True, fastmath=True)
def _squared_distance(x: Any, y: Any) -> float:
    total = 0.0
    for d in range(len(x)):
        gap = np.float64(x[d]) - np.float64(y[d])
        total += gap * gap
    return total


@njit(cache=True, nogil=True)
def _refine(
    scores: Any,
    candidates: Any,
    features: Any,
    offset: int,
    tolerance: float,
    indices: Any,
    distances: Any,
    first: int,
    last: int,
) -> None:
    """Choose the k nearest of rows ``offset + first`` .. ``offset + last`` by exact distance.

    Candidates are given (from a GPU), or read off the scores: everything surely among the k nearest, and at most
    ``4 k + 64`` entries that rounding could have moved across the border, lowest indices first.
    """
    k = indices.shape[1]
    cap = 4 * k + 64
    heap = np.empty(k, dtype=np.float32)
    chosen = np.empty(cap + k, dtype=np.int32)
    exact = np.empty(cap + k, dtype=np.float64)
    for r in range(first, last):
        found = 0
        if candidates.shape[0] > 0:
            row = candidates[r]
            found = min(len(row), cap + k)
            chosen[:found] = row[:found]
        else:
            border = _kth_smallest(scores[r], heap)
            doubtful = 0
            for j in range(scores.shape[1]):
                score = scores[r, j]
                if score <= border + tolerance:
                    if score < border - tolerance:
                        chosen[found] = j
                        found += 1
                    elif doubtful < cap:
                        chosen[found] = j
                        found += 1
                        doubtful += 1
        i = offset + r
        for c in range(found):
            exact[c] = _squared_distance(features[i], features[chosen[c]])
        order = np.argsort(exact[:found], kind="mergesort")
        for c in range(k):
            indices[i, c] = chosen[order[c]]
            distances[i, c] = exact[order[c]]
