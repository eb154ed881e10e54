"""Folders, tables, data sets and features become rows: in batches that are durable one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from gloam.datasets.folder_pattern import compile_pattern
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.errors import GloamError
from gloam.gallery.boxes import box_columns, pixels_of
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.rows import Row, plain
from gloam.gallery.tables import modality_number, read_table, rows_of_table
from gloam.gallery.thumbnails import thumbnail
from gloam.image_files import UnreadableImage
from gloam.inference.features import Features
from gloam.inference.model import Model
from gloam.inference.sources import ArrayStore, find_records, open_records
from gloam.pixels.decode import read_rgb, resize_rgb
from gloam.pixels.video import is_video
from gloam.progress import progress_bar
from gloam.recipes.recipe import DataConfig

FEATURE_BATCH = 5000  # rows per transaction
_IMAGE_BATCH, _CLIP_BATCH = 512, 16
_TABLES = (".csv", ".tsv", ".parquet")


@dataclass
class Addition:
    """What adding did, in rows.

    Attributes:
        new: rows that were not there.
        updated: rows that were there with other content.
        unchanged: rows that were there already, with the same image and the same facts.
        unreadable: images that could not be decoded, with the reason; they are not in the gallery.
        empty: boxes that lie outside of their frame, have no area, or repeat another.
        unsure: boxes below the wanted confidence.
    """

    new: int = 0
    updated: int = 0
    unchanged: int = 0
    unreadable: list[str] = field(default_factory=list)
    empty: int = 0
    unsure: int = 0

    @property
    def rows(self) -> int:
        """All rows that are durable now."""
        return self.new + self.updated + self.unchanged

    def __str__(self) -> str:
        bad = f", {len(self.unreadable):,} unreadable" if self.unreadable else ""
        bad += f", {self.empty:,} boxes without area in their frame" if self.empty else ""
        bad += f", {self.unsure:,} boxes below the confidence" if self.unsure else ""
        return f"{self.new:,} new, {self.updated:,} updated, {self.unchanged:,} unchanged{bad}"


def add_features(
    catalogue: Catalogue,
    index: VectorIndex,
    features: Features,
    *,
    thumbnails: Sequence[bytes | None] | None = None,
    progress: bool = True,
    **given: Any,
) -> Addition:
    """Add vectors with their table; see :func:`gloam.gallery.tables.rows_of_table` for its columns.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        features: of the gallery's model.
        thumbnails: WebP bytes or None, one each.
        progress: show a bar.
        **given: ``root``, ``prefix``, and values for columns that the table lacks.

    Raises:
        GloamError: another model, or rows that cannot be stored.
    """
    catalogue.space.require(features.fingerprint, "the features to add")
    if thumbnails is not None and len(thumbnails) != len(features):
        raise GloamError(f"{len(thumbnails)} thumbnails for {len(features)} rows: give one (or None) each.")
    total, vectors = Addition(), features.numpy()
    with progress_bar("rows", shown=progress) as bar:
        task = bar.add_task("adding", total=len(features), note="")
        for start in range(0, len(features), FEATURE_BATCH):
            part = slice(start, start + FEATURE_BATCH)
            rows = rows_of_table(features.columns.iloc[part], **given)
            added = index.upsert(rows, vectors[part], None if thumbnails is None else thumbnails[part])
            total.new += added.new
            total.updated += added.updated
            bar.advance(task, len(rows))
    index.sync()
    return total


def add_images(
    catalogue: Catalogue,
    index: VectorIndex,
    model: Model,
    rows: Sequence[tuple[Row, Record]],
    *,
    thumbnails: bool = False,
    progress: bool = True,
) -> Addition:
    """Embed images and add them. What is there already, with the same bytes, is not embedded again.

    Args:
        catalogue: of the gallery.
        index: of the gallery.
        model: of the gallery's space.
        rows: what is known of each image or tracklet, and its files.
        thumbnails: keep a small copy of each.
        progress: show a bar.

    Raises:
        GloamError: another model, a key that another image of another folder has, a file that is gone.
    """
    catalogue.space.require(model.fingerprint, "the images to add")
    total, size = Addition(), _CLIP_BATCH if model.is_video else _IMAGE_BATCH
    with progress_bar("images", shown=progress) as bar, ThreadPoolExecutor() as threads:
        task = bar.add_task("adding", total=len(rows), note="")
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            _add_batch(catalogue, index, model, batch, thumbnails, threads, total)
            bar.advance(task, len(batch))
    index.sync()
    return total


def _add_batch(
    catalogue: Catalogue,
    index: VectorIndex,
    model: Model,
    batch: Sequence[tuple[Row, Record]],
    thumbnails: bool,
    threads: ThreadPoolExecutor,
    total: Addition,
) -> None:
    digests = list(threads.map(lambda pair: _file_digest(Path(pair[0].root), pair[1].paths), batch))
    named = [(row._replace(sha256=digest), record) for (row, record), digest in zip(batch, digests, strict=True)]
    stored = catalogue.rows([row.key for row, _ in named])
    wanted, moved = [], []
    for row, record in named:
        old = stored.get(row.key)
        # A name that a user gave stays: sources rarely know it.
        row = row if row.person is not None or old is None else row._replace(person=old.person)
        if old is None or old.sha256 != row.sha256 or old.box != row.box:
            check_owner(row, old)
            wanted.append((row, record))
        elif old == row:
            total.unchanged += 1
        else:
            moved.append(row)
    if moved:  # the same image, other facts
        keys = [row.key for row in moved]
        images = catalogue.thumbnails(keys)
        total.updated += index.upsert(moved, index.vectors(keys), [images.get(key) for key in keys]).updated
    if not wanted:
        return
    kept, pixels = decode(wanted, model)
    total.unreadable += sorted({row.key for row, _ in wanted} - {row.key for row, _ in kept})
    if not kept:
        return
    rows, records = zip(*kept, strict=True)
    features = model.embed_records(records, ArrayStore(pixels), workers=0)
    firsts = np.cumsum([0, *(len(record.paths) for record in records[:-1])])
    images_ = list(threads.map(lambda first: thumbnail(pixels[first]), firsts)) if thumbnails else None
    added = index.upsert(rows, features.numpy(), images_)
    total.new += added.new
    total.updated += added.updated


def check_owner(row: Row, old: Row | None) -> None:
    """Raise GloamError where another folder's image has the key of a row that is to be embedded."""
    if old is not None and old.root != row.root:
        raise GloamError(
            f"The gallery has another image under the key {plain(row.key)}, from {plain(old.root)}. Give this "
            "source names of its own with --prefix."
        )


