"""One row of a gallery: a crop (or a tracklet) and what is known of it."""

from __future__ import annotations

import datetime
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import Modality
from gloam.errors import GloamError

LONGEST_KEY = 1024  # characters
MODALITIES = {int(kind): kind.name.lower() for kind in Modality}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


class Row(NamedTuple):
    """What a gallery knows of one vector.

    Attributes:
        key: the row's name: adding a key twice is an update.
        path: the image or video, relative to ``root``; None: there is no file.
        root: absolute folder of the source.
        frame: number of the frame in a video, from 0.
        box: left, top, width, height in pixels of the image; None: the whole image.
        frames: images behind the vector (a tracklet has several).
        camera: its number.
        time: microseconds since 1970 in UTC; None: unknown, and no search for a time finds it.
        modality: value of :class:`Modality`.
        tracklet: name of the tracklet.
        person: name that a user or a data set gave.
        sha256: digest of the image file's bytes, 32 bytes.
    """

    key: str
    path: str | None = None
    root: str = ""
    frame: int | None = None
    box: tuple[float, float, float, float] | None = None
    frames: int = 1
    camera: int = 0
    time: int | None = None
    modality: int = 0
    tracklet: str | None = None
    person: str | None = None
    sha256: bytes | None = None

    @property
    def checksum(self) -> int:
        """CRC-32 over all fields: SQLite itself does not notice a flipped bit."""
        return zlib.crc32(repr(tuple(self)).encode("utf-8", "surrogatepass"))


def check_rows(rows: Sequence[Row], vectors: NDArray[np.float32], dim: int) -> None:
    """Refuse what must never be stored.

    Raises:
        GloamError: keys that are empty, too long, repeated or not text; numbers out of range; vectors of another width,
            with NaN or not of unit length.
    """
    if vectors.shape != (len(rows), dim):
        raise GloamError(f"{len(rows)} rows need vectors of shape ({len(rows)}, {dim}), not {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1)
    # NaN compares false: it ends here too.
    if len(rows) and not bool((np.abs(lengths - 1) < 1e-3).all()):
        wrong = int(np.flatnonzero(~(np.abs(lengths - 1) < 1e-3))[0])
        raise GloamError(f"The vector of {plain(rows[wrong].key)} is not of length 1 (NaN, or not normalised).")
    seen: set[str] = set()
    for row in rows:
        if not row.key or len(row.key) > LONGEST_KEY or row.key.startswith("./") or row.key.startswith("tracklet:"):
            raise GloamError(
                f"{plain(row.key)!r} is no key: keys have 1 to {LONGEST_KEY} characters and begin neither with './' "
                "nor with 'tracklet:' (a search reads those as a file and as a tracklet)."
            )
        if row.key in seen:
            raise GloamError(f"The key {plain(row.key)} occurs twice. Keys name one row each.")
        seen.add(row.key)
        for text in (row.key, row.path, row.root, row.tracklet, row.person):
            if text is not None and not _is_text(text):
                raise GloamError(
                    f"{plain(text)!r} of the row {plain(row.key)} cannot be stored: it is not valid UTF-8."
                )
        if not -(2**31) <= row.camera < 2**31 or row.modality not in MODALITIES or row.frames < 1:
            raise GloamError(
                f"The row {plain(row.key)} has camera {row.camera}, modality {row.modality} and {row.frames} frames: "
                "cameras are 32-bit numbers, modalities 0 (visible) or 1 (infrared), frames at least 1."
            )


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def plain(text: object) -> str:
    """A user's text without control and direction characters: nothing that a terminal obeys."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c)[0] == "C" else c for c in str(text))


def microseconds(value: Any) -> int | None:
    """A time as microseconds since 1970 in UTC; None for a missing one.

    Args:
        value: ``datetime``, pandas or NumPy time, ISO 8601 text (without offset: UTC), or seconds since 1970.

    Raises:
        GloamError: a text that is no time.
    """
    if value is None or value == "" or value != value:  # NaN and NaT differ from themselves
        return None
    if isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool):
        return round(float(value) * 1e6)
    if isinstance(value, np.datetime64):
        return int(value.astype("datetime64[us]").astype(np.int64))
    try:
        stamp = value if isinstance(value, datetime.datetime) else datetime.datetime.fromisoformat(str(value))
    except ValueError as error:
        raise GloamError(
            f"{plain(value)!r} is no time. Write 2026-03-01T08:00:00+01:00 (without offset: UTC)."
        ) from error
    stamp = stamp.replace(tzinfo=datetime.UTC) if stamp.tzinfo is None else stamp
    return int((stamp - _EPOCH) // _MICROSECOND)


def time_text(value: int | None) -> str:
    """ISO 8601 in UTC; empty for an unknown time."""
    if value is None:
        return ""
    return (_EPOCH + datetime.timedelta(microseconds=value)).isoformat().replace("+00:00", "Z")
