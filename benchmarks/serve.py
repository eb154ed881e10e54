"""Searches a second and their times, with 1, 8 and 64 clients on loopback; and what hostile load does.

``python -m benchmarks.serve [--rows 100000] [--seconds 10] [--abuse-seconds 60] [--run RUN]``

Rows are random unit vectors in a temporary gallery. Clients are processes; each asks again as soon as it has its
answer. ``vectors`` sends features, ``images`` sends PNG files, which a model embeds (``--run``: a run folder; without
one only vectors are measured). The last line holds 64 clients for ``--abuse-seconds`` and counts answers that are not
200.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine_info


def main() -> None:
    """Run and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--abuse-seconds", type=float, default=60)
    parser.add_argument("--run", type=Path, default=None)
    options = parser.parse_args()
    print(", ".join(machine_info(packages=("fastapi", "uvicorn", "torch", "numpy")).values()))
    with tempfile.TemporaryDirectory() as folder:
        gallery, dim, digest = fill(Path(folder) / "people.gallery", options.rows, options.run)
        server, address = start(gallery, options.run)
        try:
            print(f"{options.rows:,} rows of {dim} numbers")
            print(
                f"{'query':8} {'clients':>7} {'searches/s':>11} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'errors':>7}"
            )
            for kind in ("vectors", *(("images",) if options.run else ())):
                for clients in (1, 8, 64):
                    show(kind, clients, load(address, kind, clients, options.seconds, dim, digest))
            kind = "images" if options.run else "vectors"
            show(kind, 64, load(address, kind, 64, options.abuse_seconds, dim, digest))
        finally:
            server.terminate()
            server.wait(60)


def fill(folder: Path, rows: int, run: Path | None) -> tuple[Path, int, str]:
    """A gallery of random rows, of the run's model if there is one."""
    import gloam
    from gloam.inference.features import Features, Fingerprint

    model = gloam.load_model(run) if run else None
    dim = model.feature_dim if model else 512
    fingerprint = model.fingerprint if model else Fingerprint("a" * 64, "drawn")
    generator = np.random.default_rng(0)
    created: Any = None
    for start_ in range(0, rows, 50_000):
        count = min(50_000, rows - start_)
        vectors = generator.standard_normal((count, dim), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        features = Features.of_arrays(
            vectors,
            model=fingerprint,
            path=[f"{start_ + number}.jpg" for number in range(count)],
            cam=generator.integers(1, 7, count),
            time=1_770_000_000 + generator.integers(0, 2_592_000, count),
        )
        created = created or gloam.Gallery.create(folder, model or features, retention="keep")
        created.add(features, progress=False)
    created.close()
    return folder, dim, fingerprint.digest


def start(gallery: Path, run: Path | None) -> tuple[subprocess.Popen[bytes], str]:
    """A server in a process of its own, without a limit of requests for one client."""
    script = (
        "import sys, gloam\n"
        "from gloam.serve.app import create_app\n"
        "from gloam.serve.server import listen, run\n"
        "from gloam.serve.settings import Settings\n"
        "settings = Settings(port=0, rate=1e9, burst=10**9)\n"
        "place = listen(settings)\n"
        "gallery = gloam.open_gallery(sys.argv[1], run=sys.argv[2] or None)\n"
        "app = create_app(gallery, settings, model=gallery.model if sys.argv[2] else None)\n"
        "run(app, place, ready=lambda: print(place.getsockname()[1], flush=True))\n"
    )
    words = [sys.executable, "-c", script, str(gallery), str(run or "")]
    server = subprocess.Popen(words, stdout=subprocess.PIPE)
    if server.stdout is None:
        raise RuntimeError("no output")
    return server, f"http://127.0.0.1:{int(server.stdout.readline())}"


def load(address: str, kind: str, clients: int, seconds: float, dim: int, digest: str) -> list[tuple[float, int]]:
    """Time and status of every answer."""
    workers = min(clients, 4)
    share = [clients // workers + (number < clients % workers) for number in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        found = pool.starmap(
            _ask, [(address, kind, count, seconds, dim, digest, seed) for seed, count in enumerate(share)]
        )
    return [one for part in found for one in part]


def _ask(
    address: str, kind: str, clients: int, seconds: float, dim: int, digest: str, seed: int
) -> list[tuple[float, int]]:
    import asyncio

    import httpx
    from PIL import Image

    generator = np.random.default_rng(seed)
    answers: list[tuple[float, int]] = []
    buffer = io.BytesIO()
    Image.fromarray(generator.integers(0, 256, (128, 64, 3), dtype=np.uint8)).save(buffer, "PNG")

    async def client(http: httpx.AsyncClient, until: float) -> None:
        while time.perf_counter() < until:
            began = time.perf_counter()
            if kind == "vectors":
                vector = generator.standard_normal(dim)
                vector /= np.linalg.norm(vector)
                asked = {"vectors": {"fingerprint": digest, "rows": [vector.tolist()]}}
                answer = await http.post("/v1/search", json=asked)
            else:
                parts: Any = {"request": (None, json.dumps({"top": 20}), "application/json")}
                parts["image"] = ("a", buffer.getvalue())
                answer = await http.post("/v1/search", files=parts)
            answers.append((time.perf_counter() - began, answer.status_code))

    async def run() -> None:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
            until = time.perf_counter() + seconds
            await asyncio.gather(*(client(http, until) for _ in range(clients)))

    asyncio.run(run())
    return answers


def show(kind: str, clients: int, answers: list[tuple[float, int]]) -> None:
    """One line."""
    times = sorted(seconds * 1000 for seconds, _ in answers)
    errors = sum(status != 200 for _, status in answers)
    rate = clients * 1000 / statistics.fmean(times)
    parts = [times[min(len(times) - 1, int(part * len(times)))] for part in (0.5, 0.95, 0.99)]
    print(f"{kind:8} {clients:7} {rate:11.1f} {parts[0]:8.1f} {parts[1]:8.1f} {parts[2]:8.1f} {errors:7}", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
