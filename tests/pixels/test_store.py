"""Cached and on-the-fly stores: equal pixels, bad images, subsets, pickling."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import stat
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.pixels import cache as cache_module
from gloam.pixels import store as store_module
from gloam.pixels.cache import CacheKey
from gloam.pixels.decode import STRETCH
from gloam.pixels.store import CachedStore, DecodingStore, drop_unreadable, image_paths, open_store
from tests.pixels.images import write_images


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Path, list[str]]:
    root = tmp_path / "set"
    return root, write_images(root, 11)


def _open(root: Path, paths: list[str], **options: Any) -> Any:
    return open_store(root, paths, **{"height": 20, "width": 12, "progress": False, "workers": 2, **options})


@pytest.mark.parametrize("interpolation", ["lanczos", "bilinear"])
def test_cached_and_on_the_fly_are_identical(
    tmp_path: Path, pictures: tuple[Path, list[str]], interpolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 3)  # four chunks: the worker processes take part
    root, paths = pictures
    cached = _open(root, paths, cache=tmp_path / "cache", interpolation=interpolation)
    direct = _open(root, paths, cache="off", interpolation=interpolation)
    assert isinstance(cached, CachedStore)
    assert isinstance(direct, DecodingStore)
    assert len(cached) == len(direct) == 11
    assert (cached.height, cached.width) == (direct.height, direct.width) == (20, 12)
    rows = [4, 4, 0, 10, 7]
    first, second = cached.read(rows), direct.read(rows)
    assert first.dtype == np.uint8
    assert first.shape == (5, 3, 20, 12)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(cached.read(range(11)), direct.read(range(11)))
    assert not np.array_equal(first[0], first[2])


def test_the_cache_is_read_not_decoded_again(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    before = _open(root, paths, cache=tmp_path / "cache").read([3])
    statuses = {p: (root / p).stat() for p in paths}
    for path in paths:  # same sizes and times, other content: a cache hit must not look inside
        size = statuses[path].st_size
        (root / path).write_bytes(bytes(size))
        os.utime(root / path, ns=(statuses[path].st_atime_ns, statuses[path].st_mtime_ns))
    np.testing.assert_array_equal(_open(root, paths, cache=tmp_path / "cache").read([3]), before)
    os.utime(root / paths[0])
    with pytest.raises(GloamError, match="11 of 11 images cannot be read"):
        _open(root, paths, cache=tmp_path / "cache")


def test_size_filter_and_order_make_other_caches(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    for options in ({}, {"height": 24}, {"interpolation": "bicubic"}):
        _open(root, paths, cache=tmp_path / "cache", **options)
    _open(root, paths[::-1], cache=tmp_path / "cache")
    assert len(list((tmp_path / "cache").glob("*/pixels.npy"))) == 4


@pytest.mark.parametrize("cache", ["off", "dir"])
def test_bad_images_fail_or_are_listed(tmp_path: Path, pictures: tuple[Path, list[str]], cache: str) -> None:
    root, paths = pictures
    where = "off" if cache == "off" else tmp_path / "cache"
    (root / paths[2]).write_bytes(b"")
    (root / paths[7]).write_bytes((root / paths[7]).read_bytes()[:200])
    with pytest.raises(GloamError, match=r"2 of 11 .*0002.jpg .*empty.*0007.jpg") as caught:
        _open(root, paths, cache=where).read(range(11))
    assert "skip" in str(caught.value)
    store = _open(root, paths, cache=where, on_bad_image="skip")
    assert store.bad_indices == (2, 7)


def test_drop_unreadable_drops_images_and_frames(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    (root / paths[0]).write_bytes(b"")
    (root / paths[4]).write_bytes(b"")
    records = [Record((paths[0],), 0, 1, Modality.VISIBLE, 5)]
    records.append(Record(tuple(paths[1:6]), 1, 1, Modality.VISIBLE, 6))
    records.append(Record((paths[6],), 2, 1, Modality.INFRARED, 7))
    store = _open(root, image_paths(records), cache="off", on_bad_image="skip")
    kept, view = drop_unreadable(records, store)
    assert [r.paths for r in kept] == [(paths[1], paths[2], paths[3], paths[5]), (paths[6],)]
    assert kept[0].pid_raw == 6
    assert len(view) == 5
    np.testing.assert_array_equal(view.read([3, 4]), store.read([5, 6]))
    same, untouched = drop_unreadable(kept, view)
    assert untouched is view
    assert same == kept


def test_missing_images_are_named(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    (root / paths[5]).unlink()
    with pytest.raises(GloamError, match=r"1 of 11 images are missing .*0005.jpg"):
        _open(root, paths, cache=tmp_path / "cache")
    with pytest.raises(GloamError, match=r"1 of 2 images .*missing"):
        _open(root, paths, cache="off").read([4, 5])


def test_auto_uses_the_named_folder_and_decodes_above_the_limit(
    tmp_path: Path, pictures: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, paths = pictures
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "own"))
    assert isinstance(_open(root, paths), CachedStore)
    assert list((tmp_path / "own").glob("*/pixels.npy"))
    monkeypatch.setattr(store_module, "AUTO_CACHE_LIMIT", 11 * 3 * 20 * 12 - 1)
    assert isinstance(_open(root, paths), DecodingStore)


def test_auto_falls_back_when_the_disk_is_full(
    tmp_path: Path, pictures: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root, paths = pictures
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "own"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))  # type: ignore[attr-defined]
    assert isinstance(_open(root, paths), DecodingStore)
    assert "does not fit" in caplog.text
    with pytest.raises(GloamError, match="does not fit"):
        _open(root, paths, cache=tmp_path / "other")
    assert not list(tmp_path.glob("o*/*.partial"))


def _first_row(store: Any, pipe: Any) -> None:
    pipe.send(store.read([1]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["cached", "decoding"])
def test_stores_work_in_child_processes(
    tmp_path: Path, pictures: tuple[Path, list[str]], kind: str, method: str
) -> None:
    root, paths = pictures
    store = _open(root, paths, cache=tmp_path / "cache" if kind == "cached" else "off")
    expected = store.read([1, 2])[:1]  # starts the thread pool of the decoding store
    assert len(pickle.dumps(store)) < 2000  # never the pixels
    context: Any = multiprocessing.get_context(method)
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_first_row, args=(store, send))
    process.start()
    assert receive.poll(30)
    np.testing.assert_array_equal(receive.recv(), expected)
    process.join()


def _digest_before_stretches(key: CacheKey) -> str:
    """The key of caches made before there was a stretch, of images that are there."""
    header = [1, PIL.__version__, key.root.resolve().as_posix(), key.height, key.width, key.interpolation]
    text = json.dumps(header)
    for path in key.paths:
        status = (key.root / path).stat()
        text += f"{path}\0{status.st_size}\0{status.st_mtime_ns}\n"
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def test_caches_of_8_bit_images_keep_their_key(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    for name in ("grey.png", "grey.tif"):
        Image.new("L", (8, 8)).save(root / name)
    for stretch in (STRETCH, "7000..9000"):
        key = CacheKey(root, [*paths, "grey.png", "grey.tif"], 20, 12, "lanczos", stretch)
        assert key.digest() == _digest_before_stretches(key)


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_each_stretch_of_deep_images_has_its_own_cache(tmp_path: Path, name: str) -> None:
    values = np.arange(7000, 7000 + 20 * 12 * 8, 8, dtype=np.uint16).reshape(20, 12)
    (tmp_path / "set").mkdir()
    Image.fromarray(values).save(tmp_path / "set" / name)
    found = {}
    for stretch in (STRETCH, "7000..9000", "0..65535"):
        cached = _open(tmp_path / "set", [name], cache=tmp_path / "cache", stretch=stretch)
        direct = _open(tmp_path / "set", [name], cache="off", stretch=stretch)
        found[stretch] = cached.read([0])
        np.testing.assert_array_equal(found[stretch], direct.read([0]))
    assert len(list((tmp_path / "cache").glob("*/pixels.npy"))) == 3
    np.testing.assert_array_equal(found["0..65535"][0, 0], values >> 8)
    key = CacheKey(tmp_path / "set", [name], 20, 12, "lanczos")
    assert key.digest() != _digest_before_stretches(key)  # older caches hold the high byte


def test_the_stretch_reaches_the_worker_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "CHUNK", 1)
    (tmp_path / "set").mkdir()
    for number in range(3):
        Image.fromarray(np.full((20, 12), 7000 + 500 * number, np.uint16)).save(tmp_path / "set" / f"{number}.png")
    store = _open(tmp_path / "set", ["0.png", "1.png", "2.png"], cache=tmp_path / "cache", stretch="7000..9000")
    assert store.read([0, 1, 2])[:, 0, 0, 0].tolist() == [0, 64, 128]


def test_caches_are_for_their_owner_only(tmp_path: Path, pictures: tuple[Path, list[str]]) -> None:
    root, paths = pictures
    before = os.umask(0o022)
    try:
        _open(root, paths, cache=tmp_path / "cache")
    finally:
        os.umask(before)
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "cache", *(tmp_path / "cache").rglob("*"))}
    assert len(modes) >= 5  # folder, lock, cache, pixels, info
    assert {mode for p, mode in modes.items() if p.is_dir()} == {0o700}
    assert {mode for p, mode in modes.items() if p.is_file()} == {0o600}


def test_the_lock_of_a_cache_does_not_follow_a_link(
    tmp_path: Path, pictures: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root, paths = pictures
    (tmp_path / "precious").write_text("kept")
    digest = CacheKey(root, paths, 20, 12, "lanczos").digest()
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{digest}.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(GloamError, match="cannot be written"):
        _open(root, paths, cache=tmp_path / "cache")
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "cache"))
    assert isinstance(_open(root, paths), DecodingStore)
    assert "cannot be written" in caplog.text
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("name", ["", "  "])
def test_a_cache_without_a_name_is_refused(
    tmp_path: Path, pictures: tuple[Path, list[str]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GloamError, match="empty name"):
        _open(*pictures, cache=name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["set"]


@pytest.mark.parametrize("cache", ["off", "auto"])
def test_a_stretch_that_is_none_is_refused_at_once(tmp_path: Path, pictures: Any, cache: str) -> None:
    with pytest.raises(GloamError, match="stretch 'high'"):
        _open(*pictures, cache=cache, stretch="high")


def test_no_images(tmp_path: Path) -> None:
    assert len(_open(tmp_path, [], cache=tmp_path)) == 0
