"""Galleries leave and arrive: feature files, backups while others read and write, merging."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gloam.atomic import atomic_path
from gloam.errors import GloamError
from gloam.gallery.catalogue import FileCatalogue
from gloam.gallery.contract import Catalogue
from gloam.gallery.disk import make_private, private_file, refuse_network, sync_folder
from gloam.gallery.engines.contract import VectorIndex
from gloam.gallery.rows import MODALITIES, Row, plain
from gloam.gallery.store import FILE
from gloam.gallery.where import EVERYTHING, Where

if TYPE_CHECKING:
    from gloam.gallery.adding import Addition
    from gloam.inference.features import Features

Conflict = Literal["fail", "skip", "replace"]
THUMBNAIL = "thumbnail"  # column of an exported table


def load_features(path: Path) -> tuple[Features, list[bytes | None] | None]:
    """A feature file and, if a gallery exported it, its thumbnails.

    Raises:
        GloamError: see :meth:`Features.load`.
    """
    from gloam.inference.features import Features

    features = Features.load(path)
    if THUMBNAIL not in features.columns:
        return features, None
    images = [value if isinstance(value, bytes) else None for value in features.columns[THUMBNAIL].tolist()]
    return Features(features.vectors, features.columns.drop(columns=[THUMBNAIL]), features.fingerprint), images


def export_table(catalogue: Catalogue, index: VectorIndex, path: Path, where: Where = EVERYTHING) -> int:
    """Write rows with vectors and thumbnails as one Parquet file, block by block; ``Features.load`` reads it too.

    Returns:
        Number of rows.

    Raises:
        GloamError: another suffix.
    """
    import pyarrow
    import pyarrow.parquet

    from gloam.inference.feature_files import ABOUT

    if path.suffix != ".parquet":
        raise GloamError(f"{path}: rows are exported to .parquet; a name without suffix makes a backup folder.")
    space, count = catalogue.space, 0
    schema = _schema(space.dim, dict(zip(ABOUT, (space.digest, space.name), strict=True)))
    with atomic_path(path) as temporary:
        make_private(temporary)
        with pyarrow.parquet.ParquetWriter(temporary, schema) as writer:
            for rows in catalogue.scan(where):
                keys = [row.key for row in rows]
                images = catalogue.thumbnails(keys)
                table = _table(rows, index.vectors(keys), [images.get(key) for key in keys])
                writer.write_table(pyarrow.Table.from_pydict(table, schema=schema))
                count += len(rows)
    catalogue.record("exported", {"where": str(where), "file": str(path)}, count)
    return count


def backup(catalogue: Catalogue, folder: Path) -> int:
    """Copy a gallery folder as it is at one moment, while others read and write it.

    Returns:
        Number of rows.

    Raises:
        GloamError: not a gallery in a folder, something is there already, a full disk.
    """
    if not isinstance(catalogue, FileCatalogue):
        raise GloamError("A gallery in a Qdrant cluster is backed up by its snapshots; rows leave it as .parquet.")
    if folder.exists():
        raise GloamError(f"{folder} exists already. Choose another name.")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    refuse_network(folder.absolute().parent)
    temporary = folder.absolute().parent / f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir(mode=0o700)
    try:
        private_file(temporary / FILE)
        with catalogue.store.errors():
            with contextlib.closing(sqlite3.connect(temporary / FILE)) as target, catalogue.store.alone() as source:
                source.backup(target)
                count = int(target.execute("SELECT rows FROM state").fetchone()[0])
            descriptor = os.open(temporary / FILE, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
        sync_folder(temporary)
        temporary.rename(folder)
        sync_folder(folder.absolute().parent)
    except OSError as error:
        raise GloamError(f"{folder} could not be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    catalogue.record("exported", {"file": str(folder)}, count)
    return count


def merge(
    catalogue: Catalogue,
    index: VectorIndex,
    other: Catalogue,
    other_index: VectorIndex,
    *,
    conflict: Conflict = "fail",
    prefix: str = "",
) -> Addition:
    """Copy all rows of another gallery of the same model.

    Args:
        catalogue: of the gallery that grows.
        index: of the gallery that grows.
        other: of the gallery that is read.
        other_index: of the gallery that is read.
        conflict: a key that both have with different content: ``fail`` before anything is copied, ``skip`` it, or
            ``replace`` the own row.
        prefix: put before every key of the other gallery.

    Raises:
        GloamError: different models, or conflicts.
    """
    from gloam.gallery.adding import Addition

    catalogue.space.require(other.space.fingerprint, f"the rows of {other.name}")
    if catalogue.space.calibration is None and other.space.calibration is not None:
        catalogue.save_space(catalogue.space.replace(calibration=other.space.calibration))
    if conflict == "fail" and (both := _conflicts(catalogue, index, other, other_index, prefix)):
        raise GloamError(
            f"{len(both):,} keys are in both galleries with different content, {plain(both[0])} for one. Give "
            "--conflict skip or replace, or names of their own with --prefix."
        )
    total = Addition()
    for rows, vectors, images in _batches(other, other_index, prefix):
        stored = catalogue.rows([row.key for row in rows])
        here = [number for number, row in enumerate(rows) if row.key in stored]
        own = index.vectors([rows[number].key for number in here]) if here else vectors[:0]
        kept = {
            number
            for number, vector in zip(here, own, strict=True)
            if conflict == "skip"
            or (stored[rows[number].key] == rows[number] and np.array_equal(vector, vectors[number]))
        }
        total.unchanged += len(kept)
        wanted = [number for number in range(len(rows)) if number not in kept]
        if wanted:
            part = [rows[number] for number in wanted]
            added = index.upsert(part, vectors[wanted], [images[number] for number in wanted])
            total.new += added.new
            total.updated += added.updated
    index.sync()
    return total


def _conflicts(
    catalogue: Catalogue, index: VectorIndex, other: Catalogue, other_index: VectorIndex, prefix: str
) -> list[str]:
    """Keys that both galleries have, with other facts or another vector."""
    found = []
    for rows, vectors, _ in _batches(other, other_index, prefix):
        stored = catalogue.rows([row.key for row in rows])
        both = [number for number, row in enumerate(rows) if row.key in stored]
        if both:
            own = index.vectors([rows[number].key for number in both])
            found += [
                rows[number].key
                for number, vector in zip(both, own, strict=True)
                if stored[rows[number].key] != rows[number] or not np.array_equal(vector, vectors[number])
            ]
    return found


def _batches(
    other: Catalogue, other_index: VectorIndex, prefix: str
) -> Iterator[tuple[list[Row], Any, list[bytes | None]]]:
    for rows in other.scan():
        keys = [row.key for row in rows]
        images = other.thumbnails(keys)
        named = [row._replace(key=prefix + row.key) for row in rows] if prefix else rows
        yield named, other_index.vectors(keys), [images.get(key) for key in keys]


def _schema(dim: int, about: dict[str, str]) -> Any:
    import json

    import pyarrow

    kinds = {
        "feature": pyarrow.list_(pyarrow.float32(), dim),
        "key": pyarrow.string(),
        "path": pyarrow.string(),
        "root": pyarrow.string(),
        "frame": pyarrow.int64(),
        "box": pyarrow.list_(pyarrow.float64()),
        "frames": pyarrow.int64(),
        "pid": pyarrow.string(),
        "cam": pyarrow.int64(),
        "modality": pyarrow.string(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "tracklet": pyarrow.string(),
        "sha256": pyarrow.string(),
        THUMBNAIL: pyarrow.binary(),
    }
    return pyarrow.schema(list(kinds.items()), metadata={b"gloam": json.dumps(about).encode()})


def _table(rows: Sequence[Row], vectors: Any, images: Sequence[bytes | None]) -> dict[str, Any]:
    """Columns of an export. Vectors are those that are stored, scaled to length 1 again."""
    import pandas as pd

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return {
        "feature": list((vectors / lengths).astype(np.float32)),
        "key": [row.key for row in rows],
        "path": [row.path for row in rows],
        "root": [row.root for row in rows],
        "frame": [row.frame for row in rows],
        "box": [None if row.box is None else list(row.box) for row in rows],
        "frames": [row.frames for row in rows],
        "pid": ["-1" if row.person is None else row.person for row in rows],
        "cam": [row.camera for row in rows],
        "modality": [MODALITIES[row.modality] for row in rows],
        "time": [None if row.time is None else pd.Timestamp(row.time, unit="us", tz="UTC") for row in rows],
        "tracklet": [row.tracklet for row in rows],
        "sha256": [None if row.sha256 is None else row.sha256.hex() for row in rows],
        THUMBNAIL: list(images),
    }
