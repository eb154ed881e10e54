"""A pixel cache that is complete: what it holds, whether it is as it was written, and what is to be decoded again.

``info.json`` holds the number of images, the size and the unreadable images; ``checksums.bin`` a CRC-32 for every row
of ``pixels.npy``. Opening a cache checks a random sample of rows; ``gloam cache check`` checks all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gloam.atomic import atomic_path
from gloam.pixels.cache_worker import Bad, file_mark, fill_rows

if TYPE_CHECKING:
    from gloam.pixels.cache import CacheKey

_SUMS = "checksums.bin"  # (N,) uint32, little-endian: no header that could be damaged
SAMPLE = 64  # rows checked when a cache is opened; 8 MB at 288 x 144
_log = logging.getLogger(__name__)


class FinishedCache:
    """One complete cache.

    Args:
        folder: its folder.
        info: content of ``info.json``.

    Attributes:
        pixels: path of the pixels.
        is_damaged: rows were found that are not what was written.
    """

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder, self.info = folder, info
        self.pixels = folder / "pixels.npy"
        self.is_damaged = False
        # Entries of older versions have no mark: nobody knows what the failure was.
        self.bad: dict[int, Bad] = {}
        for row, reason, *rest in info["bad"]:
            mark = rest[0] if rest else None
            self.bad[int(row)] = (int(row), str(reason), None if mark is None else (mark[0], mark[1], mark[2]))

    @classmethod
    def open(cls, folder: Path, count: int | None = None, *, touch: bool = True) -> FinishedCache | None:
        """The cache in a folder; None where it is missing, incomplete or of another number of images.

        Args:
            folder: of the cache.
            count: of its images; any if not given.
            touch: note that it was used.
        """
        try:
            info = json.loads((folder / "info.json").read_text(encoding="utf-8"))
            found = cls(folder, info)
            shape = np.lib.format.open_memmap(found.pixels, mode="r").shape
            if found.pixels.stat().st_size != info["size"] or shape[0] != info["count"]:
                return None
            if count is not None and count != info["count"]:
                return None
            # Older versions wrote neither of the two.
            if "checksum" in info and (info["checksum"] != _checksum(info) or found._sums() is None):
                return None
        except Exception:
            # A damaged header ends in many kinds of errors, tokenize's among them; it is built again in any case.
            return None
        if touch:
            with contextlib.suppress(OSError):
                os.utime(folder)
        return found

    @classmethod
    def write(cls, folder: Path, key: CacheKey, sums: Sequence[int], bad: Iterable[Bad]) -> None:
        """Complete a folder that holds all pixels.

        Args:
            folder: of the cache.
            key: what it holds.
            sums: ``(N,)`` CRC-32 of every row.
            bad: unreadable images.

        Raises:
            WriteError: the disk is full.
        """
        info = {"count": len(key.paths), "size": (folder / "pixels.npy").stat().st_size, "bad": sorted(bad)}
        info |= {"height": key.height, "width": key.width, "interpolation": key.interpolation, "root": str(key.root)}
        _write_sums(folder, sums)
        _write_info(folder, info)

    @property
    def reasons(self) -> dict[int, str]:
        """Why an image is unreadable, by row."""
        return {row: reason for row, (_, reason, _) in self.bad.items()}

    def damaged_rows(self, rows: Iterable[int] | None = None) -> list[int] | None:
        """Rows that are not what was written.

        Args:
            rows: which to check; all if not given.

        Returns:
            Row numbers, or None for a cache of an older version, which has no checksums.
        """
        sums = self._sums()
        if sums is None:
            return None
        pixels = np.lib.format.open_memmap(self.pixels, mode="r")
        every = range(len(pixels)) if rows is None else rows
        return [row for row in every if _checksum_of(pixels[row]) != int(sums[row])]

    def needs_work(self, root: Path, paths: Sequence[str]) -> bool:
        """Are rows of a random sample damaged, or may an unreadable image be another file by now?"""
        # Whoever opens a cache looks elsewhere: no seed, and no generator that anything else draws from.
        sample = random.SystemRandom().sample(range(len(paths)), min(SAMPLE, len(paths)))
        self.is_damaged = bool(self.damaged_rows(sample))
        return self.is_damaged or bool(self._changed(root, paths))

    def redo(self, key: CacheKey, *, check_all: bool = False) -> None:
        """Decode damaged rows and unreadable images that may be readable by now; the caller holds the cache's lock.

        Args:
            key: what the cache holds.
            check_all: look for damage in every row, not in a sample.

        Raises:
            OSError: the cache may not be written.
            WriteError: the same.
        """
        damaged: list[int] = []
        if check_all or self.needs_work(key.root, key.paths):
            damaged = self.damaged_rows() or []
        rows = sorted({*damaged, *self._changed(key.root, key.paths)})
        if not rows:
            return
        if damaged:
            self.is_damaged = True
            _log.warning(
                "%d of %d images in the pixel cache %s are not what was written (does the disk fail?); decoding them "
                "again.",
                len(damaged),
                len(key.paths),
                self.folder,
            )
        sums = self._sums()
        offset = self.info["size"] - key.num_bytes
        descriptor = os.open(self.pixels, os.O_WRONLY)
        try:
            items = [(row, key.paths[row]) for row in rows]
            bad, new = fill_rows(
                descriptor, offset, items, os.fspath(key.root), key.height, key.width, key.interpolation, key.stretch
            )
        finally:
            os.close(descriptor)
        for row in rows:
            self.bad.pop(row, None)
        self.bad |= {row: (row, reason, mark) for row, reason, mark in bad}
        if sums is None:  # an older version's: from now on it is watched
            pixels = np.lib.format.open_memmap(self.pixels, mode="r")
            sums = np.array([_checksum_of(row) for row in pixels], dtype="<u4")
        sums[rows] = new
        _write_sums(self.folder, sums)
        _write_info(self.folder, self.info | {"bad": sorted(self.bad.values())})
        self.is_damaged = False

    def _changed(self, root: Path, paths: Sequence[str]) -> list[int]:
        """Unreadable images whose file could not be reached, or is not the one that was tried."""
        return [
            row for row, (_, _, mark) in self.bad.items() if mark is None or mark != file_mark(str(root / paths[row]))
        ]

    def _sums(self) -> NDArray[np.uint32] | None:
        try:
            sums: NDArray[np.uint32] = np.fromfile(self.folder / _SUMS, dtype="<u4")
        except OSError:
            return None
        return sums if len(sums) == self.info["count"] else None


def _checksum_of(pixels: NDArray[np.uint8]) -> int:
    return zlib.crc32(np.ascontiguousarray(pixels).reshape(-1).data)


def _write_sums(folder: Path, sums: Sequence[int] | NDArray[np.uint32]) -> None:
    with atomic_path(folder / _SUMS) as temporary:
        temporary.write_bytes(np.asarray(sums, dtype="<u4").tobytes())
        temporary.chmod(0o600)


def _write_info(folder: Path, info: dict[str, Any]) -> None:
    plain = json.loads(json.dumps(info))  # tuples become lists, as they will be read
    with atomic_path(folder / "info.json") as temporary:
        temporary.write_text(json.dumps(plain | {"checksum": _checksum(plain)}, indent=1), encoding="utf-8")
        temporary.chmod(0o600)  # file names tell who was seen where


def _checksum(info: dict[str, Any]) -> int:
    """Of everything but itself."""
    return zlib.crc32(json.dumps({k: v for k, v in info.items() if k != "checksum"}, sort_keys=True).encode())
