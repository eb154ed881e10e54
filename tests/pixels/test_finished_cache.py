"""Caches that are used long after they were built: damaged, moved on, unreadable for a moment."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gloam.image_files import UnreadableImage
from gloam.pixels import cache_worker
from gloam.pixels.cache import CacheError, CacheKey, ensure_cache
from gloam.pixels.decode import decode_image
from gloam.pixels.finished_cache import FinishedCache
from gloam.pixels.store import BadImageError, open_store
from tests.pixels.images import write_images


def _key(root: Path, count: int) -> CacheKey:
    return CacheKey(root, write_images(root, count), 24, 12, "lanczos")


def _ensure(key: CacheKey, folder: Path, workers: int = 1) -> tuple[Path, dict[int, str]]:
    return ensure_cache(key, folder, workers=workers, progress=False)


def _expected(key: CacheKey) -> Any:
    return np.stack([decode_image(key.root / path, key.height, key.width) for path in key.paths])


def _flip(file: Path, position: int) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 4
    status = file.stat()
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("workers", [1, 2])
def test_every_row_has_its_checksum(workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gloam.pixels.cache.CHUNK", 4)
    key = _key(tmp_path / "set", 11)
    file, _ = _ensure(key, tmp_path / "cache", workers)
    found = FinishedCache.open(file.parent)
    assert found is not None
    assert found.damaged_rows() == []
    _flip(file, file.stat().st_size - 1)
    _flip(file, file.stat().st_size - 5 * 3 * 24 * 12 - 1)
    assert found.damaged_rows() == [5, 10]


def test_a_flipped_byte_is_found_told_and_put_right(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    key = _key(tmp_path / "set", 6)
    file, _ = _ensure(key, tmp_path / "cache")
    _flip(file, file.stat().st_size - 100)
    with caplog.at_level(logging.WARNING):
        assert _ensure(key, tmp_path / "cache") == (file, {})
    assert "1 of 6 images in the pixel cache" in caplog.text
    np.testing.assert_array_equal(np.load(file), _expected(key))
    caplog.clear()
    _ensure(key, tmp_path / "cache")
    assert caplog.text == ""


def test_every_part_of_a_cache_is_watched(tmp_path: Path) -> None:
    """Flip every byte of the small files and the header, and some of the pixels: the pixels are always right."""
    key = _key(tmp_path / "set", 2)
    (key.root / key.paths[1]).write_bytes(b"no image")
    good, bad = _ensure(key, tmp_path / "good")
    assert list(bad) == [1]
    expected = np.load(good)
    for name in ("info.json", "checksums.bin", "pixels.npy"):
        size = (good.parent / name).stat().st_size
        for position in [*range(0, min(size, 400), 3), size - 1]:
            folder = tmp_path / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(tmp_path / "good", folder)
            _flip(folder / good.parent.name / name, position)
            file, found = _ensure(key, folder)
            np.testing.assert_array_equal(np.load(file), expected, err_msg=f"{name} {position}")
            assert list(found) == [1], (name, position)


def test_a_sample_is_enough_to_find_a_damaged_block(tmp_path: Path) -> None:
    """Disks lose blocks, not bits: of 400 rows the last 40 are gone, 64 are looked at."""
    key = CacheKey(tmp_path / "set", write_images(tmp_path / "set", 400, size=(6, 12)), 12, 6, "lanczos")
    file, _ = _ensure(key, tmp_path / "cache")
    with file.open("r+b") as stream:
        stream.seek(-40 * 3 * 12 * 6, os.SEEK_END)
        stream.write(bytes(40 * 3 * 12 * 6))
    found = FinishedCache.open(file.parent)
    assert found is not None
    assert found.needs_work(key.root, key.paths)  # misses it once in a thousand
    _ensure(key, tmp_path / "cache")
    np.testing.assert_array_equal(np.load(file), _expected(key))


def test_a_damaged_cache_that_may_not_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = _key(tmp_path / "set", 4)
    file, _ = _ensure(key, tmp_path / "cache")
    _flip(file, file.stat().st_size - 1)

    def refuse(*_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("gloam.pixels.cache._lock", refuse)
    with pytest.raises(CacheError, match="cannot be written"):
        _ensure(key, tmp_path / "cache")
    # On the fly instead, where nobody named the folder.
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "cache"))
    store = open_store(key.root, key.paths, height=24, width=12, progress=False)
    np.testing.assert_array_equal(store.read(range(4)), _expected(key))


def _fail_once(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception, times: int = 1) -> list[str]:
    """Let the decoder fail at one file for some time, for a reason outside the image."""
    tried: list[str] = []

    def decode(path: str, *options: Any) -> Any:
        tried.append(Path(path).name)
        if Path(path).name == name and tried.count(name) <= times:
            raise UnreadableImage(str(error)) from error
        return decode_image(path, *options)

    monkeypatch.setattr(cache_worker, "decode_image", decode)
    return tried


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "Input/output error"), PermissionError(errno.EACCES, "denied"), MemoryError()]
)
def test_a_failure_of_the_machine_is_not_remembered(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = _key(tmp_path / "set", 4)
    _fail_once(monkeypatch, key.paths[2], error, times=2)
    _, bad = _ensure(key, tmp_path / "cache")
    assert list(bad) == [2]  # tried twice at once: a hiccup is over by then
    file, bad = _ensure(key, tmp_path / "cache")
    assert bad == {}
    np.testing.assert_array_equal(np.load(file), _expected(key))


def test_a_hiccup_does_not_even_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = _key(tmp_path / "set", 4)
    _fail_once(monkeypatch, key.paths[2], OSError(errno.ESTALE, "Stale file handle"))
    file, bad = _ensure(key, tmp_path / "cache")
    assert bad == {}
    np.testing.assert_array_equal(np.load(file), _expected(key))


def test_a_broken_image_is_tried_once_until_its_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = _key(tmp_path / "set", 4)
    broken = key.root / key.paths[1]
    whole = broken.read_bytes()
    broken.write_bytes(b"x" * len(whole))
    os.utime(broken, ns=(1, 1))
    tried = _fail_once(monkeypatch, "", OSError())
    folder = tmp_path / "cache"
    _, bad = _ensure(key, folder)
    assert list(bad) == [1]
    with pytest.raises(BadImageError, match=r"1 of 4.*0001"):
        open_store(key.root, key.paths, height=24, width=12, cache=folder, progress=False)
    _, bad = _ensure(key, folder)
    assert (list(bad), tried.count(broken.name)) == ([1], 1)
    # Put right in place: same size, same time, so the same cache; only the time of the last change of any kind tells.
    broken.write_bytes(whole)
    os.utime(broken, ns=(1, 1))
    file, bad = _ensure(key, folder)
    assert bad == {}
    np.testing.assert_array_equal(np.load(file), _expected(key))
    assert len(list(folder.glob("*/pixels.npy"))) == 1


def test_a_cache_of_an_older_version_is_taken_and_brought_up_to_date(tmp_path: Path) -> None:
    key = _key(tmp_path / "set", 4)
    (key.root / key.paths[3]).write_bytes(b"no image")
    file, _ = _ensure(key, tmp_path / "cache")
    info = json.loads((file.parent / "info.json").read_text())
    old = {name: value for name, value in info.items() if name != "checksum"} | {"bad": [[3, "no image"]]}
    (file.parent / "info.json").write_text(json.dumps(old))
    (file.parent / "checksums.bin").unlink()
    before = file.stat().st_ino
    assert list(_ensure(key, tmp_path / "cache")[1]) == [3]
    assert file.stat().st_ino == before
    found = FinishedCache.open(file.parent)
    assert found is not None
    assert found.damaged_rows() == []
    assert found.bad[3][2] is not None
    assert not found.needs_work(key.root, key.paths)
