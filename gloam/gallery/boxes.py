"""Boxes of people, as trackers and annotation tools write them: MOTChallenge text, COCO JSON, tables, functions.

Inside gloam a frame counts from 0 and a box is left, top, width, height from the image's corner (0, 0). MOTChallenge
counts both from 1, COCO and tables from 0.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from gloam.errors import GloamError
from gloam.gallery.rows import microseconds, plain
from gloam.gallery.tables import is_missing, modality_number, whole_number

BoxFormat = Literal["mot", "coco", "table"]
_TABLES = (".csv", ".tsv", ".parquet")
_CORNERS, _SIZES = ("x1", "y1", "x2", "y2"), ("left", "top", "width", "height")
_FAR = 1e9  # pixels; false for NaN too
_NUMBER = re.compile(r"(\d+)\D*$")


class Box(NamedTuple):
    """One person in one frame.

    Attributes:
        frame: from 0.
        left: of the box's first column, from 0; like the others in pixels of the upright frame, and with fractions.
        top: of its first row, from 0.
        width: in pixels.
        height: in pixels.
        confidence: None: not stated.
        track: what the tracker calls the person; None: not tracked.
        kind: class of the object as the file calls it; None: not stated.
        camera: where the box says it, as all further ones.
        modality: value of :class:`gloam.datasets.records.Modality`.
        person: name.
        time: microseconds since 1970.
    """

    frame: int
    left: float
    top: float
    width: float
    height: float
    confidence: float | None = None
    track: str | None = None
    kind: str | None = None
    camera: int | None = None
    modality: int | None = None
    person: str | None = None
    time: int | None = None


def read_boxes(path: Path, kind: BoxFormat | None = None, names: Sequence[str] = ()) -> list[Box]:
    """All boxes of a file, ordered by frame. Memory: about 300 bytes a box.

    Args:
        path: the file.
        kind: its format; by its ending if not given (``.txt``: mot, ``.json``: coco, ``.csv .tsv .parquet``: table).
        names: file names of the frames of a folder, in order: COCO files name their frames.

    Raises:
        GloamError: no such file, another format, no boxes, values that are no boxes.
    """
    if not path.is_file():
        raise GloamError(f"There is no file of boxes {path}.")
    suffix = path.suffix.lower()
    found = kind or {".txt": "mot", ".json": "coco", **dict.fromkeys(_TABLES, "table")}.get(suffix)
    if found is None:
        raise GloamError(f"What is {path}? Say --boxes-format mot, coco or table.")
    if found == "mot":
        boxes = _read_mot(path)
    elif found == "coco":
        boxes = _read_coco(path, names)
    else:
        boxes = _read_table(path)
    if not boxes:
        raise GloamError(f"{path} holds no boxes. Was the tracker's output written to another file?")
    for box in boxes:
        check_box(box, str(path))
    return sorted(boxes, key=lambda box: box.frame)


def check_box(box: Box, where: str) -> None:
    """Refuse what is no place in a video.

    Raises:
        GloamError: a negative frame, or coordinates that are no numbers or beyond all images.
    """
    if box.frame < 0:
        raise GloamError(
            f"{where}: the frame {box.frame} is before the first, which is 0 inside gloam. MOTChallenge text counts "
            "frames and pixels from 1: a file that counts from 0 is a table (first line: frame,track,left,top,width,"
            "height)."
        )
    if not all(abs(value) < _FAR for value in (*box[1:5], 0.0 if box.confidence is None else box.confidence)):
        raise GloamError(f"{where}: a box of frame {box.frame} has coordinates that are no numbers of pixels.")


def boxes_of_detections(found: Iterable[Any], frame: int) -> list[Box]:
    """What a user's ``detect(frame)`` returned: (left, top, width, height[, confidence[, track]]) each, pixels from 0.

    Raises:
        GloamError: of another form.
    """
    boxes = []
    for one in found:
        try:
            values = list(one)
            if not 4 <= len(values) <= 6:
                raise ValueError
            left, top, width, height = (float(value) for value in values[:4])
            confidence = None if len(values) < 5 or values[4] is None else float(values[4])
        except (TypeError, ValueError) as error:
            raise GloamError(
                f"detect() returned {plain(one)!r} for frame {frame}. Return (left, top, width, height), and after "
                "them the confidence and the track where there are any, one tuple a person."
            ) from error
        track = None if len(values) < 6 else _track(values[5])
        boxes.append(Box(frame, left, top, width, height, confidence, track))
        check_box(boxes[-1], "detect()")
    return boxes


def pixels_of(box: Sequence[float], width: int, height: int) -> tuple[int, int, int, int] | None:
    """Which pixels of an image a box covers: edges are rounded to the nearest pixel (halves up), then clipped.

    Args:
        box: left, top, width, height.
        width: of the image.
        height: of the image.

    Returns:
        First column, first row, and the column and row after the last; None if nothing is left.
    """
    left, top = box[0], box[1]
    edges = [math.floor(edge + 0.5) for edge in (left, top, left + box[2], top + box[3])]
    x1, y1, x2, y2 = max(edges[0], 0), max(edges[1], 0), min(edges[2], width), min(edges[3], height)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def box_columns(table: pd.DataFrame) -> list[tuple[float, float, float, float]] | None:
    """Boxes of a table with the columns ``left, top, width, height`` or ``x1, y1, x2, y2`` (ends excluded).

    Returns:
        left, top, width, height each; None if it has neither.

    Raises:
        GloamError: values that are no numbers.
    """
    names = next((names for names in (_SIZES, _CORNERS) if set(names) <= set(table.columns)), None)
    if names is None:
        return None
    try:
        values = table[list(names)].astype(float).to_numpy()
    except (TypeError, ValueError) as error:
        raise GloamError(f"The columns {', '.join(names)} must hold numbers ({error}).") from error
    if names == _CORNERS:
        values[:, 2:] -= values[:, :2]
    return [(float(a), float(b), float(c), float(d)) for a, b, c, d in values]


def _read_mot(path: Path) -> list[Box]:
    """``frame, id, left, top, width, height, confidence, class, visibility``; frames and pixels from 1.

    The identity -1 means that nothing was tracked. A confidence of -1 is none. Lines with ten numbers end with a place
    in the world instead of class and visibility.

    *Source*: P. Dendorfer et al., MOT20: A benchmark for multi object tracking in crowded scenes, 2020, section 4 (file
    format).
    """
    boxes = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise GloamError(f"{path} cannot be read as text ({error}). Is it another format than mot?") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        words = [word for word in re.split(r"[,\s]+", line.strip()) if word]
        try:
            values = [float(word) for word in words]
            if len(values) < 6 or values[0] != int(values[0]) or values[1] != int(values[1]):
                raise ValueError
        except (ValueError, OverflowError) as error:
            raise GloamError(
                f"{path}, line {number} is no MOTChallenge text: {plain(line[:80])!r}. It needs frame, id, left, top, "
                "width, height; a file with names in its first line is --boxes-format table."
            ) from error
        frame, track = int(values[0]) - 1, int(values[1])
        confidence = values[6] if len(values) > 6 and values[6] != -1 else None
        kind = f"{values[7]:g}" if len(values) in (8, 9) and values[7] != -1 else None
        box = Box(frame, values[2] - 1, values[3] - 1, values[4], values[5], confidence, None, kind)
        boxes.append(box._replace(track=None if track == -1 else str(track)))
    return boxes


def _read_coco(path: Path, names: Sequence[str]) -> list[Box]:
    """COCO annotations (or a list of results): ``bbox`` is left, top, width, height, all from 0.

    *Source*: COCO data format, https://cocodataset.org/#format-data. Tracks: ``track_id`` (or ``instance_id``) of an
    annotation or of its ``attributes``.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise GloamError(f"{path} is no JSON ({error}). MOTChallenge text is --boxes-format mot.") from error
    annotations = told.get("annotations") if isinstance(told, dict) else told
    if not isinstance(annotations, list) or not all(isinstance(one, dict) for one in annotations):
        raise GloamError(f"{path} is no COCO file: it has no list of annotations.")
    images = told.get("images", []) if isinstance(told, dict) else []
    kinds = {}
    try:
        if isinstance(told, dict):
            kinds = {one["id"]: str(one.get("name", one["id"])) for one in told.get("categories", [])}
        frames = _coco_frames(path, images, names)
        boxes = []
        for number, one in enumerate(annotations):
            image = one["image_id"]
            if images and image not in frames:
                raise GloamError(f"{path}: a box names the image {plain(image)!r}, which the list of images lacks.")
            frame = whole_number(frames[image] if images else image)
            if frame is None:
                raise GloamError(f"{path}: box {number} names no image.")
            left, top, width, height = (float(value) for value in one["bbox"])
            track = next(
                (place[name] for place in (one, one.get("attributes") or {}) for name in _TRACKS if name in place), None
            )
            kind = one.get("category_id")
            score = one.get("score")
            boxes.append(
                Box(
                    frame,
                    left,
                    top,
                    width,
                    height,
                    None if score is None else float(score),
                    _track(track),
                    None if kind is None else kinds.get(kind, str(kind)),
                )
            )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise GloamError(
            f"{path} is no COCO file that gloam understands ({type(error).__name__}: {error}): annotations need "
            "image_id and bbox, images need an id."
        ) from error
    return boxes


