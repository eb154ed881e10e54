"""Jaccard distance of k-reciprocal encodings in sparse form: an inverted index instead of N x N matrices.

*Source*: Zhong et al., CVPR 2017, in the variant of SpCL, Cluster Contrast and MetaPRD (``faiss_rerank.py`` of their
releases): k1 neighbours including the item itself, local query expansion over k2. An encoding has a few hundred entries
at most, and two items are closer than 1 only if they share one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from torch import Tensor

from gloam.clustering import jaccard_kernels as kernels
from gloam.errors import GloamError
from gloam.search.blocks import map_blocks
from gloam.search.neighbours import as_features, nearest_neighbours

_ROWS = 256  # rows per block of the compiled loops


def jaccard_distance(features: ArrayLike | Tensor, *, k1: int = 30, k2: int = 6) -> csr_array:
    """Jaccard distance of the k-reciprocal encodings of all pairs.

    Items with k1 or more exact duplicates of lower index have an empty encoding, as in the references; without help
    from query expansion their distances, also to themselves, are 1 and therefore absent.

    Args:
        features: ``(N, D)`` unit rows, NumPy or torch.
        k1: neighbours including the item itself; clamped to N.
        k2: neighbours averaged by local query expansion; 1 switches it off; clamped to N.

    Returns:
        ``(N, N)`` float32, symmetric to the bit: every pair below 1 is stored (zeros too, the diagonal included), an
        absent pair is exactly 1.

    Raises:
        GloamError: no matrix, a NaN, or k1 or k2 below 1.
    """
    columns, encoding = _inverted(encode(features, k1=k1, k2=k2))
    count = encoding.shape[0]
    blocks = list(
        map_blocks(
            lambda start, stop: kernels.distances_of_rows(
                encoding.indptr,
                encoding.indices,
                encoding.data,
                columns.indptr,
                columns.indices,
                columns.data,
                start,
                stop,
                np.float32(2),
                False,
            ),
            count,
            _ROWS,
        )
    )
    return _join(blocks, count)


def near_pairs(features: ArrayLike | Tensor, *, limit: float, k1: int = 30, k2: int = 6) -> csr_array:
    """The pairs j <= i at a Jaccard distance of at most ``limit``, nothing else is kept: what clustering needs.

    Args:
        features: ``(N, D)`` unit rows.
        limit: largest distance kept, in (0, 1).
        k1: see :func:`jaccard_distance`.
        k2: see :func:`jaccard_distance`.

    Returns:
        ``(N, N)`` lower triangle with diagonal; zeros are stored.

    Raises:
        GloamError: a limit outside (0, 1), or see :func:`jaccard_distance`.
    """
    if not 0 < limit < 1:
        raise GloamError(f"A Jaccard distance threshold (eps) must lie between 0 and 1, not {limit}.")
    columns, encoding = _inverted(encode(features, k1=k1, k2=k2))
    count = encoding.shape[0]
    blocks = list(
        map_blocks(
            lambda start, stop: kernels.distances_of_rows(
                encoding.indptr,
                encoding.indices,
                encoding.data,
                columns.indptr,
                columns.indices,
                columns.data,
                start,
                stop,
                np.float32(limit),
                True,
            ),
            count,
            _ROWS,
        )
    )
    return _join(blocks, count)


def encode(features: ArrayLike | Tensor, *, k1: int = 30, k2: int = 6) -> csr_array:
    """Sparse k-reciprocal encodings V after local query expansion: ``(N, N)``, rows ordered by column.

    Raises:
        GloamError: no matrix, a NaN, or k1 or k2 below 1.
    """
    if k1 < 1 or k2 < 1:
        raise GloamError(f"k1 and k2 count neighbours and must be at least 1, not {k1} and {k2}.")
    tensor = as_features(features)
    count = len(tensor)
    half = int(np.around(k1 / 2)) + 1  # half to even, plus the item itself
    # k2 may exceed k1; the references cut it at the k1 neighbours they have.
    neighbours, _ = nearest_neighbours(tensor, k1)
    width = neighbours.shape[1]
    values = tensor.cpu().numpy()
    full_sets = np.empty((count, width), dtype=np.int32)
    half_sets = np.empty((count, min(half, width)), dtype=np.int32)
    full_sizes, half_sizes = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.int32)
    for _ in map_blocks(
        lambda start, stop: kernels.reciprocal_sets(neighbours, start, stop, full_sets, full_sizes), count, _ROWS
    ):
        pass
    nearer = np.ascontiguousarray(neighbours[:, : half_sets.shape[1]])
    for _ in map_blocks(
        lambda start, stop: kernels.reciprocal_sets(nearer, start, stop, half_sets, half_sizes), count, _ROWS
    ):
        pass
    encoding = _join(
        list(
            map_blocks(
                lambda start, stop: kernels.encode_rows(
                    values, full_sets, full_sizes, half_sets, half_sizes, start, stop
                ),
                count,
                _ROWS,
            )
        ),
        count,
    )
    if k2 == 1:
        return encoding
    return _join(
        list(
            map_blocks(
                lambda start, stop: kernels.average_rows(
                    encoding.indptr, encoding.indices, encoding.data, neighbours, min(k2, width), start, stop
                ),
                count,
                _ROWS,
            )
        ),
        count,
    )


_Rows = tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]


def _inverted(encoding: csr_array) -> tuple[csr_array, csr_array]:
    """The transposed encoding (for every column the rows that use it, ascending), and the encoding itself."""
    return csr_array(encoding.T.tocsr()), encoding


def _join(blocks: list[_Rows], count: int) -> csr_array:
    """Blocks of rows to one matrix; each block is freed as soon as it is copied."""
    sizes = np.concatenate([[0], *(block[0] for block in blocks)])
    starts = np.cumsum(sizes, dtype=np.int64)
    total = int(starts[-1])
    columns = np.empty(total, dtype=np.int32)
    data = np.empty(total, dtype=np.float32)
    place = 0
    blocks.reverse()
    while blocks:
        _, part_columns, part_data = blocks.pop()
        columns[place : place + len(part_columns)] = part_columns
        data[place : place + len(part_columns)] = part_data
        place += len(part_columns)
    if total <= np.iinfo(np.int32).max:
        starts = starts.astype(np.int32)
    return csr_array((data, columns, starts), shape=(count, count))
