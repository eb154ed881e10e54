"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) with sparse encodings, one block of distances at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.search.arrays import as_distances, as_features, as_number, as_whole_number, check_same_width
from gloam.search.distances import Metric, as_float32, block_rows, check_metric, distance_blocks, unit_rows
from gloam.search.k_reciprocal import averaged, expanded_sets, half_width, inverted, overlap_rows, sparse_rows
from gloam.search.nearest import nearest_columns

Float = NDArray[np.float32]
_ROUNDING = 1e-4  # of squared distances that are products: this share below zero is no mistake
# Makes (n, N) distances of some consecutive items to all items, queries first; squared, not normalised.
_Blocks = Callable[[], Iterator[tuple[int, Float]]]


def k_reciprocal(
    query_gallery: Any,
    query_query: Any,
    gallery_gallery: Any,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    input_is_squared: bool = False,
) -> Float:
    """Re-rank by the Jaccard distance of k-reciprocal neighbour encodings.

    *Source*: the code shared by SpCL, Cluster-Contrast, MetaPRD, fast-reid and torchreid. Every entry is squared and
    divided by the maximum of its column first; full width k1 + 1, half width round-half-to-even(k1 / 2) + 1, both with
    the item itself. Deliberate difference: neighbours at equal distances come in index order.

    Args:
        query_gallery: ``(Q, G)`` distances, NumPy or torch.
        query_query: ``(Q, Q)``.
        gallery_gallery: ``(G, G)``.
        k1: neighbours of the encoding.
        k2: neighbours of the local query expansion; 1 switches it off.
        weight: share of the original distance (lambda) in [0, 1].
        input_is_squared: the distances are squares already. False squares whatever is given, as the references do, also
            where their evaluators pass squares.

    Returns:
        ``(Q, G)`` float32, smaller is nearer. Memory beyond input and result: some blocks of 64 MiB and the sparse
        encodings, a few hundred entries per item.

    Raises:
        GloamError: shapes that do not fit, NaN or infinity, negative squares, or options out of range.
    """
    qg = _matrix(query_gallery, "query_gallery")
    qq, gg = _matrix(query_query, "query_query"), _matrix(gallery_gallery, "gallery_gallery")
    queries, gallery = qg.shape
    if qq.shape != (queries, queries) or gg.shape != (gallery, gallery):
        raise GloamError(
            f"Re-ranking got distances of shapes {qg.shape} (query, gallery), {qq.shape} (query, query) and {gg.shape} "
            "(gallery, gallery); they do not form one matrix."
        )

    unit = _common_unit((qg, qq, gg), input_is_squared)

    def blocks() -> Iterator[tuple[int, Float]]:
        # The references divide columns and transpose: row i here is column i of [[qq, qg], [qg', gg]].
        for left, right, size, first in ((qq.T, qg, queries, 0), (qg.T, gg.T, gallery, queries)):
            rows = block_rows(queries + gallery)
            for start in range(0, size, rows):
                part = np.concatenate([left[start : start + rows], right[start : start + rows]], axis=1)
                part = (part if unit == 1 else part.astype(np.float64) / unit).astype(np.float32, copy=False)
                yield first + start, np.maximum(part, 0) if input_is_squared else np.square(part)

    result = np.empty((queries, gallery), dtype=np.float32)
    for first, block in _rerank(blocks, queries, gallery, k1, k2, weight):
        result[first : first + len(block)] = block
    return result


