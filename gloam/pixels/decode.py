"""One file -> one uint8 image of the wanted size. The only place that decodes images for training and testing.

Imports neither torch nor the rest of gloam's data code: cache building starts small processes that need only this file.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gloam.errors import GloamError
from gloam.image_files import is_deep, load_image

Interpolation = Literal["lanczos", "bilinear", "bicubic"]

# How images of more than 8 bits become 8-bit: between the 1st and the 99th percentile of each image.
STRETCH = "1%..99%"

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_RANGE = re.compile(r"\s*([-+.\deE]+?)(%?)\s*\.\.\s*([-+.\deE]+?)(%?)\s*")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which values of a deep image become black and white; 256 equal steps lie between.

    Attributes:
        low: black, and everything below.
        high: white, and everything above.
        percentiles: the two are percentiles of each image, not values.
    """

    low: float
    high: float
    percentiles: bool

    def levels(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """8-bit levels of a deep image, any shape; what is no number is black."""
        values = values.astype(np.float64)
        known = np.isfinite(values)
        low, high = self.low, self.high
        if self.percentiles:
            low, high = np.percentile(values[known], [low, high]) if known.any() else (0.0, 0.0)
        if high <= low:
            return np.where(values > high, 255, 0).astype(np.uint8)
        steps = np.where(known, (values - low) * (256 / (high - low)), 0)
        return np.clip(steps, 0, 255).astype(np.uint8)


@functools.cache
def parse_stretch(text: str) -> Stretch:
    """``"1%..99%"``: percentiles of each image; ``"7000..9000"``: values of the files.

    Raises:
        GloamError: neither form, or an empty range.
    """
    found = _RANGE.fullmatch(text)
    try:
        if found is None or found[2] != found[4]:
            raise ValueError
        low, high = float(found[1]), float(found[3])
    except ValueError:
        raise GloamError(
            f"The stretch {text!r} cannot be read. Give percentiles of each image (1%..99%), or two values of the "
            "files (7000..9000), black first."
        ) from None
    percentiles = bool(found[2])
    limits = (0.0, 100.0) if percentiles else (-math.inf, math.inf)
    if not (limits[0] <= low < high <= limits[1] and math.isfinite(high - low)):
        raise GloamError(f"The stretch {text!r} is empty or out of range: the first number must be the smaller one.")
    return Stretch(low, high, percentiles)


def decode_image(
    path: str | Path, height: int, width: int, interpolation: Interpolation = "lanczos", stretch: str = STRETCH
) -> NDArray[np.uint8]:
    """Open an image, convert it to RGB, then resize it (aspect ratio ignored).

    *Source*: the loaders of AGW and M3-ReID (decode, convert, then resize). EXIF orientation is ignored, as there.

    Args:
        path: see :func:`gloam.image_files.load_image`.
        height: rows of the result.
        width: columns of the result.
        interpolation: filter; all are antialiased.
        stretch: see :func:`parse_stretch`; nothing happens to 8-bit images.

    Returns:
        ``(3, height, width)`` uint8, contiguous.

    Raises:
        UnreadableImage: missing, empty, truncated, foreign or too large file.
    """
    return resize_rgb(read_rgb(path, stretch), height, width, interpolation)


def read_rgb(path: str | Path, stretch: str = STRETCH) -> Image.Image:
    """An image file as :func:`to_rgb`.

    Raises:
        UnreadableImage: see :func:`gloam.image_files.load_image`.
    """
    return to_rgb(load_image(path), stretch)


def to_rgb(image: Image.Image, stretch: str = STRETCH) -> Image.Image:
    """An image as 8-bit RGB in its own size.

    One channel of more than 8 bits (16-bit grey, radiometric images) is stretched; colours of 16 bits keep their high
    byte, which is what Pillow does with them. Transparency is dropped.
    """
    if image.mode == "RGB":
        return image
    if is_deep(image):
        return Image.fromarray(parse_stretch(stretch).levels(np.asarray(image))).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:  # without this step Pillow warns for every such file
        image = image.convert("RGBA")
    return image.convert("RGB")


def resize_rgb(rgb: Image.Image, height: int, width: int, interpolation: Interpolation) -> NDArray[np.uint8]:
    """``(3, height, width)`` uint8, contiguous, of an RGB image; the filters are antialiased."""
    if rgb.size != (width, height):
        rgb = rgb.resize((width, height), _FILTERS[interpolation])
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))
