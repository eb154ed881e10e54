"""What is sent and answered, as JSON."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gloam.gallery.rows import LONGEST_KEY
from gloam.gallery.where import Where

Key = Annotated[str, Field(min_length=1, max_length=LONGEST_KEY)]
Camera = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Modality = Literal["visible", "infrared"]
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e7, le=1e7)]
Box = tuple[Number, Number, Number, Number]
Time = Annotated[str, Field(max_length=64)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Filter(_Given):
    """Which rows may be found; see :class:`gloam.gallery.where.Where`."""

    cameras: list[Camera] = []
    not_cameras: list[Camera] = []
    after: Time | None = Field(None, description="ISO 8601; without offset: UTC")
    before: Time | None = None
    modality: Modality | None = None
    tracklets: list[Key] = []
    persons: list[Key] = []

    def where(self) -> Where:
        """For the gallery.

        Raises:
            GloamError: a text that is no time.
        """
        return Where(
            cameras=tuple(self.cameras),
            not_cameras=tuple(self.not_cameras),
            after=self.after or None,
            before=self.before or None,
            modality=self.modality,
            tracklets=tuple(self.tracklets),
            persons=tuple(self.persons),
        )

    @property
    def longest(self) -> int:
        """Entries of the longest list."""
        return max(len(part) for part in (self.cameras, self.not_cameras, self.tracklets, self.persons))


class ImageFacts(_Given):
    """What is known of an uploaded query image."""

    modality: Modality = "visible"
    box: Box | None = Field(None, description="left, top, width, height of the person, in pixels of the upright image")


class Vectors(_Given):
    """Features that the client computed."""

    fingerprint: Annotated[str, Field(max_length=200)] = Field(description="digest of the model that made them")
    rows: list[list[Annotated[float, Field(allow_inf_nan=False)]]] = Field(description="vectors of unit length")


class SearchRequest(_Given):
    """One search. Images come beside it, as parts ``image`` of a multipart body whose part ``request`` this is."""

    keys: list[Key] = Field([], description="rows of the gallery that show the person; tracklet:NAME for a tracklet")
    images: list[ImageFacts] = Field([], description="one for each uploaded image, in order; may be left out")
    vectors: Vectors | None = None
    where: Filter = Filter()
    top: int = Field(20, ge=1)
    group: Literal["tracklet", "person"] | None = None
    group_score: Literal["best", "mean"] = "best"
    group_top: int = Field(3, ge=1, le=1000)
    rerank: int = Field(0, ge=0)
    expand: int = Field(0, ge=0, le=100)
    like: list[Key] = []
    unlike: list[Key] = []
    fmr: float | None = Field(None, gt=0, lt=1, description="false match rate that hits keep (calibrated galleries)")
    prior: float | None = Field(
        None, gt=0, lt=1, description="probability before the comparison (0.001: one in 1,000): hits get probabilities"
    )
    exact: bool = False

    @property
    def longest(self) -> int:
        """Entries of the longest list."""
        return max(len(self.keys), len(self.like), len(self.unlike), self.where.longest)


class FoundHit(BaseModel):
    """One row that was found."""

    key: str
    score: float = Field(description="cosine, no probability")
    probability: float | None = Field(None, description="of this one comparison, with the prior beside it")
    prior: float | None = Field(None, description="what the probability assumes before the comparison")
    distance: float | None = Field(None, description="after re-ranking; smaller is nearer")
    camera: int
    time: str = Field(description="ISO 8601 in UTC; empty: unknown")
    modality: Modality
    tracklet: str | None
    person: str | None
    group: str | None
    members: list[str] = Field(description="keys of the group's rows, best first; at most 100")
    marked: str


class SearchAnswer(BaseModel):
    """What was found, best first."""

    hits: list[FoundHit]
    notes: list[str] = Field(description="how it was searched, and what to know of the scores")
    exact: bool
    query: list[str] = Field(description="for every uploaded image WIDTH x HEIGHT, as it was understood")


class NewRow(_Given):
    """What is known of an uploaded image that becomes a row."""

    key: Key
    camera: Camera = 0
    time: Time | None = None
    modality: Modality = "visible"
    tracklet: Key | None = None
    person: Key | None = None
    box: Box | None = None


class AddRequest(_Given):
    """Part ``request`` of a multipart body; parts ``image``, one for each row, in the same order."""

    rows: list[NewRow] = Field(min_length=1)


class AddAnswer(BaseModel):
    """Rows that the disk has confirmed."""

    added: int
    updated: int


class EraseRequest(_Given):
    """Rows to erase, by name or by filter."""

    keys: list[Key] = []
    where: Filter | None = None
    preview: bool = Field(True, description="only say which rows it would be")


class EraseAnswer(BaseModel):
    """What was erased, or would be."""

    keys: list[str]
    erased: bool
    done: bool = Field(description="their bytes have left every file")
    reason: str = Field("", description="why not yet")


class RowAnswer(BaseModel):
    """What is known of one row."""

    key: str
    camera: int
    time: str
    modality: Modality
    tracklet: str | None
    person: str | None
    frames: int
    frame: int | None
    box: Box | None
    has_crop: bool


class CameraInfo(BaseModel):
    """Rows of one camera and modality."""

    camera: int
    modality: Modality
    rows: int
    first: str
    last: str


class Info(BaseModel):
    """What the page and clients need to know."""

    name: str
    rows: int
    model: str
    fingerprint: str
    dim: int
    calibrated: bool
    calibration: str = Field(description="what was measured, in words")
    role: str
    can_edit: bool
    can_embed: bool = Field(description="images can be searched for; otherwise only keys and vectors")
    cameras: list[CameraInfo]
    upload: int = Field(description="most bytes of one request")
    top: int
