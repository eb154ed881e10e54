"""The file of search codes: a cache beside the gallery file. Absent, stale or damaged: it is made again, no error."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gloam.atomic import atomic_path
from gloam.errors import GloamError
from gloam.gallery.disk import make_private

FOLDER, SUFFIX = "codes", ".codes"
_MAGIC = b"gloam codes 1\n"
_log = logging.getLogger(__name__)


class Header(NamedTuple):
    """What a file of codes belongs to.

    Attributes:
        gallery: digest of the gallery's secret: codes of another gallery fit no rows of this one.
        mark: checksum of the last row that was looked at: a restored backup may have given its id to another.
        space: digest of the space.
        number: number of the space in the gallery.
        last: largest crop id that was looked at.
        gone: removals that were looked at.
        trained: rows that there were when the codes' centre was computed.
    """

    gallery: str
    mark: int
    space: str
    number: int
    last: int
    gone: int
    trained: int


def codes_file(folder: Path, number: int) -> Path:
    """Where the codes of a space lie."""
    return folder / FOLDER / f"{number}{SUFFIX}"


def write_codes(file: Path, header: Header, arrays: dict[str, NDArray[Any]]) -> bool:
    """Write codes atomically.

    Returns:
        Whether it worked: a full disk costs the codes, nothing else.
    """
    try:
        file.parent.mkdir(mode=0o700, exist_ok=True)
        with atomic_path(file) as temporary:
            make_private(temporary)
            with temporary.open("wb") as out:
                digest = hashlib.sha256()
                shapes = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
                told = json.dumps({"header": header._asdict(), "arrays": shapes}).encode() + b"\n"
                for part in (told, *(array.tobytes() for array in arrays.values())):
                    digest.update(part)
                out.write(_MAGIC + digest.digest() + told)
                for array in arrays.values():
                    out.write(array.tobytes())
    except (OSError, GloamError) as error:
        _log.warning("The search codes were not saved (%s); they are made again when the gallery is opened.", error)
        return False
    return True


def read_codes(file: Path) -> tuple[Header, dict[str, NDArray[Any]]] | None:
    """Read codes; None if the file is absent, cut or changed by one bit."""
    try:
        content = bytearray(file.stat().st_size)
        with file.open("rb") as stream:
            stream.readinto(content)
    except OSError:
        return None
    start = len(_MAGIC) + 32
    view = memoryview(content)
    if content[: len(_MAGIC)] != _MAGIC or hashlib.sha256(view[start:]).digest() != content[len(_MAGIC) : start]:
        return None
    # The digest fits: from here on the content is what was written.
    end = content.index(b"\n", start) + 1
    told = json.loads(content[start:end])
    arrays: dict[str, NDArray[Any]] = {}
    for name, (kind, shape) in told["arrays"].items():
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        arrays[name] = np.frombuffer(view[end : end + size], kind).reshape(shape)
        end += size
    return Header(**told["header"]), arrays


def drop_codes(folder: Path) -> None:
    """Remove all codes of a gallery, and halves of them that a kill left behind."""
    for file in (folder / FOLDER).glob("*"):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()


def drop_leftovers(folder: Path) -> None:
    """Remove halves of codes that a kill left behind."""
    for file in (folder / FOLDER).glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
