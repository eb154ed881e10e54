"""What a gallery needs beside its vectors: rows, the space, retention, the audit; in a file or a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from gloam.gallery.rows import Row
from gloam.gallery.space import Space
from gloam.gallery.where import EVERYTHING, Where


class AuditEntry(NamedTuple):
    """One line of the audit.

    Attributes:
        time: microseconds since 1970 in UTC.
        who: account that ran the command.
        action: created, added, searched, erased, expired, ...
        digest: keyed digest of the arguments: equal arguments of one gallery have equal digests, and nobody can guess
            what they were without the gallery.
        rows: rows added, shown or erased.
    """

    time: int
    who: str
    action: str
    digest: str
    rows: int


class Retention(NamedTuple):
    """How long rows stay.

    Attributes:
        days: of cameras without a rule of their own; None: for ever.
        cameras: camera -> days.
    """

    days: float | None
    cameras: dict[int, float]

    def text(self) -> str:
        """What a gallery stores."""
        return json.dumps({"days": self.days, "cameras": self.cameras}, sort_keys=True)

    @classmethod
    def parse(cls, text: str) -> Retention:
        """Read :meth:`text`."""
        found = json.loads(text)
        return cls(found["days"], {int(camera): days for camera, days in found["cameras"].items()})


class Seen(NamedTuple):
    """Rows of one camera and modality.

    Attributes:
        camera: its number.
        modality: value of :class:`gloam.datasets.records.Modality`.
        rows: how many.
        first: earliest time, microseconds since 1970; None: no row has one.
        last: latest time.
    """

    camera: int
    modality: int
    rows: int
    first: int | None
    last: int | None


class Purged(NamedTuple):
    """Whether removed bytes have left every file.

    Attributes:
        done: they have.
        reason: why not, and what to do; empty if done.
    """

    done: bool
    reason: str


class Catalogue(Protocol):
    """What is known of the rows, and of the gallery."""

    @property
    def name(self) -> str:
        """Folder or URL."""

    @property
    def space(self) -> Space:
        """The space that is searched."""

    def save_space(self, space: Space) -> None:
        """Keep a changed calibration, tuning, name or run of the same space."""

    def rows(self, keys: Sequence[str]) -> dict[str, Row]:
        """What is known of some rows; unknown keys are absent."""

    def scan(self, where: Where = EVERYTHING) -> Iterator[list[Row]]:
        """All rows that match, in blocks, in a lasting order."""

    def cameras(self) -> list[Seen]:
        """How many rows each camera has in each modality, and from when to when; every row is looked at."""

    def older(self, limit: int, cameras: Sequence[int], not_cameras: Sequence[int]) -> list[str]:
        """Keys of rows that were taken (or, where nobody knows, added) before ``limit``, by camera."""

    def thumbnails(self, keys: Sequence[str]) -> dict[str, bytes]:
        """Stored thumbnails (WebP)."""

    def name_person(self, keys: Sequence[str], person: str | None) -> int:
        """Give rows a person's name (None: take it away). Returns how many rows there were."""

    def setting(self, name: str) -> str:
        """One of the choices made at ``create``; empty: none."""

    def retention(self) -> Retention:
        """How long rows stay."""

    def set_retention(self, retention: Retention) -> None:
        """Change it."""

    def record(self, action: str, arguments: Mapping[str, object], rows: int) -> None:
        """Add a line to the audit."""

    def audit(self) -> Iterator[AuditEntry]:
        """All lines, oldest first."""

    def purge(self, patience: float, *, rewrite: bool = True) -> Purged:
        """Remove the bytes of deleted rows from every file."""

    def close(self) -> None:
        """End the connection."""
