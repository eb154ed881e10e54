"""Process that fills rows of a pixel cache: ``python -m gloam.pixels.cache_worker``, started by ``gloam.pixels.cache``.

It reads one JSON message a line from standard input and answers each with one line. When the builder dies, standard
input closes and the process ends: a killed builder leaves no orphans. Being a fresh interpreter it needs no
``if __name__ == "__main__"`` in the user's script and inherits neither threads nor locks.
"""

from __future__ import annotations

import json
import os
import sys
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gloam.image_files import UnreadableImage
from gloam.pixels.decode import Interpolation, decode_image

Bad = tuple[int, str, tuple[int, int, int] | None]  # row, reason, mark of the file (see `file_mark`)


def fill_rows(
    descriptor: int,
    offset: int,
    items: Sequence[tuple[int, str]],
    root: str,
    height: int,
    width: int,
    interpolation: Interpolation,
    stretch: str,
) -> tuple[list[Bad], list[int]]:
    """Decode images into their rows of the cache file, and flush them to disk.

    Written with ``write``, not through a memory map: on a full disk a map kills the process with SIGBUS, while
    ``write`` raises an error that can be explained.

    Args:
        descriptor: cache file, open for writing.
        offset: where row 0 starts in the file, bytes.
        items: ``(row, path relative to root)``.
        root: folder of the images.
        height: rows of an image.
        width: columns of an image.
        interpolation: resize filter.
        stretch: see ``gloam.pixels.decode.parse_stretch``.

    Returns:
        Every unreadable image, whose row holds zeros, and the CRC-32 of every row. The mark of an unreadable image is
        None where its file could not be reached, which may be different next time; an image that is no image stays
        one until its file changes.

    Raises:
        OSError: the disk is full, or another failure to write.
    """
    size = 3 * height * width
    bad: list[Bad] = []
    sums: list[int] = []
    for row, path in items:
        try:
            pixels = decode_image(os.path.join(root, path), height, width, interpolation, stretch)
        except UnreadableImage as error:
            bad.append((row, str(error), file_mark(os.path.join(root, path)) if _is_of_content(error) else None))
            pixels = np.zeros((3, height, width), np.uint8)
        view = memoryview(pixels.reshape(-1).data)
        sums.append(zlib.crc32(view))
        os.lseek(descriptor, offset + row * size, os.SEEK_SET)
        done = 0
        while done < size:
            done += os.write(descriptor, view[done:])
    os.fsync(descriptor)
    return bad, sums


def file_mark(path: str) -> tuple[int, int, int] | None:
    """Size, time of change and time of the last change of any kind; None for a file that cannot be reached."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_of_content(error: UnreadableImage) -> bool:
    """False where the disk, the network drive, the rights or the memory failed, not the image."""
    cause = error.__cause__
    return not (isinstance(cause, MemoryError) or (isinstance(cause, OSError) and cause.errno is not None))


def main() -> None:
    """Serve chunks until standard input closes."""
    setup: dict[str, Any] = json.loads(sys.stdin.readline())
    descriptor = os.open(setup["file"], os.O_WRONLY)
    for line in sys.stdin:
        items = [(int(row), str(path)) for row, path in json.loads(line)]
        try:
            bad, sums = fill_rows(
                descriptor,
                setup["offset"],
                items,
                setup["root"],
                setup["height"],
                setup["width"],
                setup["interpolation"],
                setup["stretch"],
            )
            reply: dict[str, Any] = {"bad": bad, "sums": sums}
        except OSError as error:
            reply = {"errno": error.errno, "error": str(error)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
