"""Small copies of images: stored where the user asked for it at ``create``, or made for a page of hits."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gloam.gallery.rows import Row
from gloam.image_files import UnreadableImage
from gloam.pixels.decode import read_rgb

_SIZE = (64, 128)  # width, height in pixels


def thumbnail(pixels: NDArray[np.uint8], quality: int = 75) -> bytes:
    """A small WebP of ``(3, H, W)`` uint8."""
    return _webp(Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))), quality)


def thumbnail_of(row: Row) -> bytes | None:
    """A small WebP of a row's image file; None where there is none, none that can be read, or another one by now."""
    if row.path is None or row.frame is not None:
        return None
    place = Path(row.root) / row.path
    try:
        if row.sha256 is not None and row.frames == 1 and hashlib.sha256(place.read_bytes()).digest() != row.sha256:
            return None
        image = read_rgb(place)
    except (OSError, UnreadableImage):
        return None
    if row.box is not None:
        left, top, width, height = row.box
        image = image.crop((round(left), round(top), round(left + width), round(top + height)))
        if not image.width or not image.height:
            return None
    return _webp(image, 75)


def _webp(image: Image.Image, quality: int) -> bytes:
    image.thumbnail(_SIZE)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality)
    return out.getvalue()