def decode(batch: Sequence[tuple[Row, Record]], model: Model) -> tuple[list[tuple[Row, Record]], NDArray[np.uint8]]:
    """Images of rows of any folders at the model's size; rows without a readable image are left out.

    Nothing is cached: decoded images of people would stay on the disk after their erasure.

    Returns:
        The remaining rows, and ``(n, 3, H, W)`` with the frames of each one after the other.
    """
    data = model.recipe.data
    kept: list[tuple[Row, Record]] = []
    parts = [np.empty((0, 3, data.height, data.width), np.uint8)]
    for root in dict.fromkeys(row.root for row, _ in batch):
        boxed = [pair for pair in batch if pair[0].root == root and pair[0].box is not None]
        for pair, crop in _boxed(boxed, data):
            kept.append(pair)
            parts.append(crop[None])
        part = [pair for pair in batch if pair[0].root == root and pair[0].box is None]
        if not part:
            continue
        records = [record for _, record in part]
        try:
            config = data.model_copy(update={"cache": "off", "on_bad_image": "fail"})
            found, store = open_records(records, Path(root), config, progress=False)
            pixels = store.read(np.arange(len(store)))
        except GloamError:
            # Some are bad: look at each, which decodes all twice.
            config = data.model_copy(update={"cache": "off", "on_bad_image": "skip"})
            try:
                found, store = open_records(records, Path(root), config, progress=False)
            except GloamError:  # none is readable
                continue
            pixels = store.read(np.arange(len(store)))
        kept += _matched(part, found)
        parts.append(pixels)
    return kept, np.concatenate(parts)


def _boxed(
    batch: Sequence[tuple[Row, Record]], data: DataConfig
) -> Iterator[tuple[tuple[Row, Record], NDArray[np.uint8]]]:
    """Boxes cut from their images, at the model's size; every image is opened once."""
    by_path: dict[str, list[tuple[Row, Record]]] = {}
    for pair in batch:
        by_path.setdefault(pair[1].paths[0], []).append(pair)
    for path, pairs in by_path.items():
        try:
            image = read_rgb(Path(pairs[0][0].root) / path, data.stretch)
        except UnreadableImage:
            continue
        for row, record in pairs:
            place = None if row.box is None else pixels_of(row.box, image.width, image.height)
            if place is not None:
                yield (row, record), resize_rgb(image.crop(place), data.height, data.width, data.interpolation)


def _matched(part: Sequence[tuple[Row, Record]], found: Sequence[Record]) -> Iterator[tuple[Row, Record]]:
    """Rows of the records that are left, which are in order and may have lost frames."""
    rest = iter(part)
    for record in found:
        yield next((row, record) for row, given in rest if set(record.paths) <= set(given.paths))


