"""The pixel cache on disk: decoded uint8 images in one memory-mappable file per (file list, size, filter).

A cache is a folder ``<digest>/`` with ``pixels.npy`` ``(N, 3, H, W)``, ``checksums.bin`` and ``info.json``
(``gloam.pixels.finished_cache``). It is built as ``<digest>.partial/`` under a file lock and renamed when complete.
``done.jsonl`` in the partial folder lists the chunks that are safely on disk, so a builder that was killed is continued
by the next one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from gloam.console import console
from gloam.errors import GloamError, WriteError
from gloam.image_files import holds_deep
from gloam.pixels.cache_worker import Bad, fill_rows
from gloam.pixels.decode import STRETCH, Interpolation
from gloam.pixels.finished_cache import FinishedCache

CHUNK = 256  # images between two "safely on disk" marks; 32 MB at 288 x 144
_FORMAT = 1
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class CacheError(GloamError):
    """The cache cannot be kept in the wanted folder: the disk is full or may not be written."""


@dataclass(frozen=True)
class CacheKey:
    """Everything that decides the content of a cache.

    Attributes:
        root: folder of the images.
        paths: images relative to it, in row order.
        height: rows of an image.
        width: columns of an image.
        interpolation: resize filter.
        stretch: how images of more than 8 bits become 8-bit.
    """

    root: Path
    paths: Sequence[str]
    height: int
    width: int
    interpolation: Interpolation
    stretch: str = STRETCH

    @property
    def num_bytes(self) -> int:
        """Size of the pixels."""
        return len(self.paths) * 3 * self.height * self.width

    def digest(self) -> str:
        """Hash over root, file list, file sizes and times, target size, filter and the decoder's version.

        The stretch counts where an image has more than 8 bits.

        Raises:
            GloamError: files are missing; the first ones are named.
        """
        header = [_FORMAT, PIL.__version__, self.root.resolve().as_posix(), self.height, self.width, self.interpolation]
        hasher = hashlib.sha256(json.dumps(header).encode())
        missing: list[str] = []
        root = os.fspath(self.root)
        deep = False
        for path in self.paths:
            try:
                status = os.stat(os.path.join(root, path))
            except OSError:
                missing.append(path)
                continue
            hasher.update(f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
            deep = deep or holds_deep(os.path.join(root, path))
        if deep:
            hasher.update(f"stretch {self.stretch}".encode())
        if missing:
            raise GloamError(
                f"{len(missing)} of {len(self.paths)} images are missing under {self.root}, "
                f"the first: {', '.join(missing[:5])}. Is the dataset unpacked completely?"
            )
        return hasher.hexdigest()[:20]


def cache_folder() -> Path:
    """Where caches go by default: ``$GLOAM_CACHE``, or ``gloam`` in the user's cache folder."""
    if own := os.environ.get("GLOAM_CACHE"):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gloam"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home())) / "gloam"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gloam"


def ensure_cache(key: CacheKey, folder: Path, *, workers: int, progress: bool = True) -> tuple[Path, dict[int, str]]:
    """Build the cache, continue one that was interrupted, or find it complete.

    Several processes may call this at once: one builds, the others wait for it. Where the file system has no locks,
    each builds its own copy and the first to finish wins.

    Args:
        key: what to decode.
        folder: where caches live; created if missing.
        workers: number of decoding processes; 1 decodes in this process.
        progress: show the size before, and a progress bar while, building.

    Returns:
        Path of ``pixels.npy``, and the reason by row of every unreadable image (their rows are zeros).

    Raises:
        CacheError: a folder that cannot be written, or not enough space before or while building (nothing is left).
        GloamError: missing images.
    """
    digest = key.digest()
    final = folder / digest
    found = FinishedCache.open(final, len(key.paths))
    if found is not None and not found.needs_work(key.root, key.paths):
        return found.pixels, found.reasons
    was_damaged = found is not None and found.is_damaged
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _lock(folder / f"{digest}.lock", progress) as locked:
            if FinishedCache.open(final, len(key.paths)) is None:
                partial = folder / (f"{digest}.partial" if locked else f"{digest}.{uuid.uuid4().hex[:8]}.partial")
                _build(key, partial, workers=workers, progress=progress)
                _move_into_place(partial, final, key)
            found = FinishedCache.open(final, len(key.paths))
            if found is not None:
                found.redo(key, check_all=was_damaged)
    except (OSError, WriteError) as error:
        if error.errno in _DISK_FULL:
            raise _disk_full(key, folder, str(error)) from error
        if found is not None and not was_damaged and not found.is_damaged:
            return found.pixels, found.reasons  # somebody else's cache, which this process may only read
        raise CacheError(
            f"The pixel cache in {folder} cannot be written ({error}). "
            "Name another folder (--data.cache DIR or GLOAM_CACHE), or switch it off (--data.cache off)."
        ) from error
    if found is None:
        raise GloamError(f"The pixel cache {final} vanished while it was opened. Start again.")
    return found.pixels, found.reasons


