"""Which image files a run began with, so that a resume notices the one that was replaced in between."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gloam.atomic import atomic_path
from gloam.datasets.records import DatasetSplits
from gloam.errors import GloamError
from gloam.pixels.store import cores

Fingerprint = Literal["times", "content", "names"]
FILES = "data_files.csv.gz"  # in the run folder
_NAMED = 5
_CHUNK = 512


@dataclass(frozen=True)
class DataFiles:
    """One row per image file of training and test, sorted by path.

    Attributes:
        kind: what the marks are: size and time of change (``times``), or a digest of the bytes (``content``).
        marks: path relative to the dataset's root -> mark; ``-`` for a file that is missing.
    """

    kind: Fingerprint
    marks: dict[str, str]

    @classmethod
    def scan(cls, splits: DatasetSplits, kind: Fingerprint) -> DataFiles | None:
        """Look at every file that a run reads.

        Args:
            splits: the dataset, training and test.
            kind: ``content`` reads every byte; ``names`` looks at nothing and gives None.
        """
        if kind == "names":
            return None
        records = (*splits.train, *splits.query, *splits.gallery)
        paths = sorted({path for record in records for path in record.paths})
        look = _content if kind == "content" else _size_and_time
        # Threads: network drives answer many questions at once, and hashing leaves the interpreter lock.
        with ThreadPoolExecutor(2 * cores()) as pool:
            chunks = (paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK))
            marks = pool.map(lambda chunk: [look(splits.root / path) for path in chunk], chunks)
            return cls(kind, dict(zip(paths, itertools.chain.from_iterable(marks), strict=True)))

    def digest(self) -> str:
        """One word for all rows."""
        hasher = hashlib.sha256(self.kind.encode())
        for path, mark in self.marks.items():
            hasher.update(f"\n{path}\0{mark}".encode("utf-8", "surrogateescape"))
        return hasher.hexdigest()[:32]

    def save(self, path: Path) -> None:
        """Write the table (CSV, compressed), atomically."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # a name may hold any end of line
        writer.writerow(["path", self.kind])
        writer.writerows(self.marks.items())
        with atomic_path(path) as temporary, gzip.GzipFile(temporary, "wb", mtime=0) as file:
            file.write(text.getvalue().encode("utf-8", "surrogateescape"))

    @classmethod
    def load(cls, path: Path) -> DataFiles | None:
        """What :meth:`save` wrote; None where it is missing or damaged (the checkpoint holds its digest)."""
        try:
            with gzip.open(path, "rb") as file:
                rows = list(csv.reader(io.StringIO(file.read().decode("utf-8", "surrogateescape"))))
            kind = rows[0][1]
            return cls("content" if kind == "content" else "times", dict(rows[1:]))
        except (OSError, EOFError, ValueError, IndexError, csv.Error, zlib.error):
            return None

    def changes(self, before: DataFiles) -> list[str]:
        """What differs from an earlier table, a phrase per file."""
        names = sorted(self.marks.keys() | before.marks.keys())
        found = []
        for name in names:
            now, then = self.marks.get(name, "-"), before.marks.get(name, "-")
            if now != then:
                found.append(f"{name} ({'is gone' if now == '-' else 'is new' if then == '-' else 'was changed'})")
        return found


def check_files(now: DataFiles, digest: str, table: Path, root: Path | None) -> None:
    """Refuse to go on with other images than those that a run began with.

    Args:
        now: the files as they are.
        digest: of the files as they were, from the checkpoint.
        table: where the run keeps the rows of that digest.
        root: the dataset's folder, for the message.

    Raises:
        GloamError: files differ; the first ones are named.
    """
    if now.digest() == digest:
        return
    before = DataFiles.load(table)
    known = before is not None and before.digest() == digest
    changes = now.changes(before) if before is not None and known else []
    listed = ", ".join(changes[:_NAMED]) + (f", and {len(changes) - _NAMED} more" if len(changes) > _NAMED else "")
    what = f"{len(changes)} of {len(now.marks)} image files: {listed}" if changes else "their sizes or times differ"
    raise GloamError(
        f"The data at {root} are not those that the run began with: {what}. Going on would not give what an "
        "uninterrupted run gives. Put the files back, or start a new run. Where only the times differ (a copy of the "
        "same files), go on with --data.fingerprint names; a run begun with --data.fingerprint content sees through "
        "copies by itself."
    )


def recorded_kind(table: Path, wanted: Fingerprint) -> Fingerprint:
    """What a run's table holds; the wanted kind where there is none."""
    before = DataFiles.load(table)
    return before.kind if before is not None else wanted


def _size_and_time(path: Path) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "-"
    return f"{status.st_size} {status.st_mtime_ns}"


def _content(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    except OSError:
        return "-"
