"""Boxes become tracklets, and of each the best frames are chosen, in one pass and with bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.boxes import Box, pixels_of
from gloam.gallery.rows import plain


@dataclass(frozen=True)
class BoxRules:
    """Which boxes become rows.

    Attributes:
        frames_per_tracklet: at most so many rows of a tracklet.
        min_confidence: boxes that state less are left out.
        max_gap: a track that is away for more frames than these comes back as another tracklet.
        box_class: class of the boxes to keep, as the file calls it; None: all.
    """

    frames_per_tracklet: int = 4
    min_confidence: float = 0.0
    max_gap: int = 150
    box_class: str | None = None

    def check(self) -> None:
        """Raise GloamError for rules that cannot be kept."""
        if self.frames_per_tracklet < 1 or self.max_gap < 1:
            raise GloamError("--frames-per-tracklet and --max-gap must be 1 or more.")


@dataclass
class Sighting:
    """One box that can become a row.

    Attributes:
        box: as it was read.
        place: first column and row, column and row after the last: inside the frame.
        cut: the image's border cuts the person off.
        pixels: ``(3, H, W)`` uint8 at the model's size, once it was cut out.
    """

    box: Box
    place: tuple[int, int, int, int]
    cut: bool
    pixels: NDArray[np.uint8] | None = None

    @property
    def quality(self) -> tuple[bool, float, int]:
        """Whole before cut off, then area times confidence, then the earlier one."""
        x1, y1, x2, y2 = self.place
        sure = 1.0 if self.box.confidence is None else self.box.confidence
        return not self.cut, (x2 - x1) * (y2 - y1) * sure, -self.box.frame


@dataclass
class Tracklet:
    """What is kept of a tracklet while its frames come: the best of at most ``2 k`` equal spans of time.

    Attributes:
        name: of the track; with ``.2`` and so on when it came back. None: one box that nobody tracked.
        keep: k.
    """

    name: str | None
    keep: int
    last: int = -1
    _first: int = -1
    _span: int = 1
    _best: dict[int, Sighting] = field(default_factory=dict)

    def add(self, one: Sighting) -> None:
        """Take the next sighting."""
        if not self._best:
            self._first = one.box.frame
        self.last = one.box.frame
        self._put(one)
        while len(self._best) > 2 * self.keep:
            kept, self._best = self._best, {}
            self._span *= 2
            for other in kept.values():
                self._put(other)

    def _put(self, one: Sighting) -> None:
        span = (one.box.frame - self._first) // self._span
        if span not in self._best or one.quality > self._best[span].quality:
            self._best[span] = one

    def chosen(self) -> list[Sighting]:
        """At most k sightings in the order of time: the best of k parts; cut off ones only where all are."""
        found = [self._best[span] for span in sorted(self._best)]
        found = [one for one in found if not one.cut] or found
        parts = min(self.keep, len(found))
        edges = [part * len(found) // parts for part in range(parts + 1)]
        return [max(found[a:b], key=lambda one: one.quality) for a, b in itertools.pairwise(edges)]


class Tracker:
    """Sorts boxes of frames in order into tracklets.

    Memory: ``2 k + 1`` sightings of each track that was seen within the last ``max_gap`` frames.

    Args:
        rules: which boxes are used.
    """

    def __init__(self, rules: BoxRules) -> None:
        self.empty = self.unsure = 0
        self._rules = rules
        self._open: dict[str, Tracklet] = {}
        self._names: set[str] = set()

    def step(self, frame: int, boxes: Sequence[Box], width: int, height: int) -> tuple[list[Sighting], list[Tracklet]]:
        """Take the boxes of one frame, which comes after those before.

        Returns:
            The sightings of the frame that may be chosen, whose pixels can be set now; and tracklets that are complete.

        Raises:
            GloamError: a track is twice in the frame.
        """
        ended = [one for one in self._open.values() if frame - one.last > self._rules.max_gap]
        for one in ended:
            del self._open[_track_of(one)]
        used, seen = [], set()
        for box in boxes:
            if self._rules.box_class is not None and box.kind != self._rules.box_class:
                continue
            if box.confidence is not None and box.confidence < self._rules.min_confidence:
                self.unsure += 1
                continue
            place = pixels_of(box[1:5], width, height)
            mark = place if box.track is None else box.track
            if place is None or (box.track is None and mark in seen):
                self.empty += 1
                continue
            if mark in seen:
                raise GloamError(
                    f"The track {plain(box.track)} is twice in frame {frame} (from 0). One of the two boxes is wrong; "
                    "if the file joins several cameras or classes, split it (--box-class keeps one class)."
                )
            seen.add(mark)
            sighting = Sighting(box, place, _is_cut(box, width, height))
            used.append(sighting)
            if box.track is None:
                alone = Tracklet(None, 1)
                alone.add(sighting)
                ended.append(alone)
                continue
            if box.track not in self._open:
                self._open[box.track] = Tracklet(self._name(box.track), self._rules.frames_per_tracklet)
            self._open[box.track].add(sighting)
        return used, ended

    def _name(self, track: str) -> str:
        """A name that no tracklet had yet."""
        name, count = track, 1
        while name in self._names:
            count += 1
            name = f"{track}.{count}"
        self._names.add(name)
        return name

    def finish(self) -> list[Tracklet]:
        """The tracklets that are left at the end."""
        rest = list(self._open.values())
        self._open = {}
        return rest


def frames_of(boxes: Sequence[Box]) -> Iterator[tuple[int, list[Box]]]:
    """Boxes that are ordered by frame, frame by frame."""
    start = 0
    for end in range(1, len(boxes) + 1):
        if end == len(boxes) or boxes[end].frame != boxes[start].frame:
            yield boxes[start].frame, list(boxes[start:end])
            start = end


def _track_of(tracklet: Tracklet) -> str:
    return str(next(iter(tracklet._best.values())).box.track)


def _is_cut(box: Box, width: int, height: int) -> bool:
    return box.left <= 0 or box.top <= 0 or box.left + box.width >= width or box.top + box.height >= height
