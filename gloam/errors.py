"""The one exception for mistakes that a user can repair, and what the machine's own failures mean to a user."""

from __future__ import annotations

import difflib
import errno
import os
import re
from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class GloamError(Exception):
    """A user's mistake or a broken input: the message names the cause and the cure.

    The command line prints it without a traceback and exits with code 2. Programming errors raise ordinary exceptions.
    """


class WriteError(GloamError):
    """A file could not be written: a full disk, a read-only folder, a folder where a file is meant.

    Attributes:
        errno: the system's error number, or None.
    """

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno


class MemoryShortage(GloamError):
    """Memory of the machine or of its GPU ran out."""


# Error number -> what happened, and what to do.
_CAUSES = {
    errno.ENOSPC: ("no space is left on the disk", "Free some space, or name another place."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space, or name another place."),
    errno.EFBIG: (
        "the file grew beyond the largest size allowed",
        "Raise the limit (ulimit -f), or name another place.",
    ),
    errno.EROFS: ("the file system is read-only", "Name another place."),
    errno.EACCES: ("permission is denied", "Change its permissions, or name another place."),
    errno.EPERM: ("permission is denied", "Change its permissions, or name another place."),
    errno.EISDIR: ("it is a folder where a file is meant", "Name a file."),
    errno.ENOTDIR: ("a part of this path is a file, not a folder", "Name another place."),
    errno.ENOENT: ("there is no such file or folder", "Check the path."),
    errno.EEXIST: ("it exists already", "Name another place."),
    errno.ENAMETOOLONG: ("the name is too long", "Name another place."),
    errno.ELOOP: ("its symbolic links lead in a circle", "Name another place."),
    errno.EMFILE: ("too many files are open", "Raise the limit (ulimit -n), or use fewer --data.workers."),
    errno.ENFILE: ("too many files are open", "Use fewer --data.workers."),
    errno.EIO: ("the disk failed", "Try again; if it stays, the disk or the network drive is broken."),
    errno.ESTALE: ("the network drive lost the file", "Try again."),
}
# How writers outside Python report what the disk said: torch often by a wrong position only, safetensors in words.
_WRITER = re.compile(
    r"unexpected pos \d+ vs \d+|iostream error|PytorchStreamWriter failed writing|I/O error: .*?\(os error (\d+)\)"
)
_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory|CUBLAS_STATUS_ALLOC_FAILED", re.IGNORECASE)
_LOADER = re.compile(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\) (?:is killed by signal: (\w+)|exited)")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that names the nearest known words, or lists them all.

    Args:
        word: what the user wrote.
        known: every word that would have been right.
    """
    choices = sorted(known)
    near = difflib.get_close_matches(word, choices, n=3, cutoff=0.5)
    if near:
        return f"Did you mean {' or '.join(repr(n) for n in near)}?"
    return f"Known: {', '.join(choices)}." if choices else "None are known."


def explain(error: BaseException) -> GloamError | None:
    """What a failure of the machine means to a user: full disks, missing rights, short memory, killed processes.

    Args:
        error: anything that was raised.

    Returns:
        An error to print, or None for a programming error, whose traceback is wanted.
    """
    if isinstance(error, GloamError):
        return _without_worker_traceback(error)
    if is_memory_shortage(error):
        return MemoryShortage(
            f"The memory ran out ({_first_line(error)}). Use smaller batches (train: --sampler.identities or "
            "--sampler.batch-size; others: --batch-size), smaller images, or fewer --data.workers."
        )
    if found := _LOADER.search(str(error)):
        how = f"was killed (signal {found[2]})" if found[2] else "ended"
        return GloamError(
            f"A loader process (pid {found[1].strip()}) {how}; most often memory ran out. Use fewer --data.workers. "
            "A training run goes on from its last checkpoint with --resume."
        )
    if (failure := write_failure(error)) is not None:
        return GloamError(describe(failure))
    if isinstance(error, UnicodeEncodeError):
        return GloamError(
            f"A name cannot be written as text: {error.object[:200]!r} is not valid {error.encoding}. Rename the file."
        )
    return None


def describe(error: OSError, path: str | os.PathLike[str] | None = None) -> str:
    """One or two sentences about a failure of the file system: where, why, what to do.

    Args:
        error: the failure.
        path: the file to name instead of the error's own (a temporary name says nothing to a user).
    """
    cause, cure = _CAUSES.get(error.errno or 0, (error.strerror or _first_line(error), ""))
    place = path if path is not None else error.filename
    if isinstance(place, bytes):
        place = os.fsdecode(place)
    return f"{place}: {cause}. {cure}".strip() if place is not None else f"A file failed: {cause}. {cure}".strip()


def write_failure(error: BaseException) -> OSError | None:
    """A failure to write as the error that Python's own files raise, however the writer says it; None for others.

    Args:
        error: anything that was raised while a file was written.
    """
    if isinstance(error, OSError):
        return error
    found = None if isinstance(error, GloamError) else _WRITER.search(str(error))
    if found is None:
        return None
    number = int(found[1]) if found[1] else errno.ENOSPC
    return OSError(number, os.strerror(number))


def is_memory_shortage(error: BaseException) -> bool:
    """True where memory of the machine or a GPU ran out, however the library at hand says it."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    # torch raises OutOfMemoryError for GPUs and a RuntimeError for the CPU; it is not imported here.
    return isinstance(error, RuntimeError) and _MEMORY.search(str(error)) is not None


def fitting(function: Callable[P, T], advice: str) -> Callable[P, T]:
    """``function`` whose shortage of memory is told with what to try.

    Args:
        function: what needs the memory.
        advice: a sentence, for example the batch size to try.

    Returns:
        The same function; it raises :class:`MemoryShortage` where memory runs out.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except (MemoryError, RuntimeError, OSError) as error:
            if isinstance(error, GloamError) or not is_memory_shortage(error):
                raise
            raise MemoryShortage(f"The memory ran out ({_first_line(error)}). {advice}") from error

    return call


def smaller(size: int) -> int:
    """The batch size to try after one that did not fit."""
    return max(1, size // 2)


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__


def _without_worker_traceback(error: GloamError) -> GloamError:
    """A loader's worker hands an error over as the text of its whole traceback; the last sentence is what was said."""
    text = str(error)
    if "Original Traceback (most recent call last)" not in text:
        return error
    return GloamError(re.split(r"\n[\w.]+(?:Error|Exception|Shortage): ", text)[-1].strip())