def rows_of_source(
    source: Any,
    model: Model,
    *,
    split: str | None = None,
    root: Path | None = None,
    pattern: str | None = None,
    prefix: str = "",
    camera: int | None = None,
    time: int | None = None,
    modality: str | None = None,
    tracklet: str | None = None,
    person: str | None = None,
) -> list[tuple[Row, Record]]:
    """What is known of every image of a folder, image file, table or part of a data set.

    Args:
        source: path, or ``DatasetSplits``.
        model: its recipe says whether tracklets are read, and which data set a folder with ``split`` is.
        split: train, query or gallery of a data set.
        root: folder that a table's paths are relative to; the table's own if not given.
        pattern: reads file names of a folder: ``{pid}/c{cam}_*.jpg``.
        prefix: put before every key.
        camera: of images that do not say it; as all further ones.
        time: microseconds since 1970.
        modality: ``visible`` or ``infrared``.
        tracklet: name.
        person: name.

    Raises:
        GloamError: nothing there, or files that do not match the pattern.
    """
    given = {"camera": camera, "time": time, "tracklet": tracklet, "person": person}
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, DatasetSplits) or split is not None:
        splits = source if isinstance(source, DatasetSplits) else model.load_splits(source)
        if split not in ("train", "query", "gallery"):
            raise GloamError("Which part of the data set? Give --split train, query or gallery.")
        records, folder = getattr(splits, split), splits.root
        facts = [
            {"camera": record.cam, "person": str(record.pid_raw), "modality": int(record.modality)}
            for record in records
        ]
        return list(_named(records, folder, [{**fact, **given} for fact in facts], prefix))
    source = Path(source)
    if is_video(source):
        raise GloamError(
            f"Where are the people in {source.name}? Give a tracker's boxes: --boxes tracks.txt (docs/gallery.md), "
            "or detect= in Python."
        )
    number = modality_number(modality or "visible")
    if source.is_file() and source.suffix.lower() in _TABLES:
        folder = (root or source.parent).resolve()
        table = read_table(source)
        if "box" not in table and (boxes := box_columns(table)) is not None:
            table = table.assign(box=pd.Series(boxes, index=table.index, dtype=object))
        rows = rows_of_table(table, root=str(folder), prefix=prefix, modality=number, **given)
        if frames := [row for row in rows if row.frame is not None]:
            raise GloamError(
                f"{source}: the row {plain(frames[0].key)} is a frame of a video. Add the video itself, with "
                f"--boxes {source.name}."
            )
        rows = [_named_by_box(row, prefix) for row in rows]
        return [(row, Record((row.path or "",), -1, row.camera, Modality(row.modality), -1)) for row in rows]
    records, folder = find_records(source, model.recipe.data, "visible")
    facts_: list[dict[str, Any]] = [{"modality": number, **given} for _ in records]
    if pattern is not None:
        match = compile_pattern(pattern)
        for record, fact in zip(records, facts_, strict=True):
            found = match(record.paths[0])
            if found is None:
                raise GloamError(f"{plain(record.paths[0])} does not match the pattern {pattern!r}.")
            fact.update(_pattern_facts(found))
    return list(_named(records, folder, facts_, prefix))


def _named_by_box(row: Row, prefix: str) -> Row:
    """An image shows several people: without a key of its own, the row of a box is called by path and box."""
    if row.box is None or row.key != f"{prefix}{row.path}":
        return row
    return row._replace(key=f"{row.key}#" + ",".join(f"{value:g}" for value in row.box))


def _pattern_facts(found: dict[str, str]) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if found.get("cam"):
        if not found["cam"].isdecimal():
            raise GloamError(f"The pattern finds the camera {plain(found['cam'])!r}; cameras are numbers.")
        facts["camera"] = int(found["cam"])
    if found.get("modality"):
        facts["modality"] = modality_number(found["modality"])
    for name, column in (("pid", "person"), ("tracklet", "tracklet")):
        if found.get(name):
            facts[column] = found[name]
    return facts


def _named(
    records: Sequence[Record], folder: Path, facts: Sequence[dict[str, Any]], prefix: str
) -> Iterator[tuple[Row, Record]]:
    root = str(Path(folder).resolve())
    for record, fact in zip(records, facts, strict=True):
        key = prefix + record.paths[0]
        row = Row(key, path=record.paths[0], root=root, frames=len(record.paths), **fact)
        if len(record.paths) > 1 and row.tracklet is None:
            row = row._replace(tracklet=key)
        # Stems route by modality: the record must say what the row says.
        yield row, Record(record.paths, record.pid, row.camera, Modality(row.modality), record.pid_raw)


def _file_digest(root: Path, paths: Sequence[str]) -> bytes | None:
    """SHA-256 over the bytes of all files; None if one cannot be read (decoding says why)."""
    digest = hashlib.sha256()
    try:
        for path in paths:
            with (root / path).open("rb") as file:
                digest.update(file.read())
    except OSError:
        return None
    return digest.digest()
