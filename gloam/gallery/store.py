"""The gallery file: one SQLite data base as the truth. Connections, transactions, and what can go wrong with them."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

from gloam.errors import GloamError
from gloam.gallery.disk import private_file, refuse_network, sync_folder
from gloam.gallery.schema import APPLICATION_ID, PAGE_BYTES, SETTINGS, TABLES, VERSION, vector_table

FILE = "gallery.db"
_OLDEST_SQLITE = (3, 37, 0)  # STRICT tables
_TEMPORARY = threading.Lock()  # SQLite has one folder for temporary files in a process


class Store:
    """One gallery folder, open. Usable from several threads, one at a time.

    Args:
        folder: the gallery.
        patience: seconds to wait for another process that writes.

    Raises:
        GloamError: no gallery there, a newer or foreign one, a network file system, damage.
    """

    def __init__(self, folder: Path, *, patience: float = 10.0) -> None:
        self.folder, self.file = folder, folder / FILE
        if not self.file.is_file():
            raise GloamError(f"There is no gallery {folder}. Make one: gloam gallery create {folder} RUN")
        refuse_network(folder)
        self._lock = threading.RLock()
        self._depth = 0
        self._writing = self._closed = False
        with self.errors():
            self.connection = _connect(self.file, patience)
            application = self.connection.execute("PRAGMA application_id").fetchone()[0]
            version = self.connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            self.connection.close()
            raise GloamError(f"{self.file} is no gallery of gloam, or its first bytes are damaged.")
        if version != VERSION:
            self.connection.close()
            raise GloamError(f"{folder} has format {version}; this gloam reads format {VERSION}. Use a newer gloam.")
        with self.errors():
            self.connection.execute("SELECT * FROM state").fetchone()

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Say in words what SQLite says in codes."""
        if self._closed:
            raise GloamError(f"The gallery {self.folder} is closed. Open it again: gloam.open_gallery.")
        try:
            yield
        except UnicodeDecodeError as error:  # a text in the file is none any more
            raise GloamError(_explain(self.folder, sqlite3.DatabaseError("a text is no UTF-8"))) from error
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.ProgrammingError | sqlite3.IntegrityError | sqlite3.NotSupportedError):
                raise  # a mistake in this program, not on the disk
            raise GloamError(_explain(self.folder, error)) from error

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the gallery, whatever others write meanwhile."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """All changes inside become durable together when the block ends, or none does."""
        if self._depth and not self._writing:
            raise RuntimeError("a read cannot become a write: another process may have written since it began")
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._depth:
                yield self.connection
                return
            with self.errors():
                self.connection.execute(begin)
                self._depth, self._writing = 1, begin != "BEGIN"
                try:
                    yield self.connection
                    self.connection.execute("COMMIT")
                except BaseException:
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
                finally:
                    self._depth, self._writing = 0, False

    @contextlib.contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """The connection outside of a transaction, for statements that manage their own."""
        with self._lock, self.errors():
            yield self.connection

    def checkpoint(self, patience: float) -> bool:
        """Move the log into the file and cut it to nothing; False if a reader held an old view all the time."""
        end = time.monotonic() + patience
        while True:
            with self.alone() as connection:
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            if not busy:
                return True
            if time.monotonic() >= end:
                return False
            time.sleep(0.05)

    def rewrite(self) -> None:
        """Write the file anew, without what lies between its rows.

        The copy is a file without a name in the gallery's own folder while it is made: in memory it would need as much
        as the gallery, and elsewhere it would leave people's features on another disk.
        """
        folder = str(self.folder.absolute()).replace("'", "''")
        with _TEMPORARY, self.alone() as connection:
            connection.execute(f"PRAGMA temp_store_directory='{folder}'")
            connection.execute("PRAGMA temp_store=FILE")
            try:
                connection.execute("VACUUM")
            finally:
                connection.execute("PRAGMA temp_store=MEMORY")
                connection.execute("PRAGMA temp_store_directory=''")

    def close(self) -> None:
        """Close the file; the object is of no use afterwards."""
        with self._lock:
            self.connection.close()
            self._closed = True


def create_store(folder: Path, space: tuple[object, ...], settings: dict[str, str]) -> None:
    """Make a gallery folder; it appears under its name when it is complete.

    Args:
        folder: must not exist, or be empty.
        space: columns of the table ``space`` after the id.
        settings: rows of the table ``setting``.

    Raises:
        GloamError: something is there already, or the disk does not take it.
    """
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise GloamError(f"Galleries need SQLite 3.37; this Python has {sqlite3.sqlite_version}. Use a newer Python.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GloamError(f"{folder} exists already. Choose another name, or add to it: gloam gallery add {folder} ...")
    parent = folder.absolute().parent
    temporary = parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        refuse_network(parent)
        temporary.mkdir(mode=0o700)
        private_file(temporary / FILE)
        connection = _connect(temporary / FILE, 10.0, new=True)
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement in _statements(TABLES):
                connection.execute(statement)
            connection.execute("INSERT INTO state VALUES (1, 1, 0, 0, 0, 0)")
            connection.execute("INSERT INTO space VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", space)
            connection.execute(vector_table(1, int(str(space[2]))))
            for name, value in settings.items():
                write_setting(connection, name, value)
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version={VERSION}")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
        sync_folder(temporary)
        if folder.is_dir():
            folder.rmdir()
        temporary.rename(folder)
        sync_folder(parent)
    except sqlite3.Error as error:
        raise GloamError(_explain(folder, error)) from error
    except OSError as error:
        raise GloamError(f"{folder} cannot be made: {error.strerror or error}.") from error
    finally:
        if temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def write_setting(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Keep one of the gallery's choices, with a checksum."""
    connection.execute(
        "INSERT OR REPLACE INTO setting VALUES (?, ?, ?)", (name, value, zlib.crc32(f"{name}|{value}".encode()))
    )


