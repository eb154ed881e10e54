"""Ranking from 2048-dimensional features: seconds, and memory above the features, against a plain evaluator.

Each case runs in its own process, because peak memory only grows. ``market`` is 3,368 x 15,913, ``msmt17`` 11,659 x
82,161 (gloam only: the baseline's distances alone would need 3.8 GB), ``sysu`` all and indoor search with ten galleries
each, single-shot. The baseline computes all distances at once and sorts every row; its sorting is timed on a tenth of
the queries and scaled up.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine_info
from benchmarks.ranking import argsort_evaluator

WIDTH = 2048
MIB = 2**20
# Queries, gallery entries, people, cameras, ids 0 among the gallery.
SIZES = {"market": (3368, 15913, 750, 6, 2798), "msmt17": (11659, 82161, 3060, 15, 0)}


class PeakMemory:
    """Highest resident memory while a block runs, in MiB above what it was at the start."""

    def __enter__(self) -> PeakMemory:
        self.start = self.highest = _resident()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self.highest = max(self.highest, _resident())

    @property
    def above(self) -> float:
        """MiB above the start."""
        return (self.highest - self.start) / MIB

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, _resident())


def _resident() -> int:
    """Bytes of resident memory; the peak so far where the system does not tell the present."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def features_with_people(pids: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Unit vectors: a person's centre plus noise."""
    centres = generator.standard_normal((int(pids.max()) + 1, WIDTH), dtype=np.float32)
    features = generator.standard_normal((len(pids), WIDTH), dtype=np.float32)
    features *= 2
    features += centres[pids]
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    return features


def measure(case: str, variant: str) -> dict[str, Any]:
    """One case in this process: seconds (the compiling first call does not count) and memory above the features."""
    work, sizes = _sysu() if case == "sysu" else _one_gallery(case, variant)
    warm_up()
    with PeakMemory() as memory:
        start = time.perf_counter()
        extra = work()
        seconds = time.perf_counter() - start + (extra or 0)
    return {**sizes, "seconds": round(seconds, 3), "mib_above_features": round(memory.above)}


def warm_up() -> None:
    """Compile the kernels and start the threads."""
    from gloam.evaluation.ranking import rank_features

    small = np.eye(4, WIDTH, dtype=np.float32)
    for rule in ("same_id_same_cam", "sysu"):
        for cmc in ("standard", "unique_id"):
            rank_features(small, small, [1, 2, 3, 4], [1, 2, 3, 4], [1] * 4, [4] * 4, camera_rule=rule, cmc=cmc)


def _one_gallery(case: str, variant: str) -> tuple[Callable[[], float | None], dict[str, int]]:
    from gloam.evaluation.ranking import rank_features

    queries, gallery, people, cameras, distractors = SIZES[case]
    generator = np.random.default_rng(0)
    pids = generator.integers(1, people + 1, queries + gallery)
    pids[queries : queries + distractors] = 0
    cams = generator.integers(0, cameras, queries + gallery)
    features = features_with_people(pids, generator)
    labels = (pids[:queries], pids[queries:], cams[:queries], cams[queries:])

    def counted() -> None:
        rank_features(features[:queries], features[queries:], *labels, camera_rule="same_id_same_cam")

    def sorted_rows() -> float:
        distances = -features[:queries] @ features[queries:].T
        some = slice(0, queries // 10)
        start = time.perf_counter()
        argsort_evaluator(distances[some], labels[0][some], labels[1], labels[2][some], labels[3])
        return 9 * (time.perf_counter() - start)

    return (counted if variant == "gloam" else sorted_rows), {"queries": queries, "gallery": gallery}


def _sysu() -> tuple[Callable[[], None], dict[str, int]]:
    """SYSU-MM01's test set by its published numbers: 96 ids, 3,803 infrared queries, 6,775 visible candidates."""
    from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record
    from gloam.evaluation.evaluator import evaluate

    generator = np.random.default_rng(0)

    def records(per_camera: dict[int, tuple[int, int]], modality: Modality) -> list[Record]:
        found = []
        for cam, (ids, images) in per_camera.items():
            chosen = np.sort(generator.permutation(96)[:ids]) + 1
            for number in range(images):
                pid = int(chosen[number % ids])
                found.append(Record((f"cam{cam}/{pid:04d}/{number // ids:04d}.jpg",), pid, cam, modality, pid))
        return found

    query = records({3: (93, 1883), 6: (96, 1920)}, Modality.INFRARED)
    gallery = records({1: (56, 1374), 2: (56, 1565), 4: (94, 1918), 5: (95, 1918)}, Modality.VISIBLE)
    protocols = {
        f"sysu_mm01/{name}": Protocol(
            f"sysu_mm01/{name}", gallery_cams=cams, shots=1, trials=10, camera_rule="sysu", cmc="unique_id"
        )
        for name, cams in (("all_single", (1, 2, 4, 5)), ("indoor_single", (1, 2)))
    }
    splits = DatasetSplits("sysu_mm01", Path(), (), tuple(query), tuple(gallery), protocols, {})
    features = features_with_people(np.array([r.pid for r in [*query, *gallery]]), generator)

    def scored() -> None:
        evaluate(splits, features[: len(query)], features[len(query) :])

    return scored, {"queries": len(query), "gallery": len(gallery)}


def run(
    cases: tuple[tuple[str, str], ...] = (
        ("market", "gloam"),
        ("market", "argsort baseline"),
        ("msmt17", "gloam"),
        ("sysu", "gloam"),
    ),
    repeats: int = 3,
) -> list[dict[str, Any]]:
    """Median of ``repeats`` processes per case (one for the long ones)."""
    rows = []
    for case, variant in cases:
        count = repeats if variant == "gloam" and case != "msmt17" else 1
        found = sorted((_in_process(case, variant) for _ in range(count)), key=lambda row: row["seconds"])
        labels = {"benchmark": "feature_ranking", "case": case, "variant": variant}
        rows.append({**labels, **found[count // 2], **machine_info()})
    return rows


def _in_process(case: str, variant: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.feature_ranking", case, variant]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    row: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    return row


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(sys.argv[1], sys.argv[2])))
    else:
        measured = run()
        writer = csv.DictWriter(sys.stdout, list(measured[0]))
        writer.writeheader()
        writer.writerows(measured)
