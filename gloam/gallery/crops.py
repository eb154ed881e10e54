"""Rows in the gallery file: written, read, selected and removed inside somebody's transaction."""

from __future__ import annotations

import json
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.rows import Row, plain
from gloam.gallery.where import EVERYTHING, Where

_BOX = struct.Struct("<4d")
KEPT_REMOVALS = 100_000  # of the list of removed ids: readers that lag further behind read everything again
_BLOCK = 5000
ROW_QUERY = """
SELECT c.id, c.key, c.path, s.root, c.frame, c.box, c.frames, c.camera, c.time, c.modality, t.name, p.name, c.sha256,
       c.added, c.crc
FROM crop c JOIN source s ON s.id = c.source LEFT JOIN tracklet t ON t.id = c.tracklet
     LEFT JOIN person p ON p.id = c.person
"""


def encode_row(row: Row) -> Row:
    """The row with plain Python types, so that its checksum is the same when it is read back."""
    return Row(
        row.key,
        row.path,
        row.root,
        None if row.frame is None else int(row.frame),
        None if row.box is None else tuple(float(value) for value in row.box),  # type: ignore[arg-type]
        int(row.frames),
        int(row.camera),
        None if row.time is None else int(row.time),
        int(row.modality),
        row.tracklet,
        row.person,
        row.sha256,
    )


def row_checksum(row: Row, added: int) -> int:
    """What the column ``crc`` holds."""
    return zlib.crc32(b"%d" % added, row.checksum)


def decode_row(found: Sequence[Any]) -> Row:
    """A row of ``ROW_QUERY``.

    Raises:
        GloamError: its checksum does not fit.
    """
    _, key, path, root, frame, box, frames, camera, moment, modality, tracklet, person, sha256, added, crc = found
    row = Row(
        key,
        key if path == "" else path,
        root,
        frame,
        None if box is None else _BOX.unpack(box) if len(box) == _BOX.size else (0.0, 0.0, 0.0, 0.0),
        frames,
        camera,
        moment,
        modality,
        tracklet,
        person,
        sha256,
    )
    if row_checksum(row, added) != crc:
        raise GloamError(
            f"The row {plain(key)} is damaged (its checksum does not fit). gloam gallery verify lists all."
        )
    return row


def insert(
    connection: sqlite3.Connection,
    space: int,
    rows: Sequence[Row],
    halves: NDArray[np.float16],
    thumbnails: Sequence[bytes | None] | None,
) -> tuple[int, int]:
    """Add rows; those whose keys exist are replaced and get new ids.

    Args:
        connection: inside a write transaction.
        space: number of the space that is searched.
        rows: with keys of their own each.
        halves: ``(N, D)``.
        thumbnails: one each, or None.

    Returns:
        Numbers of new and of replaced rows.
    """
    old = ids_of(connection, [row.key for row in rows])
    now = time.time_ns() // 1000
    since = _added(connection, list(old.values()))
    remove(connection, list(old.values()), purge=False)
    first = int(connection.execute("SELECT last FROM state").fetchone()[0]) + 1
    sources = _numbers(connection, "source", "root", (row.root for row in rows))
    tracklets = _numbers(connection, "tracklet", "name", (row.tracklet for row in rows))
    persons = _numbers(connection, "person", "name", (row.person for row in rows))
    values = []
    for number, given in enumerate(rows, start=first):
        row = encode_row(given)
        values.append(
            (
                number,
                row.key,
                sources[row.root],
                "" if row.path == row.key else row.path,
                row.frame,
                None if row.box is None else _BOX.pack(*row.box),
                row.frames,
                row.camera,
                row.time,
                row.modality,
                None if row.tracklet is None else tracklets[row.tracklet],
                None if row.person is None else persons[row.person],
                row.sha256,
                added := since.get(old.get(row.key, 0), now),
                row_checksum(row, added),
            )
        )
    connection.executemany("INSERT INTO crop VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", values)
    insert_vectors(connection, space, range(first, first + len(rows)), halves)
    if thumbnails is not None:
        pictures = (
            (number, image, zlib.crc32(image))
            for number, image in enumerate(thumbnails, start=first)
            if image is not None
        )
        connection.executemany("INSERT INTO thumbnail VALUES (?, ?, ?)", pictures)
    connection.execute("UPDATE state SET last = ?, rows = rows + ?", (first + len(rows) - 1, len(rows)))
    return len(rows) - len(old), len(old)


def insert_vectors(connection: sqlite3.Connection, space: int, ids: Iterable[int], halves: NDArray[np.float16]) -> None:
    """Vectors ``(N, D)`` of rows that exist, in the table of one space."""
    blobs = (half.tobytes() for half in np.ascontiguousarray(halves))
    connection.executemany(
        f"INSERT INTO vector_{int(space)} VALUES (?, ?, ?)",
        ((number, blob, zlib.crc32(blob)) for number, blob in zip(ids, blobs, strict=True)),
    )


def remove(connection: sqlite3.Connection, ids: Sequence[int], *, purge: bool = True) -> None:
    """Delete rows by id with vectors in every space and thumbnails; names that nothing uses any more go too.

    Args:
        connection: inside a write transaction.
        ids: rows.
        purge: note that the bytes must leave the files.
    """
    if not ids:
        return
    before = int(connection.execute("SELECT gone FROM state").fetchone()[0])
    connection.executemany("INSERT INTO gone VALUES (?, ?)", enumerate(ids, start=before + 1))
    connection.executemany("DELETE FROM crop WHERE id = ?", ((number,) for number in ids))
    connection.execute("DELETE FROM gone WHERE seq <= ?", (before + len(ids) - KEPT_REMOVALS,))
    connection.execute(
        "UPDATE state SET gone = gone + ?, rows = rows - ?, purge = max(purge, ?)", (len(ids), len(ids), int(purge))
    )
    if purge:
        for table in ("tracklet", "person", "source"):
            connection.execute(
                f"DELETE FROM {table} WHERE NOT EXISTS (SELECT 1 FROM crop WHERE crop.{table} = {table}.id)"
            )


