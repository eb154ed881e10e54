"""Jaccard distance and DBSCAN written as dense definitions (docs/methods/cluster_contrast.md)."""

from __future__ import annotations

import numpy as np


def neighbours_dense(features: np.ndarray, k: int) -> np.ndarray:
    x = features.astype(np.float64)
    distances = ((x[:, None] - x[None]) ** 2).sum(-1)
    return np.argsort(distances, axis=1, kind="stable")[:, : min(k, len(x))]


def jaccard_dense(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    x = features.astype(np.float64)
    count = len(x)
    rank = neighbours_dense(features, k1)
    half = int(np.around(k1 / 2)) + 1
    full_tops = [set(row.tolist()) for row in rank]
    half_tops = [set(row[:half].tolist()) for row in rank]
    full = [{j for j in full_tops[i] if i in full_tops[j]} for i in range(count)]
    halves = [{j for j in half_tops[i] if i in half_tops[j]} for i in range(count)]
    v = np.zeros((count, count))
    for i in range(count):
        expanded = set(full[i])
        for q in full[i]:
            if 3 * len(full[i] & halves[q]) > 2 * len(halves[q]):
                expanded |= halves[q]
        members = sorted(expanded)
        if members:
            weights = np.exp(-(2 - 2 * x[members] @ x[i]))
            v[i, members] = weights / weights.sum()
    if k2 != 1:
        v = np.stack([v[rank[i, :k2]].mean(axis=0) for i in range(count)])
    shared = np.minimum(v[:, None], v[None]).sum(-1)
    return np.maximum(1 - shared / (2 - shared), 0)


def dbscan_dense(distances: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    near = distances <= eps
    core = near.sum(1) >= min_samples
    labels = np.full(len(near), -1)
    number = 0
    for i in np.flatnonzero(core):
        if labels[i] >= 0:
            continue
        stack = [i]
        labels[i] = number
        while stack:
            for j in np.flatnonzero(near[stack.pop()] & (labels < 0)):
                labels[j] = number
                if core[j]:
                    stack.append(j)
        number += 1
    return labels
