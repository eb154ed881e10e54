"""Small images inside a page: WebP as data, with the heads of people made unrecognisable where asked."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from PIL import Image, ImageFilter

from gloam.datasets.records import Record
from gloam.image_files import UnreadableImage
from gloam.pixels.decode import read_rgb

Faces = Literal["blur", "none", "keep"]
WIDTH, HEIGHT = 56, 112
_QUALITY = 72
# The head of a standing person fills about the upper sixth of a tight crop; loose crops put it lower.
_HEAD = 0.3


def thumbnail(root: Path, record: Record, faces: Faces) -> str | None:
    """An image, or the middle frame of a tracklet, as a data URI.

    Args:
        root: folder that the record's paths are relative to.
        record: what to show.
        faces: ``blur`` makes the upper 30 % of the image unrecognisable (no face is looked for: heads lie there in
            person crops); ``keep`` shows it.

    Returns:
        The URI, or None where the image cannot be read.
    """
    try:
        image = read_rgb(root / record.paths[len(record.paths) // 2])
    except UnreadableImage:
        return None
    small = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
    if faces == "blur":
        small = blur_head(small)
    file = io.BytesIO()
    small.save(file, "WEBP", quality=_QUALITY, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def blur_head(image: Image.Image) -> Image.Image:
    """The image with its upper part reduced to a few blocks and smoothed: what is lost cannot be sharpened again."""
    border = round(_HEAD * image.height)
    head = image.crop((0, 0, image.width, border))
    head = head.resize((5, 3), Image.Resampling.BOX).resize(head.size, Image.Resampling.BICUBIC)
    changed = image.copy()
    changed.paste(head.filter(ImageFilter.GaussianBlur(3)), (0, 0))
    return changed


def thumbnails(root: Path, records: Iterable[Record], faces: Faces) -> dict[Record, str | None]:
    """Each record's image once; several are read at a time."""
    wanted = list(dict.fromkeys(records))
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(wanted, pool.map(lambda record: thumbnail(root, record, faces), wanted), strict=True))
