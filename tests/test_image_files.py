"""Which files are opened as images, whatever their names say, and which never."""

from __future__ import annotations

import os
import resource
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gloam import image_files
from gloam.datasets import load_dataset
from gloam.datasets.check import decode_problem
from gloam.image_files import (
    FORMATS,
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    UnreadableImage,
    holds_deep,
    is_deep,
    is_image,
    load_image,
    save_image,
)
from gloam.pixels.decode import decode_image

EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 10 10
%%EndComments
(marker) (w) file closefile
showpage
%%EOF
"""


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.eps", "photo.tif"])
def test_postscript_never_reaches_its_interpreter(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / name).write_bytes(EPS)
    started: list[object] = []
    for function in ("Popen", "check_call", "run"):
        monkeypatch.setattr(subprocess, function, lambda *a, **k: started.append(a))
    for read in (load_image, lambda path: decode_image(path, 8, 8)):
        with pytest.raises(UnreadableImage, match="cannot identify"):
            read(tmp_path / name)
    assert "cannot identify" in str(decode_problem(tmp_path / name))
    assert not started


@pytest.mark.parametrize("kind", ["PPM", "TGA", "PCX", "ICO", "JPEG2000"])
def test_other_formats_are_named_as_unreadable(tmp_path: Path, kind: str) -> None:
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.jpg", format=kind)
    with pytest.raises(UnreadableImage):
        load_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("kind", FORMATS)
def test_the_content_decides_not_the_name(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGB", (16, 8), (250, 10, 60))
    image.save(tmp_path / "photo.bmp", format=kind, **({"lossless": True} if kind == "WEBP" else {}))
    pixels = decode_image(tmp_path / "photo.bmp", 8, 16)
    assert np.abs(pixels.astype(int) - np.array([250, 10, 60]).reshape(3, 1, 1)).max() <= 4


def test_of_several_images_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("L", (8, 8), level) for level in (10, 200)]
    for name in ("moving.gif", "pages.tiff"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert (decode_image(tmp_path / name, 8, 8) == 10).all()


def _png_bomb(path: Path, width: int, height: int) -> None:
    """A complete PNG of one bit a pixel, all of it black: 1,000 times smaller than its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = zlib.compress(b"\0" * (height * (1 + (width + 7) // 8)), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _png_bomb(tmp_path / "bomb.png", 8192, 8193)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UnreadableImage, match=r"8192 x 8193 pixels; at most 67,108,864"):
        load_image(tmp_path / "bomb.png")
    _png_bomb(tmp_path / "huge.png", 30000, 30000)  # beyond Pillow's own limit, which it tells in another way
    with pytest.raises(UnreadableImage, match="at most 67,108,864"):
        load_image(tmp_path / "huge.png")


def test_images_up_to_the_limit_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_PIXELS == 8192 * 8192
    monkeypatch.setattr(image_files, "MAX_PIXELS", 64)
    _png_bomb(tmp_path / "fits.png", 8, 8)
    _png_bomb(tmp_path / "not.png", 13, 5)
    assert load_image(tmp_path / "fits.png").size == (8, 8)
    with pytest.raises(UnreadableImage, match="13 x 5"):
        load_image(tmp_path / "not.png")


KINDS = {
    "x.png": ("L", "LA", "RGB", "RGBA", "P", "1", "I;16"),
    "x.tif": ("L", "LA", "RGB", "RGBA", "P", "1", "I;16", "I", "F", "CMYK"),
    "x.jpg": ("L", "RGB", "CMYK"),
    "x.webp": ("RGB", "RGBA"),
}


@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name, kinds in KINDS.items() for kind in kinds])
def test_the_header_tells_deep_images_as_decoding_does(tmp_path: Path, name: str, kind: str) -> None:
    Image.new(kind, (3, 5)).save(tmp_path / name)
    assert holds_deep(tmp_path / name) == is_deep(load_image(tmp_path / name)) == (kind in ("I;16", "I", "F"))


def test_headers_of_broken_files(tmp_path: Path) -> None:
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*" + bytes(40)):
        (tmp_path / "broken.png").write_bytes(content)
        assert not holds_deep(tmp_path / "broken.png")
    assert not holds_deep(tmp_path / "none.tif")


def test_names_of_images() -> None:
    assert all(is_image(f"a{suffix}") and is_image(f"a{suffix.upper()}") for suffix in IMAGE_SUFFIXES)
    assert not is_image("._a.jpg")
    assert not is_image("jpg")


def test_folders_read_every_format(tmp_path: Path) -> None:
    for person in ("anna", "ben"):
        for number, suffix in enumerate(IMAGE_SUFFIXES):
            (tmp_path / person).mkdir(exist_ok=True)
            Image.new("RGB", (8, 16), 9 * number).save(tmp_path / person / f"{number}{suffix}")
    splits = load_dataset("table", tmp_path, test_fraction=0)
    assert len(splits.train) == 2 * len(IMAGE_SUFFIXES)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
def test_an_image_is_written_whole_or_not_at_all(name: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 20, 3), np.uint8))
    image.save(tmp_path / f"pillow_{name}")
    save_image(image, tmp_path / name)
    assert (tmp_path / name).read_bytes() == (tmp_path / f"pillow_{name}").read_bytes()
    child = os.fork()
    if child == 0:  # where the disk takes 64 bytes and no more
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
        try:
            save_image(image, tmp_path / f"cut_{name}")
        except OSError:
            os._exit(3)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
