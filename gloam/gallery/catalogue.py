"""The catalogue of a gallery file: rows, space, settings, retention, audit, purge."""

from __future__ import annotations

import contextlib
import contextvars
import getpass
import hashlib
import hmac
import json
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gloam.errors import GloamError
from gloam.gallery.contract import AuditEntry, Purged, Retention, Seen
from gloam.gallery.crops import block_after, conditions, encode_row, row_checksum, rows_of
from gloam.gallery.rows import Row, plain
from gloam.gallery.schema import vector_table
from gloam.gallery.space import Space
from gloam.gallery.store import Store, create_store, read_setting, write_setting
from gloam.gallery.where import EVERYTHING, Where

CODES = "codes"  # folder of the search codes
_SPACE = "digest, name, dim, run, feature, height, width, mirror, precision, calibration, tuning"


class FileCatalogue:
    """What a gallery file knows.

    Args:
        store: the open file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def name(self) -> str:
        return str(self.store.folder)

    @property
    def space(self) -> Space:
        with self.store.read() as connection:
            return read_space(connection, active_space(connection))

    def save_space(self, space: Space) -> None:
        with self.store.write() as connection:
            number = active_space(connection)
            if read_space(connection, number).digest != space.digest:
                raise GloamError("The gallery has moved to another model meanwhile. Open it again.")
            write_space(connection, number, space)

    def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        with self.store.read() as connection:
            return rows_of(connection, keys)

    def scan(self, where: Where = EVERYTHING) -> Iterator[list[Row]]:
        last = 0
        while True:
            # A transaction per block: a reader that is slow to take the blocks does not delay an erasure.
            with self.store.read() as connection:
                rows, last = block_after(connection, last, where)
            if not rows:
                return
            yield rows

    def cameras(self) -> list[Seen]:
        with self.store.read() as connection:
            found = connection.execute(
                "SELECT camera, modality, count(*), min(time), max(time) FROM crop GROUP BY 1, 2 ORDER BY 1, 2"
            ).fetchall()
        return [Seen(*line) for line in found]

    def older(self, limit: int, cameras: Sequence[int], not_cameras: Sequence[int]) -> list[str]:
        text, values = conditions(Where(tuple(cameras), tuple(not_cameras)))
        with self.store.read() as connection:
            found = connection.execute(
                f"SELECT c.key FROM crop c WHERE ifnull(c.time, c.added) < ? AND {text} ORDER BY c.id", (limit, *values)
            )
            return [line[0] for line in found]

    def thumbnails(self, keys: Sequence[str]) -> dict[str, bytes]:
        with self.store.read() as connection:
            found = connection.execute(
                "SELECT c.key, t.webp, t.crc FROM crop c JOIN thumbnail t ON t.crop = c.id "
                "WHERE c.key IN (SELECT value FROM json_each(?))",
                (json.dumps(list(keys)),),
            ).fetchall()
        return {key: image for key, image, crc in found if zlib.crc32(image) == crc}

    def name_person(self, keys: Sequence[str], person: str | None) -> int:
        with self.store.write() as connection:
            found = rows_of(connection, keys)
            number = None
            if person is not None:
                connection.execute("INSERT INTO person (name) VALUES (?) ON CONFLICT DO NOTHING", (person,))
                number = connection.execute("SELECT id FROM person WHERE name = ?", (person,)).fetchone()[0]
            for key, row in found.items():
                added = connection.execute("SELECT added FROM crop WHERE key = ?", (key,)).fetchone()[0]
                crc = row_checksum(encode_row(row._replace(person=person)), added)
                connection.execute("UPDATE crop SET person = ?, crc = ? WHERE key = ?", (number, crc, key))
            connection.execute("DELETE FROM person WHERE NOT EXISTS (SELECT 1 FROM crop WHERE crop.person = person.id)")
            record(connection, "named", {"person": person, "keys": sorted(found)}, len(found))
        return len(found)

    def setting(self, name: str) -> str:
        with self.store.read() as connection:
            return read_setting(connection, name)

    def retention(self) -> Retention:
        return Retention.parse(self.setting("retention"))

    def set_retention(self, retention: Retention) -> None:
        with self.store.write() as connection:
            write_setting(connection, "retention", retention.text())
            record(connection, "retention", {"rule": retention.text()}, 0)

    def record(self, action: str, arguments: Mapping[str, object], rows: int) -> None:
        with self.store.write() as connection:
            record(connection, action, arguments, rows)

    def audit(self) -> Iterator[AuditEntry]:
        with self.store.read() as connection:
            found = connection.execute("SELECT time, who, action, digest, rows FROM audit ORDER BY seq").fetchall()
        return (AuditEntry(*line) for line in found)

    def purge(self, patience: float, *, rewrite: bool = True) -> Purged:
        """Cut the log, write the file anew and cut the log again: SQLite overwrites what it deletes, but rows that it
        moved between pages before may have left copies in the pages' gaps.
        """
        if not self.store.checkpoint(patience):
            return Purged(False, _reader(self.store.folder))
        if not rewrite:
            return Purged(
                False,
                "the file was not rewritten: gaps between its rows may hold old copies; gloam gallery verify does it",
            )
        self.store.rewrite()
        if not self.store.checkpoint(patience):
            return Purged(False, _reader(self.store.folder))
        with self.store.write() as connection:
            connection.execute("UPDATE state SET purge = 0")
        self.store.checkpoint(0)
        return Purged(True, "")

    def close(self) -> None:
        self.store.close()


def create_catalogue(folder: Path, space: Space, retention: Retention, *, thumbnails: bool) -> None:
    """Make an empty gallery folder.

    Raises:
        GloamError: see :func:`gloam.gallery.store.create_store`.
    """
    settings = {
        "retention": retention.text(),
        "thumbnails": "yes" if thumbnails else "no",
        "secret": secrets.token_hex(32),
    }
    create_store(folder, (*_space_values(space), _space_checksum(space)), settings)


def active_space(connection: sqlite3.Connection) -> int:
    """Number of the space that is searched."""
    return int(connection.execute("SELECT space FROM state").fetchone()[0])


def read_space(connection: sqlite3.Connection, number: int) -> Space:
    """One space.

    Raises:
        GloamError: its checksum does not fit.
    """
    found = connection.execute(f"SELECT {_SPACE}, crc FROM space WHERE id = ?", (number,)).fetchone()
    if found is None:
        raise GloamError("The gallery is damaged: the space that it searches is missing. Restore it from a backup.")
    *values, calibration, tuning, crc = found
    space = _space(values, calibration, tuning)
    if _space_checksum(space) != crc:
        raise GloamError("The gallery is damaged: what it says of its model does not fit its checksum. Use a backup.")
    return space


def _space(values: Sequence[Any], calibration: str | None, tuning: str | None) -> Space:
    digest, name, dim, run, feature, height, width, mirror, precision = values
    return Space(
        digest=digest,
        name=name,
        dim=dim,
        run=run,
        feature=feature,
        height=height,
        width=width,
        mirror=bool(mirror),
        precision=precision,
        calibration=None if calibration is None else json.loads(calibration),
        tuning=None if tuning is None else json.loads(tuning),
    )


def write_space(connection: sqlite3.Connection, number: int, space: Space) -> None:
    """Keep one space under its number."""
    marks = ", ".join("?" * 13)
    connection.execute("DELETE FROM space WHERE id = ?", (number,))
    connection.execute(f"INSERT INTO space VALUES ({marks})", (number, *_space_values(space), _space_checksum(space)))


def add_space(connection: sqlite3.Connection, space: Space) -> int:
    """A further space, still without vectors; its number."""
    number = 1 + int(connection.execute("SELECT max(id) FROM space").fetchone()[0])
    write_space(connection, number, space)
    connection.execute(vector_table(number, space.dim))
    return number


def record(connection: sqlite3.Connection, action: str, arguments: Mapping[str, object], rows: int) -> None:
    """Add a line to the audit, inside a write transaction."""
    digest = argument_digest(read_setting(connection, "secret"), arguments)
    last = connection.execute("SELECT seq, chain FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, b"")
    line = (time.time_ns() // 1000, account(), action, digest, rows)
    connection.execute(
        "INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?)", (last[0] + 1, *line, chain(last[1], last[0] + 1, line))
    )


def argument_digest(secret: str, arguments: Mapping[str, object]) -> str:
    """Keyed digest of what a command was given."""
    text = json.dumps(arguments, sort_keys=True, default=str)
    return hmac.new(secret.encode(), text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def chain(before: bytes, seq: int, line: tuple[object, ...]) -> bytes:
    """Digest that ties an audit line to all lines before it."""
    return hashlib.sha256(before + repr((seq, *line)).encode()).digest()


@contextlib.contextmanager
def acting(role: str) -> Iterator[None]:
    """Lines of the audit that are written inside say on whose behalf: a server acts for others.

    Args:
        role: added to the account, for example ``reader by server``. Known to this thread (or task) only.
    """
    token = _acting.set(role)
    try:
        yield
    finally:
        _acting.reset(token)


def account() -> str:
    """Who runs this, and on whose behalf."""
    try:
        name = plain(getpass.getuser())
    except (KeyError, OSError, ImportError):
        name = "unknown"
    role = _acting.get()
    return f"{name} ({role})" if role else name


_acting: contextvars.ContextVar[str] = contextvars.ContextVar("acting", default="")


def _reader(folder: Path) -> str:
    return (
        f"another process still reads an older state of {folder}, which holds the erased rows. End it, then run "
        "gloam gallery verify, which finishes the erasure"
    )


def _space_values(space: Space) -> tuple[object, ...]:
    values = [getattr(space, name.strip()) for name in _SPACE.split(",")]
    values[7] = int(space.mirror)
    return (*values[:9], *(None if value is None else json.dumps(value, sort_keys=True) for value in values[9:]))


def _space_checksum(space: Space) -> int:
    return zlib.crc32(repr(_space_values(space)).encode())