_TRACKS = ("track_id", "instance_id")


def _coco_frames(path: Path, images: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[Any, int]:
    """Number of the frame, from 0, of every image id.

    ``frame_id`` (or ``frame``) says it. Frames of a folder are found by ``file_name``. Otherwise the id is the number
    of the frame; if file names hold other numbers, nobody can know which count from 0, and that is an error.
    """
    field = next((field for field in ("frame_id", "frame") if images and all(field in one for one in images)), None)
    if field is not None:
        return {one["id"]: int(one[field]) for one in images}
    named = [one for one in images if one.get("file_name")]
    if names and len(named) == len(images):
        known = {name: number for number, name in enumerate(names)}
        short = {Path(name).name: number for name, number in known.items()}
        found = {}
        for one in images:
            name = str(one["file_name"])
            number = known.get(name, short.get(Path(name).name))
            if number is None:
                raise GloamError(f"{path} names the image {plain(name)}, which is not among the frames.")
            found[one["id"]] = number
        return found
    for one in named:
        stated = _NUMBER.search(Path(str(one["file_name"])).stem)
        if stated is not None and int(stated[1]) != one["id"]:
            raise GloamError(
                f"{path}: which frame is image {one['id']} named {plain(one['file_name'])}? Give every entry of "
                "images a frame_id that counts from 0, or give the folder of these images instead of the video."
            )
    return {one["id"]: int(one["id"]) for one in images}


def _read_table(path: Path) -> list[Box]:
    """CSV, TSV or Parquet; frames and pixels from 0.

    Columns: ``frame``; ``left, top, width, height`` or ``x1, y1, x2, y2``; and where known ``tracklet`` (or ``track,
    track_id, id``), ``conf`` (or ``confidence, score``), ``class``, ``camera``, ``modality``, ``person``, ``time``.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            separator = "\t" if path.suffix.lower() == ".tsv" else ","
            table = pd.read_csv(path, dtype=str, keep_default_na=False, sep=separator, skipinitialspace=True)
    except Exception as error:
        # pandas and pyarrow raise a dozen kinds for damaged files; each means the same to a user.
        raise GloamError(f"{path} could not be read as a table ({str(error).splitlines()[0]}).") from error
    places = box_columns(table)
    if places is None or "frame" not in table:
        raise GloamError(
            f"{path} needs the columns frame and left, top, width, height (or x1, y1, x2, y2), all from 0. Found: "
            f"{', '.join(plain(name) for name in table.columns)}. A file without names in its first line is "
            "--boxes-format mot."
        )

    def column(*names: str) -> list[Any]:
        found = next((name for name in names if name in table), None)
        return [None] * len(table) if found is None else [None if is_missing(v) else v for v in table[found].tolist()]

    lines = zip(
        column("frame"),
        places,
        column("conf", "confidence", "score"),
        column("tracklet", "track", "track_id", "id"),
        column("class"),
        column("camera", "cam"),
        column("modality"),
        column("person", "pid"),
        column("time"),
        strict=True,
    )
    boxes = []
    for frame, place, confidence, track, kind, camera, modality, person, time in lines:
        number = whole_number(frame)
        if number is None:
            raise GloamError(f"{path}: a box has no frame.")
        try:
            sure = None if confidence is None else float(confidence)
        except (TypeError, ValueError) as error:
            raise GloamError(f"{path}: the confidence {plain(confidence)!r} is no number.") from error
        boxes.append(
            Box(
                number,
                place[0],
                place[1],
                place[2],
                place[3],
                confidence=sure,
                track=_track(track),
                kind=None if kind is None else str(kind),
                camera=whole_number(camera),
                modality=None if modality is None else modality_number(modality),
                person=None if person is None or str(person) == "-1" else str(person),
                time=microseconds(time),
            )
        )
    return boxes


def _track(value: Any) -> str | None:
    """A track's name; whole numbers in the same way, whatever type they came in."""
    if is_missing(value) or value == -1 or value == "-1":
        return None
    if isinstance(value, str):
        return value
    try:
        number = float(value)
        return str(int(number)) if number == int(number) else str(number)
    except (TypeError, ValueError, OverflowError) as error:
        raise GloamError(f"{plain(value)!r} is no name of a track: give a number or a text.") from error
