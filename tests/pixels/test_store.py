"""Cached and on-the-fly stores: equal pixels, bad images, subsets, pickling."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gloam.datasets.records import Modality, Record
from gloam.errors import GloamError
from gloam.pixels import cache as cache_module
from gloam.pixels import store as store_module
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


def test_no_images(tmp_path: Path) -> None:
    assert len(_open(tmp_path, [], cache=tmp_path)) == 0
