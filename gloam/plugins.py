"""Users' own code: modules and installed packages that register methods, datasets and other parts of their own.

Three ways in. An installed package names its parts in its metadata (entry point groups, ``GROUPS``); work in progress
is named as modules to import, by the flag or recipe key ``plugins`` or by the environment variable ``GLOAM_PLUGINS``.
Nothing is looked for before the first look-up of a name. What cannot be loaded is named with its cause, and everything
else still works.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType

from gloam.errors import GloamError

# Entry point group -> module whose ``registry`` it fills.
GROUPS = {
    "gloam.methods": "gloam.methods",
    "gloam.datasets": "gloam.datasets",
    "gloam.samplers": "gloam.sampling.base",
    "gloam.backbones": "gloam.models.backbone",
    "gloam.losses": "gloam.losses.registry",
    "gloam.optimizers": "gloam.training.optimizers",
    "gloam.schedules": "gloam.training.schedule",
    "gloam.loggers": "gloam.training.loggers",
}
VARIABLE = "GLOAM_PLUGINS"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plugin:
    """Something that was asked for or found, and how loading it went.

    Attributes:
        name: module, or ``<group>: <entry point>``.
        source: who named it: a distribution with its version, the environment variable, a recipe or flag, gloam itself.
        failure: why it could not be loaded, or None.
    """

    name: str
    source: str
    failure: str | None = None


_known: dict[str, Plugin] = {}
_working_directory = False


def parse_names(text: str) -> tuple[str, ...]:
    """Module names out of a flag or the environment variable: separated by commas or ``os.pathsep``."""
    return tuple(name.strip() for name in re.split(f"[,{re.escape(os.pathsep)}]", text) if name.strip())


def search_working_directory() -> None:
    """Let named modules also lie in the current directory: the command line's choice, never that of a library."""
    global _working_directory
    _working_directory = True


def import_plugins(names: Iterable[str], source: str, *, required: bool = False) -> None:
    """Import modules, which register what they offer.

    Args:
        names: dotted module names, ``my_package.my_module``.
        source: who names them, for ``gloam doctor``.
        required: stop at the first that cannot be imported; otherwise a warning names it and its cause.

    Raises:
        GloamError: ``required``, and a module cannot be imported.
    """
    for name in names:
        known = _known.get(name)
        if known is None or known.failure is not None:
            _import(name, source, quiet=required)
        if required and (failure := _known[name].failure) is not None:
            raise GloamError(f"Plugin {name} could not be imported: {failure}.")


def import_named(content: Mapping[str, object], source: str) -> None:
    """Import what a recipe's content names under ``plugins``, before any other name in it is looked up.

    A module that cannot be imported is only warned of: a run may be evaluated where its logger is not installed. What
    is no list of names is left to the recipe's validation.
    """
    names = content.get("plugins")
    if isinstance(names, list | tuple):
        import_plugins([name for name in names if isinstance(name, str)], source)


def import_from_environment() -> tuple[str, ...]:
    """Import the modules that ``GLOAM_PLUGINS`` names; returns the names of those that could be."""
    names = parse_names(os.environ.get(VARIABLE, ""))
    import_plugins([name for name in names if name not in _known], VARIABLE)
    return tuple(name for name in names if _known[name].failure is None)


def load_entry_points(group: str, add: Callable[[str, object], None]) -> None:
    """Load what installed packages offer in a group.

    Args:
        group: one of ``GROUPS``.
        add: registers an object under a name, unless it has registered itself. Not called for a module, which
            registers its parts while it is imported.
    """
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=group), key=lambda point: (point.name, point.value)):
        distribution = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
        name = f"{group}: {point.name} = {point.value}"
        try:
            found = point.load()
            if not isinstance(found, ModuleType):
                add(point.name, found)
        except (Exception, SystemExit) as error:
            record_failure(name, distribution, error)
        else:
            _known[name] = Plugin(name, distribution)


def record_failure(name: str, source: str, error: BaseException, *, quiet: bool = False) -> None:
    """Remember that something could not be loaded, and say so once.

    Args:
        name: what.
        source: who named it.
        error: why.
        quiet: the caller tells the user.
    """
    failure = _explain(name, error)
    if _known.get(name) == Plugin(name, source, failure):
        return
    _known[name] = Plugin(name, source, failure)
    _log.debug("%s", name, exc_info=error)
    if not quiet:
        _log.warning("%s (%s) could not be loaded: %s. Everything else still works.", name, source, failure)


def found() -> list[Plugin]:
    """All plugins that were asked for or found so far, in that order."""
    return list(_known.values())


def failures() -> str:
    """A sentence about what could not be loaded, for the error of a name that is missing; or nothing."""
    failed = [f"{plugin.name} ({plugin.failure})" for plugin in _known.values() if plugin.failure is not None]
    return f" Perhaps it is in what could not be loaded: {'; '.join(failed)}." if failed else ""


def _import(name: str, source: str, *, quiet: bool) -> None:
    if _working_directory and os.getcwd() not in sys.path:
        # Last, so that a file here never hides an installed module.
        sys.path.append(os.getcwd())
    importlib.invalidate_caches()
    try:
        importlib.import_module(_checked(name))
    except (Exception, SystemExit) as error:
        record_failure(name, source, error, quiet=quiet)
    else:
        _known[name] = Plugin(name, source)


def _checked(name: str) -> str:
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise GloamError(
            f"{name!r} is not the name of a module. Give it as in an import statement (my_package.my_module), not as a "
            "path."
        )
    return name


def _explain(name: str, error: BaseException) -> str:
    """Cause and, where it is plain, cure; without a full stop."""
    if isinstance(error, GloamError):
        return str(error).removesuffix(".")
    cause = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
    if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
        places = f"the current directory ({os.getcwd()})" if _working_directory else "PYTHONPATH"
        return f"{cause}. It is looked for among the installed packages and in {places}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "importlib" not in frame.filename and frame.filename != __file__]
    return f"{cause} ({own[-1].filename}, line {own[-1].lineno})" if own else cause
