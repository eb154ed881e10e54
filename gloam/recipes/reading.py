"""From a recipe's name or file to its content: safe reading, and the recipes that it extends."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from gloam import plugins
from gloam.errors import GloamError, did_you_mean
from gloam.recipes.merge import merge
from gloam.recipes.old_format import upgrade

RECIPES = Path(__file__).parent

# A recipe has below a hundred lines; saved with everything resolved, a few hundred values.
_MOST_BYTES, _MOST_VALUES, _MOST_DEPTH = 100_000, 10_000, 20
_LONGEST_NAME, _LONGEST_CHAIN = 1000, 20
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that match a shell wildcard."""
    names = [path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.glob("*/*.yaml")]
    return sorted(fnmatch.filter(names, pattern))


def read_recipe(name: str | Path) -> dict[str, Any]:
    """The content of a recipe with everything that it extends, in today's words but not validated.

    Args:
        name: a recipe's name, a YAML file, or the folder of a run.

    Raises:
        GloamError: no such recipe or file, one that cannot be read, or a chain of ``extends`` that has no end.
    """
    return _read_chain(find_recipe(name), [str(name)], [])


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe.

    Raises:
        GloamError: there is none; the nearest recipes are offered, or the missing file is named.
    """
    text = str(name)
    if len(text) > _LONGEST_NAME or "\0" in text or not text:
        raise GloamError(
            f"{text[:40]!r}{'...' if len(text) > 40 else ''} ({len(text)} characters) is no recipe's name."
        )
    path = Path(text).expanduser()
    try:
        if _NAME.fullmatch(text) and (RECIPES / f"{text}.yaml").is_file():
            return RECIPES / f"{text}.yaml"
        if (path / "recipe.yaml").is_file():
            return path / "recipe.yaml"
        if path.is_file():
            return path
        if path.is_dir():
            raise GloamError(f"The folder {path} holds no recipe.yaml, so it is no run.")
    except OSError as error:
        raise GloamError(f"{text[:80]!r} cannot be read: {error.strerror}.") from error
    if path.suffix in (".yaml", ".yml") or path.is_absolute() or not (_NAME.fullmatch(text) or path.name == text):
        raise GloamError(f"There is no file {text}.")
    known = list_recipes()
    hint = did_you_mean(text, known)
    # Seventy names help nobody.
    raise GloamError(f"There is no recipe {text!r}. {hint if hint.startswith('Did') else 'gloam recipes lists them.'}")


def _read_chain(path: Path, names: list[str], seen: list[Path]) -> dict[str, Any]:
    """The content of a file, over that of the recipe which it extends."""
    way = " -> ".join(names)
    if path.resolve() in seen:
        raise GloamError(f"Recipes extend each other in a circle: {way}. Remove one extends.")
    if len(names) > _LONGEST_CHAIN:
        raise GloamError(f"A chain of more than {_LONGEST_CHAIN} recipes extends one another: {way}.")
    content = read_yaml(path)
    plugins.import_named(content, str(path))
    content = upgrade(content)
    parent = content.pop("extends", None)
    if parent is None:
        return content
    if not isinstance(parent, str):
        raise GloamError(f"{path}: extends names one recipe or file, not {parent!r}.")
    try:
        below = path.parent / parent if parent.endswith((".yaml", ".yml")) else parent
        found = find_recipe(below)
    except GloamError as error:
        raise GloamError(f"{way} extends {parent!r}, which cannot be used. {error}") from error
    base = _read_chain(found, [*names, parent], [*seen, path.resolve()])
    return merge(_inherited(base, content), content)


def _inherited(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    """What a recipe takes over: not the scores of another, and the size of the training set for equal data only."""
    data = content.get("data")
    other_data = isinstance(data, Mapping) and not data.keys().isdisjoint(("name", "options"))
    left = {"expected", *(("trains_on",) if other_data else ())}
    return {key: value for key, value in base.items() if key not in left}


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping.

    Raises:
        GloamError: it cannot be read, or see :func:`parse_yaml`.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise GloamError(f"{path} cannot be read: {error.strerror}.") from error
    if len(raw) > _MOST_BYTES:
        raise GloamError(f"{path} is larger than {_MOST_BYTES:,} bytes: it is no recipe.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise GloamError(f"{path} is not UTF-8 text (byte {error.start}). Save it as UTF-8.") from error
    content = parse_yaml(text, str(path))
    if not isinstance(content, dict):
        raise GloamError(f"{path} does not hold a recipe: expected keys such as data and method.")
    return content


def parse_yaml(text: str, origin: str) -> Any:
    """YAML of plain values: mappings with text as keys, lists, text, numbers, true, false and null.

    Raises:
        GloamError: the text is not YAML, or is too large, too deep, endless, has a key twice, or holds other things.
    """
    try:
        loader = _SlowLoader if _BYTE.search(text) else _FastLoader
        _check_size(text, origin, loader)
        value = yaml.load(text, Loader=loader)
    except yaml.YAMLError as error:
        raise GloamError(f"{origin} is not YAML: {error}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise GloamError(f"{origin} holds a value that cannot be read: {str(error).splitlines()[0]}.") from error
    _check_plain(value, origin, "")
    return value


# libyaml is ten times faster, where it was built; it refuses a byte of a path that is no UTF-8.
_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BYTE = re.compile(r"\\u[dD][89a-fA-F]")


class _KeysOnce:
    """Makes a safe loader refuse a key that stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        written = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<"]
        for key in written:
            if written.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)  # type: ignore[misc]
        return mapping


class _FastLoader(_KeysOnce, _Safe):  # type: ignore[misc]
    pass


class _SlowLoader(_KeysOnce, yaml.SafeLoader):
    pass


def _check_size(text: str, origin: str, loader: Any) -> None:
    """Count values with every alias written out, before anything is built."""
    sizes: dict[str, int] = {}
    open_nodes: list[tuple[str | None, int]] = []  # anchor, values before it
    count = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in open_nodes]:
                raise GloamError(f"{origin}: the value &{event.anchor} contains itself. Write it out.")
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor is not None:
                sizes[anchor] = count - before
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor is not None:
                sizes[event.anchor] = 1
        if len(open_nodes) > _MOST_DEPTH:
            raise GloamError(f"{origin} is nested more than {_MOST_DEPTH} levels deep: it is no recipe.")
        if count > _MOST_VALUES:
            raise GloamError(
                f"{origin} holds more than {_MOST_VALUES:,} values (aliases written out): it is no recipe."
            )


def _check_plain(value: Any, origin: str, place: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                where = f" in {place}" if place else ""
                raise GloamError(
                    f"{origin}: the key {key!r}{where} is {type(key).__name__}, not text. Put it in quotation marks "
                    "(YAML reads yes, no, on and off as true and false)."
                )
            _check_plain(part, origin, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for part in value:
            _check_plain(part, origin, place)
    elif not (value is None or isinstance(value, str | int | float | bool)):
        raise GloamError(f"{origin}: {place} is of type {type(value).__name__}. Put it in quotation marks.")
