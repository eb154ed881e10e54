"""Jaccard distance of k-reciprocal encodings in sparse form: an inverted index instead of N x N matrices.

*Source*: Zhong et al., CVPR 2017, in the variant of SpCL, Cluster Contrast and MetaPRD (``faiss_rerank.py`` of their
releases): k1 neighbours including the item itself, local query expansion over k2. An encoding has a few hundred entries
at most, and two items are closer than 1 only if they share one.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from torch import Tensor

from gloam.errors import GloamError
from gloam.search.arrays import as_number, as_whole_number
from gloam.search.blocks import map_blocks
from gloam.search.k_reciprocal import averaged, expanded_sets, half_width, overlap_pairs, sparse_rows
from gloam.search.neighbours import as_rows, neighbours_of
from gloam.search.points import Points

_ROWS = 256  # rows per block of the compiled loop
_TOLERANCE = 1e-2  # of a length of 1: features that went through bfloat16 are off by up to 4e-3


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
        GloamError: no matrix of finite numbers, no row, rows that are not of length 1 (to 1 %, which leaves room for
            half precision), or k1 or k2 below 1.
    """
    return overlap_pairs(encode(_unit_points(features), k1=k1, k2=k2))


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
    limit = as_number(limit, "A Jaccard distance threshold (eps)")
    if not 0 < limit < 1:
        raise GloamError(f"A Jaccard distance threshold (eps) must lie between 0 and 1, not {limit}.")
    return overlap_pairs(encode(_unit_points(features), k1=k1, k2=k2), limit=limit, lower=True)


def encode(points: Points, *, k1: int = 30, k2: int = 6) -> csr_array:
    """Sparse k-reciprocal encodings V after local query expansion: ``(N, N)``, rows ordered by column.

    Raises:
        GloamError: k1 or k2 below 1, or distances beyond float32.
    """
    k1 = as_whole_number(k1, "k1, the number of neighbours,")
    k2 = as_whole_number(k2, "k2, the number of neighbours that are averaged,")
    neighbours, _ = neighbours_of(points, k1)
    width = neighbours.shape[1]
    starts, columns = expanded_sets(neighbours, width, min(half_width(k1), width))
    encoding = sparse_rows(starts, columns, _weights(points, starts, columns))
    # k2 may exceed k1; the references cut it at the k1 neighbours they have.
    return averaged(encoding, neighbours, min(k2, width))


def _unit_points(features: ArrayLike | Tensor) -> Points:
    points = as_rows(features)
    lengths = points.squares.sqrt()
    row = int((lengths - 1).abs().argmax())
    length = float(lengths[row])
    if abs(length - 1) > _TOLERANCE:
        raise GloamError(
            f"The Jaccard distance needs features of length 1, but row {row} has length {length:.4g} (the largest "
            f"deviation of {len(points)} rows). Divide each row by its length first: features / "
            "numpy.linalg.norm(features, axis=1, keepdims=True)."
        )
    return points


def _weights(points: Points, starts: np.ndarray, columns: np.ndarray) -> np.ndarray:
    from gloam.clustering import jaccard_kernels

    weights = np.empty(len(columns), dtype=np.float32)
    step = partial(jaccard_kernels.weigh_rows, points.values.cpu().numpy(), starts, columns, weights)
    for _ in map_blocks(step, len(points), _ROWS):
        pass
    return weights
