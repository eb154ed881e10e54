"""All pixel caches of a folder: which there are, whether they are sound, and how to get their space back."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gloam.errors import GloamError, WriteError, describe, did_you_mean
from gloam.pixels.finished_cache import FinishedCache
from gloam.progress import track

if TYPE_CHECKING:
    from rich.table import Table

_CACHE = re.compile(r"([0-9a-f]{20})((?:\.[0-9a-f]{8})?\.partial)?")
_DAY = 86400.0


@dataclass(frozen=True)
class CacheEntry:
    """One cache of a folder.

    Attributes:
        path: its folder.
        state: ``complete``; ``unfinished``: building was interrupted, or goes on now; ``broken``: cannot be opened.
        root: folder of the images, where it is known.
        images: how many.
        size: bytes on disk.
        height: of the images, in pixels.
        width: of the images, in pixels.
        unreadable: images that could not be decoded.
        used: when it was last opened, seconds since 1970.
    """

    path: Path
    state: Literal["complete", "unfinished", "broken"]
    root: str = ""
    images: int = 0
    size: int = 0
    height: int = 0
    width: int = 0
    unreadable: int = 0
    used: float = 0.0

    @property
    def name(self) -> str:
        """What commands call it."""
        return self.path.name


def list_caches(folder: Path) -> list[CacheEntry]:
    """The caches of a folder, the last used first; other files there are left alone.

    Raises:
        GloamError: it is no folder, or may not be read.
    """
    try:
        paths = [Path(entry.path) for entry in os.scandir(folder) if _CACHE.fullmatch(entry.name) and entry.is_dir()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise GloamError(describe(error, folder)) from error
    return sorted((_look(path) for path in paths), key=lambda entry: -entry.used)


def check_caches(
    entries: Sequence[CacheEntry], *, progress: bool = True
) -> Iterator[tuple[CacheEntry, list[int] | None]]:
    """Read every image of caches and compare it with its checksum.

    Args:
        entries: complete caches; others are left out.
        progress: show a bar.

    Yields:
        The cache and its damaged rows (None: of an older version, without checksums).
    """
    for entry in entries:
        found = FinishedCache.open(entry.path, touch=False) if entry.state == "complete" else None
        if found is None:
            continue
        rows = range(entry.images)
        text = f"checking {entry.name}" if progress else None
        yield entry, found.damaged_rows(track(rows, text, total=entry.images))


def clear_caches(entries: Iterable[CacheEntry]) -> tuple[list[CacheEntry], list[CacheEntry]]:
    """Delete caches, but none that a process is building. A process that reads one keeps its pixels.

    Returns:
        What was deleted, and what is being built.

    Raises:
        WriteError: a cache may not be deleted.
    """
    gone: list[CacheEntry] = []
    busy: list[CacheEntry] = []
    for entry in entries:
        lock = entry.path.with_name(entry.name[:20] + ".lock")
        with _unless_built(lock) as free:
            if not free:
                busy.append(entry)
                continue
            try:
                # First out of sight: no other process may open half a cache.
                hidden = entry.path.with_name(f".{entry.name}.gone")
                entry.path.rename(hidden)
                shutil.rmtree(hidden)
                lock.unlink(missing_ok=True)
            except OSError as error:
                raise WriteError(describe(error, entry.path), error.errno) from error
            gone.append(entry)
    return gone, busy


def choose(
    entries: Sequence[CacheEntry], names: Sequence[str] = (), *, days: float | None = None, unfinished: bool = False
) -> list[CacheEntry]:
    """Some of the caches.

    Args:
        entries: all.
        names: those with these names, or whose images lie in these folders; all if not given.
        days: only those that nobody has opened for so many days.
        unfinished: only those that are not complete.

    Raises:
        GloamError: a name that fits none.
    """
    chosen = list(entries)
    if names:
        chosen = []
        for name in names:
            place = str(Path(name).expanduser().resolve())
            found = [
                entry for entry in entries if name == entry.name or (entry.root and place == _resolved(entry.root))
            ]
            if not found:
                known = [entry.name for entry in entries] + [entry.root for entry in entries if entry.root]
                raise GloamError(f"There is no cache {name!r}. {did_you_mean(name, known)}")
            chosen += [entry for entry in found if entry not in chosen]
    if days is not None:
        chosen = [entry for entry in chosen if time.time() - entry.used > days * _DAY]
    return [entry for entry in chosen if not unfinished or entry.state != "complete"]


def cache_table(entries: Sequence[CacheEntry], folder: Path) -> Table:
    """Caches as a rich table; names are never cut, in 80 columns neither."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"pixel caches in {folder}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("name", no_wrap=True, min_width=20)
    table.add_column("images", overflow="fold")
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    for entry in entries:
        images = f"{entry.images:,} of {entry.height} x {entry.width}" if entry.images else entry.state
        images += f", {entry.unreadable} unreadable" if entry.unreadable else ""
        used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
        table.add_row(entry.name, f"{images}\n{entry.root}".strip(), size_text(entry.size), used)
    return table


def size_text(size: int) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**27 else f"{size / 2**20:.1f} MiB"


def _look(path: Path) -> CacheEntry:
    size = 0
    for file in path.iterdir():
        with contextlib.suppress(OSError):
            size += file.stat().st_blocks * 512 if hasattr(os.stat_result, "st_blocks") else file.stat().st_size
    used = path.stat().st_mtime
    if ".partial" in path.name:
        return CacheEntry(path, "unfinished", size=size, used=used)
    found = FinishedCache.open(path, touch=False)
    if found is None:
        return CacheEntry(path, "broken", size=size, used=used)
    info = found.info
    return CacheEntry(
        path,
        "complete",
        root=str(info.get("root", "")),
        images=int(info["count"]),
        size=size,
        height=int(info.get("height", 0)),
        width=int(info.get("width", 0)),
        unreadable=len(found.bad),
        used=used,
    )


def _resolved(path: str) -> str:
    return str(Path(path).resolve()) if path else ""


@contextlib.contextmanager
def _unless_built(lock: Path) -> Iterator[bool]:
    """True while nobody builds the cache of a lock, which is held meanwhile."""
    try:
        import fcntl
    except ImportError:  # Windows: files in use cannot be deleted
        yield True
        return
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True
    finally:
        os.close(descriptor)