def _build(key: CacheKey, partial: Path, *, workers: int, progress: bool) -> None:
    file, marks = partial / "pixels.npy", partial / "done.jsonl"
    shape = (len(key.paths), 3, key.height, key.width)
    done, bad = _read_marks(marks) if _is_usable(file, shape) else (dict[int, list[int]](), list[Bad]())
    chunks = [c for c in range(0, len(key.paths), CHUNK) if c not in done]
    needed = min(len(chunks) * CHUNK, len(key.paths)) * 3 * key.height * key.width
    try:
        if not done:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        # Images of people: for the owner's eyes only.
        partial.chmod(0o700)
        free = shutil.disk_usage(partial).free
        if free < needed + needed // 100:
            raise _disk_full(key, partial.parent, f"{_size(needed)} are needed, {_size(free)} are free")
        if not done:
            for name in (file, marks):
                name.touch(mode=0o600)
            pixels: NDArray[np.uint8] = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=shape)
            del pixels
        offset = file.stat().st_size - key.num_bytes
        with _report(key, partial.parent, len(chunks), progress) as advance, marks.open("a", encoding="utf-8") as log:
            for chunk, (failures, sums) in _decode_chunks(key, file, offset, chunks, workers):
                log.write(json.dumps([chunk, failures, sums]) + "\n")
                log.flush()
                bad += failures
                done[chunk] = sums
                advance(min(CHUNK, len(key.paths) - chunk))
        FinishedCache.write(partial, key, [value for chunk in sorted(done) for value in done[chunk]], bad)
    except (OSError, CacheError, WriteError) as error:
        # A build that was merely interrupted stays for the next one; a full disk must be given back its space.
        if isinstance(error, CacheError) or error.errno in _DISK_FULL:
            shutil.rmtree(partial, ignore_errors=True)
        raise