def rerank_blocks(
    query_features: Any,
    gallery_features: Any,
    *,
    metric: Metric = "cosine",
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> Iterator[tuple[int, Float]]:
    """:func:`k_reciprocal` of Euclidean distances from features, without any matrix of all distances.

    Distances are computed twice instead (those of the queries three times).

    Args:
        query_features: ``(Q, D)`` NumPy or torch, CPU or GPU.
        gallery_features: ``(G, D)``.
        metric: ``cosine`` uses the Euclidean distance of unit vectors.
        k1: see :func:`k_reciprocal`, as all further options.
        k2: see there.
        weight: see there.

    Yields:
        Number of the first query and ``(n, G)`` re-ranked distances.

    Raises:
        GloamError: features that do not fit, NaN or infinity, or options out of range.
    """
    query, gallery = as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features")
    check_same_width(query, gallery)
    check_metric(metric)
    sides = []
    for side, name in ((query, "query_features"), (gallery, "gallery_features")):
        rows = unit_rows(side, name) if metric == "cosine" else as_float32(side, name)
        sides.append(rows.to(gallery.device))
    joint = torch.cat(sides)

    def blocks() -> Iterator[tuple[int, Float]]:
        for first, block in distance_blocks(joint, joint, "euclidean"):
            # Rounding may leave tiny negative numbers.
            yield first, block.clamp_(min=0).cpu().numpy()

    return _rerank(blocks, len(query), len(gallery), k1, k2, weight)


def _rerank(
    blocks: _Blocks, queries: int, gallery: int, k1: int, k2: int, weight: float
) -> Iterator[tuple[int, Float]]:
    """Passes over the distances: neighbours, then the few weights of the encodings, then the queries' result."""
    from gloam.evaluation import rerank_kernels

    kernels: Any = rerank_kernels  # compiled functions are opaque to type checkers
    count = queries + gallery
    k1 = as_whole_number(k1, "k1, the number of neighbours,")
    k2 = as_whole_number(k2, "k2, the number of neighbours that are averaged,")
    weight = as_number(weight, "weight")
    if not 0 <= weight <= 1:
        raise GloamError(f"weight is the share of the original distance and must lie in [0, 1], not {weight}.")
    if queries == 0 or gallery == 0:
        raise GloamError(f"Nothing to re-rank: {queries} queries, {gallery} gallery entries.")
    full, half, expand = min(k1 + 1, count), min(half_width(k1), count), min(k2, count)
    width = max(full, half, expand)
    neighbours = np.empty((count, width), dtype=np.int32)
    largest = np.empty(count, dtype=np.float32)
    for first, block in blocks():
        part = slice(first, first + len(block))
        largest[part] = np.maximum(block.max(axis=1), np.finfo(np.float32).tiny)
        if not np.isfinite(largest[part]).all():
            raise GloamError("The distances contain NaN or infinity. Check the features before re-ranking.")
        neighbours[part] = nearest_columns(torch.from_numpy(block / largest[part, None]), width).numpy()
    pointers, columns = expanded_sets(neighbours, full, half)
    values = np.empty(len(columns), dtype=np.float32)
    for first, block in blocks():
        kernels.weigh(block, first, largest, pointers, columns, values)
    encoding = averaged(sparse_rows(pointers, columns, values), neighbours, expand)
    own, lists = encoding[:queries], inverted(encoding[queries:])
    for first, block in blocks():
        if first >= queries:
            return
        stop = min(first + len(block), queries)
        mixed = overlap_rows(own, lists, first, stop)
        mixed *= np.float32(1 - weight)
        mixed += np.float32(weight) * (block[: stop - first, queries:] / largest[first:stop, None])
        yield first, mixed


def _matrix(values: Any, name: str) -> NDArray[Any]:
    found = as_distances(values, name)
    if isinstance(found, np.ndarray):
        return found
    return (found.float() if found.is_floating_point() and found.itemsize < 4 else found).cpu().numpy()


def _common_unit(matrices: tuple[NDArray[Any], ...], squared: bool) -> float:
    """A power of two that keeps squares within float32, or 1: every row is divided by its maximum later anyway.

    Raises:
        GloamError: NaN, infinity, or negative squares.
    """
    ends = [float(end) for matrix in matrices if matrix.size for end in (matrix.min(), matrix.max())]
    if not all(math.isfinite(end) for end in ends):
        raise GloamError("The distances contain NaN or infinity. Check the features before re-ranking.")
    lowest, largest = min(ends, default=0.0), max((abs(end) for end in ends), default=0.0)
    if squared and lowest < -_ROUNDING * largest:
        raise GloamError(
            f"Squared distances cannot be negative, but the smallest is {lowest:.4g}. Give distances, or squares of "
            "them; similarities are neither."
        )
    small, large = (2.0**-60, 2.0**120) if squared else (2.0**-30, 2.0**60)
    if largest == 0 or small <= largest <= large:
        return 1.0
    return float(2.0 ** math.floor(math.log2(largest)))
