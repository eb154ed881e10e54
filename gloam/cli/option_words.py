"""Flags whose names a recipe cannot know: options of timm's and users' own optimisers, schedules and loggers.

``--optimizer.options.betas 0.9 0.98``, ``--logger-options.wandb.project reid``. Values are read as YAML, several make a
list.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gloam.errors import GloamError
from gloam.recipes.reading import parse_yaml

# Where a recipe has options without a model -> number of words that follow: option, or logger and option.
_OPEN = {"optimizer.options": 1, "schedule.options": 1, "logger_options": 2}

Path = tuple[str, ...]


def split_option_words(words: Sequence[str]) -> tuple[list[str], dict[Path, Any]]:
    """Take such flags out of a command line.

    Args:
        words: all words.

    Returns:
        The other words, and path in the recipe -> value.

    Raises:
        GloamError: a flag without a name or a value.
    """
    rest: list[str] = []
    taken: dict[Path, Any] = {}
    queue = list(words)
    while queue:
        word = queue.pop(0)
        flag, has_value, value = word.partition("=")
        # Command lines spell words with hyphens, YAML with underscores; both are understood.
        name = flag.removeprefix("--").replace("-", "_") if flag.startswith("--") else ""
        place = next((place for place in _OPEN if name == place or name.startswith(f"{place}.")), None)
        if place is None:
            rest.append(word)
            continue
        values = [value] if has_value else []
        while not has_value and queue and not queue[0].startswith("--"):
            values.append(queue.pop(0))
        keys = [key for key in name.removeprefix(place).split(".") if key]
        if len(keys) != _OPEN[place] or not values:
            example = f"--{place}.{'wandb.project reid' if _OPEN[place] == 2 else 'NAME VALUE'}".replace("_", "-")
            raise GloamError(
                f"{word} needs {'a logger, ' if _OPEN[place] == 2 else ''}an option and a value: {example}"
            )
        read = [_read(value, flag) for value in values]
        taken[(*place.split("."), *keys)] = read[0] if len(read) == 1 else read
    return rest, taken


def as_changes(taken: Mapping[Path, Any]) -> dict[str, Any]:
    """The values of :func:`split_option_words` as nested keys, to be laid over a recipe."""
    changes: dict[str, Any] = {}
    for (*keys, last), value in taken.items():
        place = changes
        for key in keys:
            place = place.setdefault(key, {})
        place[last] = value
    return changes


def _read(value: str, flag: str) -> Any:
    read = parse_yaml(value, flag)
    if isinstance(read, str):
        # YAML 1.1 takes 1e-4 for text.
        try:
            return float(read)
        except ValueError:
            return read
    return read
