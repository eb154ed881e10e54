"""Seconds and memory of one re-labelling (Jaccard distance and DBSCAN), sparse against the dense form of the releases.

Features are clustered at random: 17 images per identity, noise of the size of the centres, unit length. ``dense`` is
the form that SpCL, Cluster Contrast and MetaPRD share: N x N encodings and distances, NumPy loops over rows,
scikit-learn's DBSCAN on the full matrix. Both find exact neighbours by matrix products, with two threads.
``megabytes`` is the peak beyond the features; every measurement runs in its own process. ``labels_equal`` compares with
the dense form.
``cpu_seconds`` counts all threads and is what to compare on a machine with other work.

Growth: neighbours cost N^2 D operations (each product once; the flat search of the dense form twice that), everything
after them is linear in N. Both searches are bound by matrix products, so ``speedup_after_neighbours`` is what the
sparse form gains and ``speedup`` what a user sees. ``growth`` is the exponent x of time ~ N^x since the smaller
measurement of the same width; it comes near 2 as products take over. ``estimate`` scales the largest measurement with
N^2 for the neighbours and N for the rest.
"""

from __future__ import annotations

import csv
import json
import math
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.cluster import DBSCAN

from benchmarks.machine import machine_info, peak_megabytes

THREADS = 2
EPS, K1, K2, MIN_SAMPLES = 0.6, 30, 6, 4
# (variant, N, D)
CASES = (
    ("dense", 12_936, 2048),
    ("sparse", 12_936, 2048),
    ("sparse", 10_000, 512),
    ("sparse", 30_000, 512),
    ("sparse", 100_000, 512),
)


def make_features(count: int, width: int, seed: int = 0) -> np.ndarray:
    """Unit rows, 17 per identity, in the order of the identities."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((count // 17 + 1, width), dtype=np.float32)
    features = random.standard_normal((count, width), dtype=np.float32)
    features += centres[np.arange(count) // 17]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def dense_neighbours(features: np.ndarray, k1: int) -> np.ndarray:
    """A flat search: every product, the k1 nearest of each row."""
    tensor = torch.from_numpy(features)
    blocks = [tensor[s : s + 1024] for s in range(0, len(tensor), 1024)]
    return torch.cat([(2 - 2 * b @ tensor.T).topk(k1, dim=1, largest=False).indices for b in blocks]).numpy()


def dense_jaccard(features: np.ndarray, k1: int, k2: int) -> np.ndarray:
    """The releases' form: dense matrices, one row after another."""
    count = len(features)
    rank = dense_neighbours(features, k1)
    half = int(np.around(k1 / 2)) + 1

    def reciprocal(i: int, k: int) -> np.ndarray:
        forward = rank[i, :k]
        return forward[np.where(rank[forward, :k] == i)[0]]

    full = [reciprocal(i, k1) for i in range(count)]
    halves = [reciprocal(i, half) for i in range(count)]
    v = np.zeros((count, count), dtype=np.float32)
    for i in range(count):
        expanded = full[i]
        for q in full[i]:
            if len(np.intersect1d(halves[q], full[i])) > 2 / 3 * len(halves[q]):
                expanded = np.append(expanded, halves[q])
        expanded = np.unique(expanded)
        distance = 2 - 2 * features[i] @ features[expanded].T
        weights = np.exp(-distance)
        v[i, expanded] = weights / weights.sum()
    if k2 != 1:
        averaged = np.zeros_like(v)
        for i in range(count):
            averaged[i] = v[rank[i, :k2]].mean(axis=0)
        v = averaged
    columns = [np.where(v[:, g] != 0)[0] for g in range(count)]
    jaccard = np.zeros((count, count), dtype=np.float32)
    for i in range(count):
        shared = np.zeros(count, dtype=np.float32)
        for g in np.where(v[i] != 0)[0]:
            rows = columns[g]
            shared[rows] += np.minimum(v[i, g], v[rows, g])
        jaccard[i] = 1 - shared / (2 - shared)
    return np.maximum(jaccard, 0)


