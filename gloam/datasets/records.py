"""What a dataset is, after its files on disk have been understood: records, splits, protocols.

Nothing here opens an image or imports torch.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CameraRule = Literal["none", "same_id_same_cam", "sysu"]
CmcKind = Literal["standard", "unique_id"]
# Numbers in the one form that survives being read and written again, and that fit 64 bits.
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
# An id as its owner writes it: numbers where all ids of a dataset are numbers, else texts ("0001", "O'Brien").
RawId = int | str


def raw_id(text: str) -> RawId:
    """An id from a file of texts: a number if it is written as Python writes numbers, else the text."""
    if _NUMBER.fullmatch(text) and -(2**63) <= (number := int(text)) < 2**63:
        return number
    return text


class Modality(enum.IntEnum):
    """What an image was made with. Numbers of other code bases are converted where files are read only."""

    VISIBLE = 0
    INFRARED = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One sample: an image (one path) or a tracklet (its frames in order).

    Attributes:
        paths: file names relative to the dataset root, with forward slashes.
        pid: contiguous label 0..C-1 in training records; in query and gallery records the original id, or a number that
            stands for it where ids are texts.
        pid_raw: the id as written on disk; -1 for people whom nobody has named.
        cam: camera number, in the base that the dataset's file documents.
        modality: visible or infrared.
    """

    paths: tuple[str, ...]
    pid: int
    cam: int
    modality: Modality
    pid_raw: RawId


@dataclass(frozen=True, slots=True)
class Protocol:
    """One published way to score a model, in words. ``gloam.evaluation.protocols`` carries it out.

    Attributes:
        name: ``<dataset>/<protocol>``, for example ``sysu_mm01/all_single``.
        description: one sentence for tables and ``--help``.
        query_modality: keep only query records of this modality (None: all).
        gallery_modality: keep only gallery records of this modality (None: all).
        swapped: take queries from ``splits.gallery`` and the gallery from ``splits.query``.
        gallery_cams: keep only gallery records of these cameras, and visit them in this order when sampling (None:
            all).
        shots: draw this many images per (id, camera) for each trial's gallery (None: the whole gallery, one trial).
        trials: number of galleries, drawn with private generators seeded 0..trials-1.
        sampled: the side that ``shots`` (and ``gallery_cams``) apply to. ``query`` exists for LLCM's released test
            script only: it draws one query per (id, camera) and ranks the whole other side.
        galleries: instead of drawing: for each trial the gallery's first paths, in order (SYSU-MM01's official
            permutations). ``len(galleries) == trials``; ``shots`` then only says how they were made.
        camera_rule: which gallery entries a query may not see.
        cmc: ``standard``, or ``unique_id`` (only each id's nearest gallery entry counts).
    """

    name: str
    description: str = ""
    query_modality: Modality | None = None
    gallery_modality: Modality | None = None
    swapped: bool = False
    gallery_cams: tuple[int, ...] | None = None
    shots: int | None = None
    trials: int = 1
    sampled: Literal["gallery", "query"] = "gallery"
    galleries: tuple[tuple[str, ...], ...] | None = None
    camera_rule: CameraRule = "same_id_same_cam"
    cmc: CmcKind = "standard"


@dataclass(frozen=True)
class DatasetSplits:
    """Everything a loader found under a root folder, in a deterministic order.

    Attributes:
        name: registered dataset name.
        root: folder that record paths are relative to.
        train: training records, ``pid`` = label in ``0..num_classes-1``.
        query: test queries; see ``Record.pid``.
        gallery: test gallery candidates; the same person has the same ``pid`` as in query.
        protocols: the dataset's protocols by name, the headline protocol first.
        label_map: original id -> training label (rank of the id in ascending, for texts natural, order).
        expected_counts: published counts by the names that ``counts()`` uses.
        auxiliary: extra records that no published training uses (BUPTCampus auxiliary set, Market-1501 distractors).
        validation_pids: original training ids that the dataset's authors set aside for validation; empty if none.
        notice: a legal or practical remark that the user must see, or None.
        labelled: False where nobody has said who is in the training records: each is a label of its own, ``pid_raw`` is
            -1, and only methods without labels can train.
    """

    name: str
    root: Path
    train: tuple[Record, ...]
    query: tuple[Record, ...]
    gallery: tuple[Record, ...]
    protocols: Mapping[str, Protocol]
    label_map: Mapping[RawId, int]
    expected_counts: Mapping[str, int] = field(default_factory=dict)
    auxiliary: tuple[Record, ...] = ()
    validation_pids: tuple[RawId, ...] = ()
    notice: str | None = None
    labelled: bool = True

    def __repr__(self) -> str:
        unit = "tracklets" if self.is_video else "images"
        lights = ", ".join(sorted(light.name.lower() for light in self.modalities)) or "nothing"
        people = f"{self.num_classes:,} identities" if self.labelled else "nobody named"
        return (
            f"DatasetSplits {self.name} at {self.root}\n"
            f"  train: {len(self.train):,} {unit}, {people}, {lights}\n"
            f"  query: {len(self.query):,} {unit}\n"
            f"  gallery: {len(self.gallery):,} {unit}\n"
            f"  protocols: {', '.join(name.split('/')[-1] for name in self.protocols) or 'none'}"
        )

    @property
    def num_classes(self) -> int:
        """Number of training identities."""
        return len(self.label_map)

    @property
    def is_video(self) -> bool:
        """True when records are tracklets."""
        return any(len(r.paths) > 1 for part in (self.train, self.query, self.gallery) for r in part)

    @property
    def modalities(self) -> frozenset[Modality]:
        """Modalities that occur in the training records."""
        return frozenset(r.modality for r in self.train)

    def counts(self) -> dict[str, int]:
        """Found counts under the names of ``expected_counts``.

        ``<split>_ids``, ``<split>_records``, ``<split>_visible``, ``<split>_infrared`` for train, query, gallery and
        auxiliary, and ``<split>_images`` (frames) for tracklets.
        """
        found: dict[str, int] = {}
        for split in ("train", "query", "gallery", "auxiliary"):
            records: tuple[Record, ...] = getattr(self, split)
            found[f"{split}_ids"] = len({r.pid_raw for r in records if self.labelled or split != "train"})
            found[f"{split}_records"] = len(records)
            found[f"{split}_visible"] = sum(r.modality is Modality.VISIBLE for r in records)
            found[f"{split}_infrared"] = sum(r.modality is Modality.INFRARED for r in records)
            found[f"{split}_images"] = sum(len(r.paths) for r in records)
        return found
