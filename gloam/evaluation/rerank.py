"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with sparse encodings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from gloam.errors import GloamError
from gloam.evaluation.ranking import Metric, distance_blocks


def k_reciprocal(
    query_gallery: Any,
    query_query: Any,
    gallery_gallery: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    input_is_squared: bool = False,
) -> NDArray[np.float32]:
    """Re-rank by the Jaccard distance of k-reciprocal neighbour encodings.

    *Source*: the code shared by SpCL, Cluster-Contrast, MetaPRD, fast-reid and torchreid. Every entry is squared and
    divided by its column's maximum first; full width k1 + 1, half width round-half-to-even(k1 / 2) + 1, both with the
    item itself.

    Args:
        query_gallery: ``(Q, G)`` distances.
        query_query: ``(Q, Q)``.
        gallery_gallery: ``(G, G)``.
        k1: neighbours of the encoding.
        k2: neighbours of the local query expansion; 1 switches it off.
        weight: share of the original distance (lambda).
        input_is_squared: the distances are squares already (squaring again, as some evaluators do, changes the result).

    Returns:
        ``(Q, G)`` float32. Memory: about two (Q + G) squared float32 matrices; encodings are sparse.

    Raises:
        GloamError: shapes that do not fit.
    """
    qg, qq, gg = (_array(block) for block in (query_gallery, query_query, gallery_gallery))
    queries, gallery = qg.shape
    if qq.shape != (queries, queries) or gg.shape != (gallery, gallery):
        raise GloamError(f"Blocks of shapes {qg.shape}, {qq.shape}, {gg.shape} do not form one matrix.")
    distances = _normalised(qg, qq, gg, input_is_squared)
    count = len(distances)
    full, half = min(k1 + 1, count), min(round(k1 / 2) + 1, count)
    neighbours = _nearest(distances, max(full, min(k2, count)))
    encoding = _encode(distances, neighbours, full, half)
    if k2 != 1:
        near = neighbours[:, : min(k2, count)]
        average = sparse.csr_array(
            (np.full(near.size, 1 / near.shape[1], dtype=np.float32), near.ravel(), _pointers(near)), (count, count)
        )
        encoding = sparse.csr_array(average @ encoding)
    result = (1 - weight) * _jaccard(encoding[:queries], encoding[queries:])
    result += weight * distances[:queries, queries:]
    return result


def rerank_features(query: torch.Tensor, gallery: torch.Tensor, *, metric: Metric = "cosine") -> NDArray[np.float32]:
    """:func:`k_reciprocal` with its defaults, from features ``(Q, D)`` and ``(G, D)``.

    Cosine features use the Euclidean distance of unit vectors.
    """
    if metric == "cosine":
        query, gallery = (torch.nn.functional.normalize(x.float(), dim=1, eps=1e-12) for x in (query, gallery))
    blocks = []
    for left, right in ((query, gallery), (query, query), (gallery, gallery)):
        squared = np.concatenate([block.copy() for _, block in distance_blocks(left, right, "euclidean")])
        blocks.append(np.sqrt(np.maximum(squared, 0, out=squared), out=squared))
    return k_reciprocal(*blocks)


def _array(values: Any) -> NDArray[np.float32]:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    return array.astype(np.float32, copy=False)


def _normalised(
    qg: NDArray[np.float32], qq: NDArray[np.float32], gg: NDArray[np.float32], squared: bool
) -> NDArray[np.float32]:
    """The joint matrix, squared, each row divided by its maximum (the references divide columns and transpose)."""
    queries, gallery = qg.shape
    joint = np.empty((queries + gallery,) * 2, dtype=np.float32)
    joint[:queries, :queries], joint[:queries, queries:] = qq.T, qg
    joint[queries:, :queries], joint[queries:, queries:] = qg.T, gg.T
    if not squared:
        np.square(joint, out=joint)
    joint /= np.maximum(joint.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return joint


def _nearest(distances: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """The ``count`` nearest columns of every row in order, ties by index; only candidates are sorted."""
    result = np.empty((len(distances), count), dtype=np.int64)
    for i, row in enumerate(distances):
        limit = np.partition(row, count - 1)[count - 1]
        candidates = np.flatnonzero(row <= limit)
        result[i] = candidates[np.argsort(row[candidates], kind="stable")][:count]
    return result


def _encode(
    distances: NDArray[np.float32], neighbours: NDArray[np.int64], full: int, half: int
) -> sparse.csr_array[Any, Any]:
    """Gaussian weights over the expanded reciprocal set of every item; rows sum to 1."""
    reciprocal = [_reciprocal(neighbours, i, full) for i in range(len(neighbours))]
    small = [_reciprocal(neighbours, i, half) for i in range(len(neighbours))]
    rows, values = [], []
    for i, own in enumerate(reciprocal):
        extra = [small[j] for j in own if 3 * len(np.intersect1d(small[j], own)) > 2 * len(small[j])]
        members = np.unique(np.concatenate([own, *extra])) if extra else np.unique(own)
        weights = np.exp(-distances[i, members])
        rows.append(members)
        values.append(weights / weights.sum() if len(members) else weights)
    pointers = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    shape = (len(rows), len(rows))
    return sparse.csr_array((np.concatenate(values), np.concatenate(rows), pointers), shape, dtype=np.float32)


def _reciprocal(neighbours: NDArray[np.int64], i: int, width: int) -> NDArray[np.int64]:
    near = neighbours[i, :width]
    mutual: NDArray[np.int64] = near[(neighbours[near, :width] == i).any(axis=1)]
    return mutual


def _jaccard(queries: sparse.csr_array[Any, Any], gallery: sparse.csr_array[Any, Any]) -> NDArray[np.float32]:
    """``1 - s / (2 - s)`` with s the sum of minima, accumulated over shared columns only."""
    columns = gallery.tocsc()
    result = np.empty((queries.shape[0], gallery.shape[0]), dtype=np.float32)
    for i in range(queries.shape[0]):
        shared = np.zeros(gallery.shape[0], dtype=np.float32)
        for place in range(queries.indptr[i], queries.indptr[i + 1]):
            column, value = queries.indices[place], queries.data[place]
            span = slice(columns.indptr[column], columns.indptr[column + 1])
            shared[columns.indices[span]] += np.minimum(columns.data[span], value)
        result[i] = 1 - shared / (2 - shared)
    return result


def _pointers(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.arange(0, rows.size + 1, rows.shape[1])
