"""Building the cache: killed, raced, and on a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gloam.errors import GloamError
from gloam.pixels import cache
from gloam.pixels.cache import CacheError, CacheKey, ensure_cache
from gloam.pixels.store import open_store
from tests.pixels.images import write_images

# Builds a cache in chunks of 4 images with two decoding processes; the last argument slows every chunk down.
_BUILD = """
import sys, time
from pathlib import Path
from gloam.pixels import cache
cache.CHUNK = 4
root, folder, count = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
paths = [f"{i:04d}.jpg" for i in range(count)]
ask, delay = cache._ask, float(sys.argv[4])
cache._ask = lambda *arguments: (time.sleep(delay), ask(*arguments))[1]
print("ready", flush=True)
sys.stdin.readline()
file, bad = cache.ensure_cache(cache.CacheKey(root, paths, 120, 60, "lanczos"), folder, workers=2, progress=False)
print(file, flush=True)
"""


def _builder(root: Path, folder: Path, count: int, delay: float = 0.0) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _BUILD, str(root), str(folder), str(count), str(delay)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def _check(folder: Path, root: Path, paths: list[str]) -> None:
    expected = open_store(root, paths, height=120, width=60, cache="off").read(range(len(paths)))
    (file,) = folder.glob("*/pixels.npy")
    np.testing.assert_array_equal(np.load(file), expected)
    assert sorted(p.name for p in file.parent.iterdir()) == ["checksums.bin", "info.json", "pixels.npy"]
    assert not list(folder.glob("*.partial"))


def test_two_processes_build_one_cache(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "set", 24)
    builders = [_builder(tmp_path / "set", tmp_path / "cache", 24) for _ in range(2)]
    for builder in builders:
        _go(builder)
    answers = [builder.communicate(timeout=60)[0].strip() for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert answers[0] == answers[1]
    _check(tmp_path / "cache", tmp_path / "set", paths)


def test_two_processes_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system has no locks the slower builder finds the cache in place and takes it."""
    paths = write_images(tmp_path / "set", 6)
    key = CacheKey(tmp_path / "set", paths, 120, 60, "lanczos")
    monkeypatch.setitem(sys.modules, "fcntl", None)
    built = cache._build

    def overtaken(key: CacheKey, partial: Path, *, workers: int, progress: bool) -> None:
        built(key, partial, workers=workers, progress=progress)
        monkeypatch.setattr(cache, "_build", built)
        ensure_cache(key, tmp_path / "cache", workers=1, progress=False)

    monkeypatch.setattr(cache, "_build", overtaken)
    ensure_cache(key, tmp_path / "cache", workers=1, progress=False)
    _check(tmp_path / "cache", tmp_path / "set", paths)


def test_kill_9_then_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path / "set", 200)
    folder = tmp_path / "cache"
    builder = _builder(tmp_path / "set", folder, 200, delay=0.05)
    _go(builder)
    deadline = time.monotonic() + 60
    marks: list[Path] = []
    while time.monotonic() < deadline:
        marks = list(folder.glob("*.partial/done.jsonl"))
        if marks and len(marks[0].read_text().splitlines()) >= 3:
            break
        time.sleep(0.005)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert builder.stdout is not None
    assert builder.stdout.read() == "", "the builder finished before it was killed"
    done = marks[0].read_text().splitlines()
    assert 3 <= len(done) < 50
    with marks[0].open("a") as file:
        file.write("[196, [")  # a line that the kill has cut
    assert not list(folder.glob("*/info.json"))

    monkeypatch.setattr(cache, "CHUNK", 4)
    decoded: list[int] = []
    fill = cache.fill_rows
    monkeypatch.setattr(
        cache, "fill_rows", lambda d, o, items, *rest: decoded.append(items[0][0]) or fill(d, o, items, *rest)
    )
    ensure_cache(CacheKey(tmp_path / "set", paths, 120, 60, "lanczos"), folder, workers=1, progress=False)
    assert len(decoded) == 50 - len(done)
    assert not {json.loads(line)[0] for line in done} & set(decoded)
    _check(folder, tmp_path / "set", paths)


