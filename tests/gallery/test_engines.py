"""One suite for all engines: exact scan, search codes, Qdrant's local mode, and a real server where there is one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.gallery.contract import Catalogue, Retention
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.engines.exact import ExactIndex
from gloam.gallery.engines.rabitq import RabitqIndex
from gloam.gallery.gallery import Gallery
from gloam.gallery.rows import Row
from gloam.gallery.where import EVERYTHING, Where
from tests.gallery.people import DIM, HOUR, START, draw, oracle, queries, space

SERVER = "GLOAM_QDRANT_URL"
FILTERS: list[tuple[Where, Callable[[Row], bool]]] = [
    (EVERYTHING, lambda row: True),
    (Where(cameras=(2, 5)), lambda row: row.camera in (2, 5)),
    (Where(not_cameras=(0, 1, 2)), lambda row: row.camera not in (0, 1, 2)),
    (Where(modality="infrared"), lambda row: row.modality == 1),
    (Where(after=(START + 50 * HOUR) / 1e6), lambda row: row.time is not None and row.time >= START + 50 * HOUR),
    (Where(before=(START + 50 * HOUR) / 1e6), lambda row: row.time is not None and row.time < START + 50 * HOUR),
    (Where(tracklets=("t3", "t40", "nobody")), lambda row: row.tracklet in ("t3", "t40")),
    (Where(persons="P7"), lambda row: row.person == "P7"),
    (
        Where(cameras=5, modality="infrared", after=(START + 20 * HOUR) / 1e6, persons=("P5", "P8", "P11")),
        lambda row: row.camera == 5 and row.person in ("P5", "P8", "P11") and (row.time or 0) >= START + 20 * HOUR,
    ),
    (Where(cameras=99), lambda row: False),
]
Engine = tuple[Catalogue, VectorIndex]


@pytest.fixture(params=["exact", "rabitq", "qdrant local", "qdrant server"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param.startswith("qdrant"):
        yield from qdrant(request.param)
        return
    gallery = Gallery.create(tmp_path / "g", space(), retention="keep")
    store = gallery.catalogue.store  # type: ignore[attr-defined]
    index = ExactIndex(store) if request.param == "exact" else RabitqIndex(store, smallest=1)
    yield gallery.catalogue, index
    gallery.catalogue.close()


def qdrant(kind: str) -> Iterator[Engine]:
    pytest.importorskip("qdrant_client", reason="the extra qdrant is not installed")
    from gloam.gallery.engines.cluster import META, connect
    from gloam.gallery.engines.qdrant import create_qdrant, open_qdrant

    if kind == "qdrant server" and SERVER not in os.environ:
        pytest.skip(f"no Qdrant server: set {SERVER}=qdrant://host:6333")
    name = f"test_{uuid.uuid4().hex[:12]}"
    url = f"{os.environ[SERVER].rstrip('/') if kind == 'qdrant server' else 'qdrant://memory'}/{name}"
    client: Any = connect(url) if kind == "qdrant server" else local_client()
    create_qdrant(url, space(), Retention(None, {}), client=client)
    yield open_qdrant(url, client=client)
    for collection in (name, name + META):
        client.delete_collection(collection)
    client.close()


def local_client() -> Any:
    from qdrant_client import QdrantClient

    return QdrantClient(":memory:")


def check(index: VectorIndex, rows: list[Row], vectors: Any, *, exact: bool, recall: float) -> None:
    asked = queries(vectors, 8)
    for where, keep in FILTERS:
        assert index.count(where) == sum(map(keep, rows)), where
        found = index.search(asked, 10, where, exact=exact)
        agreed = total = 0
        for query, keys, scores in zip(asked, found.keys, found.scores, strict=True):
            expected = oracle(rows, vectors, query, 10, keep)
            assert len(keys) == len(expected), where
            agreed += len({*keys} & {key for key, _ in expected})
            total += len(expected)
            if recall == 1:
                assert list(zip(keys, scores.tolist(), strict=True)) == expected, where
        assert agreed >= recall * total, where


def test_exact_search_is_the_oracles(engine: Engine) -> None:
    _, index = engine
    rows, vectors = draw(600)
    added = index.upsert(rows, vectors)
    assert (added.new, added.updated) == (600, 0)
    check(index, rows, vectors, exact=True, recall=1)
    assert index.search(queries(vectors, 1), 3, exact=True).exact


def test_default_search_finds_nearly_all(engine: Engine) -> None:
    _, index = engine
    rows, vectors = draw(600)
    index.upsert(rows, vectors)
    check(index, rows, vectors, exact=False, recall=0.99)


def test_update_replaces_and_delete_removes(engine: Engine) -> None:
    catalogue, index = engine
    rows, vectors = draw(120)
    index.upsert(rows, vectors)
    index.search(vectors[:1], 5)  # whatever an engine keeps in memory must notice what follows
    moved = [row._replace(camera=6, modality=1, person="Z", time=None) for row in rows[:30]]
    turned = -vectors[:30]
    added = index.upsert(moved, turned, [b"image"] * 30)
    assert (added.new, added.updated) == (0, 30)
    assert index.delete([row.key for row in rows[30:60]] + ["unknown"]) == 30
    now = [*moved, *rows[60:]]
    values = np.concatenate([turned, vectors[60:]])
    check(index, now, values, exact=True, recall=1)
    keys = [row.key for row in now]
    assert catalogue.rows([*keys, "unknown"]) == {row.key: row for row in now}
    assert {row.key for block in catalogue.scan() for row in block} == set(keys)
    assert catalogue.thumbnails(keys) == {row.key: b"image" for row in moved}


def test_vectors_are_half_floats_in_the_order_asked(engine: Engine) -> None:
    _, index = engine
    rows, vectors = draw(20)
    index.upsert(rows, vectors)
    chosen = [7, 3, 3, 19]
    found = index.vectors([rows[number].key for number in chosen])
    np.testing.assert_array_equal(found, vectors[chosen].astype(np.float16).astype(np.float32))
    with pytest.raises(GloamError, match="no row 'nobody'"):
        index.vectors(["nobody"])


@pytest.mark.parametrize("wrong", ["nan", "length", "width", "twice", "key"])
def test_what_must_not_be_stored_is_refused_and_nothing_of_the_batch_stays(engine: Engine, wrong: str) -> None:
    _, index = engine
    rows, vectors = draw(10)
    if wrong == "nan":
        vectors[4, 2] = np.nan
    elif wrong == "length":
        vectors[4] *= 2
    elif wrong == "width":
        vectors = vectors[:, :-1]
    elif wrong == "twice":
        rows[4] = rows[3]
    else:
        rows[4] = rows[4]._replace(key="tracklet:x")
    with pytest.raises(GloamError):
        index.upsert(rows, vectors)
    assert index.count() == 0


def test_more_equal_rows_than_asked_for_come_by_key(engine: Engine) -> None:
    _, index = engine
    rows, vectors = draw(100)
    vectors[:] = vectors[0]
    index.upsert(rows, vectors)
    found = index.search(vectors[:1], 5, exact=True)
    assert found.keys[0].tolist() == sorted(row.key for row in rows)[:5]


def test_empty_gallery_and_bad_queries(engine: Engine) -> None:
    _, index = engine
    assert index.search(np.ones((2, DIM), np.float32), 5).keys.shape == (2, 0)
    for query in (np.ones((1, DIM + 1), np.float32), np.full((1, DIM), np.nan, np.float32)):
        with pytest.raises(GloamError):
            index.search(query, 5)
    with pytest.raises(GloamError):
        index.search(np.ones((1, DIM), np.float32), 0)


def test_catalogue_keeps_names_retention_audit_and_space(engine: Engine) -> None:
    catalogue, index = engine
    rows, vectors = draw(12)
    index.upsert(rows, vectors)
    assert catalogue.name_person([rows[0].key, "unknown"], "Ada") == 1
    assert catalogue.rows([rows[0].key])[rows[0].key] == rows[0]._replace(person="Ada")
    assert index.count(Where(persons="Ada")) == 1
    assert catalogue.name_person([rows[0].key], None) == 1
    assert index.count(Where(persons="Ada")) == 0
    rule = Retention(30.0, {3: 7.0})
    catalogue.set_retention(rule)
    assert catalogue.retention() == rule
    tuned = catalogue.space.replace(tuning={"oversampling": 30}, calibration={"pairs": {}})
    catalogue.save_space(tuned)
    assert catalogue.space == tuned
    actions = [entry.action for entry in catalogue.audit()]
    assert actions[-4:] == ["added", "named", "named", "retention"]
    assert not any(rows[0].key in str(entry) for entry in catalogue.audit())


def test_old_rows_by_time_or_else_by_when_they_were_added(engine: Engine) -> None:
    catalogue, index = engine
    rows, vectors = draw(40)
    index.upsert(rows, vectors)
    limit = START + 10 * HOUR
    expected = {row.key for row in rows if row.time is not None and row.time < limit}
    assert set(catalogue.older(limit, (), ())) == expected
    assert set(catalogue.older(2**60, (), (1,))) == {row.key for row in rows if row.camera != 1}
    assert set(catalogue.older(2**60, (1,), ())) == {row.key for row in rows if row.camera == 1}
