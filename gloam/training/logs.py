"""Where a run's numbers go: metrics.csv, TensorBoard and log.txt."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

from gloam.atomic import atomic_path

_log = logging.getLogger("gloam")


class RunLogs:
    """Logs of one run folder. Only the first process writes.

    Args:
        folder: the run folder, or None on the other processes.
        history: rows of earlier epochs, after a resume.
    """

    def __init__(self, folder: Path | None, history: list[dict[str, Any]] | None = None) -> None:
        self.history = list(history or [])
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
        for name, value in row.items():
            if isinstance(value, int | float) and name != "epoch":
                self._board.add_scalar(f"{row['stage']}/{name}", value, len(self.history) - 1)
        self._board.flush()

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

    def close(self) -> None:
        """Flush and detach."""
        if self._board is not None:
            self._board.close()
        if self._file is not None:
            _log.removeHandler(self._file)
            self._file.close()
