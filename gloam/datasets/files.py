"""Reading what datasets put on disk, tolerant of how copies were packed: lists, id files, image folders, trees.

Byte-order marks, CRLF, blank lines, blanks and trailing commas are accepted; orders never depend on the file system.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from gloam.errors import GloamError
from gloam.image_files import is_image

_NUMBER = re.compile(r"(\d+)")
_DIGITS = 18  # of numbers that surely fit 64 bits


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which ``f2`` comes before ``f10``."""
    # Not isdigit, which is true of superscripts; not too long for a number either.
    parts = _NUMBER.split(name)
    return tuple((1, int(p), "") if p.isdecimal() and len(p) < 1000 else (0, 0, p) for p in parts)


def whole_number(word: str) -> int | None:
    """The number that a word of digits is, if it fits 64 bits; else None."""
    return int(word) if word.isdecimal() and len(word) <= _DIGITS else None


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without blanks at either end; empty lines are dropped.

    Raises:
        GloamError: the file is not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise GloamError(f"{path} is not a text file ({error}). Unpack the dataset again.") from error
    return [line for line in (raw.strip() for raw in text.splitlines()) if line]


def read_ids(path: Path) -> tuple[int, ...]:
    """Ids of a one-line list such as ``6,10,17``, ascending and without repeats. Only the first line counts.

    *Source*: AGW's ``pre_process_sysu.py``, which reads line 1 only.

    Raises:
        GloamError: the line holds something that is not a whole number, or nothing.
    """
    lines = read_lines(path)
    words = re.split(r"[,;\s]+", lines[0]) if lines else []
    ids = set()
    for word in filter(None, words):
        number = whole_number(word)
        if number is None:
            raise GloamError(
                f"{path}: {word[:40]!r} is no id. Expected whole numbers separated by commas, as in 6,10,17."
            )
        ids.add(number)
    if not ids:
        raise GloamError(f"{path} holds no ids. Expected whole numbers separated by commas, as in 6,10,17.")
    return tuple(sorted(ids))


def read_path_labels(path: Path) -> list[tuple[str, int]]:
    """``relative/path.jpg LABEL`` lines in file order; whatever follows the second field is ignored.

    Returns:
        pairs of a path with forward slashes and its label.

    Raises:
        GloamError: a line without a whole number in second place.
    """
    pairs = []
    for line in read_lines(path):
        fields = line.rstrip(",").replace("\\", "/").split()
        label = whole_number(fields[1].rstrip(",")) if len(fields) > 1 else None
        if label is None:
            raise GloamError(f"{path}: cannot read the line {line[:80]!r}. Expected 'folder/image.jpg LABEL'.")
        pairs.append((fields[0].rstrip(",").removeprefix("./"), label))
    if not pairs:
        raise GloamError(f"{path} is empty. Expected lines 'folder/image.jpg LABEL'.")
    return pairs


def list_images(folder: Path) -> list[str]:
    """Names of the images directly inside a folder, sorted as strings; an absent folder holds none."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if is_image(entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []


def numbered_folders(folder: Path) -> dict[int, str]:
    """Sub-folders whose name is a number (zero padded or not): number -> name, ascending."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.isdecimal() and entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return dict(sorted((int(name), name) for name in names))


def walk_images(folder: Path, skip: Iterable[Path] = ()) -> Iterator[str]:
    """Every image below a folder as a relative path with forward slashes, in natural order of folders and files.

    Hidden folders are left out. Linked folders are followed; one that leads back to a folder above it is not entered
    again.

    Args:
        folder: where to look.
        skip: folders that are left out.

    Raises:
        GloamError: a folder that may not be listed.
    """
    left_out = {_identity(path) for path in skip}
    waiting: list[tuple[Path, str, frozenset[tuple[int, int]]]] = [(folder, "", frozenset())]
    while waiting:
        current, prefix, above = waiting.pop()
        me = _identity(current)
        if me in above or me in left_out:
            continue
        try:
            with os.scandir(current) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
        except OSError as error:
            raise GloamError(f"The folder {current} cannot be listed: {error.strerror or error}.") from error
        found.sort(key=lambda pair: natural_key(pair[0]))
        yield from (prefix + name for name, is_folder in found if not is_folder and is_image(name))
        folders = [(current / name, f"{prefix}{name}/", above | {me}) for name, is_folder in found if is_folder]
        waiting += reversed(folders)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def render_tree(root: Path, depth: int = 2, entries: int = 10) -> str:
    """What lies under a folder as indented text, cut to ``depth`` levels and ``entries`` names a folder.

    Folders come first: they say more about a layout than files.
    """
    if not root.exists():
        return "(does not exist)"
    if not root.is_dir():
        return "(a file, not a folder)"
    lines = _tree_lines(root, depth, entries, "")
    return "\n".join(lines) if lines else "(empty)"


def _tree_lines(folder: Path, depth: int, limit: int, indent: str) -> list[str]:
    try:
        with os.scandir(folder) as found:
            rows = sorted((not entry.is_dir(), natural_key(entry.name), entry.name) for entry in found)
    except OSError as error:
        return [f"{indent}({error.strerror})"]
    lines: list[str] = []
    for is_file, _, name in rows[:limit]:
        lines.append(f"{indent}{name}" + ("" if is_file else "/"))
        if not is_file and depth > 1:
            # A few names are enough to recognise a person's or a camera's folder.
            lines += _tree_lines(folder / name, depth - 1, min(limit, 3), indent + "  ")
    if len(rows) > limit:
        lines.append(f"{indent}... {len(rows) - limit:,} more")
    return lines


def side_by_side(left: str, right: str, titles: Sequence[str]) -> str:
    """Two blocks of text in columns under their titles."""
    rows = [tuple(titles), *zip_longest(left.splitlines(), right.splitlines(), fillvalue="")]
    width = max(len(row[0]) for row in rows)
    return "\n".join(f"  {a:<{width}} | {b}".rstrip() for a, b in rows)


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first names of a list and how many more there are, for messages."""
    words = list(names)
    more = f" and {len(words) - limit:,} more" if len(words) > limit else ""
    return ", ".join(words[:limit]) + more