def measure(variant: str, count: int, width: int, labels_file: str) -> dict[str, Any]:
    """One labelling in this process."""
    from gloam.clustering.pseudo_labels import cluster
    from gloam.search.neighbours import nearest_neighbours

    torch.set_num_threads(THREADS)
    features = make_features(count, width)
    cluster(features[:200], eps=EPS)  # compiles
    torch.from_numpy(features[:512]) @ torch.from_numpy(features[:512]).T
    before = peak_megabytes(reset=True)
    result: dict[str, Any] = {}
    start, busy = time.perf_counter(), time.process_time()
    if variant == "dense":
        distances = dense_jaccard(features, K1, K2)
        labels = DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed", n_jobs=THREADS).fit_predict(distances)
    else:
        labels = cluster(features, eps=EPS, min_samples=MIN_SAMPLES, k1=K1, k2=K2)
    result["seconds"] = round(time.perf_counter() - start, 2)
    result["cpu_seconds"] = round(time.process_time() - busy, 2)
    result["megabytes"] = round(peak_megabytes() - before)
    start = time.perf_counter()
    (nearest_neighbours if variant == "sparse" else dense_neighbours)(features, K1)
    result["seconds_neighbours"] = round(time.perf_counter() - start, 2)
    np.save(labels_file, labels)
    return {**result, "clusters": int(labels.max()) + 1, "outliers": int((labels < 0).sum())}


def run(cases: tuple[tuple[str, int, int], ...] = CASES) -> list[dict[str, Any]]:
    """Measure every case in a process of its own, and estimate a million images from the largest sparse one."""
    rows: list[dict[str, Any]] = []
    labels: dict[tuple[int, int], np.ndarray] = {}
    dense: dict[tuple[int, int], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant, count, width in cases:
            file = str(Path(folder) / "labels.npy")
            command = [sys.executable, "-m", "benchmarks.clustering", variant, str(count), str(width), file]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            row = {"benchmark": "clustering", "variant": variant, "N": count, "D": width, **json.loads(done.stdout)}
            if variant == "dense":
                labels[count, width], dense[count, width] = np.load(file), row
            elif (count, width) in dense:
                slow = dense[count, width]
                row["speedup"] = round(slow["seconds"] / row["seconds"], 1)
                row["speedup_after_neighbours"] = round(_after_neighbours(slow) / _after_neighbours(row), 1)
                row["labels_equal"] = bool((labels[count, width] == np.load(file)).all())
            smaller = [r for r in rows if r["variant"] == variant and r["D"] == width and r["N"] < count]
            if smaller:
                row["growth"] = _exponent(smaller[-1], row)
            rows.append(row)
            print(row, file=sys.stderr, flush=True)
    largest = max((row for row in rows if row["variant"] == "sparse"), key=lambda row: int(row["N"]))
    growth = 1_000_000 / largest["N"]
    rest = _after_neighbours(largest)
    rows.append(
        {
            "benchmark": "clustering",
            "variant": "estimate",
            "N": 1_000_000,
            "D": largest["D"],
            "seconds": round(largest["seconds_neighbours"] * growth**2 + rest * growth),
            "seconds_neighbours": round(largest["seconds_neighbours"] * growth**2),
            "megabytes": round(largest["megabytes"] * growth),
        }
    )
    return [{**row, **machine_info(THREADS)} for row in rows]


def _after_neighbours(row: dict[str, Any]) -> float:
    """Seconds of the Jaccard distance and DBSCAN alone."""
    return max(float(row["seconds"] - row["seconds_neighbours"]), 0.01)


def _exponent(smaller: dict[str, Any], larger: dict[str, Any]) -> float:
    """x of seconds ~ N^x between two measurements."""
    return round(math.log(larger["seconds"] / smaller["seconds"]) / math.log(larger["N"] / smaller["N"]), 2)


if __name__ == "__main__":
    if len(sys.argv) == 5:
        print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])))
    else:
        found = run()
        writer = csv.DictWriter(sys.stdout, list(dict.fromkeys(key for row in found for key in row)))
        writer.writeheader()
        writer.writerows(found)
