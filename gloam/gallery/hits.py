"""What a search returns, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.atomic import atomic_path
from gloam.errors import GloamError
from gloam.gallery.confidence import chance
from gloam.gallery.disk import make_private
from gloam.gallery.page import hits_page
from gloam.gallery.rows import MODALITIES, Row, plain, time_text
from gloam.gallery.thumbnails import thumbnail_of

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".html", ".csv", ".json")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # spreadsheets run cells that begin so (OWASP, CSV injection)


@dataclass(frozen=True)
class Hit:
    """One row that was found, or the best row of a group.

    Attributes:
        score: cosine with the query; of a group: as the search was told.
        row: what is known of it.
        group: tracklet or person of a grouped search; None: not grouped, or the row has none.
        members: keys of the group's rows, best first; otherwise the row's own.
        distance: re-ranked distance, smaller is nearer; None: not re-ranked.
        marked: ``like`` or ``unlike`` if the user marked it.
        probability: that this row (of a group: its best) shows the one who is asked for, judged by this one comparison;
            None: no prior was given, or nothing was measured for such scores.
        prior: the probability before the comparison that it rests on.
    """

    score: float
    row: Row
    group: str | None = None
    members: tuple[str, ...] = ()
    distance: float | None = None
    marked: str = ""
    probability: float | None = None
    prior: float | None = None

    @property
    def key(self) -> str:
        """The row's name."""
        return self.row.key

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        row = self.row
        return {
            "score": round(self.score, 6),
            "probability": None if self.probability is None else round(self.probability, 6),
            "prior": None if self.probability is None else self.prior,
            "distance": None if self.distance is None else round(self.distance, 6),
            "key": row.key,
            "camera": row.camera,
            "time": time_text(row.time),
            "modality": MODALITIES[row.modality],
            "tracklet": row.tracklet,
            "person": row.person,
            "path": row.path,
            "root": row.root,
            "frame": row.frame,
            "box": row.box,
            "group": self.group,
            "members": len(self.members) if self.group is not None else 1,
            "marked": self.marked,
        }


@dataclass(frozen=True, repr=False)
class Hits:
    """Rows that were found, best first.

    Attributes:
        hits: the rows.
        notes: how they were found, and what the user should know: exact or by codes, calibrated or not, what feedback
            moved.
        exact: whether every matching row was compared.
        again: searches once more with further marks; see :meth:`more_like`.
        thumbnails: stored thumbnails by key.
        asked: small images (WebP) of what was searched for, as far as there are any.
    """

    hits: tuple[Hit, ...]
    notes: tuple[str, ...]
    exact: bool
    again: Callable[[Sequence[str], Sequence[str]], Hits] = field(repr=False)
    thumbnails: Callable[[Sequence[str]], dict[str, bytes]] = field(repr=False)
    asked: Callable[[], list[bytes]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, number: int) -> Hit:
        return self.hits[number]

    def __iter__(self) -> Iterator[Hit]:
        return iter(self.hits)

    @property
    def keys(self) -> list[str]:
        """Names of the rows."""
        return [hit.key for hit in self.hits]

    @property
    def scores(self) -> list[float]:
        """One for each row."""
        return [hit.score for hit in self.hits]

    def more_like(self, like: str | Sequence[str] = (), *, unlike: str | Sequence[str] = ()) -> Hits:
        """The same search, moved towards some rows and away from others; earlier marks stay.

        Args:
            like: keys that show the person.
            unlike: keys that do not.

        Raises:
            GloamError: an unknown key.
        """
        return self.again(_several(like), _several(unlike))

    def to_frame(self) -> pd.DataFrame:
        """A table: rank, score, and all that is known of each row."""
        import pandas as pd

        table = pd.DataFrame([hit.to_dict() for hit in self.hits])
        table.insert(0, "rank", range(1, len(table) + 1))
        return table

    def save(self, path: str | Path) -> Path:
        """Write ``.html`` (one file with small images, without scripts), ``.csv`` or ``.json``.

        Raises:
            GloamError: another suffix.
        """
        path = Path(path)
        check_hits_format(path)
        if path.suffix == ".json":
            told = {"notes": self.notes, "exact": self.exact, "hits": [hit.to_dict() for hit in self.hits]}
            text = json.dumps(told, indent=2, ensure_ascii=False)
        elif path.suffix == ".csv":
            table = self.to_frame()
            text = table.apply(lambda column: column.map(_cell)).to_csv(index=False)
        else:
            text = self._html()
        with atomic_path(path) as temporary:
            make_private(temporary)
            temporary.write_text(text, encoding="utf-8")
        return path

    def _html(self) -> str:
        images = self.thumbnails(self.keys)
        for hit in self.hits:
            # Without stored thumbnails the files are looked at, where they are still there.
            if hit.key not in images and (image := thumbnail_of(hit.row)) is not None:
                images[hit.key] = image
        return hits_page(self.hits, images, self.asked(), self.notes)

    def __repr__(self) -> str:
        lines = [
            f"{rank:>3}  {hit.score:.3f}  {plain(hit.key)}  camera {hit.row.camera}  {MODALITIES[hit.row.modality]}"
            + (f"  person {plain(hit.row.person)}" if hit.row.person else "")
            + (f"  {chance(hit.probability, hit.prior)}" if hit.probability is not None else "")
            for rank, hit in enumerate(self.hits, start=1)
        ]
        return "\n".join([*(lines or ["nothing found"]), *self.notes])


def check_hits_format(path: Path) -> None:
    """Raises GloamError for a suffix that hits are not written in: before the search, not after."""
    if path.suffix not in FORMATS:
        raise GloamError(f"{path} must end in one of {', '.join(FORMATS)}.")


def _several(keys: str | Sequence[str]) -> tuple[str, ...]:
    return (keys,) if isinstance(keys, str) else tuple(keys)


def _cell(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
