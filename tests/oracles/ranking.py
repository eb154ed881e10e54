"""Ranking by a stable sort of every row, as the definitions read."""

from __future__ import annotations

import numpy as np


def rank(distances, query_pids, gallery_pids, query_cams, gallery_cams, camera_rule, cmc, ap, max_rank):
    """Lists of (first hit or None, AP, INP) per query, and the averages."""
    results = []
    for i, row in enumerate(np.asarray(distances)):
        order = np.argsort(row, kind="stable")
        kept = [
            j
            for j in order
            if not _removed(camera_rule, query_pids[i], query_cams[i], gallery_pids[j], gallery_cams[j])
        ]
        matches = np.array([gallery_pids[j] == query_pids[i] for j in kept], dtype=bool)
        if not matches.any():
            results.append(None)
            continue
        positions = np.flatnonzero(matches) + 1
        results.append(
            (_first_hit(kept, matches, gallery_pids, cmc), _ap(row[kept], matches, ap), len(positions) / positions[-1])
        )
    found = [r for r in results if r is not None]
    curve = [np.mean([r[0] <= k for r in found]) for k in range(1, max_rank + 1)] if found else []
    return results, curve, np.mean([r[1] for r in found]), np.mean([r[2] for r in found])


def _removed(rule, query_pid, query_cam, gallery_pid, gallery_cam):
    if rule == "same_id_same_cam":
        return query_pid == gallery_pid and query_cam == gallery_cam
    if rule == "sysu":
        return query_cam == 3 and gallery_cam == 2
    return False


def _first_hit(kept, matches, gallery_pids, cmc):
    if cmc == "standard":
        return int(np.flatnonzero(matches)[0]) + 1
    seen = []
    for j, match in zip(kept, matches, strict=True):
        if gallery_pids[j] not in seen:
            seen.append(gallery_pids[j])
        if match:
            return len(seen)
    raise AssertionError("a match exists")


def _ap(sorted_distances, matches, kind):
    hits = np.cumsum(matches)
    positions = np.arange(1, len(matches) + 1)
    if kind == "standard":
        return float(np.mean(hits[matches] / positions[matches]))
    if kind == "grouped":
        from sklearn.metrics import average_precision_score

        return float(average_precision_score(matches, -np.asarray(sorted_distances, dtype=np.float64)))
    total = 0.0
    for index in np.flatnonzero(matches):
        before = 1.0 if index == 0 else hits[index - 1] / index
        total += (before + hits[index] / (index + 1)) / 2
    return total / matches.sum()
