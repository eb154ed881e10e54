"""Nearest gallery entries by sorting all float64 distances of every query."""

from __future__ import annotations

import numpy as np


def distances(query: np.ndarray, gallery: np.ndarray, metric: str) -> np.ndarray:
    """``1 - cos`` (1 for rows of zeros) or Euclidean distances, by differences."""
    q, g = np.asarray(query, dtype=np.float64), np.asarray(gallery, dtype=np.float64)
    if metric == "euclidean":
        return np.sqrt(((q[:, None] - g[None]) ** 2).sum(-1))
    lengths = [np.linalg.norm(x, axis=1, keepdims=True) for x in (q, g)]
    q, g = (x / np.where(length == 0, 1, length) for x, length in zip((q, g), lengths, strict=True))
    found = ((q[:, None] - g[None]) ** 2).sum(-1) / 2
    found[(lengths[0] == 0)[:, 0]] = 1
    found[:, (lengths[1] == 0)[:, 0]] = 1
    return found


def nearest(
    query: np.ndarray, gallery: np.ndarray, top: int, metric: str, hidden: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Indices and distances, padded with -1 and infinity."""
    table = distances(query, gallery, metric)
    indices, values = np.full((len(table), top), -1), np.full((len(table), top), np.inf)
    for i, row in enumerate(table):
        seen = [j for j in np.argsort(row, kind="stable") if hidden is None or not hidden[i, j]][:top]
        indices[i, : len(seen)], values[i, : len(seen)] = seen, row[seen]
    return indices, values


def wrong_places(table: np.ndarray, indices: np.ndarray) -> int:
    """Places whose entry is not as near as the entry there should be (1e-9), or out of index order among equals."""
    got = np.take_along_axis(table, indices.astype(np.int64), 1)
    should = np.sort(table, axis=1)[:, : indices.shape[1]]
    far = np.abs(got - should) > 1e-9 * should
    unordered = (np.diff(got, axis=1) == 0) & (np.diff(indices, axis=1) < 0)
    return int(far.sum() + unordered.sum())
