"""Kinds of image files, readable and not."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gloam.errors import GloamError
from gloam.image_files import UnreadableImage
from gloam.pixels.decode import Stretch, decode_image, parse_stretch
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


def _levels_one_by_one(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Oracle: 256 equal steps from low to high."""
    edges = [low + (high - low) * step / 256 for step in range(1, 256)]
    return np.array([sum(value >= edge for edge in edges) for value in values.ravel()]).reshape(values.shape)


DEEP = [("deep.png", np.uint16), ("deep.tif", np.uint16), ("deep.tiff", np.int32), ("kelvin.tif", np.float32)]


@pytest.mark.parametrize(("name", "kind"), DEEP)
def test_thermal_levels_are_spread_over_all_256(tmp_path: Path, name: str, kind: type) -> None:
    """A 14-bit camera that shows 4,000 levels of 65,536: the high byte alone would leave 16 of them."""
    values = np.random.default_rng(0).permutation(np.arange(6000, 10000)).reshape(80, 50).astype(kind)
    Image.fromarray(values).save(tmp_path / name)
    pixels = decode_image(tmp_path / name, 80, 50)
    np.testing.assert_array_equal(pixels[0], pixels[2])
    low, high = np.percentile(values.astype(float), [1, 99])
    expected = _levels_one_by_one(values.astype(float), low, high)
    assert np.abs(pixels[0].astype(int) - expected).max() <= 1  # rounding of an edge
    assert (pixels[0] != expected).mean() < 0.01
    assert len(np.unique(pixels[0])) == 256


def test_a_fixed_range_is_the_same_for_every_image(tmp_path: Path) -> None:
    low, warm = np.full((4, 4), 7000, np.uint16), np.full((4, 4), 8000, np.uint16)
    for name, values in (("low.png", low), ("warm.png", warm)):
        Image.fromarray(values).save(tmp_path / name)
        assert decode_image(tmp_path / name, 4, 4).max() == 0  # its own percentiles tell nothing apart
    assert decode_image(tmp_path / "low.png", 4, 4, stretch="7000..9000").max() == 0
    assert (decode_image(tmp_path / "warm.png", 4, 4, stretch="7000..9000") == 128).all()
    assert (decode_image(tmp_path / "warm.png", 4, 4, stretch="6000..7000") == 255).all()


def test_the_whole_range_of_16_bits_is_the_high_byte(tmp_path: Path) -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(every).save(tmp_path / "every.png")
    np.testing.assert_array_equal(decode_image(tmp_path / "every.png", 256, 256, stretch="0..65535")[1], every >> 8)


def test_numbers_that_are_none_are_black(tmp_path: Path) -> None:
    values = np.linspace(290, 310, 64, dtype=np.float32).reshape(8, 8)
    values[0, 0], values[7, 7] = np.nan, np.inf
    Image.fromarray(values).save(tmp_path / "kelvin.tif")
    pixels = decode_image(tmp_path / "kelvin.tif", 8, 8, stretch="290..310")[0]
    assert pixels[0, 0] == pixels[7, 7] == 0
    assert pixels[7, 6] > 250
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "none.tif")
    assert not decode_image(tmp_path / "none.tif", 8, 8).any()


def test_8_bit_images_are_not_stretched(tmp_path: Path) -> None:
    values = np.arange(100, 164, dtype=np.uint8).reshape(8, 8)
    for name in ("grey.png", "grey.tif", "grey.bmp"):
        Image.fromarray(values).save(tmp_path / name)
        np.testing.assert_array_equal(decode_image(tmp_path / name, 8, 8, stretch="110..120")[0], values)


@pytest.mark.parametrize(
    "text", ["", "1%", "1..99%", "99%..1%", "5..5", "-1%..50%", "nan..3", "0..inf", "a..b", "1e400..2"]
)
def test_stretches_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(GloamError, match=r"stretch .*(1%\.\.99%|smaller)"):
        parse_stretch(text)


def test_stretches_in_words_of_a_person() -> None:
    assert parse_stretch("-20..50.5") == Stretch(-20, 50.5, False)
    assert parse_stretch(" 0.5% .. 100% ") == Stretch(0.5, 100, True)


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
        ("text.jpg", "JPEG, PNG, BMP, WebP, TIFF or GIF"),
        ("none.jpg", "missing"),
    ]:
        with pytest.raises(UnreadableImage, match=reason):
            decode_image(tmp_path / name, 16, 8)
    with pytest.raises(UnreadableImage):
        decode_image(tmp_path / "broken.png", 16, 8)
