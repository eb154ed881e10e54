"""A run's folder: its name, who may write into it, and how far the run in it has come."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import IO, Literal

from gloam.atomic import sweep
from gloam.errors import GloamError, WriteError, describe
from gloam.training.data_files import FILES

LOCK = ".lock"
State = Literal["new", "unstarted", "started", "finished"]
# What a run writes before its first checkpoint; a folder with nothing else may be begun again.
_EARLY = {LOCK, FILES, "checkpoints", "environment.json", "log.txt", "metrics.csv", "recipe.yaml", "tensorboard"}


class RunFolder:
    """One run's folder, held by one process at a time.

    Args:
        path: the folder; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._is_begun_here = False
        self._parents_made: list[Path] = []

    @property
    def checkpoints(self) -> Path:
        """Folder of ``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    def state(self) -> State:
        """How far the run has come.

        Returns:
            ``new``: there is no run; ``unstarted``: it ended before its first checkpoint; ``started``: it can go on;
            ``finished``: its results are written.

        Raises:
            GloamError: the folder holds other things.
        """
        if (self.path / "results.json").is_file() and (self.path / "results.csv").is_file():
            return "finished"
        if (self.checkpoints / "last.ckpt").is_file():
            return "started"
        try:
            names = {entry.name for entry in os.scandir(self.path) if not entry.name.endswith(".tmp")}
        except FileNotFoundError:
            return "new"
        except OSError as error:
            raise _unwritable(self.path, error) from error
        if not names - {LOCK}:
            return "new"
        if names <= _EARLY:
            return "unstarted"
        raise GloamError(f"{self.path} is not empty and holds no run. Choose another --output.")

    def create(self, *, unique: bool, begin_again: bool) -> None:
        """Make the folder and hold it.

        Args:
            unique: the name is a default one: where it is taken, ``_2``, ``_3``, ... is added.
            begin_again: it may hold a run that ended before its first checkpoint.

        Raises:
            GloamError: it cannot be made, holds a run, or another process has it.
        """
        if not unique:
            self._check_empty(begin_again)  # before a lock is put into a folder that is not ours
        wanted, number = self.path, 1
        self._parents_made = [parent for parent in wanted.absolute().parents if not parent.exists()]
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            while True:
                try:
                    self.path.mkdir(mode=0o700, exist_ok=not unique)  # a run shows people: for its owner alone
                    break
                except FileExistsError:
                    if not unique:
                        raise
                    number += 1
                    self.path = wanted.with_name(f"{wanted.name}_{number}")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.hold()
        self._check_empty(begin_again)
        self._is_begun_here = True
        try:
            shutil.rmtree(self.path / "tensorboard", ignore_errors=True)
            for name in ("metrics.csv", "checkpoints/best.ckpt"):
                (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        self.clean()

    def _check_empty(self, begin_again: bool) -> None:
        state = self.state()
        if state == "unstarted" and not begin_again:
            raise GloamError(
                f"{self.path} holds a run that ended before its first checkpoint. Begin it again with --resume "
                f"{self.path}, or choose another --output."
            )
        if state in ("started", "finished"):
            raise GloamError(f"{self.path} is not empty. Choose another --output, or go on with --resume {self.path}.")

    def hold(self) -> None:
        """Be the only process that trains in this folder until :meth:`release`, or until this process ends.

        The lock is one of the kernel's: a killed process leaves none behind, and neither do its loader processes.

        Raises:
            GloamError: another process has it; the message says which.
        """
        if self._lock is not None:
            return
        try:
            import fcntl
        except ImportError:  # Windows
            return
        if self.path.resolve() in _held:
            raise GloamError(f"{self.path} is already in use by this process. Choose another --output.")
        while True:
            try:
                descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
            except OSError as error:
                raise _unwritable(self.path, error) from error
            file = os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace")
            try:
                # Of this process alone: unlike flock's, forked loader processes do not hold it on.
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                holder = _holder(file.read())
                file.close()
                raise GloamError(
                    f"{self.path} is in use by {holder}. Wait until it ends, or choose another --output."
                ) from error
            except OSError:
                pass  # a network file system without locks
            if _is_at(descriptor, self.path / LOCK):
                break
            file.close()  # the folder was deleted and made again
        self._lock = file
        _held.add(self.path.resolve())
        with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
            file.truncate(0)
            started = time.strftime("%Y-%m-%d %H:%M:%S")
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": started}))
            file.flush()

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            _held.discard(self.path.resolve())
            with contextlib.suppress(OSError):
                self._lock.close()
            self._lock = None

    def clean(self) -> None:
        """Remove what a killed process left behind.

        Raises:
            WriteError: the folder may not be written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        for folder in (self.path, self.checkpoints):
            sweep(folder)

    def discard(self) -> None:
        """Remove the folder of a run that began here and failed before its first checkpoint or result, and the empty
        folders above it that were made for it."""
        with contextlib.suppress(GloamError):  # something else was put there
            if not self._is_begun_here or self.state() != "unstarted":
                return
            shutil.rmtree(self.path, ignore_errors=True)
            with contextlib.suppress(OSError):  # another run is in one of them by now
                for parent in self._parents_made:
                    parent.rmdir()


def default_folder(dataset: str, method: str) -> Path:
    """``runs/<dataset>/<method>/<time>``."""
    return Path("runs") / dataset / method / time.strftime("%Y-%m-%d_%H-%M-%S")


_held: set[Path] = set()  # by this process: the kernel's lock does not keep a process from itself


def _unwritable(path: Path, error: OSError) -> WriteError:
    reason = describe(error)
    return WriteError(f"The run folder {path} cannot be written: {reason} Choose another --output.", error.errno)


def _is_at(descriptor: int, path: Path) -> bool:
    """Is the open file still the one at this path?"""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except OSError:
        return False


def _holder(text: str) -> str:
    try:
        known = json.loads(text)
        return f"process {int(known['pid'])} on {known['host']} (since {known['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"