def test_full_disk_is_named_and_cleaned_up(tmp_path: Path) -> None:
    """A file-size limit stands for a full disk; both the builder and its worker processes meet it."""
    write_images(tmp_path / "set", 24)
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, {resource.RLIM_INFINITY}))\n"
    script = limited + _BUILD
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "set"), str(tmp_path / "cache"), "24", "0"],
        input="\n",
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.returncode == 1
    assert "CacheError" in process.stderr
    assert "does not fit" in process.stderr
    assert "--data.cache off" in process.stderr
    assert not list((tmp_path / "cache").glob("*.partial"))
    assert not list((tmp_path / "cache").glob("*/pixels.npy"))


@pytest.mark.parametrize("workers", [1, 2])
def test_disk_that_fills_up_while_decoding(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CHUNK", 4)
    paths = write_images(tmp_path / "set", 24)
    key = CacheKey(tmp_path / "set", paths, 120, 60, "lanczos")
    ask, fill, calls = cache._ask, cache.fill_rows, []

    def fail_third(function):  # type: ignore[no-untyped-def]
        def call(*arguments):  # type: ignore[no-untyped-def]
            calls.append(1)
            if len(calls) == 3:
                raise OSError(28, "No space left on device")
            return function(*arguments)

        return call

    monkeypatch.setattr(cache, "_ask", fail_third(ask))
    monkeypatch.setattr(cache, "fill_rows", fail_third(fill))
    with pytest.raises(CacheError, match=r"does not fit.*No space left"):
        ensure_cache(key, tmp_path / "cache", workers=workers, progress=False)
    assert not list((tmp_path / "cache").glob("*.partial"))
    ensure_cache(key, tmp_path / "cache", workers=workers, progress=False)
    _check(tmp_path / "cache", tmp_path / "set", paths)


def test_worker_reports_a_write_error(tmp_path: Path) -> None:
    """The worker process itself answers with the error number instead of dying."""
    paths = write_images(tmp_path / "set", 2)
    file = tmp_path / "file"
    file.write_bytes(b"")
    setup = {"file": "/dev/full", "offset": 0, "root": str(tmp_path / "set"), "height": 8, "width": 4}
    process = cache._start_worker(json.dumps({**setup, "interpolation": "lanczos", "stretch": "1%..99%"}))
    try:
        with pytest.raises(OSError, match="No space left"):
            cache._ask(process, [(0, paths[0])])
    finally:
        process.kill()
        process.wait()


def test_a_dead_worker_is_an_error_not_a_hang(tmp_path: Path) -> None:
    process = cache._start_worker("{}")  # an incomplete set-up message: the worker ends
    with pytest.raises(GloamError, match=r"process ended.*0.jpg"):
        cache._ask(process, [(0, "0.jpg")])
    process.wait()


def test_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "set", 3)
    key = CacheKey(tmp_path / "set", paths, 120, 60, "lanczos")
    file, _ = ensure_cache(key, tmp_path / "cache", workers=1, progress=False)
    file.write_bytes(file.read_bytes()[:-10])
    ensure_cache(key, tmp_path / "cache", workers=1, progress=False)
    _check(tmp_path / "cache", tmp_path / "set", paths)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "set", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written"):
        ensure_cache(CacheKey(tmp_path / "set", paths, 8, 4, "lanczos"), tmp_path / "file" / "x", workers=1)


def test_progress_names_the_size_before_building(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    paths = write_images(tmp_path / "set", 3)
    ensure_cache(CacheKey(tmp_path / "set", paths, 120, 60, "lanczos"), tmp_path / "cache", workers=1, progress=True)
    shown = capfd.readouterr().err
    assert "3 images, 0.1 MiB" in shown
    assert "3/3" in shown
