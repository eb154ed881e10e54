"""Writing: all or nothing, first errors first, and no leftovers of the dead."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gloam import atomic
from gloam.atomic import atomic_path, remove, sweep, write_text
from gloam.errors import WriteError


def test_the_first_error_is_told_even_where_cleaning_up_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "unlink", refuse)
    told = pytest.raises(WriteError, match=r"table\.csv: no space is left.*Nothing was written")
    with told as caught, atomic_path(tmp_path / "table.csv"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("folder", "folder: it is a folder where a file is meant"),
        ("file/below/x.csv", "file/below: a part of this path is a file"),
        ("n" * 300, "the name is too long"),
    ],
)
def test_places_that_take_no_file(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match=message):
        write_text(tmp_path / place, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    name = "ä" * 127  # 254 bytes
    write_text(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_the_dead_are_swept_and_the_living_left_alone(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom gloam.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path:\n"
        "    path.write_text('half')\n    print('writing', flush=True)\n    time.sleep(60)\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / name)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for name in ("dead.csv", "living.csv")
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "writing\n"
    writers[0].send_signal(signal.SIGKILL)
    writers[0].wait()
    (tmp_path / ".last.ckpt.0123abcd.tmp").write_bytes(b"of a version that took no locks")
    for kept in ("notes.tmp", ".hidden", ".x.tmp", "last.ckpt.0123abcd.tmp"):
        (tmp_path / kept).write_text("somebody else's")
    try:
        gone = sweep(tmp_path)
        assert [path.name.split(".")[1] for path in gone] == ["dead", "last"]
        left = sorted(path.name for path in tmp_path.iterdir())
        assert len(left) == 5
        assert [name for name in left if name.startswith(".living.csv.")]
    finally:
        writers[1].terminate()
        writers[1].wait()
    assert sweep(tmp_path / "nowhere") == []


def test_a_writer_in_this_process_is_alive_too(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("x")
        assert sweep(tmp_path) == []
    assert (tmp_path / "a").read_text() == "x"


def test_every_step_can_be_stopped_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam of the crash tests: at each step the final name holds the old text or the new one."""
    steps: list[str] = []

    def note(name: str, path: Path) -> None:
        steps.append(name)
        if len(steps) == stop_at:
            raise KeyboardInterrupt

    target = tmp_path / "a"
    monkeypatch.setattr(atomic, "on_step", note)
    for stop_at in range(1, 5):
        steps.clear()
        monkeypatch.setattr(atomic, "on_step", None)
        write_text(target, "old")
        monkeypatch.setattr(atomic, "on_step", note)
        with pytest.raises(KeyboardInterrupt):
            write_text(target, "new")
        assert target.read_text() == ("new" if stop_at == 4 else "old")
    assert steps == ["open", "written", "flushed", "renamed"]
    stop_at = 9
    steps.clear()
    remove(target)
    assert (steps, target.exists()) == (["remove", "removed"], False)


def test_files_get_the_permissions_of_ordinary_files(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    assert time.time() - (tmp_path / "a").stat().st_mtime < 60
