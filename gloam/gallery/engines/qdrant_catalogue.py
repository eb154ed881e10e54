"""The catalogue of a gallery in a Qdrant cluster."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from gloam.errors import GloamError
from gloam.gallery.catalogue import account, argument_digest
from gloam.gallery.contract import AuditEntry, Purged, Retention, Seen
from gloam.gallery.engines.cluster import META, point_id
from gloam.gallery.rows import Row
from gloam.gallery.space import Space
from gloam.gallery.where import EVERYTHING, Where

SPACE_ID, SETTINGS_ID = 1, 2
_BLOCK = 1000
_FIELDS = [*Row._fields]


class QdrantCatalogue:
    """What the payloads of two collections say.

    Args:
        client: an open ``qdrant_client.QdrantClient``.
        collection: of the rows.
        url: what messages call the gallery.
    """

    def __init__(self, client: Any, collection: str, url: str) -> None:
        self.client, self.collection, self.url = client, collection, url

    @property
    def name(self) -> str:
        return self.url

    @property
    def space(self) -> Space:
        told = self._meta(SPACE_ID)
        return Space(**{name: told[name] for name in Space.__dataclass_fields__})

    def save_space(self, space: Space) -> None:
        if self.space.digest != space.digest:
            raise GloamError("The gallery has moved to another model meanwhile. Open it again.")
        self.client.set_payload(self.collection + META, payload=space_payload(space), points=[SPACE_ID], wait=True)

    def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        found = {}
        for start in range(0, len(keys), _BLOCK):
            ids = [point_id(key) for key in dict.fromkeys(keys[start : start + _BLOCK])]
            for point in self.client.retrieve(self.collection, ids, with_payload=_FIELDS):
                row = row_of(point.payload)
                found[row.key] = row
        return found

    def scan(self, where: Where = EVERYTHING) -> Iterator[list[Row]]:
        for points in self._scroll(self.collection, condition(where), _FIELDS):
            yield [row_of(point.payload) for point in points]

    def cameras(self) -> list[Seen]:
        found: dict[tuple[int, int], Seen] = {}
        for row in (row for block in self.scan() for row in block):
            place = (row.camera, row.modality)
            old = found.get(place, Seen(*place, 0, None, None))
            times = [time for time in (old.first, old.last, row.time) if time is not None]
            found[place] = Seen(*place, old.rows + 1, min(times, default=None), max(times, default=None))
        return [found[place] for place in sorted(found)]

    def older(self, limit: int, cameras: Sequence[int], not_cameras: Sequence[int]) -> list[str]:
        from qdrant_client import models

        keys: list[str] = []
        for field, missing in (("time", None), ("added", "time")):
            chosen = condition(Where(tuple(cameras), tuple(not_cameras))) or models.Filter()
            must: list[Any] = [
                *(chosen.must or []),
                models.FieldCondition(key=field, range=models.Range(lt=limit)),
            ]
            if missing:
                must.append(models.IsNullCondition(is_null=models.PayloadField(key=missing)))
            flt = models.Filter(must=must, must_not=chosen.must_not)
            keys += [point.payload["key"] for block in self._scroll(self.collection, flt, ["key"]) for point in block]
        return keys

    def thumbnails(self, keys: Sequence[str]) -> dict[str, bytes]:
        ids = [point_id(key) for key in dict.fromkeys(keys)]
        points = self.client.retrieve(self.collection, ids, with_payload=["key", "thumbnail"]) if ids else []
        return {
            point.payload["key"]: base64.b64decode(point.payload["thumbnail"])
            for point in points
            if point.payload.get("thumbnail")
        }

    def name_person(self, keys: Sequence[str], person: str | None) -> int:
        known = list(self.rows(keys))
        if known:
            ids = [point_id(key) for key in known]
            self.client.set_payload(self.collection, payload={"person": person}, points=ids, wait=True)
        self.record("named", {"person": person, "keys": sorted(known)}, len(known))
        return len(known)

    def setting(self, name: str) -> str:
        return str(self._meta(SETTINGS_ID).get(name, ""))

    def retention(self) -> Retention:
        return Retention.parse(self.setting("retention"))

    def set_retention(self, retention: Retention) -> None:
        changed = {"retention": retention.text()}
        self.client.set_payload(self.collection + META, payload=changed, points=[SETTINGS_ID], wait=True)
        self.record("retention", {"rule": retention.text()}, 0)

    def record(self, action: str, arguments: Mapping[str, object], rows: int) -> None:
        from qdrant_client import models

        digest = argument_digest(self.setting("secret"), arguments)
        line = AuditEntry(time.time_ns() // 1000, account(), action, digest, rows)
        point = models.PointStruct(id=str(uuid.uuid4()), vector=[1.0], payload={"kind": "audit", **line._asdict()})
        self.client.upsert(self.collection + META, points=[point], wait=True)

    def audit(self) -> Iterator[AuditEntry]:
        from qdrant_client import models

        wanted = models.Filter(must=[models.FieldCondition(key="kind", match=models.MatchValue(value="audit"))])
        found = [
            AuditEntry(*(point.payload[name] for name in AuditEntry._fields))
            for block in self._scroll(self.collection + META, wanted, True)
            for point in block
        ]
        return iter(sorted(found))

    def purge(self, patience: float, *, rewrite: bool = True) -> Purged:
        return Purged(
            False,
            "their bytes leave the cluster's disks only when its optimizer rewrites the segments, and its snapshots "
            "when those are deleted (Qdrant's deleted_threshold and snapshots)",
        )

    def close(self) -> None:
        self.client.close()

    def _meta(self, number: int) -> dict[str, Any]:
        points = self.client.retrieve(self.collection + META, [number], with_payload=True)
        if not points:
            raise GloamError(f"{self.url} is damaged: its description is missing.")
        payload: dict[str, Any] = points[0].payload
        return payload

    def _scroll(self, collection: str, wanted: Any, payload: Any) -> Iterator[list[Any]]:
        offset = None
        while True:
            points, offset = self.client.scroll(
                collection, scroll_filter=wanted, limit=_BLOCK, offset=offset, with_payload=payload, with_vectors=False
            )
            if points:
                yield points
            if offset is None:
                return


def space_payload(space: Space) -> dict[str, Any]:
    """A space as the payload of its point."""
    return asdict(space)


def payload_of(row: Row, image: bytes | None, added: int | None) -> dict[str, Any]:
    """A row as the payload of its point."""
    told: dict[str, Any] = row._asdict()
    told["sha256"] = None if row.sha256 is None else row.sha256.hex()
    told["box"] = None if row.box is None else [float(value) for value in row.box]
    told["added"] = time.time_ns() // 1000 if added is None else added
    told["thumbnail"] = None if image is None else base64.b64encode(image).decode()
    return told


def row_of(payload: Mapping[str, Any]) -> Row:
    """The row of a point."""
    told = {name: payload.get(name) for name in _FIELDS}
    told["sha256"] = None if told["sha256"] is None else bytes.fromhex(told["sha256"])
    told["box"] = None if told["box"] is None else tuple(told["box"])
    return Row(**told)  # type: ignore[arg-type]


def condition(where: Where) -> Any:
    """A filter in Qdrant's words; None: every row."""
    from qdrant_client import models

    if where.empty:
        return None
    must: list[Any] = []
    for field, several in (("camera", where.cameras), ("tracklet", where.tracklets), ("person", where.persons)):
        if several:
            must.append(models.FieldCondition(key=field, match=models.MatchAny(any=list(several))))
    if where.after is not None or where.before is not None:
        limits = models.Range(
            gte=None if where.after is None else int(where.after),
            lt=None if where.before is None else int(where.before),
        )
        must.append(models.FieldCondition(key="time", range=limits))
    if where.modality_number is not None:
        must.append(models.FieldCondition(key="modality", match=models.MatchValue(value=where.modality_number)))
    must_not = None
    if where.not_cameras:
        must_not = [models.FieldCondition(key="camera", match=models.MatchAny(any=list(where.not_cameras)))]
    return models.Filter(must=must or None, must_not=must_not)
