"""Writing files so that a crash never leaves half of one under its final name."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from gloam.errors import WriteError, describe, write_failure

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST = 200  # bytes of a name that its temporary name repeats; file systems end at 255

# Tests put a function here that ends the process between two steps of a write: it gets the step and the path.
on_step: Callable[[str, Path], None] | None = None


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; flush it to disk and rename it into place on success.

    On any exception (a full disk too) the temporary file is removed and an existing ``path`` stays as it was.
    Parent folders are created. The rename is atomic because both names lie in one folder. While the block runs the
    temporary file is locked, which tells :func:`sweep` that its writer lives.

    Raises:
        WriteError: the disk is full, the folder is read-only, or the path is a folder.
    """
    final = Path(path)
    stem = os.fsdecode(os.fsencode(final.name)[:_LONGEST])
    temporary = final.with_name(f".{stem}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if final.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(final))
        with _locked(temporary):
            _step("open", temporary)
            yield temporary
            _step("written", temporary)
            _flush(temporary)
            _step("flushed", temporary)
            os.replace(temporary, final)
            _step("renamed", final)
        _flush_folder(final.parent)
    except Exception as error:
        failure = write_failure(error)
        if failure is None:
            raise
        # The parent's own path where that is what cannot be made.
        blamed = final if failure.filename in (None, os.fspath(temporary)) else failure.filename
        raise WriteError(f"{describe(failure, blamed)} Nothing was written.", failure.errno) from error
    finally:
        # On a file system that has failed this may fail too; the first error is the one to tell.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path`` atomically.

    Raises:
        WriteError: it cannot be written; an existing file stays as it was.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: str | Path) -> None:
    """Delete a file if it is there.

    Raises:
        WriteError: it may not be deleted.
    """
    place = Path(path)
    _step("remove", place)
    try:
        place.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(describe(error, place), error.errno) from error
    _step("removed", place)


def sweep(folder: str | Path) -> list[Path]:
    """Delete temporary files that killed writers left in a folder, never those of a writer that lives.

    Args:
        folder: where to look; folders below it are not touched.

    Returns:
        What was deleted.
    """
    gone: list[Path] = []
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return gone
    for name in sorted(names):
        path = Path(folder) / name
        if _TEMPORARY.fullmatch(name) and not _has_writer(path):
            with contextlib.suppress(OSError):
                path.unlink()
                gone.append(path)
    return gone


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Create a file and hold a lock on it that the kernel frees when this process ends."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        import fcntl
    except ImportError:  # Windows: an open file could not be renamed
        os.close(descriptor)
        yield
        return
    try:
        with contextlib.suppress(OSError):  # a network file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _has_writer(path: Path) -> bool:
    """True while a process writes the file, and where that cannot be told."""
    try:
        import fcntl
    except ImportError:  # Windows does not delete a file that is open
        return False
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0))
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Make a rename survive a power cut; some file systems cannot, and that is no reason to fail."""
    with contextlib.suppress(OSError):
        _flush(path)


def _step(name: str, path: Path) -> None:
    if on_step is not None:
        on_step(name, path)
