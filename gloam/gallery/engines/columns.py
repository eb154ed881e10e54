"""What an engine keeps of every row in memory: its id and what filters look at, 21 bytes a row."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gloam.gallery.crops import ids_where
from gloam.gallery.where import Where

NO_TIME = np.iinfo(np.int64).min
_NAMES = {"ids": np.int64, "cameras": np.int32, "times": np.int64, "modalities": np.int8}


class Change(NamedTuple):
    """What has happened to the rows since the last look.

    Attributes:
        gone: ascending positions, before the change, of rows that went.
        added: number of rows that came, at the end.
        all: everything was read again; positions mean nothing.
    """

    gone: NDArray[np.int64]
    added: int
    all: bool


class Columns:
    """Rows in ascending order of ids, kept in step with the gallery file."""

    def __init__(self) -> None:
        self.ids = np.empty(0, np.int64)
        self.cameras = np.empty(0, np.int32)
        self.times = np.empty(0, np.int64)
        self.modalities = np.empty(0, np.int8)
        self.last = 0  # largest id that was looked at
        self.gone = 0  # removals that were looked at

    def __len__(self) -> int:
        return len(self.ids)

    def refresh(self, connection: sqlite3.Connection) -> Change:
        """Take over what has happened since, inside a transaction."""
        last, gone = connection.execute("SELECT last, gone FROM state").fetchone()
        nothing = np.empty(0, np.int64)
        if (last, gone) == (self.last, self.gone):
            return Change(nothing, 0, False)
        known = connection.execute("SELECT min(seq) FROM gone").fetchone()[0]
        everything = (
            gone < self.gone or last < self.last or (gone > self.gone and (known is None or known > self.gone + 1))
        )
        if everything:
            self.__init__()  # type: ignore[misc]
        places = nothing
        if gone > self.gone and len(self):
            lines = connection.execute("SELECT crop FROM gone WHERE seq > ?", (self.gone,))
            lost = np.unique(np.fromiter((line[0] for line in lines), dtype=np.int64))
            places = np.flatnonzero(np.isin(self.ids, lost, assume_unique=True))
            for name in _NAMES:
                setattr(self, name, np.delete(getattr(self, name), places))
        added = self._append(connection, last)
        self.last, self.gone = last, gone
        return Change(places, added, everything)

    def _append(self, connection: sqlite3.Connection, last: int) -> int:
        found = connection.execute(
            "SELECT id, camera, ifnull(time, ?), modality FROM crop WHERE id > ? AND id <= ? ORDER BY id",
            (int(NO_TIME), self.last, last),
        )
        parts: list[list[NDArray[np.int64]]] = []
        while lines := found.fetchmany(50_000):
            table = np.array(lines, dtype=np.int64)
            parts.append([table[:, column].astype(kind) for column, kind in enumerate(_NAMES.values())])
        for column, name in enumerate(_NAMES):
            setattr(self, name, np.concatenate([getattr(self, name), *(part[column] for part in parts)]))
        return sum(len(part[0]) for part in parts)

    def matching(self, where: Where, connection: sqlite3.Connection) -> NDArray[np.bool_] | None:
        """``(N,)`` mask of the rows that match; None: all."""
        if where.empty:
            return None
        mask = np.ones(len(self), dtype=np.bool_)
        if where.cameras:
            mask &= np.logical_or.reduce([self.cameras == camera for camera in where.cameras])
        for camera in where.not_cameras:
            mask &= self.cameras != camera
        if where.after is not None:
            mask &= self.times >= where.after
        if where.before is not None:
            mask &= (self.times < where.before) & (self.times != NO_TIME)
        if where.modality_number is not None:
            mask &= self.modalities == where.modality_number
        if where.tracklets or where.persons:
            named = ids_where(connection, Where(tracklets=where.tracklets, persons=where.persons))
            mask &= np.isin(self.ids, named, assume_unique=True)
        return mask

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """The columns by name."""
        return {name: getattr(self, name) for name in _NAMES}
