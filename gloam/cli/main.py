"""The command line's door: which commands there are, how words become calls, how mistakes are told."""

from __future__ import annotations

import inspect
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import tyro

from gloam import __version__, plugins
from gloam.cli import cache, calibrate, data, export, gallery, gallery_upkeep, reports, runs, serve, start, train
from gloam.cli.parsing import in_words, parse
from gloam.console import LogFormatter, console, harden_streams, styled
from gloam.errors import GloamError, did_you_mean, explain
from gloam.interruption import Interrupted, listening

TITLE = "gloam: person re-identification across modalities, cameras and supervision levels"

# Command -> function. The first line of a docstring is its line in "gloam --help".
COMMANDS: dict[str, Callable[..., Any]] = {
    "demo": start.demo,
    "data list": data.data_list,
    "data check": data.data_check,
    "data draw": data.data_draw,
    "cache list": cache.cache_list,
    "cache check": cache.cache_check,
    "cache clear": cache.cache_clear,
    "recipes": train.recipes,
    "train": train.train,
    "runs": train.runs,
    "evaluate": runs.evaluate,
    "results": reports.results,
    "compare": reports.compare,
    "report": reports.report,
    "reproduce": reports.reproduce,
    "calibrate": calibrate.calibrate,
    "extract": runs.extract,
    "export": export.export,
    "publish": export.publish,
    "rank-list": runs.rank_list,
    "embedding": runs.embedding,
    "curves": runs.curves,
    "stripes": runs.stripes,
    "clips": runs.clips,
    "gallery create": gallery.create,
    "gallery add": gallery.add,
    "gallery search": gallery.search,
    "gallery calibrate": gallery_upkeep.calibrate,
    "gallery info": gallery_upkeep.info,
    "gallery verify": gallery_upkeep.verify,
    "gallery erase": gallery_upkeep.erase,
    "gallery expire": gallery_upkeep.expire,
    "gallery audit": gallery_upkeep.audit,
    "gallery reembed": gallery_upkeep.reembed,
    "gallery export": gallery_upkeep.export,
    "gallery import": gallery_upkeep.import_,
    "gallery merge": gallery_upkeep.merge,
    "serve": serve.serve,
    "doctor": start.doctor,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: words after ``gloam``; those of the process if not given.

    Returns:
        0 on success, 2 after a user's mistake or a failure of the machine (one message, no traceback), 130 after
        Ctrl-C, 143 after SIGTERM.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("PYDANTIC_ERRORS_INCLUDE_URL", "0")  # a wrong flag's message ends with its cause
    plugins.search_working_directory()
    harden_streams()
    screen = logging.StreamHandler()
    screen.setFormatter(LogFormatter("%(levelname)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[screen])
    try:
        with listening(ends_process=arguments is None):
            return _dispatch(words)
    except Exception as error:
        told = explain(error)
        if told is None or os.environ.get("GLOAM_TRACEBACK"):
            raise
        console(stderr=True).print(styled(("error:", "bold red"), f" {told}"), soft_wrap=True, highlight=False)
        return 2
    except KeyboardInterrupt as stop:
        console(stderr=True).print(str(stop) or "interrupted", soft_wrap=True, highlight=False)
        return stop.exit_code if isinstance(stop, Interrupted) else 130


def _dispatch(words: list[str]) -> int:
    words, modules = _take_plugins(words)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview(COMMANDS))
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"gloam {__version__}\n")
        return 0
    group = {name: function for name, function in COMMANDS.items() if name.startswith(f"{words[0]} ")}
    if group and (len(words) == 1 or words[1] in ("-h", "--help")):
        sys.stdout.write(_overview(group))
        return 0
    name = " ".join(words[:2]) if group else words[0]
    if name not in COMMANDS:
        raise GloamError(f"There is no command {name!r}. {did_you_mean(name, COMMANDS)}")
    command, rest = COMMANDS[name], words[len(name.split()) :]
    plugins.import_plugins(modules, "--plugins", required=True)
    if command is train.train:
        train.train(rest, modules)
        return 0
    if command is reports.reproduce:
        reports.reproduce(rest, modules)
        return 0
    description = inspect.cleandoc(command.__doc__ or "").split("\nArgs:")[0].strip()
    style = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.FlagCreatePairsOff)
    return int(parse(in_words(command), rest, prog=f"gloam {name}", description=description, config=style) or 0)


def _take_plugins(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take ``--plugins MODULE[,MODULE...]`` out of the words: every command has it, and needs it before all others."""
    rest: list[str] = []
    taken: list[str] = []
    queue = list(words)
    while queue:
        flag, has_value, value = (word := queue.pop(0)).partition("=")
        if flag != "--plugins":
            rest.append(word)
            continue
        if not has_value:
            value = queue.pop(0) if queue and not queue[0].startswith("-") else ""
        if not (names := plugins.parse_names(value)):
            raise GloamError("--plugins needs the names of modules: --plugins my_package.my_module,my_other_module")
        taken += names
    return rest, taken


def _overview(commands: dict[str, Callable[..., Any]]) -> str:
    width = max(len(name) for name in commands)
    lines = [TITLE, "", "usage: gloam COMMAND [ARGUMENTS]", "", "commands:"]
    lines += [f"  {name:<{width}}  {(function.__doc__ or '').splitlines()[0]}" for name, function in commands.items()]
    lines += ["", "gloam COMMAND --help shows the flags and an example that works; gloam --version the version."]
    lines += ["--plugins MODULE[,MODULE] lets a command import modules of your own first (docs/extend.md).", ""]
    return "\n".join(lines)
