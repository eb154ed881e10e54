"""Moving a gallery to another model: the old space answers until every row has its new vector."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.gallery.adding import decode
from gloam.gallery.catalogue import FileCatalogue, active_space, add_space, read_space, record, write_space
from gloam.gallery.crops import insert_vectors, remove, rows_of
from gloam.gallery.engines.codes import drop_codes
from gloam.gallery.rows import Row, plain
from gloam.gallery.space import Space
from gloam.inference.model import Model
from gloam.inference.sources import ArrayStore
from gloam.pixels.decode import resize_rgb
from gloam.progress import progress_bar

Source = Literal["sources", "thumbnails"]
_BATCH = 256


@dataclass(frozen=True)
class Reembedding:
    """What moving did.

    Attributes:
        rows: rows that were embedded by this call.
        switched: the gallery answers with the new model now.
        missing: rows whose image is gone, with the reason; the switch waits for them.
        dropped: rows that were erased because their image is gone.
    """

    rows: int
    switched: bool
    missing: tuple[str, ...]
    dropped: int = 0


def reembed(
    catalogue: FileCatalogue,
    model: Model,
    *,
    source: Source = "sources",
    drop_missing: bool = False,
    progress: bool = True,
) -> Reembedding:
    """Embed every row again with another model, then switch. A call that was killed continues where it was.

    Args:
        catalogue: of the gallery.
        model: the new one.
        source: images come from the files that rows name, or from the thumbnails (small: worse features).
        drop_missing: erase rows whose image is gone instead of waiting for it.
        progress: show a bar.

    Raises:
        GloamError: the gallery has this model already.
    """
    target = Space.of_model(model)
    with catalogue.store.write() as connection:
        if read_space(connection, active_space(connection)).digest == target.digest:
            raise GloamError(f"The gallery holds features of {target.fingerprint} already.")
        number = _building(connection, target)
    done, missing, tried = 0, dict[str, str](), 0
    with progress_bar("images", shown=progress) as bar:
        with catalogue.store.read() as connection:
            total = connection.execute("SELECT rows FROM state").fetchone()[0]
            ready = connection.execute(f"SELECT count(*) FROM vector_{number}").fetchone()[0]
        task = bar.add_task("embedding", total=total, completed=ready, note="")
        while batch := _next(catalogue, number, tried):
            tried = batch[-1][0]
            rows = [row for _, row in batch]
            kept, pixels = _images(catalogue, rows, model, source, missing)
            if kept:
                records = [record for _, record in kept]
                halves = model.embed_records(records, ArrayStore(pixels), workers=0).numpy().astype(np.float16)
                numbers = {row.key: crop for crop, row in batch}
                done += _keep(catalogue, number, [numbers[row.key] for row, _ in kept], halves)
            bar.advance(task, len(batch))
    dropped = 0
    if missing and drop_missing:
        with catalogue.store.write() as connection:
            marks = [
                line[0] for key in missing for line in connection.execute("SELECT id FROM crop WHERE key=?", (key,))
            ]
            drop_codes(catalogue.store.folder)
            remove(connection, marks)
            record(connection, "erased", {"keys": sorted(missing)}, len(marks))
        dropped, missing = len(marks), {}
    switched = not missing and _switch(catalogue, number)
    return Reembedding(done, switched, tuple(f"{plain(key)}: {why}" for key, why in missing.items()), dropped)


def _building(connection: sqlite3.Connection, target: Space) -> int:
    """Number of the space that is being filled: the one of an earlier call, or a new one."""
    active = active_space(connection)
    for (number,) in connection.execute("SELECT id FROM space WHERE id <> ?", (active,)).fetchall():
        begun = read_space(connection, number)
        if begun.digest == target.digest:
            if target.calibration is not None:  # made since the first call
                write_space(connection, number, begun.replace(calibration=target.calibration))
            return int(number)
        # Somebody began to move to a third model: its vectors are of no use any more.
        connection.execute(f"DROP TABLE vector_{int(number)}")
        connection.execute("DELETE FROM space WHERE id = ?", (number,))
    return add_space(connection, target)


def _next(catalogue: FileCatalogue, number: int, after: int) -> list[tuple[int, Row]]:
    """The next rows, by id, that have no vector in the new space."""
    with catalogue.store.read() as connection:
        lines = connection.execute(
            f"SELECT c.id, c.key FROM crop c LEFT JOIN vector_{int(number)} v ON v.crop = c.id "
            "WHERE c.id > ? AND v.crop IS NULL ORDER BY c.id LIMIT ?",
            (after, _BATCH),
        ).fetchall()
        rows = rows_of(connection, [key for _, key in lines])
    return [(crop, rows[key]) for crop, key in lines]


def _keep(catalogue: FileCatalogue, number: int, crops: Sequence[int], halves: NDArray[np.float16]) -> int:
    """Store new vectors of the rows that are still there, in one transaction."""
    with catalogue.store.write() as connection:
        alive = [
            place
            for place, crop in enumerate(crops)
            if connection.execute("SELECT 1 FROM crop WHERE id = ?", (crop,)).fetchone()
        ]
        insert_vectors(connection, number, [crops[place] for place in alive], halves[alive])
    return len(alive)


def _switch(catalogue: FileCatalogue, number: int) -> bool:
    """Search the new space and forget the old one, in one transaction; not if rows came meanwhile."""
    with catalogue.store.write() as connection:
        left = connection.execute(
            f"SELECT 1 FROM crop c LEFT JOIN vector_{int(number)} v ON v.crop = c.id WHERE v.crop IS NULL LIMIT 1"
        ).fetchone()
        if left is not None:
            return False
        old = active_space(connection)
        drop_codes(catalogue.store.folder)
        connection.execute("UPDATE state SET space = ?, purge = 1", (number,))
        connection.execute(f"DROP TABLE vector_{int(old)}")
        connection.execute("DELETE FROM space WHERE id = ?", (old,))
        count = connection.execute("SELECT rows FROM state").fetchone()[0]
        record(connection, "reembedded", {"space": read_space(connection, number).digest}, count)
    return True


def _images(
    catalogue: FileCatalogue, rows: Sequence[Row], model: Model, source: Source, missing: dict[str, str]
) -> tuple[list[tuple[Row, Record]], NDArray[np.uint8]]:
    """Rows with their images ``(n, 3, H, W)`` at the model's size; the others, with the reason, go to ``missing``."""
    if source == "thumbnails":
        return _thumbnails(catalogue, rows, model, missing)
    files = []
    for row in rows:
        if why := _no_file(row):
            missing[row.key] = why
        else:
            files.append((row, Record((row.path or "",), -1, row.camera, Modality(row.modality), -1)))
    kept, pixels = decode(files, model)
    found = {row.key for row, _ in kept}
    missing |= {row.key: "its image cannot be read" for row, _ in files if row.key not in found}
    return kept, pixels


def _no_file(row: Row) -> str:
    if row.path is None:
        return "it was added without a file"
    if row.frames > 1:
        return "it is a tracklet of several files: add it again with the new model"
    if row.frame is not None or row.box is not None:
        return "it is a part of a larger image or video: add that again, or reembed from thumbnails"
    return ""


def _thumbnails(
    catalogue: FileCatalogue, rows: Sequence[Row], model: Model, missing: dict[str, str]
) -> tuple[list[tuple[Row, Record]], NDArray[np.uint8]]:
    data, stored = model.recipe.data, catalogue.thumbnails([row.key for row in rows])
    kept, parts = [], [np.empty((0, 3, data.height, data.width), np.uint8)]
    for row in rows:
        if row.key not in stored:
            missing[row.key] = "no thumbnail"
            continue
        with Image.open(io.BytesIO(stored[row.key]), formats=["WEBP"]) as opened:
            parts.append(resize_rgb(opened.convert("RGB"), data.height, data.width, data.interpolation)[None])
        kept.append((row, Record((row.key,), -1, row.camera, Modality(row.modality), -1)))
    return kept, np.concatenate(parts)
