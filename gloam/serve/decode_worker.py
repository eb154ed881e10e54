"""A process that decodes one uploaded image after another, with little memory and without rights to write files.

An image is the most dangerous thing that a stranger can send. Whatever a decoder does with it happens here, where it
ends one small process. Reads from standard input and writes to standard output: a length (4 bytes, big-endian), JSON,
and the bytes that the JSON announces.
"""

from __future__ import annotations

import io
import json
import struct
import sys
from typing import Any, BinaryIO

LENGTH = struct.Struct(">I")
THUMBNAIL = (64, 128)  # width, height: as the gallery keeps them


class _TooLarge(ValueError):
    """More pixels than are decoded."""


def read_message(stream: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    """One message; None at the end of the stream."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    told = json.loads(stream.read(LENGTH.unpack(head)[0]))
    return told, stream.read(told.get("size", 0))


def message(told: dict[str, Any], content: bytes = b"") -> bytes:
    """One message as bytes."""
    text = json.dumps(told | {"size": len(content)}).encode()
    return LENGTH.pack(len(text)) + text + content


def decode(content: bytes, order: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Decode, turn upright, cut the box out, resize as the model sees it.

    Args:
        content: bytes of the file.
        order: ``pixels`` (most that are decoded), ``box`` (left, top, width, height, or null), ``height``, ``width``,
            ``interpolation``, ``stretch``.

    Returns:
        The image's size and the length of the thumbnail; ``3 * height * width`` bytes and the thumbnail (WebP).

    Raises:
        ValueError: the file is no image that is read here, too large, or the box is outside of it.
    """
    from PIL import Image, ImageOps

    from gloam.image_files import FORMATS
    from gloam.pixels.decode import resize_rgb, to_rgb

    Image.MAX_IMAGE_PIXELS = None  # counted here, before anything is decoded
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as file:
            if file.width * file.height > order["pixels"]:
                raise _TooLarge(f"it has {file.width} x {file.height} pixels; at most {order['pixels']:,} are read")
            file.load()
            upright = ImageOps.exif_transpose(file)
    except _TooLarge:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, OverflowError) as error:
        raise ValueError("it is no JPEG, PNG, BMP, WebP, TIFF or GIF, or it is damaged") from error
    image = to_rgb(upright, order["stretch"])
    size = {"width": image.width, "height": image.height}
    if order["box"] is not None:
        left, top, width, height = order["box"]
        right, bottom = min(image.width, round(left + width)), min(image.height, round(top + height))
        left, top = max(0, round(left)), max(0, round(top))
        if right - left < 2 or bottom - top < 2:
            raise ValueError(
                f"the box lies outside of its {image.width} x {image.height} pixels, or is smaller than 2 x 2"
            )
        image = image.crop((left, top, right, bottom))
    pixels = resize_rgb(image, order["height"], order["width"], order["interpolation"])
    image.thumbnail(THUMBNAIL)
    small = io.BytesIO()
    image.save(small, "WEBP", quality=75)
    return size | {"thumbnail": small.tell()}, pixels.tobytes() + small.getvalue()


def main() -> None:
    """Serve until the input ends."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    while (found := read_message(source)) is not None:
        order, content = found
        try:
            answer = message(*decode(content, order))
        except ValueError as error:
            answer = message({"error": str(error)})
        except MemoryError:
            answer = message({"error": "decoding it needs too much memory"})
        target.write(answer)
        target.flush()


def limit(memory: int) -> None:
    """Give up memory beyond ``memory`` bytes and the right to write files (where the system can)."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    limit(int(sys.argv[1]))
    main()
