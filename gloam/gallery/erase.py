"""Erasing: rows go with everything that hangs on them, and their bytes leave every file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gloam.errors import GloamError
from gloam.gallery.catalogue import FileCatalogue
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import Float, VectorIndex
from gloam.gallery.rows import plain
from gloam.gallery.where import Where

PATIENCE = 30.0  # seconds to wait for readers that still see the erased rows
_DAY = 86_400_000_000  # microseconds
_BATCH = 5000  # keys per transaction
_LOOKED_FOR = 16  # erased rows whose bytes are searched in every file afterwards
_CHUNK = 2**24


@dataclass(frozen=True)
class Erasure:
    """What an erasure did.

    Attributes:
        keys: rows that were erased, or would be.
        done: their bytes have left every file.
        reason: why not yet, and what to do; empty if done.
        searched: files whose bytes were searched for the erased rows.
    """

    keys: tuple[str, ...]
    done: bool
    reason: str = ""
    searched: tuple[str, ...] = field(default=())


def choose(
    catalogue: Catalogue,
    index: VectorIndex,
    *,
    keys: Sequence[str] = (),
    where: Where | None = None,
    near: Float | None = None,
    score: float | None = None,
) -> list[str]:
    """Keys of the rows that an erasure is about: those named, those that match, those near a vector.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        keys: rows by name.
        where: filter; with ``near``, both must hold.
        near: ``(D,)``.
        score: least score with ``near``.

    Raises:
        GloamError: nothing was said (an empty filter would erase everything), unknown keys, ``near`` without ``score``.
    """
    if not keys and (where is None or where.empty) and near is None:
        raise GloamError("What to erase? Give keys, a person, a tracklet, a camera, a time or an image that is near.")
    if keys and (near is not None or (where is not None and not where.empty)):
        raise GloamError("Give keys, or a filter: which rows does the mixture mean?")
    if keys:
        found = catalogue.rows(keys)
        if missing := [key for key in keys if key not in found]:
            raise GloamError(
                f"The gallery has no row {plain(missing[0])!r} ({len(missing)} such keys). Nothing was erased."
            )
        return list(dict.fromkeys(keys))
    where = where or Where()
    if near is None:
        return [row.key for block in catalogue.scan(where) for row in block]
    if score is None:
        raise GloamError("How near? Give --score, for example 0.8: rows with at least this cosine are erased.")
    top = 100
    while True:
        search = index.search(near[None], top, where, exact=True)
        hits = [str(key) for key, value in zip(search.keys[0], search.scores[0], strict=True) if value >= score]
        if len(hits) < search.keys.shape[1] or search.keys.shape[1] < top:
            return hits
        top *= 4


def expired(catalogue: Catalogue, now: float | None = None) -> list[str]:
    """Keys of the rows whose time is over; rows without a time count from when they were added.

    Args:
        catalogue: of the gallery.
        now: seconds since 1970; the clock if not given.
    """
    moment = round((time.time() if now is None else now) * 1e6)
    rule = catalogue.retention()
    found = []
    for camera, days in rule.cameras.items():
        found += catalogue.older(moment - round(days * _DAY), (camera,), ())
    if rule.days is not None:
        found += catalogue.older(moment - round(rule.days * _DAY), (), tuple(rule.cameras))
    return found


def erase(
    catalogue: Catalogue,
    index: VectorIndex,
    keys: Sequence[str],
    *,
    action: str = "erased",
    patience: float = PATIENCE,
    rewrite: bool = True,
) -> Erasure:
    """Erase rows: vectors in every precision, codes, thumbnails, paths, keys, names that nobody else has.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        keys: rows.
        action: word in the audit.
        patience: seconds to wait for readers that hold an older state.
        rewrite: write the file anew, which alone is sure to leave no copy; needs twice its size in free
            space.

    Returns:
        The report. Rows are gone for every new search in any case; ``done`` says whether their bytes are.

    Raises:
        GloamError: the gallery cannot be written.
    """
    patterns = _patterns(catalogue, index, keys)
    count = 0
    for start in range(0, len(keys), _BATCH):
        count += index.delete(keys[start : start + _BATCH])
    catalogue.record(action, {"keys": list(keys)}, count)
    if not count:
        return Erasure((), True)
    purged = catalogue.purge(patience, rewrite=rewrite)
    if not purged.done or not isinstance(catalogue, FileCatalogue):
        return Erasure(tuple(keys), purged.done, purged.reason)
    files = gallery_files(catalogue.store.folder)
    if left := _left(catalogue, files, patterns):
        return Erasure(
            tuple(keys), False, f"bytes of erased rows are still in {left}; gloam gallery verify removes them"
        )
    return Erasure(tuple(keys), True, searched=tuple(str(file) for file in files))


def gallery_files(folder: Path) -> list[Path]:
    """Every file of a gallery."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def files_with(files: Sequence[Path], pattern: bytes) -> list[Path]:
    """Files whose bytes contain a pattern, read in pieces."""
    found = []
    for path in files:
        tail = b""
        with path.open("rb") as file:
            while piece := file.read(_CHUNK):
                if pattern in tail + piece:
                    found.append(path)
                    break
                tail = piece[-len(pattern) :]
    return found


def _patterns(catalogue: Catalogue, index: VectorIndex, keys: Sequence[str]) -> list[tuple[str, bytes]]:
    """Key and vector bytes of some of the rows, evenly chosen."""
    rows = catalogue.rows(keys) if len(keys) <= _BATCH else catalogue.rows(keys[:: len(keys) // _LOOKED_FOR])
    known = [key for key in keys if key in rows]
    if not known:
        return []
    some = [known[place] for place in np.unique(np.linspace(0, len(known) - 1, _LOOKED_FOR).astype(int))]
    halves = index.vectors(some).astype(np.float16)
    return [(key, half.tobytes()) for key, half in zip(some, halves, strict=True)]


def _left(catalogue: FileCatalogue, files: Sequence[Path], patterns: Sequence[tuple[str, bytes]]) -> str:
    """Name of a file that still holds an erased key or vector; empty if none does."""
    for key, vector in patterns:
        for pattern, query in (
            (
                key.encode(),
                "SELECT 1 FROM crop c JOIN source s ON s.id = c.source WHERE instr(c.key, ?1) OR "
                "instr(ifnull(c.path, ''), ?1) OR instr(s.root, ?1)",
            ),
            (vector, None),
        ):
            for file in files_with(files, pattern):
                with catalogue.store.read() as connection:
                    space = connection.execute("SELECT space FROM state").fetchone()[0]
                    text = query or f"SELECT 1 FROM vector_{int(space)} WHERE f16 = ?1"
                    shared = connection.execute(text, (key if query else vector,)).fetchone()
                # A row that stays may have the same vector, or a longer key around this one.
                if shared is None:
                    return str(file)
    return ""
