"""Image files: which names are images, and the one function that opens them.

Pillow chooses a decoder by what a file holds, not by its name: without a list of formats, PostScript in a ``.jpg``
would start Ghostscript. Imports neither torch nor the rest of gloam.
"""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

# What training, testing and extraction read; upper and lower case are the same.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")
# Pillow's names of these formats. Of a GIF or a TIFF with several images the first is read.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF")
# 8,192 x 8,192: three bytes a pixel make 200 MB. A small file may claim far more and fill the memory.
MAX_PIXELS = 2**26

# What Pillow raises for missing, empty, truncated, foreign or malicious files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, MemoryError, OverflowError)
_BOMB = (Image.DecompressionBombError, Image.DecompressionBombWarning)
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_DEEP_MODES = ("I", "F")


class UnreadableImage(Exception):
    """A file that cannot be decoded. Its text is the reason, without the path."""


def is_image(name: str) -> bool:
    """True for names that end in an image's suffix. Hidden files (``._0001.jpg`` of some archives) are none."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def load_image(path: str | Path) -> Image.Image:
    """Open and decode an image completely; its size is checked before.

    Args:
        path: a file in one of :data:`FORMATS`, whatever its name.

    Returns:
        The image in its own mode (RGB, grey, palette, 16 bits, ...).

    Raises:
        UnreadableImage: missing, empty, truncated or foreign file, or more than :data:`MAX_PIXELS` pixels.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(_too_large(f"{image.width} x {image.height}"))
            image.load()
            return image
    except _BOMB as error:
        raise UnreadableImage(_too_large("too many")) from error
    except _BROKEN as error:
        raise UnreadableImage(_reason(path, error)) from error


def save_image(image: Image.Image, path: str | Path, **options: Any) -> None:
    """Write an image in the format of its suffix.

    Pillow takes no notice of a disk that accepts only a part of what it writes; Python's own files do.

    Args:
        image: what to write.
        path: file.
        **options: of Pillow's writer of the format.

    Raises:
        OSError: it cannot be written whole.
    """
    place = Path(path)
    content = io.BytesIO()
    image.save(content, Image.registered_extensions()[place.suffix.lower()], **options)
    place.write_bytes(content.getvalue())


def is_deep(image: Image.Image) -> bool:
    """True for one channel of more than 8 bits: 16-bit grey, 32-bit or floating-point (radiometric) images."""
    return image.mode.startswith(_DEEP_MODES)


def holds_deep(path: str | Path) -> bool:
    """True if a file's header says that :func:`load_image` would give a deep image; False for unreadable files.

    Reads 26 bytes; only of a TIFF more.
    """
    if str(path).lower().endswith((".jpg", ".jpeg", ".bmp", ".webp", ".gif")):
        return False
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        if head.startswith(_PNG):
            return len(head) == 26 and head[24] == 16 and head[25] == 0  # bits a channel; colour type grey
        if head.startswith(_TIFF):
            with Image.open(path, formats=("TIFF",)) as image:
                return is_deep(image)
    except (*_BROKEN, *_BOMB):
        pass
    return False


def _too_large(size: str) -> str:
    return f"it has {size} pixels; at most {MAX_PIXELS:,} are read"


def _reason(path: str | Path, error: BaseException) -> str:
    try:
        if os.stat(path).st_size == 0:
            return "the file is empty"
    except (OSError, ValueError):
        return "the file is missing or may not be read"
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify the file as JPEG, PNG, BMP, WebP, TIFF or GIF"
    text = str(error) or type(error).__name__
    return text.replace(str(path), "the file")
