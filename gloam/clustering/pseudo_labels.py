"""DBSCAN on the sparse Jaccard graph: pseudo-labels without an N x N matrix.

*Source*: the rule of scikit-learn on a precomputed distance, which the releases call
(docs/methods/cluster_contrast.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array, csr_array, issparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from gloam.clustering.jaccard import near_pairs
from gloam.errors import GloamError
from gloam.search.arrays import as_number, as_whole_number

_MIN_SAMPLES = "min_samples, which counts the point itself,"


def cluster(
    features: ArrayLike | Tensor, *, eps: float, min_samples: int = 4, k1: int = 30, k2: int = 6
) -> NDArray[np.int64]:
    """Cluster by DBSCAN on the Jaccard distance; only pairs within ``eps`` are ever stored.

    Args:
        features: ``(N, D)`` unit rows, NumPy or torch (CPU or GPU).
        eps: largest distance of neighbours, in (0, 1).
        min_samples: neighbours, the point itself included, that make a core point.
        k1: see :func:`gloam.clustering.jaccard.jaccard_distance`.
        k2: see :func:`gloam.clustering.jaccard.jaccard_distance`.

    Returns:
        ``(N,)`` int64 cluster numbers by smallest core index; -1 marks outliers.

    Raises:
        GloamError: eps outside (0, 1), min_samples, k1 or k2 below 1, or features that are no finite unit rows.
    """
    min_samples = as_whole_number(min_samples, _MIN_SAMPLES)
    return dbscan(near_pairs(features, limit=eps, k1=k1, k2=k2), eps=eps, min_samples=min_samples)


def dbscan(pairs: csr_array, *, eps: float, min_samples: int = 4) -> NDArray[np.int64]:
    """DBSCAN on stored distances; absent pairs are far.

    Core points have ``min_samples`` neighbours within eps including themselves. Clusters are the connected components
    of core points, numbered by their smallest index. A border point joins the lowest-numbered adjacent cluster.

    Args:
        pairs: ``(N, N)`` lower triangle or symmetric matrix with its diagonal; zeros are stored.
        eps: largest distance of neighbours.
        min_samples: see above.

    Returns:
        ``(N,)`` int64; -1 marks outliers.

    Raises:
        GloamError: min_samples below 1, eps that is no number, or pairs that are no sparse square matrix.
    """
    min_samples, eps = as_whole_number(min_samples, _MIN_SAMPLES), as_number(eps, "eps, the largest distance,")
    if not issparse(pairs) or pairs.format != "csr" or pairs.shape[0] != pairs.shape[1]:
        raise GloamError("DBSCAN works on a square matrix in CSR form, as jaccard_distance and near_pairs return it.")
    count = pairs.shape[0]
    rows = np.repeat(np.arange(count, dtype=np.int32), np.diff(pairs.indptr))
    near = (pairs.data <= np.float32(eps)) & (pairs.indices <= rows)
    rows, columns = rows[near], pairs.indices[near]
    # A pair counts for both its ends, the diagonal once.
    degrees = np.bincount(rows, minlength=count) + np.bincount(columns, minlength=count)
    degrees -= np.bincount(rows[rows == columns], minlength=count)
    core = degrees >= min_samples
    both = core[rows] & core[columns]
    links = coo_array((np.ones(int(both.sum()), dtype=np.int8), (rows[both], columns[both])), shape=(count, count))
    _, components = connected_components(links, directed=False)
    labels = np.full(count, -1, dtype=np.int64)
    cores = np.flatnonzero(core)
    if len(cores) == 0:
        return labels
    _, first, inverse = np.unique(components[cores], return_index=True, return_inverse=True)
    labels[cores] = np.argsort(np.argsort(first))[inverse]
    far = np.iinfo(np.int64).max
    lowest = np.full(count, far, dtype=np.int64)
    for border, inner in ((rows, columns), (columns, rows)):
        joined = ~core[border] & core[inner]
        np.minimum.at(lowest, border[joined], labels[inner[joined]])
    reached = lowest < far
    labels[reached] = lowest[reached]
    return labels


def outliers_alone(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels in which every outlier is a class of its own: C + r for the r-th outlier.

    Args:
        labels: ``(N,)`` cluster numbers 0..C-1, or -1.
    """
    alone = labels.copy()
    outliers = labels < 0
    alone[outliers] = labels.max(initial=-1) + 1 + np.arange(int(outliers.sum()))
    return alone


def check_clusters(labels: NDArray[np.int64], what: str) -> None:
    """Refuse to train without a single cluster.

    Args:
        labels: ``(N,)`` cluster numbers or -1.
        what: the setting in words, for the message, e.g. ``"eps 0.6, min_samples 4"``.

    Raises:
        GloamError: every sample is an outlier.
    """
    if labels.max(initial=-1) < 0:
        raise GloamError(
            f"Clustering found no cluster among {len(labels)} images ({what}), so there is nothing to train on. Use "
            "a larger method.eps or smaller method.min_samples or method.k1, or start from pre-trained weights "
            "(weights: imagenet): features of a random network rarely group by person."
        )
