"""Exact nearest neighbours of ordinary, alike and crowded features against a flat product, both with k = 30.

``flat`` is the search of the releases' form: every product in float32, the k nearest of each row. ``exact`` is
``nearest_neighbours``; ``queries`` is ``nearest`` of a tenth of the rows in all of them (cosine). ``cpu_seconds``
counts all threads; the variants take turns in one process and the median counts. ``ratio`` is to the flat search of the
same features (of the tenth for ``queries``). ``wrong`` is the share of neighbours that are not as near as the one that
belongs in their place, for 200 rows against float64.

Features: ``ordinary`` unit rows of 17 images per identity; ``alike`` the same around one direction, so that two of them
have this mean cosine, as those of an untrained network; ``two crowds`` around two directions, as an untrained network
makes them of two modalities; ``equal`` one row repeated, as a collapsed network makes them.
"""

from __future__ import annotations

import csv
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.clustering import dense_neighbours, make_features
from benchmarks.machine import machine_info

COUNT, WIDTH, K, THREADS = 12_936, 512, 30, 1


def feature_sets(count: int, width: int) -> dict[str, np.ndarray]:
    """See above."""
    random = np.random.default_rng(0)
    plain = make_features(count, width)
    centres = random.standard_normal((2, width), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)

    def around(centre: np.ndarray, cosine: float) -> np.ndarray:
        mixed = np.sqrt(1 - cosine) * plain + np.sqrt(cosine) * centre
        return np.asarray(mixed / np.linalg.norm(mixed, axis=1, keepdims=True), dtype=np.float32)

    return {
        "ordinary": plain,
        "alike 0.9999": around(centres[0], 0.9999),
        "alike 0.99999": around(centres[0], 0.99999),
        "two crowds 0.9999": around(centres[random.integers(0, 2, count)], 0.9999),
        "equal": np.repeat(plain[:1], count, axis=0),
    }


def flat_queries(features: np.ndarray) -> np.ndarray:
    """A tenth of the rows in all of them."""
    tensor = torch.from_numpy(features)
    blocks = tensor[::10].split(1024)
    return torch.cat([(2 - 2 * b @ tensor.T).topk(K, dim=1, largest=False).indices for b in blocks]).numpy()


def share_wrong(features: np.ndarray, rows: np.ndarray, found: np.ndarray) -> float:
    """Neighbours of some rows that are farther than they should be, by float64 distances."""
    exact, wrong = features.astype(np.float64), 0
    for row, indices in zip(rows, found, strict=True):
        distances = np.square(exact - exact[row]).sum(axis=1)
        should = np.sort(distances)[: len(indices)]
        wrong += int((distances[indices] - should > 1e-9 * should).sum())
    return wrong / found.size


def run(repeats: int = 5) -> list[dict[str, Any]]:
    """Median processor seconds of every variant on every kind of features."""
    from gloam.search.nearest import nearest
    from gloam.search.neighbours import nearest_neighbours

    torch.set_num_threads(THREADS)
    small = make_features(300, 16)
    nearest_neighbours(small, 5), nearest(small, small, 5)  # compiles
    rows = []
    for name, features in feature_sets(COUNT, WIDTH).items():
        variants: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "flat": lambda x: dense_neighbours(x, K),
            "exact": lambda x: nearest_neighbours(x, K)[0],
            "flat queries": flat_queries,
            "queries": lambda x: nearest(x[::10], x, K)[0],
        }
        seconds: dict[str, list[float]] = {variant: [] for variant in variants}
        found = {}
        for _ in range(repeats):
            for variant, work in variants.items():
                start = time.process_time()
                found[variant] = work(features)
                seconds[variant].append(time.process_time() - start)
        for variant, times in seconds.items():
            tenth = "queries" in variant
            sample = np.arange(0, len(found[variant]), max(len(found[variant]) // 200, 1))
            base = statistics.median(seconds["flat queries" if tenth else "flat"])
            rows.append(
                {
                    "benchmark": "neighbours",
                    "features": name,
                    "variant": variant,
                    "N": COUNT,
                    "D": WIDTH,
                    "cpu_seconds": round(statistics.median(times), 2),
                    "ratio": round(statistics.median(times) / base, 2),
                    "wrong": round(share_wrong(features, sample * (10 if tenth else 1), found[variant][sample]), 4),
                    **machine_info(THREADS),
                }
            )
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


if __name__ == "__main__":
    measured = run()
    writer = csv.DictWriter(sys.stdout, list(measured[0]))
    writer.writeheader()
    writer.writerows(measured)
