"""A gallery in a Qdrant cluster: the same rows, filters and scores beyond one machine.

Vectors and rows lie in one collection, the space, the settings and the audit in a second one beside it
(``NAME__gloam``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gloam.errors import GloamError
from gloam.gallery.contract import Retention
from gloam.gallery.engines.cluster import META, collection_name, connect, guarded, point_id
from gloam.gallery.engines.contract import Added, Float, Found, as_stored, exact_scores, rank
from gloam.gallery.engines.qdrant_catalogue import (
    SETTINGS_ID,
    SPACE_ID,
    QdrantCatalogue,
    condition,
    payload_of,
    space_payload,
)
from gloam.gallery.rows import Row, check_rows, plain
from gloam.gallery.space import Space
from gloam.gallery.where import EVERYTHING, Where

_BATCH = 256  # points per request: 2 KB each in JSON-free gRPC, 8 KB in JSON
_MARGIN = 1e-5
_INDEXES = {"key": "keyword", "tracklet": "keyword", "person": "keyword", "camera": "integer", "time": "integer"}


class QdrantIndex:
    """Vectors of one collection.

    Args:
        client: an open ``qdrant_client.QdrantClient``.
        name: of the collection.
        catalogue: of the same gallery.
    """

    def __init__(self, client: Any, name: str, catalogue: QdrantCatalogue) -> None:
        self.client, self.name, self.catalogue = client, name, catalogue
        self.dim = catalogue.space.dim

    def upsert(self, rows: Sequence[Row], vectors: Float, thumbnails: Sequence[bytes | None] | None = None) -> Added:
        from qdrant_client import models

        vectors = np.asarray(vectors, dtype=np.float32)
        check_rows(rows, vectors, self.dim)
        ids = [point_id(row.key) for row in rows]
        images = [None] * len(rows) if thumbnails is None else thumbnails
        updated = 0
        for start in range(0, len(rows), _BATCH):
            part = slice(start, start + _BATCH)
            old = {str(point.id): point.payload["added"] for point in self._get(ids[part], ["added"])}
            updated += len(old)
            points = [
                models.PointStruct(id=name, vector=vector.tolist(), payload=payload_of(row, image, old.get(name)))
                for name, vector, row, image in zip(
                    ids[part], as_stored(vectors[part]), rows[part], images[part], strict=True
                )
            ]
            self.client.upsert(self.name, points=points, wait=True)
        self.catalogue.record("added", {"keys": [row.key for row in rows]}, len(rows))
        return Added(len(rows) - updated, updated)

    def delete(self, keys: Sequence[str]) -> int:
        from qdrant_client import models

        found = [str(point.id) for point in self._get([point_id(key) for key in keys], [])]
        if found:
            self.client.delete(self.name, points_selector=models.PointIdsList(points=list(found)), wait=True)
        return len(found)

    def search(self, queries: Float, top: int, where: Where = EVERYTHING, exact: bool = False) -> Found:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise GloamError(f"Queries must have shape (Q, {self.dim}), not {queries.shape}.")
        if not np.isfinite(queries).all() or top < 1:
            raise GloamError("The query has NaN or infinite numbers, or fewer than one row is asked for.")
        keys, scores = zip(*(self._search_one(query, top, where, exact) for query in queries), strict=True)
        width = min((len(line) for line in keys), default=0)
        return Found(
            np.array([line[:width] for line in keys], dtype=object).reshape(len(queries), width),
            np.array([line[:width] for line in scores], dtype=np.float32).reshape(len(queries), width),
            exact,
        )

    def vectors(self, keys: Sequence[str]) -> Float:
        ids = [point_id(key) for key in keys]
        found = {str(point.id): point.vector for point in self._get(list(dict.fromkeys(ids)), [], vectors=True)}
        if missing := [key for key, name in zip(keys, ids, strict=True) if name not in found]:
            raise GloamError(f"The gallery has no row {plain(missing[0])!r} ({len(missing)} such keys).")
        result = np.array([found[name] for name in ids], dtype=np.float32).reshape(len(ids), self.dim)
        return as_stored(result)

    def count(self, where: Where = EVERYTHING) -> int:
        return int(self.client.count(self.name, count_filter=condition(where), exact=True).count)

    def sync(self) -> None:
        """Every upsert has waited until the cluster had written it to its log."""

    def _search_one(self, query: Float, top: int, where: Where, exact: bool) -> tuple[list[str], Float]:
        from qdrant_client import models

        limit = top + 16
        while True:
            points = self.client.query_points(
                self.name,
                query=query.tolist(),
                limit=limit,
                query_filter=condition(where),
                with_payload=["key"],
                with_vectors=True,
                search_params=models.SearchParams(
                    exact=exact, quantization=models.QuantizationSearchParams(rescore=True, oversampling=4.0)
                ),
            ).points
            names = np.array([point.payload["key"] for point in points] + [None], dtype=object)[:-1]
            vectors = as_stored(np.array([point.vector for point in points], np.float32).reshape(-1, self.dim))
            scores = exact_scores(vectors, query)
            order = rank(names, scores, top)
            # Rows beyond the last one fetched may have the same score and an earlier key.
            if len(points) < limit or scores.min() < scores[order[-1]] - _MARGIN:
                return list(names[order]), scores[order]
            limit *= 4

    def _get(self, ids: Sequence[str], payload: Sequence[str], *, vectors: bool = False) -> Iterator[Any]:
        for start in range(0, len(ids), _BATCH):
            part = list(ids[start : start + _BATCH])
            yield from self.client.retrieve(self.name, part, with_payload=list(payload) or False, with_vectors=vectors)


def create_qdrant(
    url: str,
    space: Space,
    retention: Retention,
    *,
    thumbnails: bool = False,
    shards: int | None = None,
    replicas: int | None = None,
    quantization: str | None = None,
    client: Any = None,
) -> None:
    """Make the two collections of a gallery.

    Args:
        url: ``qdrant://host:6333/name``.
        space: of the gallery.
        retention: of the gallery.
        thumbnails: keep small copies of images.
        shards: of the collection; the cluster's default if not given.
        replicas: copies of every shard.
        quantization: ``none``, ``int8`` or ``binary``.
        client: an open client instead of the URL's.

    Raises:
        GloamError: the collection exists, or the cluster does not answer.
    """
    from qdrant_client import models

    client, name = guarded(connect(url) if client is None else client), collection_name(url)
    if quantization not in (None, "none", "int8", "binary"):
        raise GloamError(f"There is no quantization {plain(quantization)!r}. Known: none, int8, binary.")
    quantizer: Any = None
    if quantization == "int8":
        quantizer = models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    elif quantization == "binary":
        quantizer = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    if client.collection_exists(name) or client.collection_exists(name + META):
        raise GloamError(f"{plain(url)} exists already. Choose another name, or add to it.")
    client.create_collection(
        name,
        # The dot product: vectors come with length 1, and the cluster must not change their last bits.
        vectors_config=models.VectorParams(
            size=space.dim, distance=models.Distance.DOT, datatype=models.Datatype.FLOAT16, on_disk=True
        ),
        shard_number=shards,
        replication_factor=replicas,
        # A confirmed row is on every replica, not on one.
        write_consistency_factor=replicas,
        quantization_config=quantizer,
        on_disk_payload=True,
    )
    for field, kind in {**_INDEXES, "modality": "integer"}.items():
        client.create_payload_index(name, field, field_schema=models.PayloadSchemaType(kind))
    client.create_collection(
        name + META,
        vectors_config=models.VectorParams(size=1, distance=models.Distance.DOT),
        replication_factor=replicas,
    )
    settings = {
        "retention": retention.text(),
        "thumbnails": "yes" if thumbnails else "no",
        "secret": os.urandom(32).hex(),
    }
    client.upsert(
        name + META,
        points=[
            models.PointStruct(id=SPACE_ID, vector=[1.0], payload={"kind": "space", **space_payload(space)}),
            models.PointStruct(id=SETTINGS_ID, vector=[1.0], payload={"kind": "settings", **settings}),
        ],
        wait=True,
    )


def open_qdrant(url: str, *, client: Any = None) -> tuple[QdrantCatalogue, QdrantIndex]:
    """Catalogue and index of a gallery in a cluster.

    Raises:
        GloamError: no such gallery, or the cluster does not answer.
    """
    client, name = guarded(connect(url) if client is None else client), collection_name(url)
    if not (client.collection_exists(name) and client.collection_exists(name + META)):
        raise GloamError(f"There is no gallery {plain(url)}. Make one: gloam gallery create {plain(url)} RUN")
    catalogue = QdrantCatalogue(client, name, url)
    return catalogue, QdrantIndex(client, name, catalogue)
