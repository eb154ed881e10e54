"""Kinds of image files, readable and not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gloam.pixels.decode import UnreadableImage, decode_image
from tests.pixels.images import write_images


@pytest.mark.parametrize(
    ("name", "filter_"),
    [
        ("lanczos", Image.Resampling.LANCZOS),
        ("bilinear", Image.Resampling.BILINEAR),
        ("bicubic", Image.Resampling.BICUBIC),
    ],
)
def test_equals_convert_then_resize(tmp_path: Path, name: str, filter_: Image.Resampling) -> None:
    (path,) = write_images(tmp_path, 1)
    with Image.open(tmp_path / path) as image:
        expected = np.asarray(image.convert("RGB").resize((14, 28), filter_)).transpose(2, 0, 1)
    pixels = decode_image(tmp_path / path, 28, 14, name)  # type: ignore[arg-type]
    assert pixels.shape == (3, 28, 14)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, expected)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(64, 32).astype(np.uint16)
    for name in ("deep.png", "deep.tif", "deep.pgm"):
        Image.fromarray(ramp).save(tmp_path / name)
        pixels = decode_image(tmp_path / name, 64, 32)
        np.testing.assert_array_equal(pixels[0], ramp >> 8)
        np.testing.assert_array_equal(pixels[0], pixels[2])


def test_palette_alpha_grey_and_bilevel(tmp_path: Path) -> None:
    colours = np.zeros((8, 8, 3), np.uint8)
    colours[:, :4] = (250, 10, 60)
    colours[:, 4:] = (20, 200, 90)
    image = Image.fromarray(colours)
    palette = image.quantize(4)
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "transparent.png", transparency=bytes([0, 255, 255, 255]))
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.convert("L").save(tmp_path / "grey.png")
    image.convert("1").save(tmp_path / "bilevel.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("palette.png", "transparent.png", "alpha.png"):
            np.testing.assert_array_equal(decode_image(tmp_path / name, 8, 8), colours.transpose(2, 0, 1))
        grey = decode_image(tmp_path / "grey.png", 8, 8)
    np.testing.assert_array_equal(grey, np.broadcast_to(np.asarray(image.convert("L")), (3, 8, 8)))
    assert set(np.unique(decode_image(tmp_path / "bilevel.png", 8, 8))) <= {0, 255}


def test_one_pixel_image(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (7, 8, 9)).save(tmp_path / "dot.png")
    pixels = decode_image(tmp_path / "dot.png", 16, 8)
    assert (pixels == np.array([7, 8, 9]).reshape(3, 1, 1)).all()


def test_broken_files_give_a_reason(tmp_path: Path) -> None:
    (path,) = write_images(tmp_path, 1)
    whole = (tmp_path / path).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    for name, reason in [
        ("cut.jpg", "[Tt]runcated"),
        ("empty.jpg", "empty"),
        ("text.jpg", "identify"),
        ("none.jpg", "missing"),
    ]:
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(tmp_path / name, 16, 8)
    with pytest.raises(UnreadableImage):
        decode_image(tmp_path / "broken.png", 16, 8)
