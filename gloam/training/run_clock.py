"""When a run will end."""

from __future__ import annotations

import time
from collections.abc import Callable

_LATEST = 3  # epochs whose time says how long the next ones take


class RunClock:
    """Counts the epochs of all stages and tells when the last one will be over.

    Args:
        total: epochs of all stages.
        now: seconds since 1970.
    """

    def __init__(self, total: int, now: Callable[[], float] = time.time) -> None:
        self.total = total
        self._now = now
        self._starts: list[tuple[int, float]] = []

    def begin_epoch(self, number: int) -> None:
        """An epoch begins; the time since the last beginning is what an epoch takes, its scores included.

        Args:
            number: epochs of all stages that are over.
        """
        self._starts = [*self._starts, (number, self._now())][-_LATEST - 1 :]

    def done(self, share: float) -> float:
        """Epochs that are over, and the share of the running one."""
        return (self._starts[-1][0] if self._starts else 0) + share

    def end(self, share: float) -> float | None:
        """When the run will end, in seconds since 1970; None before there is anything to tell it from.

        Args:
            share: of the running epoch that is over.
        """
        if not self._starts:
            return None
        (first, began), (number, last) = self._starts[0], self._starts[-1]
        if number > first:
            each = (last - began) / (number - first)
        elif share > 0:
            each = (self._now() - last) / share
        else:
            return None
        return max(self._now(), last + each * (self.total - number))

    def words(self, share: float) -> str:
        """``ends 14:32``, with the day where that is not today."""
        end = self.end(share)
        if end is None:
            return ""
        then, today = time.localtime(end), time.localtime(self._now())
        return time.strftime("ends %H:%M" if then[:3] == today[:3] else "ends %a %d %b %H:%M", then)
