"""Where a run's numbers go: metrics.csv, TensorBoard, log.txt and the loggers that the recipe names."""

from __future__ import annotations

import contextlib
import csv
import logging
import os
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.atomic import atomic_path
from gloam.console import LogFormatter
from gloam.errors import WriteError, describe
from gloam.training.number_words import whole

if TYPE_CHECKING:
    from lightning.fabric.loggers.logger import Logger

_log = logging.getLogger("gloam")


class RunLogs:
    """Logs of one run folder. Only the first process writes.

    Args:
        folder: the run folder, or None on the other processes.
        history: rows of earlier epochs, after a resume.
        loggers: of :func:`gloam.training.loggers.open_loggers`. One that fails is dropped with a warning: a tracker
            out of reach must not end a training of days.

    Raises:
        WriteError: the folder takes no files.
    """

    def __init__(
        self, folder: Path | None, history: list[dict[str, Any]] | None = None, loggers: Sequence[Logger] = ()
    ) -> None:
        self.history = list(history or [])
        self._loggers = list(loggers)
        self._folder = folder
        self._board: EventFile | None = None
        self._file: logging.Handler | None = None
        if folder is not None:
            self._board = EventFile(folder / "tensorboard", first_step=len(self.history) + 1 if self.history else 0)
            self._file = _LogFile(folder / "log.txt")
            self._file.setFormatter(_LineFormatter("%(asctime)s %(level)s%(message)s", "%Y-%m-%d %H:%M:%S"))
            _log.addHandler(self._file)
            _log.setLevel(logging.INFO)

    def write(self, row: dict[str, Any]) -> None:
        """Add one epoch's numbers; the table is rewritten as a whole, so a row is there or it is not.

        Steps of TensorBoard and loggers are epochs, counted from 1 over all stages.

        Raises:
            WriteError: no space is left.
        """
        row = {name: whole(name, value) for name, value in row.items()}
        self.history.append(row)
        if self._folder is None or self._board is None:
            return
        columns = list(dict.fromkeys(key for known in self.history for key in known))
        with atomic_path(self._folder / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)
        numbers = {f"{row['stage']}/{k}": v for k, v in row.items() if isinstance(v, int | float) and k != "epoch"}
        self._board.add(numbers, len(self.history))
        self._send(numbers)

    def scores(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Final scores as ``test/<protocol>/<score>``, for TensorBoard and the loggers."""
        numbers = {f"test/{protocol}/{name}": x for protocol, found in scores.items() for name, x in found.items()}
        if self._board is not None:
            self._board.add(numbers, len(self.history))
        self._send(numbers)

    def line(self, text: str) -> None:
        """One line for log.txt."""
        if self._folder is not None:
            _log.info("%s", text)

    def record(self, text: str) -> None:
        """One line for log.txt only: on the screen it would tear a running progress bar."""
        if self._file is not None:
            self._file.handle(_log.makeRecord(_log.name, logging.INFO, "", 0, text, (), None))

    def warn(self, text: str) -> None:
        """One line for log.txt that the user also sees on standard error."""
        if self._folder is not None:
            _log.warning("%s", text)

    def close(self, status: str = "success") -> None:
        """Detach; a second call does nothing. Every line has been flushed: a failure here must not hide an earlier one.

        Args:
            status: ``success`` or ``failed``, for the loggers.
        """
        for logger in self._loggers:
            try:
                logger.finalize(status)
            except Exception as error:
                self.warn(f"Logger {type(logger).__name__} did not finish ({type(error).__name__}: {error}).")
        self._loggers = []
        if self._board is not None:
            self._board.close()
        if self._file is not None:
            _log.removeHandler(self._file)
            with contextlib.suppress(OSError):
                self._file.close()

    def _send(self, numbers: Mapping[str, float]) -> None:
        for logger in list(self._loggers):
            try:
                logger.log_metrics(dict(numbers), step=len(self.history))
            except Exception as error:
                self._loggers.remove(logger)
                self.warn(
                    f"Logger {type(logger).__name__} failed ({type(error).__name__}: {error}) and gets no more "
                    "numbers; training goes on, and metrics.csv has them all."
                )


class EventFile:
    """Numbers for TensorBoard, written at once.

    torch's own writer hands them to a thread, whose failures end in a traceback on the screen.

    Args:
        folder: where TensorBoard looks; created if missing.
        first_step: numbers of earlier files from this step on are not valid any more (a resume repeats them).

    Raises:
        WriteError: the folder takes no files.
    """

    def __init__(self, folder: Path, *, first_step: int = 0) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        origin = f"{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        self._path = folder / f"events.out.tfevents.{int(time.time()):010d}.{origin}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        except OSError as error:
            raise WriteError(describe(error), error.errno) from error
        self._writer = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        if first_step:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=time.time(), step=first_step, session_log=start))

    def add(self, numbers: dict[str, float], step: int) -> None:
        """Write numbers of one step.

        Raises:
            WriteError: no space is left.
        """
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in numbers.items()]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):
            self._file.close()

    def _write(self, event: Any) -> None:
        try:
            self._writer.write(event.SerializeToString())
            self._file.flush()
        except OSError as error:
            raise WriteError(describe(error, self._path), error.errno) from error


class _LineFormatter(LogFormatter):
    """Says the level of what is more than information, so that reports find warnings again."""

    def format(self, record: logging.LogRecord) -> str:
        record.level = f"{record.levelname}: " if record.levelno > logging.INFO else ""
        return super().format(record)


class _LogFile(logging.FileHandler):
    """log.txt. A line that cannot be written stops the run like any other write; logging would print a traceback."""

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path, encoding="utf-8")
        except OSError as error:
            raise WriteError(describe(error, path), error.errno) from error

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise WriteError(describe(error, self.baseFilename), error.errno) from error
        super().handleError(record)
