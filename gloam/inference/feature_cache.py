"""Test features kept on disk: scores, figures and reports of one model extract once.

A file ``features/<digest>.npz`` of the cache folder holds the vectors of some records. The digest says which model made
them of which files; nothing else is needed to know that they are what would be computed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from torch import Tensor

from gloam import __version__
from gloam.atomic import atomic_path
from gloam.datasets.records import Record
from gloam.errors import GloamError, WriteError, describe
from gloam.inference.features import Features
from gloam.inference.model import Model
from gloam.pixels.cache import CacheKey, cache_folder
from gloam.pixels.store import image_paths

FOLDER = "features"
LIMIT_GIB = 4.0
_LIMIT_NAME = "GLOAM_FEATURE_CACHE_GIB"
_FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KeptFeatures:
    """One file of features.

    Attributes:
        path: the file.
        model: what its model was called.
        root: folder of the images.
        count: rows; 0 where the file cannot be read.
        size: bytes.
        used: when it was last read or written, seconds since 1970.
    """

    path: Path
    model: str
    root: str
    count: int
    size: int
    used: float

    @property
    def name(self) -> str:
        """What commands call it."""
        return self.path.stem


def features_folder() -> Path:
    """Where features are kept."""
    return cache_folder() / FOLDER


def size_limit() -> int:
    """Bytes that all kept features together may take; 0: nothing is kept.

    Raises:
        GloamError: ``$GLOAM_FEATURE_CACHE_GIB`` is no number.
    """
    text = os.environ.get(_LIMIT_NAME, "").strip()
    try:
        gib = float(text) if text else LIMIT_GIB
    except ValueError:
        gib = -1.0
    if not 0 <= gib < float("inf"):
        raise GloamError(f"{_LIMIT_NAME}={text!r} is no size. Give a number of GiB; 0 keeps no features.")
    return int(gib * 2**30)


def features_digest(model: Model, records: Sequence[Record], root: Path, batch_size: int) -> str:
    """Name of the features of records: all that their bits depend on.

    The model's fingerprint, the image files with their sizes and times, how frames make records, and what changes the
    last bits: batch size, kind of device, versions of the software.

    Raises:
        GloamError: image files are missing.
    """
    data = model.recipe.data
    pixels = CacheKey(root, image_paths(records), data.height, data.width, data.interpolation, data.stretch).digest()
    about = [_FORMAT, __version__, torch.__version__, PIL.__version__, model.fingerprint.digest, pixels]
    hasher = hashlib.sha256(json.dumps([*about, batch_size, model.device.type]).encode())
    for record in records:
        hasher.update(f"{len(record.paths)} {int(record.modality)}\n".encode())
    return hasher.hexdigest()[:20]


def keep_features(
    model: Model,
    records: Sequence[Record],
    root: Path,
    *,
    batch_size: int,
    extract: Callable[[], Features],
    fresh: bool = False,
) -> tuple[Features, bool]:
    """Features of records from the cache, or computed and put there.

    Args:
        model: made, or makes, them.
        records: N records.
        root: folder of their images.
        batch_size: images per forward pass.
        extract: computes them.
        fresh: compute them in any case.

    Returns:
        The features, and whether they were there already.
    """
    if size_limit() == 0:
        return extract(), False
    file = features_folder() / f"{features_digest(model, records, root, batch_size)}.npz"
    vectors = None if fresh else _read(file, len(records))
    if vectors is not None:
        try:
            found = Features.of_records(vectors, records, model.fingerprint)
        except GloamError:  # not of unit length: a damaged file
            pass
        else:
            with contextlib.suppress(OSError):  # a cache that may only be read
                os.utime(file)
            return found, True
    features = extract()
    _write(file, features, root)
    return features, False


def list_features(folder: Path | None = None) -> list[KeptFeatures]:
    """All files of kept features, the last used first.

    Args:
        folder: of all caches; the default one if not given.
    """
    place = features_folder() if folder is None else folder / FOLDER
    found = []
    for path in place.glob("*.npz"):
        with contextlib.suppress(OSError):  # another process has just removed it
            status = path.stat()
            info = _info(path)
            found.append(
                KeptFeatures(
                    path,
                    str(info.get("model", "")),
                    str(info.get("root", "")),
                    int(info.get("count", 0)),
                    status.st_size,
                    status.st_mtime,
                )
            )
    return sorted(found, key=lambda one: -one.used)


def choose_features(
    kept: Sequence[KeptFeatures], names: Sequence[str] = (), *, days: float | None = None
) -> tuple[list[KeptFeatures], list[str]]:
    """Some of the files.

    Args:
        kept: all.
        names: those with these names, or of images in these folders; all if not given.
        days: only those that nobody has read for so many days.

    Returns:
        The files, and the names that fit none.
    """
    places = {name: {name, Path(name).expanduser().resolve().as_posix()} for name in names}
    chosen = [one for one in kept if not names or any({one.name, one.root} & place for place in places.values())]
    others = [name for name, place in places.items() if not any({one.name, one.root} & place for one in kept)]
    if days is not None:
        chosen = [one for one in chosen if time.time() - one.used > 86400 * days]
    return chosen, others


def clear_features(chosen: Sequence[KeptFeatures]) -> None:
    """Delete files of features.

    Raises:
        WriteError: one may not be deleted.
    """
    for one in chosen:
        try:
            one.path.unlink(missing_ok=True)
        except OSError as error:
            raise WriteError(describe(error, one.path), error.errno) from error


def _read(file: Path, count: int) -> Tensor | None:
    try:
        with np.load(file, allow_pickle=False) as content:
            array = content["features"]
    except Exception:
        # Missing or damaged; NumPy and zipfile raise a dozen kinds, and each means: compute them again.
        return None
    if array.dtype != np.float32 or array.ndim != 2 or len(array) != count:
        return None
    return torch.from_numpy(array)


def _info(path: Path) -> dict[str, Any]:
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(json.loads(str(content["info"].item())))
    except Exception:  # see _read
        return {}


def _write(file: Path, features: Features, root: Path) -> None:
    """Put features into the cache, and the longest unused ones out where it grows too large."""
    array = features.numpy()
    if array.nbytes > size_limit():
        return
    info = {"model": features.fingerprint.name, "root": root.resolve().as_posix(), "count": len(array)}
    try:
        # What people look like: for the owner's eyes only.
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez(stream, features=array, info=np.array(json.dumps(info)))
        kept = list_features(file.parent.parent)
        excess = sum(one.size for one in kept) - size_limit()
        for one in reversed(kept):
            if excess <= 0 or one.path == file:
                break
            one.path.unlink(missing_ok=True)
            excess -= one.size
    except (OSError, WriteError) as error:
        _log.warning("Features cannot be kept in %s (%s); the next command extracts them again.", file.parent, error)
