"""Re-ranking with dense matrices and Python sets, as the definitions read."""

from __future__ import annotations

import numpy as np


def k_reciprocal(query_gallery, query_query, gallery_gallery, k1=20, k2=6, weight=0.3):
    """Dense k-reciprocal re-ranking in float64."""
    qg, qq, gg = (np.asarray(d, dtype=np.float64) for d in (query_gallery, query_query, gallery_gallery))
    queries = len(qq)
    joint = np.block([[qq, qg], [qg.T, gg]]) ** 2
    joint = (joint / joint.max(axis=0)).T
    count = len(joint)
    order = np.argsort(joint, axis=1, kind="stable")
    full, half = k1 + 1, int(np.around(k1 / 2)) + 1
    encoding = np.zeros((count, count))
    for i in range(count):
        own = _mutual(order, i, full)
        members = set(own)
        for j in own:
            other = _mutual(order, j, half)
            if len(other & own) > 2 / 3 * len(other):
                members |= other
        for j in members:
            encoding[i, j] = np.exp(-joint[i, j])
        encoding[i] /= max(encoding[i].sum(), 1e-300)
    if k2 != 1:
        encoding = np.stack([encoding[order[i, :k2]].mean(axis=0) for i in range(count)])
    jaccard = np.empty((queries, count - queries))
    for i in range(queries):
        for j in range(queries, count):
            shared = np.minimum(encoding[i], encoding[j]).sum()
            jaccard[i, j - queries] = 1 - shared / (2 - shared)
    return (1 - weight) * jaccard + weight * joint[:queries, queries:]


def _mutual(order, i, width):
    return {j for j in order[i, :width] if i in order[j, :width]}