def _added(connection: sqlite3.Connection, ids: Sequence[int]) -> dict[int, int]:
    """When rows were added first: an update does not make them younger."""
    found = connection.execute(
        "SELECT id, added FROM crop WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    return dict(found.fetchall())


def ids_of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, int]:
    """Ids of the keys that exist."""
    found = connection.execute(
        "SELECT key, id FROM crop WHERE key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
    )
    return dict(found.fetchall())


def rows_of(connection: sqlite3.Connection, keys: Sequence[str]) -> dict[str, Row]:
    """What is known of the keys that exist."""
    found = connection.execute(
        f"{ROW_QUERY} WHERE c.key IN (SELECT value FROM json_each(?))", (json.dumps(list(keys)),)
    )
    return {line[1]: decode_row(line) for line in found}


def block_after(
    connection: sqlite3.Connection, last: int, where: Where = EVERYTHING, size: int = _BLOCK
) -> tuple[list[Row], int]:
    """The next rows by id after ``last`` that match, and the last id among them (``last`` if there are none)."""
    text, values = conditions(where)
    lines = connection.execute(f"{ROW_QUERY} WHERE c.id > ? AND {text} ORDER BY c.id LIMIT ?", (last, *values, size))
    found = lines.fetchall()
    return [decode_row(line) for line in found], found[-1][0] if found else last


def ids_where(connection: sqlite3.Connection, where: Where) -> NDArray[np.int64]:
    """Ascending ids of the rows that match."""
    text, values = conditions(where)
    found = connection.execute(f"SELECT c.id FROM crop c WHERE {text} ORDER BY c.id", values)
    return np.fromiter((line[0] for line in found), dtype=np.int64)


def conditions(where: Where) -> tuple[str, list[Any]]:
    """A filter as SQL over ``crop c`` whose values are all bound."""
    texts, values = ["1"], list[Any]()
    for text, several in (
        ("c.camera IN (SELECT value FROM json_each(?))", where.cameras),
        ("c.camera NOT IN (SELECT value FROM json_each(?))", where.not_cameras),
        (
            "c.tracklet IN (SELECT id FROM tracklet WHERE name IN (SELECT value FROM json_each(?)))",
            where.tracklets,
        ),
        ("c.person IN (SELECT id FROM person WHERE name IN (SELECT value FROM json_each(?)))", where.persons),
    ):
        if several:
            texts.append(text)
            values.append(json.dumps(several))
    for text, value in (
        ("c.time >= ?", where.after),
        ("c.time < ?", where.before),
        ("c.modality = ?", where.modality_number),
    ):
        if value is not None:
            texts.append(text)
            values.append(int(value))
    return " AND ".join(texts), values


def vector_blocks(
    connection: sqlite3.Connection,
    space: int,
    dim: int,
    ids: NDArray[np.int64] | None,
    *,
    after: int = 0,
    size: int = 8192,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
    """Stored vectors in ascending order of ids, checked against their checksums.

    Args:
        connection: inside a transaction.
        space: number of the space.
        dim: D.
        ids: ascending ids to read; None: all after ``after``.
        after: see there.
        size: rows at a time.

    Yields:
        ``(n,)`` ids and ``(n, D)`` half floats; ids without a vector are left out.

    Raises:
        GloamError: a vector's checksum does not fit.
    """
    table = f"vector_{int(space)}"
    if ids is None:
        last = after
        while lines := connection.execute(
            f"SELECT crop, f16, crc FROM {table} WHERE crop > ? ORDER BY crop LIMIT ?", (last, size)
        ).fetchall():
            last = lines[-1][0]
            yield _vectors(lines, dim)
        return
    for start in range(0, len(ids), size):
        wanted = json.dumps(ids[start : start + size].tolist())
        lines = connection.execute(
            f"SELECT v.crop, v.f16, v.crc FROM json_each(?) j JOIN {table} v ON v.crop = j.value ORDER BY v.crop",
            (wanted,),
        ).fetchall()
        if lines:
            yield _vectors(lines, dim)


def _vectors(lines: Sequence[tuple[int, bytes, int]], dim: int) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
    for number, blob, crc in lines:
        if zlib.crc32(blob) != crc or len(blob) != 2 * dim:
            raise GloamError(
                f"The vector of row {number} is damaged (its checksum does not fit). gloam gallery verify lists all "
                "damaged rows; adding them again repairs them."
            )
    numbers = np.fromiter((line[0] for line in lines), dtype=np.int64, count=len(lines))
    return numbers, np.frombuffer(b"".join(line[1] for line in lines), dtype=np.float16).reshape(len(lines), dim)


def _numbers(connection: sqlite3.Connection, table: str, column: str, names: Iterable[str | None]) -> dict[str, int]:
    """Numbers of names, given to new ones."""
    wanted = sorted({name for name in names if name is not None})
    connection.executemany(
        f"INSERT INTO {table} ({column}) VALUES (?) ON CONFLICT DO NOTHING", ((name,) for name in wanted)
    )
    found = connection.execute(
        f"SELECT {column}, id FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (json.dumps(wanted),)
    )
    return dict(found.fetchall())
