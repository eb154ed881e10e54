"""Videos with boxes become rows: chosen frames of every tracklet, and one row for the tracklet."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.gallery.adding import Addition, check_owner
from gloam.gallery.boxes import Box, BoxFormat, boxes_of_detections, read_boxes
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.footage import Footage, check_frames, crop, cut_sightings, open_footage
from gloam.gallery.rows import Row, microseconds, plain
from gloam.gallery.tables import modality_number
from gloam.gallery.thumbnails import thumbnail
from gloam.gallery.tracklets import BoxRules, Sighting, Tracker, Tracklet, frames_of
from gloam.inference.model import Model
from gloam.inference.sources import ArrayStore
from gloam.pixels.decode import resize_rgb
from gloam.progress import progress_bar

Detect = Callable[[NDArray[np.uint8]], Iterable[Any]]
_BATCH = 256  # crops that wait until they are embedded and stored in one transaction


@dataclass(frozen=True)
class FootageFacts:
    """What is known of a whole video.

    Attributes:
        prefix: put before every key.
        start: time of the first frame in microseconds since 1970; None: rows have no time.
        camera: of boxes that do not say it; as the others.
        modality: value of :class:`Modality`.
        person: name.
    """

    prefix: str = ""
    start: int | None = None
    camera: int | None = None
    modality: int = 0
    person: str | None = None


@dataclass
class _Group:
    """Rows that are stored together: a tracklet's, or one box without a track.

    ``rows`` are the chosen sightings, and after them the tracklet as a whole if it has several. Video methods have that
    one only.
    """

    sightings: list[Sighting]
    rows: list[Row]
    clip: bool
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.sightings)


class _Writer:
    """Stores groups; every call of ``keep`` is durable when it returns."""

    def __init__(self, catalogue: Catalogue, index: VectorIndex, model: Model, *, thumbnails: bool) -> None:
        self.total = Addition()
        self._catalogue, self._index, self._model, self._thumbnails = catalogue, index, model, thumbnails

    def news(self, groups: Sequence[_Group]) -> list[_Group]:
        """The groups that must be embedded; the facts of the others are brought up to date."""
        stored = self._catalogue.rows([row.key for group in groups for row in group.rows])
        wanted: list[_Group] = []
        moved: list[Row] = []
        for group in groups:
            olds = [stored.get(row.key) for row in group.rows]
            # A name that a user gave stays: trackers rarely know it.
            group.rows = [
                row if row.person is not None or old is None else row._replace(person=old.person)
                for row, old in zip(group.rows, olds, strict=True)
            ]
            pairs = list(zip(group.rows, olds, strict=True))
            if all(old is not None and _content(row) == _content(old) for row, old in pairs):
                changed = [row for row, old in pairs if row != old]
                moved += changed
                self.total.unchanged += len(pairs) - len(changed)
            else:
                for row, old in pairs:
                    if old is not None and old.sha256 != row.sha256:
                        check_owner(row, old)
                wanted.append(group)
        if moved:  # the same images, other facts
            keys = [row.key for row in moved]
            images = self._catalogue.thumbnails(keys)
            done = self._index.upsert(moved, self._index.vectors(keys), [images.get(key) for key in keys])
            self.total.updated += done.updated
        return wanted

    def keep(self, groups: Sequence[_Group]) -> None:
        """Embed groups whose pixels are there, and store them in one transaction."""
        if not groups:
            return
        records, pixels = [], []
        for group in groups:
            pixels += [one.pixels for one in group.sightings if one.pixels is not None]
            for row in group.rows if group.clip else group.rows[: len(group.sightings)]:
                paths = (row.key,) * (row.frames if group.clip else 1)
                records.append(Record(paths, -1, row.camera, Modality(row.modality), -1))
        features = self._model.embed_records(records, ArrayStore(np.stack(pixels)), workers=0).numpy()
        rows: list[Row] = []
        vectors: list[NDArray[np.float32]] = []
        images: list[bytes | None] = []
        start = 0
        for group in groups:
            count = 1 if group.clip else len(group.sightings)
            mine = features[start : start + count]
            start += count
            small = [
                thumbnail(one.pixels) if self._thumbnails else None for one in group.sightings if one.pixels is not None
            ]
            best = small[_best(group.sightings)]
            if group.clip:
                small = [best]
            elif len(group.rows) > count:
                mean = mine.mean(axis=0, keepdims=True)
                mine = np.concatenate([mine, mean / np.linalg.norm(mean)])
                small.append(best)
            rows += group.rows
            vectors.append(mine)
            images += small
        done = self._index.upsert(rows, np.concatenate(vectors), images if self._thumbnails else None)
        self.total.new += done.new
        self.total.updated += done.updated
        for group in groups:
            for one in group.sightings:
                one.pixels = None


def add_video(
    catalogue: Catalogue,
    index: VectorIndex,
    model: Model,
    source: Path,
    *,
    boxes: Path | None = None,
    detect: Detect | None = None,
    boxes_format: BoxFormat | None = None,
    start: Any = None,
    frame_rate: float | None = None,
    frames_per_tracklet: int | None = None,
    min_confidence: float | None = None,
    max_gap: int | None = None,
    box_class: str | None = None,
    prefix: str = "",
    camera: int | None = None,
    modality: str | None = None,
    person: str | None = None,
    progress: bool = True,
) -> Addition:
    """:func:`add_footage` with a user's words; None: the default.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        model: of the gallery's space.
        source: video, or folder of its frames.
        boxes: see :func:`add_footage`, as the next two.
        detect: see there.
        boxes_format: see there.
        start: time of the first frame: ``datetime``, ISO 8601 text (without offset: UTC) or seconds since 1970.
        frame_rate: of a folder's frames.
        frames_per_tracklet: 4; video methods: at least one clip.
        min_confidence: 0.
        max_gap: 150 frames.
        box_class: all.
        prefix: put before every key.
        camera: of boxes that do not say it; as the others.
        modality: ``visible`` or ``infrared``.
        person: name.
        progress: show a bar.

    Raises:
        GloamError: as there, or words that mean nothing.
    """
    if (boxes is None) == (detect is None):
        raise GloamError("Give a file of boxes or detect, one of the two.")
    if detect is not None and (boxes_format is not None or box_class is not None):
        raise GloamError("boxes_format and box_class are for files: detect returns boxes of people.")
    began = microseconds(start)
    footage = open_footage(source, model.recipe.data, frame_rate)
    if began is not None and len(footage) > 1 and footage.elapsed(1) is None:
        raise GloamError("Frames of a folder have no times: say how many there are a second, with --frame-rate 25.")
    default = BoxRules()
    clip = (model.recipe.data.frames or 0) if model.is_video else 0
    rules = BoxRules(
        max(default.frames_per_tracklet, clip) if frames_per_tracklet is None else frames_per_tracklet,
        default.min_confidence if min_confidence is None else min_confidence,
        default.max_gap if max_gap is None else max_gap,
        box_class,
    )
    return add_footage(
        catalogue,
        index,
        model,
        footage,
        boxes=boxes,
        boxes_format=boxes_format,
        detect=detect,
        rules=rules,
        facts=FootageFacts(prefix, began, camera, modality_number(modality or "visible"), person),
        thumbnails=catalogue.setting("thumbnails") == "yes",
        progress=progress,
    )


def add_footage(
    catalogue: Catalogue,
    index: VectorIndex,
    model: Model,
    footage: Footage,
    *,
    boxes: Path | None = None,
    boxes_format: BoxFormat | None = None,
    detect: Detect | None = None,
    rules: BoxRules,
    facts: FootageFacts,
    thumbnails: bool = False,
    progress: bool = True,
) -> Addition:
    """Add the people of a video. What is there already is not embedded again, and not even decoded.

    The video is decoded once. Memory: one frame, the boxes of the file, and crops at the model's size: those of 256
    rows, and of tracklets that have begun and not ended (k each from a file, ``2 k + 1`` each with ``detect``).

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        model: of the gallery's space.
        footage: the video.
        boxes: file of boxes.
        boxes_format: of that file; by its ending if not given.
        detect: finds people in a frame, instead of the file: ``(H, W, 3)`` uint8 RGB to (left, top, width, height[,
            confidence[, track]]) each. Called for every frame in order.
        rules: which boxes become rows.
        facts: what is known of the video.
        thumbnails: keep a small copy of each row's crop.
        progress: show a bar.

    Raises:
        GloamError: another model, boxes that are not of this video, a damaged video. Batches that were stored before
            stay stored.
    """
    catalogue.space.require(model.fingerprint, "the video to add")
    rules.check()
    writer, tracker = _Writer(catalogue, index, model, thumbnails=thumbnails), Tracker(rules)

    def group(tracklet: Tracklet) -> _Group:
        return _group(tracklet, footage, facts, clip=model.is_video)

    if detect is None:
        if boxes is None:
            raise GloamError("Where are the people? Give a file of boxes, or detect=.")
        found = read_boxes(boxes, boxes_format, footage.names)
        check_frames(footage, found, str(boxes))
        kinds = {box.kind for box in found}
        if rules.box_class is not None and rules.box_class not in kinds:
            raise GloamError(
                f"{boxes} has no boxes of the class {plain(rules.box_class)}. It has: "
                f"{', '.join(sorted(plain(kind) for kind in kinds))}."
            )
        ended: list[Tracklet] = []
        for frame, here in frames_of(found):
            ended += tracker.step(frame, here, footage.width, footage.height)[1]
        _add_known(writer, footage, [group(one) for one in (*ended, *tracker.finish())], model, progress)
    else:
        _add_detected(writer, footage, tracker, detect, group, model, progress)
    index.sync()
    writer.total.empty, writer.total.unsure = tracker.empty, tracker.unsure
    return writer.total


def _add_known(writer: _Writer, footage: Footage, groups: list[_Group], model: Model, progress: bool) -> None:
    """Cut the crops of groups that are not stored, in one pass; a group is stored when its last crop was seen."""
    todo = [group for start in range(0, len(groups), _BATCH) for group in writer.news(groups[start : start + _BATCH])]
    wanted = [(number, one) for number, group in enumerate(todo) for one in group.sightings]
    ready: list[_Group] = []
    waiting = 0
    with progress_bar("crops", shown=progress) as bar:
        task = bar.add_task("adding", total=len(wanted), note="")
        for number, one, pixels in cut_sightings(footage, wanted):
            one.pixels = _resized(pixels, model)
            todo[number].missing -= 1
            if not todo[number].missing:
                ready.append(todo[number])
                waiting += len(todo[number].sightings)
            if waiting >= _BATCH:
                writer.keep(ready)
                ready, waiting = [], 0
            bar.advance(task)
        writer.keep(ready)


def _add_detected(
    writer: _Writer,
    footage: Footage,
    tracker: Tracker,
    detect: Detect,
    group: Callable[[Tracklet], _Group],
    model: Model,
    progress: bool,
) -> None:
    """Ask for boxes frame by frame, and keep the best crops of every tracklet until it ends."""
    ready: list[_Group] = []
    with progress_bar("frames", shown=progress) as bar:
        task = bar.add_task("detecting", total=len(footage), note="")
        for frame, image in footage.walk():
            # A copy: detectors may draw on it.
            found = boxes_of_detections(detect(image.copy()), frame)
            used, complete = tracker.step(frame, found, footage.width, footage.height)
            for one in used:
                one.pixels = _resized(crop(image, one.place), model)
            ready += [group(one) for one in complete]
            if sum(len(one.sightings) for one in ready) >= _BATCH:
                writer.keep(writer.news(ready))
                ready = []
            bar.advance(task)
        writer.keep(writer.news([*ready, *(group(one) for one in tracker.finish())]))


def _group(tracklet: Tracklet, footage: Footage, facts: FootageFacts, *, clip: bool) -> _Group:
    chosen = tracklet.chosen()
    base = f"{facts.prefix}{footage.name}#" + ("" if tracklet.name is None else f"t{tracklet.name}")
    name = None if tracklet.name is None else base
    rows = []
    for one in chosen:
        x1, y1, x2, y2 = one.place
        key = (
            f"{base}/f{one.box.frame}" if name is not None else f"{base}f{one.box.frame}/{x1},{y1},{x2 - x1},{y2 - y1}"
        )
        rows.append(_row(key, one, footage, facts, name))
    if name is not None and (len(rows) > 1 or clip):
        # The tracklet's row shows its best frame; its digest covers all that its vector comes from.
        best, digest = rows[_best(chosen)], hashlib.sha256()
        for row in rows:
            digest.update(repr((row.sha256, row.path, row.frame, row.box)).encode())
        whole = best._replace(key=base, frames=len(rows), time=rows[0].time, sha256=digest.digest())
        rows = [whole] if clip else [*rows, whole]
    return _Group(chosen, rows, clip)


def _row(key: str, one: Sighting, footage: Footage, facts: FootageFacts, tracklet: str | None) -> Row:
    box: Box = one.box
    x1, y1, x2, y2 = one.place
    time = box.time
    if time is None and facts.start is not None:
        elapsed = footage.elapsed(box.frame)
        time = None if elapsed is None else facts.start + elapsed
    camera = facts.camera if box.camera is None else box.camera
    return Row(
        key,
        path=footage.path(box.frame),
        root=footage.root,
        # Frames of a folder are images of their own.
        frame=None if footage.names else box.frame,
        box=(float(x1), float(y1), float(x2 - x1), float(y2 - y1)),
        camera=0 if camera is None else camera,
        time=time,
        modality=facts.modality if box.modality is None else box.modality,
        tracklet=tracklet,
        person=facts.person if box.person is None else box.person,
        sha256=footage.digest(box.frame),
    )


def _best(chosen: Sequence[Sighting]) -> int:
    return max(range(len(chosen)), key=lambda place: chosen[place].quality)


def _content(row: Row) -> tuple[Any, ...]:
    """What a row's vector depends on."""
    return row.sha256, row.frame, row.box, row.frames, row.modality


def _resized(pixels: NDArray[np.uint8], model: Model) -> NDArray[np.uint8]:
    data = model.recipe.data
    return resize_rgb(Image.fromarray(np.ascontiguousarray(pixels)), data.height, data.width, data.interpolation)
