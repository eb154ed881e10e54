"""The peers of ``benchmarks/gallery.py``, run by a Python of their own: ``python gallery_peers.py STEP FOLDER``.

Imports nothing of gloam. LanceDB: IVF_RQ, all partitions or the default probes, refined twentyfold. Qdrant Edge: codes
of 4 bits (TurboQuant) without a graph, oversampled fourfold.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

CAMERAS, INFRARED, DAY, TOP, BATCH = 12, 4, 86_400_000_000, 10, 5000
SQL = {"not_camera": "camera != {}", "modality": "modality = {}", "after": "time >= {}", "before": "time < {}"}


def peak_megabytes() -> float:
    """Peak resident memory of this process (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def load(folder: Path, name: str) -> Any:
    """One of the drawn arrays."""
    return np.load(folder / f"{name}.npy", mmap_mode="r" if name == "vectors" else None)


def conditions(folder: Path) -> dict[str, Callable[[int], dict[str, Any]]]:
    """Filters as plain values: ``not_camera``, ``modality``, ``after``, ``before``."""
    seen, at = load(folder, "query_camera"), load(folder, "query_time")

    def times(q: int, width: float) -> dict[str, Any]:
        return {"after": int(at[q] - width * DAY / 2), "before": int(at[q] + width * DAY / 2)}

    return {
        "none": lambda q: {},
        "6%": lambda q: {"not_camera": int(seen[q]), "modality": 1, **times(q, 6)},
        "1%": lambda q: times(q, 0.3),
        "other modality": lambda q: {"modality": 1 - int(seen[q] >= CAMERAS - INFRARED)},
    }


def compare(
    folder: Path, engine: str, ask: Callable[[Any, dict[str, Any]], list[int]], **more: Any
) -> Iterator[dict[str, Any]]:
    """Recall and processor time per query under every filter."""
    truth, queries, words = np.load(folder / "truth.npz"), load(folder, "queries"), conditions(folder)
    for name in truth.files:
        ask(queries[0], words[name](0))
        before, hits = time.process_time(), 0
        for number, query in enumerate(queries):
            hits += len({*ask(query, words[name](number))} & {*truth[name][number].tolist()})
        spent = (time.process_time() - before) / len(queries) * 1000
        peak = peak_megabytes()
        recall = hits / len(queries) / TOP
        told = {"engine": engine, "filter": name, "recall@10": recall, "cpu_ms": round(spent, 2)}
        yield {**told, "peak_mb": round(peak), **more}


def lance(folder: Path, *, default: bool) -> Iterator[dict[str, Any]]:
    """LanceDB; the step ``lance`` builds the table that ``lance-default`` searches."""
    import lancedb
    import pyarrow as pa

    database, vectors = lancedb.connect(str(folder / "lance")), load(folder, "vectors")
    count, more = len(vectors), dict[str, Any]()
    if not default:
        columns = {name: load(folder, name) for name in ("camera", "time", "modality")}

        def batches() -> Iterator[pa.RecordBatch]:
            for start in range(0, count, BATCH):
                part = slice(start, start + BATCH)
                flat = pa.array(np.ascontiguousarray(vectors[part]).reshape(-1))
                arrays = {
                    "id": pa.array(np.arange(count)[part]),
                    "vector": pa.FixedSizeListArray.from_arrays(flat, 512),
                }
                arrays |= {name: pa.array(values[part]) for name, values in columns.items()}
                yield pa.record_batch(arrays)

        schema = next(batches()).schema
        before = time.process_time()
        table = database.create_table("people", pa.RecordBatchReader.from_batches(schema, batches()))
        more["rows_per_cpu_s"] = round(count / (time.process_time() - before))
        before = time.process_time()
        table.create_index(metric="dot", vector_column_name="vector", index_type="IVF_RQ")
        more["codes_cpu_s"] = round(time.process_time() - before, 1)
    table = database.open_table("people")

    def ask(query: Any, where: dict[str, Any]) -> list[int]:
        found = table.search(query).distance_type("dot").limit(TOP).refine_factor(20).select(["id"])
        if not default:
            found = found.nprobes(100_000)
        if where:
            found = found.where(" AND ".join(SQL[key].format(value) for key, value in where.items()), prefilter=True)
        return [line["id"] for line in found.to_list()]

    yield from compare(folder, f"LanceDB IVF_RQ, {'default probes' if default else 'all partitions'}", ask, **more)


def edge(folder: Path) -> Iterator[dict[str, Any]]:
    """Qdrant Edge, exact search of its own storage and 4-bit codes without a graph."""
    import qdrant_edge as qe

    vectors = load(folder, "vectors")
    columns = {name: load(folder, name) for name in ("camera", "time", "modality")}
    place = folder / "edge"
    place.mkdir()
    codes = qe.TurboQuantQuantizationConfig(bits=qe.TurboQuantBitSize.Bits4, always_ram=True)
    flat = qe.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10_000)
    parameters = qe.EdgeVectorParams(size=512, distance=qe.Distance.Dot, quantization_config=codes, hnsw_config=flat)
    config = qe.EdgeConfig(vectors={"": parameters})
    shard = qe.EdgeShard.create(str(place), config)
    before = time.process_time()
    for start in range(0, len(vectors), BATCH):
        points = [
            qe.Point(n, vectors[n].tolist(), {name: int(values[n]) for name, values in columns.items()})
            for n in range(start, min(start + BATCH, len(vectors)))
        ]
        shard.update(qe.UpdateOperation.upsert_points(points))
    more: dict[str, Any] = {"rows_per_cpu_s": round(len(vectors) / (time.process_time() - before))}
    before = time.process_time()
    shard.optimize()
    more["codes_cpu_s"] = round(time.process_time() - before, 1)

    def ask(query: Any, where: dict[str, Any]) -> list[int]:
        must, must_not = [], []
        if "modality" in where:
            must.append(qe.FieldCondition("modality", match=qe.MatchValue(where["modality"])))
        if "after" in where:
            must.append(qe.FieldCondition("time", range=qe.RangeFloat(gte=where["after"], lt=where["before"])))
        if "not_camera" in where:
            must_not.append(qe.FieldCondition("camera", match=qe.MatchValue(where["not_camera"])))
        chosen = qe.Filter(must=must, must_not=must_not) if where else None
        how = qe.SearchParams(quantization=qe.QuantizationSearchParams(rescore=True, oversampling=4.0))
        nearest = qe.Query.Nearest(query.tolist())
        request = qe.QueryRequest(query=nearest, limit=TOP, filter=chosen, params=how)
        return [int(point.id) for point in shard.query(request)]

    yield from compare(folder, "Qdrant Edge, 4-bit codes", ask, **more)


if __name__ == "__main__":
    STEPS = {
        "lance": lambda folder: lance(folder, default=False),
        "lance-default": lambda folder: lance(folder, default=True),
        "edge": edge,
    }
    for line in STEPS[sys.argv[1]](Path(sys.argv[2])):
        print(json.dumps(line), flush=True)
