"""One file -> one uint8 image of the wanted size. The only place that opens images for training and testing.

Imports neither torch nor the rest of gloam's data code: cache building starts small processes that need only this file.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Interpolation = Literal["lanczos", "bilinear", "bicubic"]

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# What Pillow raises for missing, empty, truncated, foreign or malicious files.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError, MemoryError)


class UnreadableImage(Exception):
    """A file that cannot be decoded. Its text is the reason, without the path."""


def decode_image(
    path: str | Path, height: int, width: int, interpolation: Interpolation = "lanczos"
) -> NDArray[np.uint8]:
    """Open an image, convert it to RGB, then resize it (aspect ratio ignored).

    *Source*: the loaders of AGW and M3-ReID (decode, convert, then resize). EXIF orientation is ignored, as there.
    16-bit grey values keep their high byte, which is what Pillow itself does with 16-bit colour (a plain
    ``convert`` would clip everything above 255 to white). Transparency is dropped.

    Args:
        path: any format that Pillow reads.
        height: rows of the result.
        width: columns of the result.
        interpolation: filter; all are antialiased.

    Returns:
        ``(3, height, width)`` uint8, contiguous.

    Raises:
        UnreadableImage: missing, empty, truncated or foreign file.
    """
    try:
        with Image.open(path) as image:
            rgb = _to_rgb(image)
    except _BROKEN as error:
        raise UnreadableImage(_reason(path, error)) from error
    return resize_rgb(rgb, height, width, interpolation)


def resize_rgb(rgb: Image.Image, height: int, width: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """``(3, height, width)`` uint8, contiguous, of an RGB image; the filters are antialiased."""
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), _FILTERS[interpolation])
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def _to_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16 bits per pixel: "I;16", "I;16B", ..., and "I" from 16-bit PGM
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:  # without this step Pillow warns for every such file
        image = image.convert("RGBA")
    return image.convert("RGB")


def _reason(path: str | Path, error: BaseException) -> str:
    try:
        if Path(path).stat().st_size == 0:
            return "the file is empty"
    except OSError:
        return "the file is missing or may not be read"
    text = str(error) or type(error).__name__
    return text.replace(str(path), "the file")
