"""The gallery at a million rows: adding, opening and searching it, beside NumPy, LanceDB and Qdrant Edge.

Processor time of one process with one thread is measured (``time.process_time``): wall time means nothing on a shared
machine. Data are drawn: N x 512 unit vectors, 64 intrinsic dimensions and noise, 20 crops a person, 8 visible and 4
infrared cameras with offsets of camera and modality, 30 days. Recall is against an exact float32 scan of fresh queries.

``GLOAM_GALLERY_ROWS`` sets N. ``GLOAM_PEERS`` names a Python with lancedb and qdrant-edge-py; without it they are left
out. Run with ``OMP_NUM_THREADS=1 LANCE_CPU_THREADS=1``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine_info, peak_megabytes

DIM, LATENT, CROPS, CAMERAS, INFRARED, DAYS = 512, 64, 20, 12, 4, 30
BATCH, QUERIES, TOP = 5000, 60, 10
IMAGES = 256
DAY = 86_400_000_000
Float = NDArray[np.float32]


def run() -> list[dict[str, Any]]:
    """One row per engine and filter."""
    count = int(os.environ.get("GLOAM_GALLERY_ROWS", "1000000"))
    with tempfile.TemporaryDirectory(prefix="gloam-gallery-") as name:
        folder = Path(name)
        draw(folder, count)
        machine = machine_info(1, ("numpy", "faiss-cpu"))
        rows = []
        for step in ("add", "codes", "search", "exact", "numpy", "ingest"):
            rows += _child(sys.executable, ["-m", "benchmarks.gallery", step, str(folder)])
        if peers := os.environ.get("GLOAM_PEERS"):
            script = str(Path(__file__).with_name("gallery_peers.py"))
            for step in ("lance", "lance-default", "edge"):
                rows += _child(peers, [script, step, str(folder)])
        return [{"rows": count, **row, **machine} for row in rows]


def _child(python: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Each step has a process of its own: its peak memory is its own."""
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        return [{"engine": " ".join(arguments[-2:-1]), "failed": done.stderr.strip().splitlines()[-1:]}]
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    for row in found:
        print("  " + ", ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    return found


def draw(folder: Path, count: int) -> None:
    """``vectors.npy`` (N, 512) float32, ``camera.npy``, ``time.npy``, ``modality.npy`` and the queries' likewise."""
    generator = np.random.default_rng(0)
    basis = generator.standard_normal((LATENT, DIM)).astype(np.float32)
    offsets = 0.5 * generator.standard_normal((CAMERAS, LATENT)).astype(np.float32)
    light = 0.7 * generator.standard_normal((2, LATENT)).astype(np.float32)
    people = generator.standard_normal((count // CROPS + 1, LATENT)).astype(np.float32)

    def views(who: NDArray[np.int64], camera: NDArray[np.int64]) -> Float:
        latent = people[who] + offsets[camera] + light[(camera >= CAMERAS - INFRARED).astype(int)]
        latent += 0.5 * generator.standard_normal(latent.shape).astype(np.float32)
        found = latent @ basis + 2.0 * generator.standard_normal((len(who), DIM)).astype(np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)  # type: ignore[no-any-return]

    vectors = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (count, DIM))
    camera = generator.integers(0, CAMERAS, count)
    for start in range(0, count, 20_000):
        part = np.arange(start, min(start + 20_000, count))
        vectors[part] = views(part // CROPS, camera[part])
    vectors.flush()
    who, seen = generator.integers(0, count // CROPS, QUERIES), generator.integers(0, CAMERAS, QUERIES)
    drawn: dict[str, NDArray[Any]] = {
        "camera": camera,
        "time": generator.integers(0, DAYS * DAY, count),
        "modality": (camera >= CAMERAS - INFRARED).astype(np.int64),
        "queries": views(who, seen),
        "query_camera": seen,
        "query_time": generator.integers(4 * DAY, (DAYS - 4) * DAY, QUERIES),
    }
    for name, array in drawn.items():
        np.save(folder / f"{name}.npy", array)
    truth: dict[str, Any] = {}
    for name, (mask, _) in filters(folder).items():
        truth[name] = [exact_top(vectors, query, mask(number)) for number, query in enumerate(load(folder, "queries"))]
    np.savez(folder / "truth.npz", **truth)


def load(folder: Path, name: str) -> NDArray[Any]:
    """One of the drawn arrays; the vectors stay on the disk."""
    return np.load(folder / f"{name}.npy", mmap_mode="r" if name == "vectors" else None)  # type: ignore[no-any-return]


Mask = Callable[[int], NDArray[np.bool_]]


def filters(folder: Path) -> dict[str, tuple[Mask, Callable[[int], dict[str, Any]]]]:
    """Name -> mask of a query's rows, and the same as the words of ``Where``."""
    camera, moment, modality = (load(folder, name) for name in ("camera", "time", "modality"))
    seen, at = load(folder, "query_camera"), load(folder, "query_time")
    other = [1 - int(number >= CAMERAS - INFRARED) for number in seen]

    def window(q: int, width: float) -> tuple[int, int]:
        return int(at[q] - width * DAY / 2), int(at[q] + width * DAY / 2)

    def within(q: int, width: float) -> NDArray[np.bool_]:
        first, last = window(q, width)
        return (moment >= first) & (moment < last)

    def times(q: int, width: float) -> dict[str, Any]:
        first, last = window(q, width)
        return {"after": first / 1e6, "before": last / 1e6}

    words = ("visible", "infrared")
    return {
        "none": (lambda q: np.ones(len(camera), np.bool_), lambda q: {}),
        "6%": (
            lambda q: (camera != seen[q]) & within(q, 6) & (modality == 1),
            lambda q: {"not_cameras": (int(seen[q]),), "modality": "infrared", **times(q, 6)},
        ),
        "1%": (lambda q: within(q, 0.3), lambda q: times(q, 0.3)),
        "other modality": (lambda q: modality == other[q], lambda q: {"modality": words[other[q]]}),
    }


def exact_top(vectors: Float, query: Float, mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the best rows by an exact scan of float32."""
    scores = np.full(len(vectors), -np.inf, np.float32)
    for start in range(0, len(vectors), 100_000):
        part = slice(start, start + 100_000)
        scores[part] = np.where(mask[part], vectors[part] @ query, -np.inf)
    return np.argsort(-scores, kind="stable")[:TOP]


def compare(
    folder: Path, engine: str, search: Callable[[int, str], list[int]], **more: Any
) -> Iterator[dict[str, Any]]:
    """Recall and processor time per query under every filter."""
    truth = np.load(folder / "truth.npz")
    for name in truth.files:
        search(0, name)
        before, hits = time.process_time(), 0
        for number in range(QUERIES):
            hits += len({*search(number, name)} & {*truth[name][number].tolist()})
        spent = (time.process_time() - before) / QUERIES * 1000
        yield {"engine": engine, "filter": name, "recall@10": hits / QUERIES / TOP, "cpu_ms": round(spent, 2), **more}


def add(folder: Path) -> Iterator[dict[str, Any]]:
    """Rows become durable in batches."""
    from gloam.gallery.gallery import Gallery
    from gloam.gallery.rows import Row
    from gloam.gallery.space import Space

    gallery = Gallery.create(folder / "gallery", Space("0" * 64, "drawn", DIM), retention="keep")
    vectors, camera, moment, modality = (load(folder, name) for name in ("vectors", "camera", "time", "modality"))
    spent = 0.0
    for start in range(0, len(vectors), BATCH):
        part = slice(start, start + BATCH)
        numbers = range(start, start + len(camera[part]))
        facts = zip(numbers, camera[part].tolist(), moment[part].tolist(), modality[part].tolist(), strict=True)
        rows = [
            Row(path(n, c), path(n, c), "/data", camera=c, time=t, modality=m, tracklet=f"t{n // 5}")
            for n, c, t, m in facts
        ]
        block = np.array(vectors[part])
        before = time.process_time()
        gallery.index.upsert(rows, block)
        spent += time.process_time() - before
    gallery.catalogue.close()
    size = sum(file.stat().st_size for file in (folder / "gallery").rglob("*") if file.is_file())
    yield {
        "engine": "gloam: add",
        "rows_per_cpu_s": round(len(vectors) / spent),
        "bytes_a_row": round(size / len(vectors)),
        "peak_mb": round(peak_megabytes()),
    }


def path(number: int, camera: int) -> str:
    """Name of a crop's file."""
    return f"cam{camera:02d}/{number // CROPS:07d}/{number:09d}.jpg"


def codes(folder: Path) -> Iterator[dict[str, Any]]:
    """Codes are made, their recall is measured, both are stored."""
    from gloam.gallery.gallery import open_gallery

    gallery = open_gallery(folder / "gallery")
    before = time.process_time()
    gallery.count()
    built = time.process_time() - before
    gallery.tune()
    tuned = time.process_time() - before - built
    gallery.close()
    size = sum(file.stat().st_size for file in (folder / "gallery").rglob("*") if file.is_file())
    yield {
        "engine": "gloam: codes",
        "codes_cpu_s": round(built, 1),
        "tuning_cpu_s": round(tuned, 1),
        "bytes_a_row": round(size / len(load(folder, "camera"))),
    }


def search(folder: Path, *, exact: bool = False) -> Iterator[dict[str, Any]]:
    """A fresh process opens the gallery and searches: the whole public way, with its line in the audit."""
    from gloam.gallery.gallery import open_gallery
    from gloam.gallery.query import Query
    from gloam.gallery.search import Ask, find
    from gloam.gallery.where import Where

    base = peak_megabytes()
    before = time.process_time()
    gallery = open_gallery(folder / "gallery")
    gallery.count()
    opened = time.process_time() - before
    asked = load(folder, "queries")
    words = filters(folder)

    def ask(number: int, name: str) -> list[int]:
        # What Gallery.search does with a vector; Features would bring torch, which alone fills hundreds of megabytes.
        where = Where(**words[name][1](number))
        hits = find(
            Query(asked[number], (), ()), Ask(top=TOP, where=where, exact=exact), gallery.catalogue, gallery.index
        )
        gallery.catalogue.record("searched", {"where": str(where)}, len(hits))
        return [int(key[-13:-4]) for key in hits.keys]

    tuning = gallery.space.tuning or {}
    more = {"open_cpu_s": round(opened, 2), "oversampling": tuning.get("oversampling")}
    for row in compare(folder, "gloam exact" if exact else "gloam", ask, **more):
        yield {**row, "peak_mb": round(peak_megabytes()), "peak_mb_of_imports": round(base)}
    gallery.catalogue.close()


def ingest(folder: Path) -> Iterator[dict[str, Any]]:
    """Image files become rows that a search finds: what that costs on top of embedding them (AGW, random weights)."""
    from PIL import Image

    from gloam.gallery.gallery import Gallery
    from gloam.inference.model import Model
    from gloam.methods import create_method
    from gloam.recipes.recipe import load_recipe

    generator = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(IMAGES):
        coarse = generator.integers(0, 256, (16, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((64, 128)).save(photos / f"{number:05d}.jpg", quality=90)
    recipe = load_recipe("sysu_mm01/agw")
    # All work in this process, whose time is measured.
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": "off", "workers": 0})})
    model = Model(create_method("agw", 395), recipe, name="random weights")
    model.method.eval()
    gallery = Gallery.create(folder / "photos.gallery", model, retention="keep", thumbnails=True)
    model.embed(sorted(photos.iterdir())[:16], progress=False)  # whatever is done once
    start = time.process_time()
    model.embed(photos, progress=False)
    embedded = time.process_time() - start
    start = time.process_time()
    gallery.add(photos, progress=False)
    added = time.process_time() - start
    start = time.process_time()
    again = gallery.add(photos, progress=False)
    repeated = time.process_time() - start
    if again.unchanged != IMAGES:
        raise RuntimeError(f"adding twice: {again}")
    yield {
        "engine": "gloam: image to searchable",
        "embed_cpu_ms": round(embedded / IMAGES * 1000, 2),
        "add_cpu_ms": round(added / IMAGES * 1000, 2),
        "on_top": round(added / embedded - 1, 4),
        "adding_again_cpu_ms": round(repeated / IMAGES * 1000, 2),
    }


def numpy_scan(folder: Path) -> Iterator[dict[str, Any]]:
    """A memory map of float32: the plainest engine there is."""
    vectors, queries, words = load(folder, "vectors"), load(folder, "queries"), filters(folder)

    def ask(number: int, name: str) -> list[int]:
        rows = np.flatnonzero(words[name][0](number))
        scores = vectors @ queries[number] if len(rows) == len(vectors) else vectors[rows] @ queries[number]
        best = np.argpartition(-scores, TOP)[:TOP]
        return rows[best].tolist()  # type: ignore[no-any-return]

    yield from compare(folder, "NumPy float32", ask)


if __name__ == "__main__":
    STEPS: dict[str, Callable[[Path], Iterator[dict[str, Any]]]] = {
        "add": add,
        "codes": codes,
        "search": search,
        "exact": lambda folder: search(folder, exact=True),
        "numpy": numpy_scan,
        "ingest": ingest,
    }
    for line in STEPS[sys.argv[1]](Path(sys.argv[2])):
        print(json.dumps(line), flush=True)
