"""Progress bars with an estimate of the remaining time and the rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gloam.console import console

T = TypeVar("T")


class RateColumn(ProgressColumn):
    """Steps per second, for example images."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        """The rate of a task, smoothed by rich; a task that is ``is_whole`` counts other things and has none."""
        if task.fields.get("is_whole"):
            return Text("")
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {self._unit}/s" if speed else "", style="progress.data.speed")


class RemainingColumn(TimeRemainingColumn):
    """Remaining time; a task that is ``is_whole`` tells it in its note."""

    def render(self, task: Task) -> Text:
        """As rich tells it."""
        return Text("") if task.fields.get("is_whole") else super().render(task)


def progress_bar(unit: str = "images", *, shown: bool = True) -> Progress:
    """A bar on standard error: count, rate, elapsed and remaining time; nothing stays on the screen afterwards.

    Args:
        unit: what the rate counts.
        shown: False: the same object, silent.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        RateColumn(unit),
        TimeElapsedColumn(),
        RemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console(stderr=True),
        transient=True,
        disable=not shown,
    )


def track(
    items: Iterable[T], text: str | None, *, total: int, weigh: Callable[[Any], int] = lambda _: 1
) -> Iterator[T]:
    """Yield items while a bar advances by ``weigh(item)``; no bar without a text."""
    if text is None:
        yield from items
        return
    with progress_bar() as bar:
        task = bar.add_task(text, total=total, note="")
        for item in items:
            yield item
            bar.advance(task, weigh(item))
