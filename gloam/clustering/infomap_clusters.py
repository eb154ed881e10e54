"""Pseudo-labels from the map equation on the neighbour graph (optional package ``infomap``)."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from gloam.errors import GloamError
from gloam.search.arrays import as_features
from gloam.search.distances import unit_rows
from gloam.search.neighbours import nearest_neighbours


def cluster_by_infomap(
    features: ArrayLike | Tensor, *, k: int = 15, min_similarity: float = 0.5, largest_outlier_module: int = 4
) -> NDArray[np.int64]:
    """Two-level directed InfoMap over links to similar neighbours.

    *Source*: the InfoMap variant of the Cluster Contrast release. An image links to its neighbours in descending
    similarity until one falls below ``min_similarity``; no Jaccard distance.

    Args:
        features: ``(N, D)``.
        k: neighbours, itself included.
        min_similarity: smallest cosine of a link.
        largest_outlier_module: modules of at most this size are outliers.

    Returns:
        ``(N,)`` int64 labels, numbered by the smallest index of their members; -1: outlier.

    Raises:
        GloamError: the package is missing, no matrix of finite numbers, no row, or k below 1.
    """
    try:
        from infomap import Infomap
    except ImportError as error:
        raise GloamError(
            "Clustering by InfoMap needs the package infomap: pip install 'gloam[infomap]', or set method.clustering "
            "to dbscan."
        ) from error
    indices, distances = nearest_neighbours(unit_rows(as_features(features)), k)
    similarities = 1 - distances / 2
    linked = np.logical_and.accumulate(similarities >= min_similarity, axis=1)
    own = indices == np.arange(len(indices))[:, None]
    rows, places = np.nonzero(linked & ~own)
    labels = np.full(len(indices), -1, dtype=np.int64)
    if len(rows) == 0:
        return labels
    solver = Infomap("--two-level --directed --silent --seed 1")
    links = zip(rows.tolist(), indices[rows, places].tolist(), similarities[rows, places].tolist(), strict=True)
    solver.add_links(list(links))
    solver.run()
    nodes, found = _modules(solver)
    labels[nodes] = found
    modules, first, inverse, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    kept = (modules >= 0) & (sizes > largest_outlier_module)
    order = np.flatnonzero(kept)[np.argsort(first[kept])]
    numbers = np.full(len(modules), -1, dtype=np.int64)
    numbers[order] = np.arange(len(order))
    return numbers[inverse]


def _modules(solver: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Nodes and the module of each, by way of a file.

    infomap's own lists cannot be read in a process that has loaded FAISS: both are wrapped by SWIG, which shares types
    of the same name between packages, so that FAISS's iterator walks infomap's memory (a segmentation fault now and
    then).
    """
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "modules.clu")
        solver.write_clu(file)
        table = np.loadtxt(file, comments="#", usecols=(0, 1), dtype=np.int64, ndmin=2)
    return table[:, 0], table[:, 1]
