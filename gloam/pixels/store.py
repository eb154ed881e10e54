"""Decoded uint8 pixels by image number: from a memory-mapped cache, or decoded on the fly with the same result."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import Record
from gloam.errors import GloamError
from gloam.image_files import UnreadableImage
from gloam.pixels.cache import CacheError, CacheKey, cache_folder, ensure_cache
from gloam.pixels.decode import STRETCH, Interpolation, decode_image, parse_stretch

# cache="auto" decodes on the fly above this size: all image benchmarks fit (SYSU-MM01 training: 4 GiB), video does not.
AUTO_CACHE_LIMIT = 16 * 2**30

logger = logging.getLogger(__name__)


class BadImageError(GloamError):
    """Images that cannot be read."""

    def __init__(self, message: str) -> None:
        # A loader's worker process hands an error over as the text of its whole traceback; keep its last sentence.
        super().__init__(message.rsplit(f"{type(self).__name__}: ", 1)[-1].strip())


class PixelStore(Protocol):
    """Images of one size, addressed by their position in a list of paths."""

    @property
    def height(self) -> int:
        """Rows of an image."""

    @property
    def width(self) -> int:
        """Columns of an image."""

    @property
    def bad_indices(self) -> tuple[int, ...]:
        """Images found unreadable when the store was opened with ``on_bad_image="skip"``; see drop_unreadable."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """``(n, 3, H, W)`` uint8: a fresh array with these images in this order."""


def image_paths(records: Sequence[Record]) -> list[str]:
    """All image names in record order: row numbers of a store opened with this list.

    Record ``i`` owns ``len(records[i].paths)`` consecutive rows.
    """
    return list(itertools.chain.from_iterable(record.paths for record in records))


def open_store(
    root: str | Path,
    paths: Sequence[str],
    *,
    height: int,
    width: int,
    interpolation: Interpolation = "lanczos",
    stretch: str = STRETCH,
    cache: str | Path = "auto",
    workers: int | None = None,
    progress: bool = True,
    on_bad_image: Literal["fail", "skip"] = "fail",
) -> PixelStore:
    """Open images for training or testing, decoding them once into a cache where that is wanted.

    Args:
        root: folder that the paths are relative to.
        paths: images; their order gives the row numbers (see ``image_paths``).
        height: rows after resizing.
        width: columns after resizing.
        interpolation: resize filter.
        stretch: how 16-bit and radiometric images become 8-bit: percentiles of each image (``"1%..99%"``) or two
            values of the files (``"7000..9000"``); nothing happens to 8-bit images.
        cache: a folder for caches (built there, or an error); ``"auto"``: the default folder, unless the cache would
            exceed 16 GiB or cannot be kept there, in which case images are decoded on the fly; ``"off"``: on the fly.
        workers: decoding processes (cache) or threads (on the fly); default: one per core.
        progress: show the size and a progress bar while a cache is built.
        on_bad_image: ``"fail"``: an unreadable image is an error (when the cache is built, or else when it is first
            read); ``"skip"``: every image is tried now and the unreadable ones are listed in ``bad_indices``.

    Returns:
        A store; both kinds return bit-identical pixels.

    Raises:
        GloamError: missing or unreadable images, a full disk, an empty name of a cache, a stretch that is none.
    """
    root = Path(root)
    threads = workers or cores()
    parse_stretch(stretch)
    key = CacheKey(root, paths, height, width, interpolation, stretch)
    choice = str(cache) if isinstance(cache, Path) else cache.strip()
    if not choice:
        raise GloamError("The pixel cache has an empty name. Set data.cache to auto, off or a folder.")
    if choice == "auto" and key.num_bytes > AUTO_CACHE_LIMIT:
        choice = "off"
    if choice != "off" and len(paths) > 0:
        try:
            folder = cache_folder() if choice == "auto" else Path(cache).expanduser()
            file, bad = ensure_cache(key, folder, workers=threads, progress=progress)
        except CacheError as error:
            if choice != "auto":
                raise
            logger.warning("%s Decoding on the fly instead.", error)
        else:
            if bad and on_bad_image == "fail":
                raise BadImageError(_bad_message(root, paths, bad, of=len(paths)))
            return CachedStore(file, tuple(sorted(bad)))
    store = DecodingStore(root, paths, height, width, interpolation, threads, stretch)
    if on_bad_image == "skip":
        store.find_bad()
    return store


class CachedStore:
    """Rows of a complete cache file, mapped read-only: processes share one copy in the page cache.

    Args:
        file: ``pixels.npy`` of a complete cache.
        bad_indices: rows of unreadable images.
    """

    def __init__(self, file: Path, bad_indices: tuple[int, ...] = ()) -> None:
        self.bad_indices = bad_indices
        self._file = file
        self._pixels = self._open()

    def _open(self) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = np.lib.format.open_memmap(self._file, mode="r")
        return pixels

    @property
    def height(self) -> int:
        return int(self._pixels.shape[2])

    @property
    def width(self) -> int:
        return int(self._pixels.shape[3])

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.asarray(indices, dtype=np.int64)
        # np.asarray drops the memmap subclass: the result is an ordinary array in memory.
        return np.asarray(self._pixels)[rows]

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry every pixel; a spawned worker opens the file itself.
        return {"file": self._file, "bad_indices": self.bad_indices}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._file, self.bad_indices = state["file"], state["bad_indices"]
        self._pixels = self._open()


class DecodingStore:
    """Decodes at every read, several images at a time (Pillow releases the interpreter lock while it decodes).

    Inside a worker process of a loader it uses one thread: there the processes are the parallelism.

    Args:
        root: folder that the paths are relative to.
        paths: images.
        height: rows after resizing.
        width: columns after resizing.
        interpolation: resize filter.
        threads: number of decoding threads in the main process.
        stretch: see :func:`open_store`.
    """

    def __init__(
        self,
        root: Path,
        paths: Sequence[str],
        height: int,
        width: int,
        interpolation: Interpolation = "lanczos",
        threads: int = 1,
        stretch: str = STRETCH,
    ) -> None:
        self.height = height
        self.width = width
        self.bad_indices: tuple[int, ...] = ()
        self._root = os.fspath(root)
        self._paths = paths
        self._interpolation: Interpolation = interpolation
        self._stretch = stretch
        self._threads = threads
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        rows = np.asarray(indices, dtype=np.int64).tolist()
        out = np.empty((len(rows), 3, self.height, self.width), np.uint8)
        bad = self._decode(rows, out)
        if bad:
            raise BadImageError(_bad_message(Path(self._root), self._paths, bad, of=len(rows)))
        return out

    def find_bad(self) -> tuple[int, ...]:
        """Decode every image once and remember the unreadable ones in ``bad_indices``."""
        self.bad_indices = tuple(sorted(self._decode(range(len(self._paths)), None)))
        return self.bad_indices

    def _decode(self, rows: Sequence[int], out: NDArray[np.uint8] | None) -> dict[int, str]:
        bad: dict[int, str] = {}

        def decode(position: int) -> None:
            row = rows[position]
            path = os.path.join(self._root, self._paths[row])
            try:
                pixels = decode_image(path, self.height, self.width, self._interpolation, self._stretch)
            except UnreadableImage as error:
                bad[row] = str(error)
            else:
                if out is not None:
                    out[position] = pixels

        threads = 1 if multiprocessing.parent_process() is not None else self._threads
        if threads <= 1 or len(rows) <= 1:
            for position in range(len(rows)):
                decode(position)
        else:
            for _ in self._executor(threads).map(decode, range(len(rows))):
                pass
        return bad

    def _executor(self, threads: int) -> ThreadPoolExecutor:
        # Threads do not survive a fork: a pool belongs to the process that made it.
        if self._pool is None or self._pool[0] != os.getpid():
            self._pool = (os.getpid(), ThreadPoolExecutor(threads, thread_name_prefix="gloam-decode"))
        return self._pool[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_pool": None}


class StoreView:
    """Some rows of another store, renumbered from 0.

    Args:
        store: the whole store.
        rows: ``(n,)`` row numbers in it.
    """

    def __init__(self, store: PixelStore, rows: NDArray[np.int64]) -> None:
        self.bad_indices: tuple[int, ...] = ()
        self._store = store
        self._rows = rows

    @property
    def height(self) -> int:
        return self._store.height

    @property
    def width(self) -> int:
        return self._store.width

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._store.read(self._rows[np.asarray(indices, dtype=np.int64)])


def drop_unreadable(records: Sequence[Record], store: PixelStore) -> tuple[list[Record], PixelStore]:
    """Leave out what ``on_bad_image="skip"`` found unreadable: images, and single frames of tracklets.

    Args:
        records: the records that the store was opened for, in the same order.
        store: a store over ``image_paths(records)``.

    Returns:
        The remaining records and a store over ``image_paths`` of them; the arguments themselves when nothing is bad.
    """
    if not store.bad_indices:
        return list(records), store
    bad = frozenset(store.bad_indices)
    kept: list[Record] = []
    rows: list[int] = []
    row = 0
    for record in records:
        good = [k for k in range(len(record.paths)) if row + k not in bad]
        rows.extend(row + k for k in good)
        row += len(record.paths)
        if len(good) == len(record.paths):
            kept.append(record)
        elif good:
            kept.append(replace(record, paths=tuple(record.paths[k] for k in good)))
    dropped = len(records) - len(kept)
    logger.warning("%d unreadable images were skipped; %d records are left out.", len(bad), dropped)
    return kept, StoreView(store, np.asarray(rows, dtype=np.int64))


def _bad_message(root: Path, paths: Sequence[str], bad: Mapping[int, str], *, of: int) -> str:
    rows = sorted(bad)
    listed = "; ".join(f"{root / paths[row]} ({bad[row]})" for row in rows[:5])
    more = f"; and {len(rows) - 5} more" if len(rows) > 5 else ""
    return (
        f"{len(rows)} of {of} images cannot be read: {listed}{more}. Replace them (`gloam data check` lists them "
        "all), or leave them out with --data.on-bad-image skip."
    )


def cores() -> int:
    """Processor cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1
