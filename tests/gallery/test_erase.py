"""What is erased is in no byte of any file, whatever was done to the gallery before; retention; the audit."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.gallery.engines.rabitq import RabitqIndex
from gloam.gallery.erase import erase, files_with, gallery_files
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.rows import Row
from gloam.gallery.verify import verify
from gloam.gallery.where import Where
from tests.gallery.people import HOUR, START, draw, filled, space

DAY = 24 * HOUR


def traces(folder: Path, keys: list[str], paths: list[str], vectors: np.ndarray) -> list[str]:
    """Which of the erased things are still in some file, in any precision."""
    files = gallery_files(folder)
    found = []
    for key, path, vector in zip(keys, paths, vectors, strict=True):
        patterns = {
            "key": key.encode(),
            "path": path.encode(),
            "thumbnail": b"RIFF" + key.encode(),
            "float16": vector.astype(np.float16).tobytes()[:16],
            "float32": vector.astype(np.float16).astype(np.float32).tobytes()[:16],
            "float32 as given": vector.astype(np.float32).tobytes()[:16],
        }
        found += [
            f"{what} of {key} in {files_with(files, part)}"
            for what, part in patterns.items()
            if files_with(files, part)
        ]
    return found


def unique(rows, vectors):  # type: ignore[no-untyped-def]
    """No vector twice, paths that are no part of each other: bytes that are found are the erased row's own."""
    generator = np.random.default_rng(1)
    vectors = generator.standard_normal(vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [row._replace(path=f"folder/{number:06d}-image.png") for number, row in enumerate(rows)]
    return rows, vectors


def churned(folder: Path, count: int = 4000) -> tuple[Gallery, list, np.ndarray]:  # type: ignore[type-arg]
    """A gallery whose rows were added in disorder, updated and partly deleted: pages were split and merged."""
    gallery = Gallery.create(folder, space(), retention="keep", thumbnails=True)
    store = gallery.catalogue.store  # type: ignore[attr-defined]
    gallery.index = RabitqIndex(store, smallest=1)
    rows, vectors = unique(*draw(count))
    generator = np.random.default_rng(2)
    order = generator.permutation(count)
    for start in range(0, count, 250):
        part = order[start : start + 250]
        gallery.index.upsert([rows[n] for n in part], vectors[part], [b"RIFF" + rows[n].key.encode() * 3 for n in part])
    again = generator.choice(count, 400, replace=False)
    rows = [row._replace(person="moved") if n in set(again) else row for n, row in enumerate(rows)]
    gallery.index.upsert([rows[n] for n in again], vectors[again], [b"RIFF" + rows[n].key.encode() * 3 for n in again])
    gallery.index.search(vectors[:1], 5)
    gallery.index.sync()
    assert (folder / "codes").is_dir()
    return gallery, rows, vectors


def test_no_byte_of_erased_rows_is_in_any_file(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    gallery, rows, vectors = churned(folder)
    chosen = np.random.default_rng(3).choice(len(rows), 60, replace=False)
    keys, paths = [rows[n].key for n in chosen], [str(rows[n].path) for n in chosen]
    gallery.catalogue.store.checkpoint(1)  # type: ignore[attr-defined]
    assert len(traces(folder, keys[:1], paths[:1], vectors[chosen[:1]])) >= 3  # the search for bytes does find
    for n in range(0, 60, 20):  # rows go in several steps: pages are merged in between
        report = gallery.erase(keys[n : n + 20])
        assert report.done
        assert report.keys == tuple(keys[n : n + 20])
    gallery.index.sync()
    assert traces(folder, keys, paths, vectors[chosen]) == []
    gallery.close()
    assert traces(folder, keys, paths, vectors[chosen]) == []
    left = open_gallery(folder)
    assert len(left) == len(rows) - 60
    assert left.verify().ok
    left.close()


def test_copies_that_page_splits_left_behind_go_with_the_rewriting(tmp_path: Path) -> None:
    """SQLite overwrites what it deletes, not where a row lay before its page was split: keys in disorder show it."""
    folder, count = tmp_path / "g", 20_000
    gallery = Gallery.create(folder, space(dim=8), retention="keep")
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((count, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [Row(f"key {generator.integers(10**12):012d}", tracklet=f"walk {n:06d}") for n in range(count)]
    for start in range(0, count, 200):
        gallery.index.upsert(rows[start : start + 200], vectors[start : start + 200])
    keys = [row.key for row in rows[:6000]]

    def left() -> int:
        content = (folder / "gallery.db").read_bytes()
        return sum(key.encode() in content for key in keys)

    assert not gallery.erase(keys, rewrite=False).done
    assert left() > 0
    assert gallery.verify().repaired == ("an erasure was finished: the file was rewritten",)
    assert left() == 0


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are seen on Linux only")
def test_the_file_is_rewritten_through_a_nameless_file_in_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "people's"
    gallery = filled(folder, 20_000)
    with gallery.catalogue.store.alone() as connection:  # type: ignore[attr-defined]
        connection.execute("PRAGMA cache_size=10")  # pages: a small gallery would fit into the usual ones
    seen: set[str] = set()
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            for descriptor in Path("/proc/self/fd").iterdir():
                with contextlib.suppress(OSError):
                    seen.add(str(descriptor.readlink()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert gallery.catalogue.purge(1).done
    done.set()
    watcher.join()
    temporary = {name for name in seen if "etilqs" in name}  # what SQLite calls its temporary files
    assert temporary
    assert all(name.startswith(f"{folder}/") and name.endswith("(deleted)") for name in temporary)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "gallery.db", "gallery.db-shm", "gallery.db-wal",
    ]  # fmt: skip


def test_codes_of_erased_rows_are_gone_before_the_rows_are(tmp_path: Path) -> None:
    gallery, rows, _ = churned(tmp_path / "g", 600)
    seen: list[bool] = []

    def watch(statement: str) -> None:
        if statement.startswith("COMMIT"):
            seen.append(any((tmp_path / "g/codes").iterdir()))

    gallery.catalogue.store.connection.set_trace_callback(watch)  # type: ignore[attr-defined]
    gallery.index.delete([rows[0].key])
    assert seen == [False]


def test_a_reader_of_the_old_state_is_waited_for_then_reported_and_verify_finishes(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    gallery = Gallery.create(folder, space(), retention="keep")
    rows, vectors = unique(*draw(200))
    gallery.index.upsert(rows, vectors)
    reader = sqlite3.connect(folder / "gallery.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM crop").fetchone()
    report = gallery.erase(rows[0].key, patience=0.2)
    assert not report.done
    assert "another process still reads" in report.reason
    assert len(gallery) == 199  # gone for every new search
    assert "an erasure waits" in " ".join(verify(gallery.catalogue, gallery.index, patience=0.1).problems)
    reader.execute("COMMIT")
    verdict = gallery.verify()
    assert verdict.ok
    assert "an erasure was finished" in verdict.repaired[0]
    assert traces(folder, [rows[0].key], [str(rows[0].path)], vectors[:1]) == []
    assert gallery.verify().repaired == ()
    gallery.close()


def test_what_is_chosen(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 200)
    rows, _vectors = draw(200)
    assert set(gallery.select(where=Where(persons="P7"))) == {row.key for row in rows if row.person == "P7"}
    assert set(gallery.select(where=Where(cameras=3, before=(START + 99 * HOUR) / 1e6))) == {
        row.key for row in rows if row.camera == 3 and row.time is not None and row.time < START + 99 * HOUR
    }
    stored = gallery.index.vectors([row.key for row in rows])
    scores = stored @ stored[5]
    near = gallery.select(near=rows[5].key, score=0.5)
    assert set(near) == {row.key for row, score in zip(rows, scores, strict=True) if score >= 0.5}
    assert rows[5].key in near
    assert len(gallery.select(near=rows[5].key, score=-1)) == 200
    for wrong in ({}, {"near": rows[5].key}, {"keys": "nobody"}, {"keys": rows[0].key, "where": Where(cameras=1)}):
        with pytest.raises(GloamError):
            gallery.select(**wrong)
    assert len(gallery) == 200


def test_names_that_only_erased_rows_had_go_too(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    gallery = filled(folder, 50)
    gallery.name_person("Grace Hopper-Unusual", gallery.select(where=Where(cameras=3))[:2])
    assert gallery.erase(gallery.select(where=Where(persons="Grace Hopper-Unusual"))).done
    assert files_with(gallery_files(folder), b"Grace Hopper-Unusual") == []


def test_retention_by_camera_and_by_when_rows_came(tmp_path: Path) -> None:
    gallery = Gallery.create(tmp_path / "g", space(), retention=10, retention_cameras={3: 2})
    rows, vectors = draw(100)
    now = time.time()
    rows = [
        row._replace(camera=3 if n % 2 else 4, time=None if n < 10 else round((now - (n + 0.5) * 0.2 * 86_400) * 1e6))
        for n, row in enumerate(rows)
    ]
    gallery.index.upsert(rows, vectors)
    days = {3: 2, 4: 10}
    overdue = {row.key for row in rows if row.time and row.time < (now - days[row.camera] * 86_400) * 1e6}
    report = gallery.expire(now=now)
    assert set(report.keys) == overdue
    assert report.done
    assert gallery.expire(now=now).keys == ()
    # Rows without a time count from when they were added, and an update does not make them younger.
    gallery.index.upsert([row._replace(person="x") for row in rows[:10]], vectors[:10])
    assert {row.key for row in rows[:10]} <= set(gallery.expire(now=now + 11 * 86_400).keys)
    assert len(gallery) == 0
    assert [entry.action for entry in gallery.catalogue.audit()].count("expired") == 3


@pytest.mark.parametrize("wrong", [None, "soon", 0, -3])
def test_retention_must_be_said(tmp_path: Path, wrong: object) -> None:
    with pytest.raises(GloamError, match="retention"):
        Gallery.create(tmp_path / "g", space(), retention=wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "g").exists()


def test_the_audit_is_append_only_and_holds_no_names(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 50)
    key = gallery.select(where=Where(cameras=3))[0]
    gallery.search(key)
    gallery.search(key)
    gallery.erase(key)
    lines = list(gallery.catalogue.audit())
    assert [line.action for line in lines] == ["created", "added", "searched", "searched", "erased"]
    assert lines[2].digest == lines[3].digest != lines[4].digest
    assert key not in str(lines)
    connection = gallery.catalogue.store.connection  # type: ignore[attr-defined]
    for statement in ("DELETE FROM audit", "UPDATE audit SET who = 'nobody'"):
        with pytest.raises(sqlite3.IntegrityError, match="append-only"):
            connection.execute(statement)
    connection.execute("DROP TRIGGER audit_stays")
    connection.execute("UPDATE audit SET rows = 99 WHERE seq = 3")
    problems = " ".join(gallery.verify().problems)
    assert "line 3 was changed" in problems
    assert "triggers" in problems


def test_erasing_nothing_known_writes_nothing(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 20)
    assert erase(gallery.catalogue, gallery.index, ["nobody"]).keys == ()
    assert len(gallery) == 20
