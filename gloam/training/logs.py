"""Where a run's numbers go: metrics.csv, TensorBoard, log.txt and the loggers that the recipe names."""

from __future__ import annotations

import csv
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gloam.atomic import atomic_path

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
    """

    def __init__(
        self, folder: Path | None, history: list[dict[str, Any]] | None = None, loggers: Sequence[Logger] = ()
    ) -> None:
        self.history = list(history or [])
        self._loggers = list(loggers)
        self._folder = folder
        self._board: Any = None
        self._file: logging.Handler | None = None
        if folder is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=len(self.history))
            self._file = logging.FileHandler(folder / "log.txt", encoding="utf-8")
            self._file.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
            _log.addHandler(self._file)
            _log.setLevel(logging.INFO)

    def write(self, row: dict[str, Any]) -> None:
        """Add one epoch's numbers; the table is rewritten as a whole, so a row is there or it is not."""
        self.history.append(row)
        if self._folder is None:
            return
        columns = list(dict.fromkeys(key for known in self.history for key in known))
        with atomic_path(self._folder / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.history)
        numbers = {
            f"{row['stage']}/{name}": value
            for name, value in row.items()
            if isinstance(value, int | float) and name != "epoch"
        }
        for name, value in numbers.items():
            self._board.add_scalar(name, value, len(self.history) - 1)
        self._board.flush()
        self._send(numbers)

    def scores(self, scores: Mapping[str, Mapping[str, float]]) -> None:
        """Final scores for the loggers, as ``test/<protocol>/<score>``; files and tables have them elsewhere."""
        self._send({f"test/{protocol}/{name}": x for protocol, found in scores.items() for name, x in found.items()})

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
        """Flush and detach; a second call does nothing.

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
            self._file.close()

    def _send(self, numbers: Mapping[str, float]) -> None:
        for logger in list(self._loggers):
            try:
                logger.log_metrics(dict(numbers), step=max(len(self.history) - 1, 0))
            except Exception as error:
                self._loggers.remove(logger)
                self.warn(
                    f"Logger {type(logger).__name__} failed ({type(error).__name__}: {error}) and gets no more "
                    "numbers; training goes on, and metrics.csv has them all."
                )
