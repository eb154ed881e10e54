"""Which rows a search may see. Translated once per engine; there is no query language for users to write."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

from gloam.errors import GloamError, did_you_mean
from gloam.gallery.rows import MODALITIES, microseconds, plain, time_text


@dataclass(frozen=True)
class Where:
    """A filter; every condition that is given must hold.

    Attributes:
        cameras: only these; one number or several.
        not_cameras: none of these.
        after: at this time or later (``datetime``, ISO 8601 text, seconds since 1970); stored as microseconds.
        before: earlier than this. Rows without a time match neither.
        modality: ``visible`` or ``infrared``.
        tracklets: names of tracklets.
        persons: names of persons.
    """

    cameras: tuple[int, ...] = ()
    not_cameras: tuple[int, ...] = ()
    after: Any = None
    before: Any = None
    modality: str | None = None
    tracklets: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("cameras", "not_cameras", "tracklets", "persons"):
            value = getattr(self, name)
            several = isinstance(value, Iterable) and not isinstance(value, str)
            found = tuple(value) if several else (value,)
            if name in ("cameras", "not_cameras"):
                try:
                    found = tuple(int(number) for number in found)
                except (TypeError, ValueError) as error:
                    raise GloamError(f"Cameras are numbers, not {plain(value)!r}.") from error
            object.__setattr__(self, name, found)
        for name in ("after", "before"):
            value = getattr(self, name)
            if not isinstance(value, Moment):
                found_time = microseconds(value)
                object.__setattr__(self, name, None if found_time is None else Moment(found_time))
        if self.modality is not None and self.modality not in MODALITIES.values():
            hint = did_you_mean(str(self.modality), MODALITIES.values())
            raise GloamError(f"There is no modality {plain(self.modality)!r}. {hint}")

    @property
    def empty(self) -> bool:
        """Whether every row matches."""
        return self == Where()

    @property
    def modality_number(self) -> int | None:
        """Value of :class:`gloam.datasets.records.Modality`."""
        return next((number for number, word in MODALITIES.items() if word == self.modality), None)

    def __str__(self) -> str:
        words = {
            field.name: time_text(value) if isinstance(value, Moment) else value
            for field in fields(self)
            if (value := getattr(self, field.name)) not in (None, ())
        }
        return ", ".join(f"{name}={plain(value)}" for name, value in words.items()) or "every row"


class Moment(int):
    """Microseconds since 1970 in UTC: a time that was read already (a plain number is seconds)."""


EVERYTHING = Where()
