"""``gloam cache list``, ``check`` and ``clear``."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import numpy as np
import pytest

from gloam import cli
from gloam.pixels.cache import CacheKey, ensure_cache
from tests.pixels.images import write_images


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two complete caches, an interrupted one, a broken one, and a file that is none of ours."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("GLOAM_CACHE", str(folder))
    found = {}
    for name in ("[/x] set", "other"):
        paths = write_images(tmp_path / name, 5)
        key = CacheKey(tmp_path / name, paths, 24, 12, "lanczos")
        found[name] = ensure_cache(key, folder, workers=1, progress=False)[0].parent
    for name, label in (("0" * 20 + ".partial", "partial"), ("1" * 20, "broken")):
        (folder / name).mkdir()
        (folder / name / "pixels.npy").write_bytes(b"x" * 10_000)
        found[label] = folder / name
    (folder / "notes").mkdir()
    (folder / "notes" / "mine.txt").write_text("not a cache")
    return found


def test_list_shows_every_cache_whole(caches: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["cache", "list"]) == 0
    shown = capsys.readouterr().out
    for path in caches.values():
        assert path.name in shown
    assert "[/x]set" in "".join(shown.split())  # long paths are wrapped
    assert "5 of 24 x 12" in shown
    assert "unfinished" in shown
    assert "4 caches" in shown
    assert max(len(line) for line in shown.splitlines() if "caches," not in line) <= 80


def test_check_reads_everything(caches: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    good, damaged = caches["other"], caches["[/x] set"]
    assert cli.main(["cache", "check", good.name]) == 0
    assert f"{good.name}: 5 images, sound" in capsys.readouterr().out
    pixels = np.load(damaged / "pixels.npy", mmap_mode="r+")
    pixels[3, 1, 2, 4] ^= 1
    pixels.flush()
    assert cli.main(["cache", "check"]) == 2
    shown = capsys.readouterr().out
    assert f"{damaged.name}: 5 images, 1 damaged, the first is image 3" in shown
    assert f"{caches['broken'].name}: broken" in shown


def test_clear_deletes_what_was_asked_for(
    caches: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = caches["other"].parent
    open_elsewhere = np.load(caches["other"] / "pixels.npy", mmap_mode="r")
    before = open_elsewhere.copy()
    assert cli.main(["cache", "clear", "--days", "1"]) == 0
    assert all(path.exists() for path in caches.values())
    os.utime(caches["[/x] set"], (0, 0))
    assert cli.main(["cache", "clear", "--days", "1"]) == 0
    assert not caches["[/x] set"].exists()
    assert cli.main(["cache", "clear", "--unfinished"]) == 0
    assert not caches["partial"].exists()
    assert caches["other"].exists()
    assert cli.main(["cache", "clear", str(tmp_path / "other")]) == 0
    np.testing.assert_array_equal(open_elsewhere, before)
    assert [path.name for path in folder.iterdir() if "lock" not in path.name] == ["notes"]
    assert (folder / "notes" / "mine.txt").exists()
    capsys.readouterr()
    assert cli.main(["cache", "clear", "nothing"]) == 2
    assert "There is no cache 'nothing'" in capsys.readouterr().err


def test_a_cache_that_is_being_built_is_left_alone(caches: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    with (caches["partial"].parent / ("0" * 20 + ".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cli.main(["cache", "clear"]) == 0
    assert caches["partial"].exists()
    assert "a process is building it" in capsys.readouterr().out
    assert not caches["other"].exists()


def test_no_caches_is_no_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["list"], ["check"], ["clear"]):
        assert cli.main(["cache", *words, "--folder", str(tmp_path / "nowhere")]) == 0
    (tmp_path / "file").write_text("")
    assert cli.main(["cache", "list", "--folder", str(tmp_path / "file")]) == 2
    assert "not a folder" in capsys.readouterr().err
