"""Codes of one bit a number propose candidates, stored vectors decide: FAISS's flat RaBitQ index."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.catalogue import read_space
from gloam.gallery.crops import vector_blocks
from gloam.gallery.engines.codes import Header, codes_file, drop_codes, drop_leftovers, read_codes, write_codes
from gloam.gallery.engines.columns import Change, Columns
from gloam.gallery.engines.contract import Float, Found
from gloam.gallery.engines.exact import ExactIndex
from gloam.gallery.store import Store, read_setting
from gloam.gallery.where import EVERYTHING, Where

SMALLEST = 10_000  # rows; below, comparing all is as fast
OVERSAMPLING = 20  # candidates per wanted row, until the gallery has measured its own
_FEWEST = 200  # candidates, whatever the oversampling
_TRAINING = 20_000  # rows whose mean is the centre of the codes
_GROWTH = 4  # times as many rows as then: compute the centre again
_QUERY_BITS = 8
_FEW = 0.08  # share of the rows below which their codes are copied out rather than selected


def faiss_installed() -> bool:
    """Whether the extra ``search`` is there."""
    try:
        import faiss
    except ImportError:
        return False
    return hasattr(faiss, "IndexRaBitQ")


class RabitqIndex(ExactIndex):
    """Search codes beside the gallery file; every returned score is exact, the choice of candidates is not.

    *Source*: Gao and Long, RaBitQ, SIGMOD 2024, as ``IndexRaBitQ`` of FAISS.

    Args:
        store: the open file.
        smallest: rows from which on codes are used.
    """

    def __init__(self, store: Store, *, smallest: int = SMALLEST) -> None:
        super().__init__(store)
        if not faiss_installed():
            raise GloamError("Search codes need FAISS 1.15 or newer: pip install 'gloam[search]'.")
        self.smallest = smallest
        self.oversampling = OVERSAMPLING
        self._codes: Any = None
        self._trained = 0
        self._saved = (0, 0)  # last id and removals of the file

    def delete(self, keys: Sequence[str]) -> int:
        with self.store.write():
            # Before the rows go: a kill in between leaves a gallery without codes, never codes of erased rows.
            drop_codes(self.store.folder)
            self._saved = (0, 0)
            return super().delete(keys)

    def search(self, queries: Float, top: int, where: Where = EVERYTHING, exact: bool = False) -> Found:
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        with self.store.read() as connection:
            self.refresh(connection)
            self.check(queries, top)
            mask = self.columns.matching(where, connection)
            places = None if mask is None else np.flatnonzero(mask)
            total = len(self.columns) if places is None else len(places)
            wanted = max(_FEWEST, top * self.oversampling)
            if exact or self._codes is None or total <= wanted:
                return self.scan(connection, queries, top, places)
            return self.finish(connection, queries, self._propose(queries, wanted, mask), min(top, total), exact=False)

    def sync(self) -> None:
        """Save the codes, if enough has changed to be worth it."""
        with self.store.write() as connection:
            self.refresh(connection)
            last, gone = self._saved
            changed = int(np.count_nonzero(self.columns.ids > last)) + self.columns.gone - gone
            if self._codes is None or changed <= len(self.columns) // 20:
                return
            # Inside the write lock: nobody can erase a row between here and the file.
            drop_leftovers(self.store.folder)
            header = Header(
                *_identity(connection, self.columns.last),
                read_space(connection, self.space).digest,
                self.space,
                self.columns.last,
                self.columns.gone,
                self._trained,
            )
            arrays = {**self.columns.arrays(), "codes": _serialize(self._codes)}
            if write_codes(codes_file(self.store.folder, self.space), header, arrays):
                self._saved = (self.columns.last, self.columns.gone)

    def refresh(self, connection: sqlite3.Connection) -> Change:
        """Take over what this and other processes have written, in the codes too."""
        before = self.space
        if not len(self.columns):
            self._load(connection)
        change = super().refresh(connection)
        if self.space != before and before:
            self._codes = None
        count = len(self.columns)
        if count < self.smallest:
            self._codes = None
        elif change.all or self._codes is None or count > _GROWTH * self._trained:
            self._build(connection)
        else:
            if len(change.gone):
                self._codes.remove_ids(_batch(change.gone))
            if change.added:
                after = int(self.columns.ids[count - change.added - 1]) if count > change.added else 0
                self._extend(connection, after)
        return change

    def _load(self, connection: sqlite3.Connection) -> None:
        """Take the codes of the file, if they belong to this gallery."""
        number, last, gone = connection.execute("SELECT space, last, gone FROM state").fetchone()
        found = read_codes(codes_file(self.store.folder, number))
        if found is None:
            return
        header, arrays = found
        space = read_space(connection, number)
        if (header.space, header.number) != (space.digest, number) or header.last > last or header.gone > gone:
            return
        if (header.gallery, header.mark) != _identity(connection, header.last):
            return
        codes = _deserialize(arrays.pop("codes"))
        if codes is None or codes.ntotal != len(arrays["ids"]) or codes.d != space.dim:
            return
        self.space, self.dim = number, space.dim
        self.columns = Columns()
        for name, array in arrays.items():
            setattr(self.columns, name, array.copy())  # a view would keep the whole file in memory
        self.columns.last, self.columns.gone = header.last, header.gone
        self._codes, self._trained, self._saved = codes, header.trained, (header.last, header.gone)

    def _build(self, connection: sqlite3.Connection) -> None:
        import faiss

        count = len(self.columns)
        codes = faiss.IndexRaBitQ(self.dim, faiss.METRIC_INNER_PRODUCT)
        # Rows from all over the gallery: the first ones may be of one camera, or of one modality.
        sample = self.columns.ids[np.unique(np.linspace(0, count - 1, min(count, _TRAINING)).astype(np.int64))]
        parts = [halves for _, halves in vector_blocks(connection, self.space, self.dim, sample)]
        codes.train(np.concatenate(parts).astype(np.float32))
        self._codes, self._trained = codes, count
        self._extend(connection, 0)

    def _extend(self, connection: sqlite3.Connection, after: int) -> None:
        for _, halves in vector_blocks(connection, self.space, self.dim, None, after=after):
            self._codes.add(halves.astype(np.float32))
        if self._codes.ntotal != len(self.columns):
            raise GloamError("The gallery is damaged: it has rows without a vector. gloam gallery verify says which.")

    def _propose(self, queries: Float, wanted: int, mask: NDArray[np.bool_] | None) -> list[NDArray[np.int64]]:
        """Ids of the ``wanted`` nearest rows of every query by codes, among the rows of a mask."""
        import faiss

        library: Any = faiss  # its stubs describe the C++ side only
        options: dict[str, Any] = {"qb": _QUERY_BITS}
        codes, ids = self._codes, self.columns.ids
        if mask is not None and np.count_nonzero(mask) < _FEW * len(mask):
            # Asking the selector about every row would cost more than the few rows that are left.
            ids = ids[mask]
            codes = library.IndexRaBitQ(self.dim, library.METRIC_INNER_PRODUCT)
            codes.center, codes.is_trained = self._codes.center, True
            size = self._codes.code_size
            stored = library.rev_swig_ptr(self._codes.codes.data(), self._codes.ntotal * size)
            codes.add_sa_codes(stored.reshape(-1, size)[mask])
        elif mask is not None:
            options["sel"] = library.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
        _, found = codes.search(queries, wanted, params=library.RaBitQSearchParameters(**options))
        return [ids[np.sort(row[row >= 0])] for row in found]


def _identity(connection: sqlite3.Connection, last: int) -> tuple[str, int]:
    """What codes of this gallery up to a row must say; -2: the row is gone."""
    found = connection.execute("SELECT crc FROM crop WHERE id = ?", (last,)).fetchone()
    secret = hashlib.sha256(read_setting(connection, "secret").encode()).hexdigest()
    return secret, -2 if found is None else int(found[0])


def _batch(places: NDArray[np.int64]) -> Any:
    import faiss

    return faiss.IDSelectorBatch(places)


def _serialize(codes: Any) -> NDArray[np.uint8]:
    import faiss

    array: NDArray[np.uint8] = faiss.serialize_index(codes)
    return array


def _deserialize(array: NDArray[np.uint8]) -> Any:
    import faiss

    try:
        return faiss.deserialize_index(array)
    except RuntimeError:
        return None
