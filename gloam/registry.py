"""Name -> class tables with wildcards and "did you mean".

A registry owns a package (``gloam.methods``, ``gloam.datasets``). The first look-up imports every module of that
package, so a new file registers itself and a deleted file breaks nothing.
"""

from __future__ import annotations

import fnmatch
import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from gloam.errors import GloamError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes of one kind under the names users type.

    Args:
        kind: the singular noun for messages, e.g. ``"method"``.
        package: dotted name of the package whose modules hold the classes.
    """

    def __init__(self, kind: str, package: str) -> None:
        self._kind = kind
        self._package = package
        self._classes: dict[str, type[T]] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """Class decorator: make the class known as ``name``."""

        def add(cls: type[T]) -> type[T]:
            if name in self._classes and self._classes[name] is not cls:
                raise ValueError(f"{self._kind} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    def get(self, name: str) -> type[T]:
        """The class registered as ``name``.

        Raises:
            GloamError: unknown name; the message offers the nearest ones.
        """
        self._discover()
        if name not in self._classes:
            raise GloamError(f"There is no {self._kind} called {name!r}. {did_you_mean(name, self._classes)}")
        return self._classes[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell wildcard."""
        self._discover()
        return sorted(fnmatch.filter(self._classes, pattern))

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")
