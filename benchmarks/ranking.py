"""Ranking from distances: 3,368 queries x 15,913 gallery entries (Market-1501), all metrics, against a plain evaluator.

The baseline sorts every row (argsort), as most published evaluators do; it is timed on a tenth of the queries and
scaled up. ``uniform`` distances are random, ``clustered`` ones have a person's images nearer than most others.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.machine import machine_info
from gloam.evaluation.ranking import rank_metrics

QUERIES, GALLERY, PEOPLE, CAMERAS, DISTRACTORS = 3368, 15913, 750, 6, 2798


def argsort_evaluator(
    distances: np.ndarray,
    query_pids: np.ndarray,
    gallery_pids: np.ndarray,
    query_cams: np.ndarray,
    gallery_cams: np.ndarray,
) -> tuple[float, float, float]:
    """Rank-1, mAP and mINP by sorting every row, with the Market-1501 camera rule."""
    hits, precisions, penalties = [], [], []
    for i, row in enumerate(distances):
        order = np.argsort(row, kind="stable")
        kept = ~((gallery_pids[order] == query_pids[i]) & (gallery_cams[order] == query_cams[i]))
        matches = (gallery_pids[order] == query_pids[i])[kept]
        if not matches.any():
            continue
        positions = np.flatnonzero(matches) + 1
        hits.append(positions[0] == 1)
        precisions.append(np.mean(np.arange(1, len(positions) + 1) / positions))
        penalties.append(len(positions) / positions[-1])
    return float(np.mean(hits)), float(np.mean(precisions)), float(np.mean(penalties))


def market_labels(generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Ids and cameras as many as Market-1501 has, distractors (id 0) included."""
    query_pids = generator.integers(1, PEOPLE + 1, QUERIES)
    gallery_pids = generator.permutation(
        np.concatenate(
            [np.zeros(DISTRACTORS, dtype=np.int64), generator.integers(1, PEOPLE + 1, GALLERY - DISTRACTORS)]
        )
    )
    return query_pids, gallery_pids, generator.integers(0, CAMERAS, QUERIES), generator.integers(0, CAMERAS, GALLERY)


def median_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median wall time; the first, uncounted call compiles."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def run(repeats: int = 7) -> list[dict[str, Any]]:
    """Median seconds of gloam and of the baseline, and their ratio."""
    generator = np.random.default_rng(0)
    labels = market_labels(generator)
    uniform = generator.random((QUERIES, GALLERY), dtype=np.float32)
    strangers = labels[0][:, None] != labels[1][None]
    clustered = uniform + np.float32(0.9) * strangers
    tenth = slice(0, QUERIES // 10)
    rows = []
    for name, distances in (("uniform", uniform), ("clustered", clustered)):
        for cmc in ("standard", "unique_id"):
            call = partial(rank_metrics, distances, *labels, camera_rule="same_id_same_cam", cmc=cmc)
            seconds = median_seconds(call, repeats)
            rows.append(_row(name, f"gloam, CMC {cmc}", seconds))
        some = (distances[tenth], labels[0][tenth], labels[1], labels[2][tenth], labels[3])
        found = rank_metrics(*some, camera_rule="same_id_same_cam")
        if not np.allclose(argsort_evaluator(*some), (found.cmc[0], found.mAP, found.mINP)):
            raise RuntimeError("gloam and the baseline disagree")
        seconds = 10 * median_seconds(partial(argsort_evaluator, *some), 1)
        rows.append(_row(name, "argsort baseline", seconds))
        for row in rows[-3:]:
            row["speedup"] = round(seconds / row["seconds"], 1)
    return rows


def _row(distances: str, variant: str, seconds: float) -> dict[str, Any]:
    return {
        "benchmark": "ranking",
        "distances": distances,
        "variant": variant,
        "queries": QUERIES,
        "gallery": GALLERY,
        "seconds": round(seconds, 4),
        "speedup": None,
        **machine_info(),
    }


if __name__ == "__main__":
    measured = run()
    writer = csv.DictWriter(sys.stdout, list(measured[0]))
    writer.writeheader()
    writer.writerows(measured)
