"""Failures of the machine, in words that a user can act on."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from gloam.errors import GloamError, MemoryShortage, explain, fitting, smaller


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/d/a.npz"), r"/d/a\.npz: no space is left.*another place"),
        (OSError(errno.EROFS, "Read-only file system", b"/d/a"), r"/d/a: the file system is read-only"),
        (PermissionError(errno.EACCES, "Permission denied", "/d/a"), "permission is denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/d"), "folder where a file is meant"),
        (OSError(errno.EMFILE, "Too many open files", "/d/a"), r"ulimit -n.*workers"),
        (OSError(errno.EPROTO, "Protocol error", "/d/a"), "/d/a: Protocol error"),
        (OSError("no number at all"), "no number at all"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory ran out"),
        (MemoryError(), "memory ran out.*batch"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), "memory ran out.*20.00 MiB"),
        (RuntimeError("DataLoader worker (pid 812) is killed by signal: Killed. "), r"pid 812.*signal Killed.*workers"),
        (RuntimeError("DataLoader worker (pid(s) 8, 12) exited unexpectedly"), r"pid 8, 12\) ended"),
        (UnicodeEncodeError("utf-8", "a\udcff.jpg", 1, 2, "surrogates"), r"'a\\udcff.jpg' is not valid utf-8"),
    ],
)
def test_failures_of_the_machine_are_explained(error: Exception, message: str) -> None:
    told = explain(error)
    assert isinstance(told, GloamError)
    assert "\n" not in str(told)
    with pytest.raises(GloamError, match=message):
        raise told


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("shape mismatch"), KeyError("k"), AssertionError()])
def test_programming_errors_keep_their_traceback(error: Exception) -> None:
    assert explain(error) is None


def test_an_error_of_a_loader_process_is_its_last_sentence() -> None:
    text = (
        "Caught GloamError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 3, in f\ngloam.errors.GloamError: a.jpg cannot be read. Replace it.\n'
    )
    assert str(explain(GloamError(text))) == "a.jpg cannot be read. Replace it."


def test_the_allocation_error_of_torch_is_a_memory_shortage() -> None:
    with pytest.raises(MemoryShortage, match="Try a batch size of 32"):
        fitting(lambda: torch.empty(1 << 60), f"Try a batch size of {smaller(64)}.")()
    with pytest.raises(ValueError, match="other"):
        fitting(_fail, "never")(ValueError("other"))
    with pytest.raises(FileNotFoundError):
        fitting(os.stat, "never")("/nowhere/at/all")
    assert (smaller(1), smaller(2), smaller(7)) == (1, 1, 3)


def _fail(error: Exception) -> None:
    raise error
