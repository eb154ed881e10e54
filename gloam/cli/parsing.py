"""Words of the command line to calls, for every command alike."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from gloam.console import printable
from gloam.errors import GloamError

_WORDS = {str: "TEXT", Path: "PATH", int: "NUMBER", float: "NUMBER"}


def in_words(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command whose ``--help`` shows types as people write them: ``TEXT`` for ``str | None``, no default of None.

    Args:
        command: a function; what its parameters say of themselves stays.
    """
    hints = typing.get_type_hints(command, include_extras=True)

    @functools.wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return command(*arguments, **options)

    signature = inspect.signature(command)
    changed = []
    for name, parameter in signature.parameters.items():
        hint = hints[name]
        bare, *extras = typing.get_args(hint) if hasattr(hint, "__metadata__") else (hint,)
        known = next((extra for extra in extras if dataclasses.is_dataclass(extra)), tyro.conf.arg())
        update: dict[str, Any] = {}
        if parameter.kind is not parameter.POSITIONAL_ONLY and getattr(known, "metavar", None) is None:
            update["metavar"] = _metavar(bare)
        if parameter.default in (None, ()) or parameter.default is False:
            update["help_behavior_hint"] = ""
        config = dataclasses.replace(known, **update)  # type: ignore[type-var]
        changed.append(parameter.replace(annotation=Annotated[bare, config]))
    wrapped.__signature__ = signature.replace(parameters=changed)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {each.name: each.annotation for each in changed}
    del wrapped.__wrapped__  # its types are what is replaced here
    return wrapped


def _metavar(kind: Any) -> str | None:
    """Words for a type; None where tyro's own are good."""
    parts = [part for part in typing.get_args(kind) if part is not type(None)]
    if typing.get_origin(kind) is tuple:
        word = _metavar(parts[0])
        return None if word is None else f"{word} [{word} ...]"
    if typing.get_origin(kind) in (typing.Union, types.UnionType) and len(parts) == 1:
        kind = parts[0]
        if kind is bool:
            return "{True,False}"
        if typing.get_origin(kind) is typing.Literal:
            return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
    return _WORDS.get(kind)


def parse(command: Callable[..., Any], words: Sequence[str], *, prog: str, description: str, config: Any) -> Any:
    """``tyro.cli``; words that a terminal would obey are never printed as they are.

    Raises:
        SystemExit: ``--help`` (code 0), or words that do not fit (code 2, told on standard error).
        GloamError: words that do not fit and hold control characters or bytes that are no UTF-8.
    """
    options = {"prog": prog, "args": list(words), "description": description, "config": config}
    if all(word == printable(word) for word in words):
        return tyro.cli(command, **options)
    try:
        return tyro.cli(command, console_outputs=False, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise GloamError(f"{prog} cannot read these words: {' '.join(words)!r}. See {prog} --help.") from stop
