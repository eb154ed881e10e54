"""Name -> class or function, with wildcards and "did you mean", open to users' own packages.

A registry may own a package (``gloam.methods``, ``gloam.datasets``): the first look-up imports every module of it, so a
new file registers itself and a deleted file breaks nothing. Then come the modules of ``GLOAM_PLUGINS`` and the entry
points of installed packages. A module that cannot be imported is named with its cause; the others still count.
"""

from __future__ import annotations

import fnmatch
import functools
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, NamedTuple, TypeVar

from gloam import plugins
from gloam.errors import GloamError, did_you_mean

T = TypeVar("T")
Entry = TypeVar("Entry")

_OWN = "gloam"


class _Claim(NamedTuple):
    entry: Any
    module: str
    definition: str

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


class Registry(Generic[T]):
    """Entries of one kind (``T``: a class, a function) under the names that users type.

    Args:
        kind: the singular noun for messages, e.g. ``"method"``.
        package: dotted name of the package whose modules hold gloam's own entries; None: no such package.
        group: entry point group of installed packages; default ``gloam.<kind>s``.
        check: raises GloamError where an object cannot be such an entry.
        reserved: names that gloam answers itself, without an entry here.
    """

    def __init__(
        self,
        kind: str,
        package: str | None = None,
        *,
        group: str | None = None,
        check: Callable[[str, Any], None] | None = None,
        reserved: Iterable[str] = (),
    ) -> None:
        self.group = group or f"gloam.{kind}s"
        self._kind = kind
        self._package = package
        self._check = check
        self._reserved = tuple(reserved)
        self._claims: dict[str, list[_Claim]] = {}
        self._has_own = False
        self._discovered = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator: make a class or function known as ``name``.

        Raises (from the decorator):
            GloamError: gloam itself has this name, the name is no word, or the object is not such an entry.
            ValueError: the same module registers two things under one name.
        """

        def add(entry: Entry) -> Entry:
            self._add(name, entry)
            return entry

        return add

    def get(self, name: str) -> T:
        """What is registered as ``name``.

        Raises:
            GloamError: unknown name (the message offers the nearest ones and names the plugins that could not be
                loaded), or two packages claim it.
        """
        self._discover()
        claims = self._claims.get(name, [])
        if not claims:
            raise self.unknown(name)
        if len(claims) > 1:
            raise GloamError(f"{self._clash(name)} Rename one, or leave one of the packages out.")
        entry: T = claims[0].entry
        return entry

    def unknown(self, name: str, also: Iterable[str] = ()) -> GloamError:
        """The error for a name that nobody registered.

        Args:
            name: what the user wrote.
            also: words that would have been right there too.
        """
        known = [*self.names(), *self._reserved, *also]
        return GloamError(f"There is no {self._kind} called {name!r}. {did_you_mean(name, known)}{plugins.failures()}")

    def __contains__(self, name: str) -> bool:
        """Whether anybody registered a name."""
        self._discover()
        return name in self._claims

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell wildcard; a name that two packages claim is left out."""
        self._discover()
        known = [name for name, claims in self._claims.items() if len(claims) == 1]
        return sorted(fnmatch.filter(known, pattern))

    def clashes(self) -> list[str]:
        """A sentence for every name that two packages claim."""
        self._discover()
        return [self._clash(name) for name, claims in sorted(self._claims.items()) if len(claims) > 1]

    @contextmanager
    def temporarily(self) -> Iterator[None]:
        """Forget afterwards what is registered meanwhile: for tests."""
        self._discover()
        before = {name: list(claims) for name, claims in self._claims.items()}
        try:
            yield
        finally:
            self._claims = before

    def _add(self, name: str, entry: Any, *, unless_known: bool = False) -> None:
        if unless_known and any(claim.entry is entry for claims in self._claims.values() for claim in claims):
            return
        definition = entry.func if isinstance(entry, functools.partial) else entry
        module = str(getattr(definition, "__module__", None) or type(definition).__module__)
        new = _Claim(entry, module, str(getattr(definition, "__qualname__", None) or repr(definition)))
        if new.package != _OWN:
            self._import_own()
        if not re.fullmatch(r"[A-Za-z0-9][\w.+-]*", name):
            raise GloamError(
                f"{module} registers the {self._kind} {name!r}: a name is one word of letters, digits, _-.+."
            )
        if self._check is not None:
            self._check(name, entry)
        claims = self._claims.setdefault(name, [])
        if name in self._reserved or (new.package != _OWN and any(claim.package == _OWN for claim in claims)):
            raise GloamError(
                f"{module} registers the {self._kind} {name!r}, but gloam itself has one of this name. Choose another."
            )
        for position, claim in enumerate(claims):
            if (claim.module, claim.definition) == (new.module, new.definition):
                claims[position] = new  # the module was loaded again, or a notebook's cell ran again
                return
            if claim.module == new.module or claim.package == new.package == _OWN:
                raise ValueError(f"{self._kind} {name!r} is registered twice: {claim.definition} and {new.definition}")
        claims.append(new)

    def _discover(self) -> None:
        if not self._discovered:
            self._discovered = True
            self._import_own()
            plugins.import_from_environment()
            plugins.load_entry_points(self.group, lambda name, entry: self._add(name, entry, unless_known=True))

    def _import_own(self) -> None:
        if self._has_own or self._package is None:
            return
        self._has_own = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{self._package}.{module.name}"
            try:
                importlib.import_module(name)
            except Exception as error:
                plugins.record_failure(name, "gloam itself", error)

    def _clash(self, name: str) -> str:
        places = " and ".join(f"{claim.module} ({claim.definition})" for claim in self._claims[name])
        return f"Several packages claim the {self._kind} {name!r}: {places}."