def _decode_chunks(
    key: CacheKey, file: Path, offset: int, chunks: Sequence[int], workers: int
) -> Iterator[tuple[int, tuple[list[Bad], list[int]]]]:
    """Yield (first row, (failures, checksums)) of each chunk when it is safely on disk."""

    def items(chunk: int) -> list[tuple[int, str]]:
        stop = min(chunk + CHUNK, len(key.paths))
        return [(row, key.paths[row]) for row in range(chunk, stop)]

    workers = min(workers, len(chunks)) if sys.executable else 1
    root = os.fspath(key.root)
    if workers <= 1:
        descriptor = os.open(file, os.O_WRONLY)
        try:
            for chunk in chunks:
                yield (
                    chunk,
                    fill_rows(
                        descriptor, offset, items(chunk), root, key.height, key.width, key.interpolation, key.stretch
                    ),
                )
        finally:
            os.close(descriptor)
        return

    setup = {"file": str(file), "offset": offset, "root": root, "height": key.height, "width": key.width}
    setup |= {"interpolation": key.interpolation, "stretch": key.stretch}
    local = threading.local()
    processes: list[subprocess.Popen[str]] = []

    def start() -> None:
        local.process = _start_worker(json.dumps(setup))
        processes.append(local.process)

    def decode(chunk: int) -> tuple[int, tuple[list[Bad], list[int]]]:
        return chunk, _ask(local.process, items(chunk))

    pool = ThreadPoolExecutor(workers, initializer=start)
    try:
        pending = {pool.submit(decode, chunk) for chunk in chunks}
        while pending:
            finished, pending = wait(pending, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
            process.wait()
        pool.shutdown(wait=True)


def _start_worker(setup: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gloam.pixels.cache_worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the builder only, which then ends its workers
    )
    _send(process, setup)
    return process


def _send(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin is None:
        raise ValueError("a worker is started with pipes")
    process.stdin.write(line + "\n")
    process.stdin.flush()


def _ask(process: subprocess.Popen[str], items: list[tuple[int, str]]) -> tuple[list[Bad], list[int]]:
    try:
        _send(process, json.dumps(items))
        answer = process.stdout.readline() if process.stdout is not None else ""
    except BrokenPipeError:
        answer = ""
    if not answer:
        raise GloamError(
            f"A decoding process ended (exit code {process.poll()}) near {items[0][1]}; it may have run out of memory. "
            "Start again with fewer workers: finished parts of the cache are kept."
        )
    reply = json.loads(answer)
    if "errno" in reply:
        raise OSError(reply["errno"], reply["error"])
    return _bad(reply["bad"]), [int(value) for value in reply["sums"]]


def _is_usable(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.lib.format.open_memmap(file, mode="r").shape == shape
    except (OSError, ValueError):
        return False


def _read_marks(marks: Path) -> tuple[dict[int, list[int]], list[Bad]]:
    done: dict[int, list[int]] = {}
    bad: list[Bad] = []
    if marks.exists():
        for line in marks.read_text(encoding="utf-8").splitlines():
            try:
                chunk, failures, sums = json.loads(line)
            except ValueError:  # the last line of a killed builder may be cut; older builders kept no checksums
                continue
            done[int(chunk)] = [int(value) for value in sums]
            bad += _bad(failures)
    return done, bad


def _bad(values: Sequence[Sequence[Any]]) -> list[Bad]:
    return [(int(row), str(reason), tuple(mark) if mark is not None else None) for row, reason, mark in values]


def _move_into_place(partial: Path, final: Path, key: CacheKey) -> None:
    if final.exists() and FinishedCache.open(final, len(key.paths)) is None:  # a damaged cache
        shutil.rmtree(final)
    try:
        partial.rename(final)
    except OSError as error:
        if error.errno not in {errno.EEXIST, errno.ENOTEMPTY}:
            raise
        shutil.rmtree(partial)  # another process was first; both hold the same pixels
    (final / "done.jsonl").unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path, progress: bool) -> Iterator[bool]:
    """Hold an exclusive lock that the kernel frees when its owner dies. Yields False where locks do not exist."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield False
        return
    # Not through a symbolic link, and never emptied: the name may lead to somebody's file.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = True
        except BlockingIOError:
            if progress:
                console(stderr=True).print(f"Another process builds the pixel cache in {path.parent}; waiting for it.")
            fcntl.flock(file, fcntl.LOCK_EX)
            locked = True
        except OSError:  # a network file system without locks
            locked = False
        yield locked


@contextlib.contextmanager
def _report(key: CacheKey, folder: Path, chunks: int, progress: bool) -> Iterator[Callable[[int], None]]:
    if not progress:
        yield lambda count: None
        return
    screen = console(stderr=True)
    screen.print(f"Pixel cache: {len(key.paths):,} images, {_size(key.num_bytes)} in {folder}")
    todo = min(chunks * CHUNK, len(key.paths))
    columns = (
        TextColumn("decoding"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task("decoding", total=len(key.paths), completed=len(key.paths) - todo, speed="")

        def advance(count: int) -> None:
            bar.advance(task, count)
            speed = bar.tasks[0].speed
            bar.update(task, speed=f"{speed:.0f} images/s" if speed else "")

        yield advance


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.1f} MiB"


def _disk_full(key: CacheKey, folder: Path, reason: str) -> CacheError:
    return CacheError(
        f"The pixel cache of {len(key.paths):,} images ({_size(key.num_bytes)}) does not fit into {folder}: "
        f"{reason}. Free some space, name another folder (--data.cache DIR or GLOAM_CACHE), "
        "or decode on the fly (--data.cache off)."
    )
