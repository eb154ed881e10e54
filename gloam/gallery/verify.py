"""Reading everything that a gallery holds, and saying what is wrong."""

from __future__ import annotations

import sqlite3
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from gloam.errors import GloamError
from gloam.gallery.catalogue import FileCatalogue, active_space, chain, read_space
from gloam.gallery.contract import Catalogue
from gloam.gallery.crops import ROW_QUERY, decode_row
from gloam.gallery.engines.codes import codes_file, drop_codes, drop_leftovers, read_codes
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.rows import plain
from gloam.gallery.store import Store, read_setting

_MOST = 20  # problems of one kind that are listed


@dataclass(frozen=True)
class Verdict:
    """What verifying found.

    Attributes:
        rows: rows that were read.
        problems: what is damaged; empty: nothing is.
        repaired: what was made again or finished.
    """

    rows: int
    problems: tuple[str, ...]
    repaired: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems


def verify(catalogue: Catalogue, index: VectorIndex, *, patience: float = 30.0) -> Verdict:
    """Check the file's structure, every checksum, every vector, the audit's chain and the codes; finish erasures.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        patience: seconds to wait for readers, if an erasure must be finished.
    """
    if not isinstance(catalogue, FileCatalogue):
        return _verify_rows(catalogue, index)
    store, problems, repaired = catalogue.store, list[str](), list[str]()
    rows = 0
    with store.read() as connection:
        for check in (_structure, _rows, _vectors, _thumbnails, _audit, _choices):
            found = []
            try:
                for problem in check(connection):
                    found.append(problem)
                    if len(found) > _MOST:
                        found[-1] = "... and more of this kind"
                        break
            except (sqlite3.DatabaseError, GloamError, ValueError, OverflowError, TypeError) as error:
                found.append(f"{check.__name__.lstrip('_')}: {plain(error)}")
            problems += found
        if not problems:
            rows = int(connection.execute("SELECT count(*) FROM crop").fetchone()[0])
    repaired += _codes(store)
    problems += _rights(store)
    if not problems:
        with store.read() as connection:
            pending = connection.execute("SELECT purge FROM state").fetchone()[0]
        if pending:
            purged = catalogue.purge(patience)
            (repaired if purged.done else problems).append(
                "an erasure was finished: the file was rewritten"
                if purged.done
                else f"an erasure waits: {purged.reason}"
            )
    return Verdict(rows, tuple(problems), tuple(repaired))


def _structure(connection: sqlite3.Connection) -> Iterator[str]:
    for (line,) in connection.execute("PRAGMA integrity_check(20)"):
        if line != "ok":
            yield f"structure: {plain(line)}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"structure: row {row} of {plain(table)} points to nothing in {plain(parent)}"


def _rows(connection: sqlite3.Connection) -> Iterator[str]:
    count, largest = 0, 0
    for line in connection.execute(f"{ROW_QUERY} ORDER BY c.id"):
        count, largest = count + 1, line[0]
        try:
            decode_row(line)
        except (GloamError, ValueError, TypeError, AttributeError) as error:
            yield str(error) if isinstance(error, GloamError) else f"row {line[0]}: {plain(error)}"
    last, rows, _ = connection.execute("SELECT last, rows, gone FROM state").fetchone()
    total = connection.execute("SELECT count(*) FROM crop").fetchone()[0]
    if total != count:
        yield f"{total - count} rows name a source that is missing"
    if rows != total or last < largest:
        yield f"counters: {rows} rows and last id {last} are noted, {total} rows and last id {largest} are there"


def _vectors(connection: sqlite3.Connection) -> Iterator[str]:
    active = active_space(connection)
    for (number,) in connection.execute("SELECT id FROM space").fetchall():
        space = read_space(connection, number)
        for crop, blob, crc in connection.execute(f"SELECT crop, f16, crc FROM vector_{int(number)}"):
            if zlib.crc32(blob) != crc:
                yield f"the vector of row {_key(connection, crop)} is damaged: add the row again"
                continue
            length = float(np.linalg.norm(np.frombuffer(blob, np.float16).astype(np.float32)))
            if len(blob) != 2 * space.dim or not abs(length - 1) < 2e-3:
                yield f"the vector of row {_key(connection, crop)} has length {length:.3f}: add the row again"
        if number == active:
            for (crop,) in connection.execute(
                f"SELECT id FROM crop EXCEPT SELECT crop FROM vector_{int(number)} ORDER BY 1"
            ):
                yield f"row {_key(connection, crop)} has no vector: add the row again"


def _thumbnails(connection: sqlite3.Connection) -> Iterator[str]:
    for crop, image, crc in connection.execute("SELECT crop, webp, crc FROM thumbnail"):
        if zlib.crc32(image) != crc:
            yield f"the thumbnail of row {_key(connection, crop)} is damaged: add the row again"


def _audit(connection: sqlite3.Connection) -> Iterator[str]:
    before = b""
    lines = connection.execute("SELECT seq, time, who, action, digest, rows, chain FROM audit ORDER BY seq")
    for expected, (seq, *line, link) in enumerate(lines, start=1):
        if seq != expected or chain(before, seq, tuple(line)) != link:
            yield f"audit: line {seq} was changed, or lines before it are missing"
            break
        before = link
    triggers = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'").fetchone()[0]
    if triggers != 2:
        yield "audit: the triggers that make it append-only are missing"


def _choices(connection: sqlite3.Connection) -> Iterator[str]:
    for name in ("retention", "thumbnails", "secret"):
        if not read_setting(connection, name):
            yield f"the setting {name} is missing"
    known = connection.execute("SELECT count(*) FROM setting").fetchone()[0]
    if known != 3:
        yield f"{known} settings are there, not 3"


def _codes(store: Store) -> Iterator[str]:
    drop_leftovers(store.folder)
    with store.read() as connection:
        file = codes_file(store.folder, active_space(connection))
    if file.exists() and read_codes(file) is None:
        drop_codes(store.folder)
        yield "the search codes were damaged and are made again by the next search"


def _rights(store: Store) -> Iterator[str]:
    for path in (store.folder, store.file):
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            yield f"{path} can be read by other accounts: chmod go-rwx {path}"


def _key(connection: sqlite3.Connection, crop: int) -> str:
    found = connection.execute("SELECT key FROM crop WHERE id = ?", (crop,)).fetchone()
    return f"{crop}" if found is None else plain(found[0])


def _verify_rows(catalogue: Catalogue, index: VectorIndex) -> Verdict:
    """What can be checked through the six methods: every row has a vector of the right length."""
    rows, problems = 0, list[str]()
    for block in catalogue.scan():
        vectors = index.vectors([row.key for row in block])
        lengths = np.linalg.norm(vectors, axis=1)
        problems += [
            f"the vector of row {plain(row.key)} has length {length:.3f}: add the row again"
            for row, length in zip(block, lengths, strict=True)
            if not abs(length - 1) < 2e-3
        ]
        rows += len(block)
    return Verdict(rows, tuple(problems[:_MOST]), ())
