"""Compare a query with every row: no further package, and the measure of all other engines."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.catalogue import active_space, read_space, record
from gloam.gallery.crops import ids_of, insert, remove, vector_blocks
from gloam.gallery.engines.columns import Change, Columns
from gloam.gallery.engines.contract import Added, Float, Found, exact_scores, rank
from gloam.gallery.rows import Row, check_rows, plain
from gloam.gallery.store import Store
from gloam.gallery.where import EVERYTHING, Where

_KEPT_BYTES = 256 * 2**20  # of vectors in memory; larger galleries are read from the file by every exact search
_BLOCK = 8192
# Products of float32 vectors of length 1 differ between block sizes by less: candidates within the margin are compared
# again, one by one.
_MARGIN = 1e-5


class ExactIndex:
    """The gallery file's vectors, compared one by one.

    Args:
        store: the open file.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.columns = Columns()
        self.space = 0
        self.dim = 0
        self._kept: NDArray[np.float16] | None = None

    def upsert(self, rows: Sequence[Row], vectors: Float, thumbnails: Sequence[bytes | None] | None = None) -> Added:
        vectors = np.asarray(vectors, dtype=np.float32)
        with self.store.write() as connection:
            number = active_space(connection)
            check_rows(rows, vectors, read_space(connection, number).dim)
            new, updated = insert(connection, number, rows, vectors.astype(np.float16), thumbnails)
            record(connection, "added", {"keys": [row.key for row in rows]}, len(rows))
        return Added(new, updated)

    def delete(self, keys: Sequence[str]) -> int:
        with self.store.write() as connection:
            ids = list(ids_of(connection, keys).values())
            remove(connection, ids)
        return len(ids)

    def search(self, queries: Float, top: int, where: Where = EVERYTHING, exact: bool = False) -> Found:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with self.store.read() as connection:
            self.refresh(connection)
            self.check(queries, top)
            mask = self.columns.matching(where, connection)
            return self.scan(connection, queries, top, None if mask is None else np.flatnonzero(mask))

    def vectors(self, keys: Sequence[str]) -> Float:
        with self.store.read() as connection:
            self.refresh(connection)
            found = ids_of(connection, keys)
            if missing := [key for key in keys if key not in found]:
                raise GloamError(f"The gallery has no row {plain(missing[0])!r} ({len(missing)} such keys).")
            ids = np.array(sorted(set(found.values())), dtype=np.int64)
            parts = list(vector_blocks(connection, self.space, self.dim, ids))
        places = {
            int(number): (part, row) for part, (numbers, _) in enumerate(parts) for row, number in enumerate(numbers)
        }
        result = np.empty((len(keys), self.dim), np.float32)
        for row, key in enumerate(keys):
            part, place = places[found[key]]
            result[row] = parts[part][1][place]
        return result

    def count(self, where: Where = EVERYTHING) -> int:
        with self.store.read() as connection:
            self.refresh(connection)
            mask = self.columns.matching(where, connection)
        return len(self.columns) if mask is None else int(np.count_nonzero(mask))

    def sync(self) -> None:
        """Every upsert was durable already."""

    def check(self, queries: Float, top: int) -> None:
        """Raises GloamError for queries that are not ``(Q, D)``, have NaN, or ``top`` below 1."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise GloamError(f"Queries must have shape (Q, {self.dim}), not {queries.shape}.")
        if not np.isfinite(queries).all():
            raise GloamError("The query has NaN or infinite numbers.")
        if top < 1:
            raise GloamError(f"A search for the best {top} rows finds nothing: ask for at least 1.")

    def refresh(self, connection: sqlite3.Connection) -> Change:
        """Take over what this and other processes have written."""
        space = active_space(connection)
        if space != self.space:
            self.space, self.dim = space, read_space(connection, space).dim
            self.columns = Columns()
            self._kept = None
        change = self.columns.refresh(connection)
        if change.all or len(change.gone):
            self._kept = None
        return change

    def scan(self, connection: sqlite3.Connection, queries: Float, top: int, places: NDArray[np.int64] | None) -> Found:
        """Compare with the rows at some positions (None: all)."""
        total = len(self.columns) if places is None else len(places)
        top = min(top, total)
        ids = [np.empty(0, np.int64) for _ in queries]
        scores = [np.empty(0, np.float32) for _ in queries]
        if top:
            for numbers, halves in self._blocks(connection, places):
                products = queries @ halves.astype(np.float32).T
                for q, line in enumerate(products):
                    keep = line >= _limit(scores[q], top)
                    merged = np.concatenate([scores[q], line[keep]])
                    keep_all = merged >= _limit(merged, top)
                    scores[q] = merged[keep_all]
                    ids[q] = np.concatenate([ids[q], numbers[keep]])[keep_all]
        return self.finish(connection, queries, ids, top, exact=True)

    def finish(
        self, connection: sqlite3.Connection, queries: Float, ids: Sequence[NDArray[np.int64]], top: int, *, exact: bool
    ) -> Found:
        """The ``top`` best of every query among candidates, by stored vectors."""
        if not top:
            return Found(np.empty((len(queries), 0), object), np.empty((len(queries), 0), np.float32), exact)
        keys = np.empty((len(queries), top), object)
        best = np.empty((len(queries), top), np.float32)
        for q, query in enumerate(queries):
            names, vectors = _candidates(connection, self.space, ids[q])
            if len(names) < top:
                raise GloamError("The gallery is damaged: vectors are missing. gloam gallery verify says which.")
            scores = exact_scores(vectors, query)
            order = rank(names, scores, top)
            keys[q], best[q] = names[order], scores[order]
        return Found(keys, best, exact)

    def _blocks(
        self, connection: sqlite3.Connection, places: NDArray[np.int64] | None
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        ids = self.columns.ids if places is None else self.columns.ids[places]
        if 2 * self.dim * len(self.columns) > _KEPT_BYTES:
            # Beyond a third of the rows, reading all in order is cheaper than looking each up.
            if places is None or 3 * len(places) > len(self.columns):
                wanted = ids
                for numbers, halves in vector_blocks(connection, self.space, self.dim, None):
                    keep = np.isin(numbers, wanted, assume_unique=True) if places is not None else slice(None)
                    yield numbers[keep], halves[keep]
            else:
                yield from vector_blocks(connection, self.space, self.dim, ids)
            return
        kept = self._keep(connection)
        for start in range(0, len(ids), _BLOCK):
            part = slice(start, start + _BLOCK)
            yield ids[part], kept[part] if places is None else kept[places[part]]

    def _keep(self, connection: sqlite3.Connection) -> NDArray[np.float16]:
        """All vectors in memory, in the columns' order."""
        kept = np.empty((0, self.dim), np.float16) if self._kept is None else self._kept
        if len(kept) < len(self.columns):
            after = int(self.columns.ids[len(kept) - 1]) if len(kept) else 0
            parts = [halves for _, halves in vector_blocks(connection, self.space, self.dim, None, after=after)]
            kept = np.concatenate([kept, *parts])
        if len(kept) != len(self.columns):
            raise GloamError("The gallery is damaged: it has rows without a vector. gloam gallery verify says which.")
        self._kept = kept
        return kept


def _limit(scores: Float, top: int) -> float:
    """Score below which nothing can be among the best ``top``, rounding included."""
    if len(scores) < top:
        return -np.inf
    return float(np.partition(scores, len(scores) - top)[len(scores) - top]) - _MARGIN


def _candidates(
    connection: sqlite3.Connection, space: int, ids: NDArray[np.int64]
) -> tuple[NDArray[np.object_], Float]:
    """Keys and stored vectors of some ids."""
    lines = connection.execute(
        f"SELECT c.key, v.f16, v.crc FROM json_each(?) j JOIN crop c ON c.id = j.value "
        f"JOIN vector_{int(space)} v ON v.crop = c.id",
        (json.dumps(ids.tolist()),),
    ).fetchall()
    for key, blob, crc in lines:
        if zlib.crc32(blob) != crc:
            raise GloamError(f"The vector of {plain(key)} is damaged. gloam gallery verify lists all damaged rows.")
    keys = np.array([line[0] for line in lines] + [None], dtype=object)[:-1]
    halves = np.frombuffer(b"".join(line[1] for line in lines), np.float16).reshape(len(lines), -1)
    return keys, halves.astype(np.float32)
