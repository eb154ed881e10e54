"""Flipped bytes, damaged codes, a full disk, a second writer, a network file system: an error or a repair, no loss."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.gallery.disk import filesystem_of
from gloam.gallery.engines.codes import codes_file
from gloam.gallery.engines.rabitq import RabitqIndex
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.store import Store
from tests.gallery.people import draw, filled, queries, space


def content(gallery: Gallery) -> dict[str, object]:
    """All that a user can get out."""
    rows = {row.key: row for block in gallery.catalogue.scan() for row in block}
    keys = sorted(rows)
    return {
        "rows": rows,
        "vectors": gallery.index.vectors(keys).tobytes(),
        "images": gallery.catalogue.thumbnails(keys),
        "space": gallery.space,
        "retention": gallery.catalogue.retention(),
        "audit": list(gallery.catalogue.audit()),
        "count": len(gallery),
    }


@pytest.mark.parametrize("part", range(4))
def test_a_flipped_byte_is_noticed_or_changes_nothing(tmp_path: Path, part: int) -> None:
    folder = tmp_path / "g"
    gallery = filled(folder, 60, thumbnails=True)
    gallery.close()
    database = folder / "gallery.db"
    with open_gallery(folder, engine="exact") as good:
        expected = content(good)
    original = database.read_bytes()
    generator = np.random.default_rng(part)
    used = [place for place in range(len(original)) if original[place]]
    places = generator.choice(used, 60, replace=False)
    noticed = 0
    for place in places.tolist():
        damaged = bytearray(original)
        damaged[place] ^= 1 << int(generator.integers(8))
        for extra in ("gallery.db-wal", "gallery.db-shm"):
            (folder / extra).unlink(missing_ok=True)
        database.write_bytes(damaged)
        try:
            opened = open_gallery(folder, engine="exact")
            try:
                problems = opened.verify().problems
                noticed += bool(problems)
                if not problems:
                    assert content(opened) == expected, f"byte {place} was changed and nobody noticed"
            finally:
                opened.catalogue.close()
        except GloamError:
            noticed += 1
    assert noticed > 30


def test_a_damaged_vector_stops_a_search_that_needs_it(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 50)
    connection = gallery.catalogue.store.connection  # type: ignore[attr-defined]
    blob = bytearray(connection.execute("SELECT f16 FROM vector_1 WHERE crop = 7").fetchone()[0])
    blob[3] ^= 4
    connection.execute("UPDATE vector_1 SET f16 = ? WHERE crop = 7", (bytes(blob),))
    with pytest.raises(GloamError, match="damaged"):
        gallery.index.search(np.eye(1, gallery.space.dim, dtype=np.float32), 50)
    problems = gallery.verify().problems
    assert len(problems) == 1
    rows, vectors = draw(50)
    number = next(n for n, row in enumerate(rows) if row.key in problems[0])
    gallery.index.upsert(rows[number : number + 1], vectors[number : number + 1])  # the cure that the message names
    assert gallery.verify().ok


def coded(folder: Path, count: int = 400) -> Path:
    """A gallery with a file of codes; its name."""
    gallery = filled(folder, count)
    store = gallery.catalogue.store  # type: ignore[attr-defined]
    index = RabitqIndex(store, smallest=1)
    index.search(draw(5)[1], 3)
    index.sync()
    gallery.catalogue.close()
    return codes_file(folder, 1)


def answers(folder: Path) -> list[list[str]]:
    store = Store(folder)
    _, vectors = draw(400)
    found = RabitqIndex(store, smallest=1).search(queries(vectors, 5), 10).keys.tolist()
    store.close()
    return found  # type: ignore[no-any-return]


def test_codes_that_are_cut_changed_foreign_or_absent_are_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    file = coded(folder)
    good, expected = file.read_bytes(), answers(folder)
    generator = np.random.default_rng(0)
    cut = [good[: int(generator.integers(len(good)))] for _ in range(10)]
    changed = []
    for place in generator.integers(0, len(good), 30):
        bad = bytearray(good)
        bad[place] ^= 1 << int(generator.integers(8))
        changed.append(bytes(bad))
    for bad in [b"", *cut, *changed]:
        file.write_bytes(bad)
        assert answers(folder) == expected
    file.unlink()
    assert answers(folder) == expected
    other = coded(tmp_path / "other", 100)  # codes of another gallery
    shutil.copy(other, file)
    assert answers(folder) == expected
    file.write_bytes(good[:-1])
    with open_gallery(folder) as gallery:
        assert gallery.verify().repaired == ("the search codes were damaged and are made again by the next search",)


def test_codes_follow_what_other_processes_write(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    coded(folder)
    first, second = Store(folder), Store(folder)
    one, two = RabitqIndex(first, smallest=1), RabitqIndex(second, smallest=1)
    rows, vectors = draw(500)
    asked = queries(vectors, 6)
    for step in range(4):
        two.search(asked, 5)
        one.upsert(rows[400 + 25 * step : 425 + 25 * step], vectors[400 + 25 * step : 425 + 25 * step])
        one.upsert(
            [row._replace(camera=9) for row in rows[step * 10 : step * 10 + 5]], -vectors[step * 10 : step * 10 + 5]
        )
        one.delete([row.key for row in rows[100 + step : 140 : 7]])
        one.sync()
        fresh = RabitqIndex(first, smallest=1)
        expected = one.search(asked, 8, exact=True)
        for index in (one, two, fresh):
            assert index.search(asked, 8, exact=True).keys.tolist() == expected.keys.tolist()
            found = index.search(asked, 8)
            assert not found.exact
            shared = sum(len({*a} & {*b}) for a, b in zip(found.keys, expected.keys, strict=True))
            assert shared >= 46
            assert len(index.columns) == index.count() == one._codes.ntotal
    first.close()
    second.close()


def test_a_reader_that_slept_through_many_removals_reads_everything_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gloam.gallery.crops.KEPT_REMOVALS", 5)
    gallery = filled(tmp_path / "g", 200)
    sleeper = open_gallery(tmp_path / "g", engine="exact")
    assert len(sleeper) == 200
    rows, _ = draw(200)
    for row in rows[:20]:
        gallery.index.delete([row.key])
    assert len(sleeper) == 180
    assert sleeper.index.search(draw(1)[1], 200).keys.shape == (1, 180)


def test_a_full_disk_is_told_and_nothing_confirmed_is_lost(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 200)
    connection = gallery.catalogue.store.connection  # type: ignore[attr-defined]
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    rows, vectors = draw(3000, seed=5)
    rows = [row._replace(key=f"new {row.key}") for row in rows]
    with pytest.raises(GloamError, match="is full"):
        gallery.index.upsert(rows, vectors)
    assert len(gallery) == 200
    connection.execute("PRAGMA max_page_count=1000000")
    assert gallery.index.upsert(rows, vectors).new == 3000
    assert gallery.verify().ok


def test_codes_that_find_no_room_cost_nothing_but_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    gallery = filled(tmp_path / "g", 200)
    index = RabitqIndex(gallery.catalogue.store, smallest=1)  # type: ignore[attr-defined]
    index.search(draw(5)[1], 3)
    monkeypatch.setattr("gloam.gallery.engines.codes.make_private", full)
    index.sync()
    assert not list((tmp_path / "g/codes").glob("*.codes"))
    assert index.search(draw(5)[1], 3).keys.shape == (5, 3)


def test_a_second_writer_gets_an_error_and_stores_nothing(tmp_path: Path) -> None:
    gallery = filled(tmp_path / "g", 50)
    other = sqlite3.connect(tmp_path / "g/gallery.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    gallery.catalogue.store.connection.execute("PRAGMA busy_timeout=100")  # type: ignore[attr-defined]
    rows, vectors = draw(60)
    with pytest.raises(GloamError, match="Another process is writing"):
        gallery.index.upsert(rows, vectors)
    assert len(gallery) == 50  # reading goes on
    other.execute("ROLLBACK")
    assert gallery.index.upsert(rows, vectors).new == 10


def test_network_file_systems_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = "/dev/sda1 / ext4 rw 0 0\nserver:/x /mnt/my\\040share nfs4 rw 0 0\n"
    mounts += "/dev/sdb /mnt/my\\040share/local xfs rw 0 0\n"
    assert filesystem_of(Path("/home/a"), mounts) == "ext4"
    assert filesystem_of(Path("/mnt/my share/g"), mounts) == "nfs4"
    assert filesystem_of(Path("/mnt/my share/local/g"), mounts) == "xfs"
    assert filesystem_of(Path("/mnt/my shared"), mounts) == "ext4"
    fake = tmp_path / "mounts"
    fake.write_text("/dev/sda1 / ext4 rw 0 0\n")
    filled(tmp_path / "g", 10).close()
    monkeypatch.setattr("gloam.gallery.disk._MOUNTS", fake)
    open_gallery(tmp_path / "g").close()
    fake.write_text(f"server:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    for step in (lambda: open_gallery(tmp_path / "g"), lambda: Gallery.create(tmp_path / "h", space(), retention=1)):
        with pytest.raises(GloamError, match="network file system"):
            step()
    assert not (tmp_path / "h").exists()


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    coded(folder)
    gallery = open_gallery(folder)
    gallery.search(draw(400)[0][0].key).save(tmp_path / "hits.html")
    gallery.export(tmp_path / "out.parquet")
    gallery.export(tmp_path / "copy")
    gallery.catalogue.record("searched", {}, 0)
    for path in [
        *folder.rglob("*"),
        folder,
        *(tmp_path / "copy").rglob("*"),
        tmp_path / "hits.html",
        tmp_path / "out.parquet",
    ]:
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    gallery.close()
    folder.chmod(0o755)
    with open_gallery(folder) as again:
        assert "chmod" in again.verify().problems[0]


@pytest.mark.parametrize("bad", ["absent", "empty", "text", "foreign", "newer"])
def test_what_is_no_gallery_is_told(tmp_path: Path, bad: str) -> None:
    folder = tmp_path / "g"
    if bad != "absent":
        filled(folder, 5).close()
    file = folder / "gallery.db"
    if bad == "empty":
        file.write_bytes(b"")
    elif bad == "text":
        file.write_text("hello " * 1000)
    elif bad in ("foreign", "newer"):
        connection = sqlite3.connect(file)
        connection.execute("PRAGMA application_id=7" if bad == "foreign" else "PRAGMA user_version=99")
        connection.close()
    with pytest.raises(GloamError):
        open_gallery(folder)


def test_create_never_touches_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "g"
    filled(folder, 20).close()
    with pytest.raises(GloamError, match="exists already"):
        Gallery.create(folder, space(), retention="keep")
    with open_gallery(folder) as gallery:
        assert len(gallery) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["g"]