def read_setting(connection: sqlite3.Connection, name: str) -> str:
    """One of the gallery's choices; empty: not made.

    Raises:
        GloamError: its checksum does not fit.
    """
    found = connection.execute("SELECT value, crc FROM setting WHERE name = ?", (name,)).fetchone()
    if found is None:
        return ""
    if zlib.crc32(f"{name}|{found[0]}".encode("utf-8", "surrogatepass")) != found[1]:
        raise GloamError(f"The gallery is damaged: its setting {name!r} does not fit its checksum. Use a backup.")
    return str(found[0])


def _connect(file: Path, patience: float, *, new: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(file, timeout=patience, isolation_level=None, check_same_thread=False)
    if new:
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute("PRAGMA journal_mode=WAL")
    for setting in SETTINGS:
        connection.execute(setting)
    return connection


def _statements(script: str) -> Iterator[str]:
    """``executescript`` would commit by itself."""
    part = ""
    for line in script.splitlines():
        part += line + "\n"
        if sqlite3.complete_statement(part):
            yield part
            part = ""


def _explain(folder: Path, error: sqlite3.Error) -> str:
    text = str(error)
    if "locked" in text or "busy" in text:
        return f"Another process is writing to {folder}. Wait until it is done; nothing of this call was stored."
    if "full" in text:
        return (
            f"The disk of {folder} is full. All that was confirmed is stored; free some space and repeat the command."
        )
    if "readonly" in text or "unable to open" in text:
        return (
            f"{folder} cannot be written ({text}). Searches are recorded in the gallery's audit, so they need the "
            "right to write too."
        )
    if "disk I/O" in text:
        return f"The disk of {folder} failed ({text}). All that was confirmed is stored; check the disk and its quota."
    return (
        f"{folder} is damaged ({text}). gloam gallery verify says where; what can still be read leaves by gloam "
        "gallery export, the rest comes from a backup."
    )
