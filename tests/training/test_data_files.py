"""Images that change between stop and resume: noticed, named, and what may differ may."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gloam.methods
from gloam.datasets import load_dataset
from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.training.data_files import FILES, DataFiles
from gloam.training.run import train
from tests.people_tree import write_sysu
from tests.training.spy import Spy
from tests.training.tiny import tiny_recipe

SPY = {"method": {"name": "spy"}, "train": {"epochs": 2, "iterations": 1}}


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """Data of this test alone, and the method that learns nothing."""
    with gloam.methods.registry.temporarily():
        gloam.methods.register("spy")(Spy)
        yield write_sysu(tmp_path / "data")


def _stopped(root: Path, folder: Path, **data: Any) -> Path:
    return train(tiny_recipe(root, **SPY, data=data), output=folder, stop_after=1, progress=False).path


def _resume(root: Path, run: Path, **data: Any) -> None:
    train(tiny_recipe(root, **SPY, data=data), resume=run, progress=False)


def _replace(path: Path, other: Path) -> None:
    """Other pixels under the same name."""
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("part", ["cam1/0001/0002.jpg", "cam3/0011/0001.jpg"])  # training, test
def test_a_replaced_image_is_named(part: str, root: Path, tmp_path: Path) -> None:
    run = _stopped(root, tmp_path / "run")
    _replace(root / part, root / "cam2" / "0002" / "0001.jpg")
    with pytest.raises(GloamError, match=rf"1 of 216 image files: {part} \(was changed\).*--data\.fingerprint names"):
        _resume(root, run)
    assert Checkpoint.load(run / "checkpoints" / "last.ckpt").epoch == 1
    _resume(root, run, fingerprint="names")
    assert (run / "results.json").exists()


def test_same_size_and_time_is_only_seen_by_content(root: Path, tmp_path: Path) -> None:
    image = root / "cam1" / "0001" / "0001.jpg"
    runs = {kind: _stopped(root, tmp_path / kind, fingerprint=kind) for kind in ("times", "content", "names")}
    status = image.stat()
    content = bytearray(image.read_bytes())
    content[-3] ^= 1
    image.write_bytes(content)
    os.utime(image, ns=(status.st_atime_ns, status.st_mtime_ns))
    _resume(root, runs["times"])
    _resume(root, runs["names"], fingerprint="names")
    with pytest.raises(GloamError, match=r"cam1/0001/0001\.jpg \(was changed\)"):
        _resume(root, runs["content"], fingerprint="content")
    with pytest.raises(GloamError, match=r"cam1/0001/0001\.jpg \(was changed\)"):
        _resume(root, runs["content"])  # what was recorded counts


def test_a_copy_without_its_times(root: Path, tmp_path: Path) -> None:
    runs = {kind: _stopped(root, tmp_path / kind, fingerprint=kind) for kind in ("times", "content")}
    copy = tmp_path / "copy"
    shutil.copytree(root, copy, copy_function=shutil.copyfile)
    with pytest.raises(GloamError, match=r"216 of 216 image files.*and 211 more.*Where only the times differ"):
        _resume(copy, runs["times"])
    _resume(copy, runs["content"], fingerprint="content")
    same = tmp_path / "same"
    shutil.copytree(root, same)  # with its times
    _resume(same, runs["times"])


def test_added_and_removed_files_are_told_apart(root: Path) -> None:
    def look() -> DataFiles:
        found = DataFiles.scan(load_dataset("sysu_mm01", root), "times")
        assert found is not None
        return found

    before = look()
    (root / "cam1" / "0001" / "0003.jpg").unlink()
    shutil.copy(root / "cam1" / "0001" / "0001.jpg", root / "cam1" / "0001" / "0004.jpg")
    assert look().changes(before) == ["cam1/0001/0003.jpg (is gone)", "cam1/0001/0004.jpg (is new)"]
    assert before.changes(before) == []


def test_the_table_survives_every_name(root: Path, tmp_path: Path) -> None:
    names = ["a,b.jpg", 'quo"te.jpg', "new\nline.jpg", "\udcff\udcfe.jpg", "行人.jpg", "cr\r.jpg"]
    files = DataFiles("times", {name: f"{number} 17" for number, name in enumerate(names)})
    files.save(tmp_path / "table.csv.gz")
    loaded = DataFiles.load(tmp_path / "table.csv.gz")
    assert loaded == files
    assert loaded is not None
    assert loaded.digest() == files.digest()


def test_a_damaged_table_still_protects(root: Path, tmp_path: Path) -> None:
    run = _stopped(root, tmp_path / "run")
    content = bytearray((run / FILES).read_bytes())
    content[len(content) // 2] ^= 255
    (run / FILES).write_bytes(content)
    _replace(root / "cam1" / "0001" / "0002.jpg", root / "cam2" / "0002" / "0001.jpg")
    with pytest.raises(GloamError, match="their sizes or times differ"):
        _resume(root, run)


def test_a_run_of_an_older_version_goes_on(root: Path, tmp_path: Path) -> None:
    """Its checkpoint knows names and labels only; from now on sizes and times are watched."""
    run = _stopped(root, tmp_path / "run")
    (run / FILES).unlink()
    checkpoint = Checkpoint.load(run / "checkpoints" / "last.ckpt")
    checkpoint.files = None
    checkpoint.save(run / "checkpoints" / "last.ckpt")
    _replace(root / "cam1" / "0001" / "0002.jpg", root / "cam2" / "0002" / "0001.jpg")
    _resume(root, run)
    assert Checkpoint.load(run / "checkpoints" / "last.ckpt").files is not None
    assert (run / FILES).exists()


def test_an_image_that_cannot_be_read_any_more_is_noticed(root: Path, tmp_path: Path) -> None:
    """``skip`` would go on with one sample less, and every index after it would mean another image."""
    run = _stopped(root, tmp_path / "run", on_bad_image="skip", fingerprint="names")
    count = len(Checkpoint.load(run / "checkpoints" / "last.ckpt").labels)
    (root / "cam1" / "0001" / "0002.jpg").write_bytes(b"broken")
    with pytest.raises(GloamError, match=f"began with {count} readable training samples, now there are {count - 1}"):
        _resume(root, run, on_bad_image="skip", fingerprint="names")
