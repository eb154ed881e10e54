"""Ctrl-C and a scheduler's SIGTERM: stop where the work can go on, and end with the exit code that shells expect.

A signal raises :class:`Interrupted` at once, except inside :meth:`Signals.deferred`, where it waits for the end of the
block (a training step, a checkpoint). A second Ctrl-C does not wait.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, NoReturn

_CAUGHT = (signal.SIGINT, signal.SIGTERM)
# Terminals and launchers may hand the same Ctrl-C on several times; later than this a second one is meant.
_SAME = 0.3


class Interrupted(KeyboardInterrupt):
    """The process was told to stop.

    Attributes:
        number: of the signal.
    """

    def __init__(self, signal_number: int, message: str = "") -> None:
        super().__init__(message)
        self.number = signal_number

    @property
    def exit_code(self) -> int:
        """128 + signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return 128 + self.number


class Signals:
    """Handlers of SIGINT and SIGTERM while work runs; see :func:`listening`.

    Attributes:
        requested: signal that asked to stop, or None.
    """

    def __init__(self, *, ends_process: bool) -> None:
        self.requested: int | None = None
        self._ends_process = ends_process
        self._since = 0.0
        self._depth = 0
        self._raised = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait until this block ends, where it is raised; a block that asks may stop earlier."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        self.check()

    def check(self) -> None:
        """Raise a signal that waited.

        Raises:
            Interrupted: there is one, and no deferred block is open.
        """
        if self.requested is not None and self._depth == 0 and not self._raised:
            self._raise()

    def interrupt(self) -> NoReturn:
        """Raise the signal that waits, inside a deferred block.

        Raises:
            Interrupted: always.
        """
        self._raise()

    def stop(self, signal_number: int) -> None:
        """Take note of a request to stop that another process got."""
        self.requested = self.requested or signal_number

    def _raise(self) -> NoReturn:
        self._raised = True
        raise Interrupted(self.requested or signal.SIGINT)

    def _handle(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.requested is None:
            self.requested, self._since = number, now
            if self._depth == 0:
                self._raise()
            _tell("\nStopping after this step, with a checkpoint; Ctrl-C again stops at once.\n")
        elif number == signal.SIGINT and now - self._since > _SAME:
            if self._ends_process:
                _tell("\x1b[?25h" if sys.stderr.isatty() else "")  # a progress bar has hidden the cursor
                _tell("stopped\n")
                os._exit(128 + signal.SIGINT)
            self._raise()


_active: Signals | None = None  # of this process


@contextlib.contextmanager
def listening(*, ends_process: bool = False) -> Iterator[Signals]:
    """Handle signals until the block ends; inside another such block, that one goes on.

    Outside the main thread, and for a signal that the process was started to ignore (``nohup``), nothing is changed.

    Args:
        ends_process: a second Ctrl-C ends the process at once (the command line), instead of raising.
    """
    global _active
    if _active is not None or threading.current_thread() is not threading.main_thread():
        yield _active or Signals(ends_process=False)
        return
    signals = Signals(ends_process=ends_process)
    before: dict[int, Any] = {}
    for number in _CAUGHT:
        if (known := signal.getsignal(number)) is not signal.SIG_IGN and known is not None:
            before[number] = signal.signal(number, signals._handle)
    _active = signals
    try:
        yield signals
    finally:
        _active = None
        # After a stop the command line only cleans up: there a second Ctrl-C must still end it without a traceback.
        if not (ends_process and signals.requested is not None):
            for caught, handler in before.items():
                signal.signal(caught, handler)


def ignore_signals(_: int = 0) -> None:
    """For loader processes: Ctrl-C reaches all processes of a terminal, but the main one decides when they end."""
    for number in _CAUGHT:
        signal.signal(number, signal.SIG_IGN)


def _tell(text: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, text.encode())
