"""Self-paced reliability of clusters by contingency counts (SpCL).

*Source*: ``examples/spcl_train_usl.py`` of the SpCL release (docs/methods/spcl.md). It compares N x N label matrices;
counts give the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]


def overlap(labels: Labels, others: Labels) -> NDArray[np.float64]:
    """Intersection over union of every sample's class in two labellings.

    Args:
        labels: ``(N,)`` non-negative classes.
        others: ``(N,)`` non-negative classes of the same samples.

    Returns:
        ``(N,)`` in (0, 1].
    """
    width = int(others.max()) + 1
    _, inverse, counts = np.unique(labels * width + others, return_inverse=True, return_counts=True)
    shared = counts[inverse].astype(np.float64)
    result: NDArray[np.float64] = shared / (np.bincount(labels)[labels] + np.bincount(others)[others] - shared)
    return result


def self_paced_labels(
    labels: Labels, tight: Labels, loose: Labels, threshold: float | None = None
) -> tuple[Labels, float]:
    """Keep the compact members of independent clusters; everybody else becomes a class of one.

    Args:
        labels: ``(N,)`` classes at eps, every outlier a class of its own.
        tight: the same at eps - gap.
        loose: the same at eps + gap.
        threshold: largest independence score of a cluster that is kept; None computes it (first epoch): the score at
            nine tenths of the clusters with more than one member.

    Returns:
        ``(N,)`` labels in which new classes follow all old ones, and the threshold.
    """
    compactness, independence = 1 - overlap(labels, tight), 1 - overlap(labels, loose)
    count = int(labels.max()) + 1
    cluster_compactness, cluster_independence = np.full(count, np.inf), np.full(count, np.inf)
    np.minimum.at(cluster_compactness, labels, compactness)
    np.minimum.at(cluster_independence, labels, independence)
    if threshold is None:
        scores = np.sort(cluster_independence[np.bincount(labels, minlength=count) > 1])
        threshold = float(scores[min(len(scores) - 1, round(0.9 * len(scores)))]) if len(scores) else 0.0
    kept = (cluster_independence[labels] <= threshold) & (compactness <= cluster_compactness[labels])
    result = labels.copy()
    result[~kept] = count + np.arange(int((~kept).sum()))
    return result, threshold
