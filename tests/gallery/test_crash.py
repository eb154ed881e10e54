"""kill -9 while rows are added, erased, coded and embedded again: nothing confirmed is lost, nothing comes back."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gloam.gallery.engines.rabitq import RabitqIndex
from gloam.gallery.erase import files_with, gallery_files
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.reembed import reembed
from tests.gallery.people import space
from tests.gallery.writer import BATCH, FakeModel, batch_rows, key_of, picture, vector, write

KINDS = ("add", "erase", "codes", "reembed")


def killed(folder: Path, what: str, first: int, generator: np.random.Generator) -> list[str]:
    """What a writer confirmed before it was killed at a random moment."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            write(folder, what, first, lambda text: os.write(writing, f"{text}\n".encode()))
        finally:
            os._exit(1)
    os.close(writing)
    # The pace differs by a hundred between idle and loaded machines: wait for confirmations, then for a moment.
    wanted = int(generator.integers(0, 4)) if what != "reembed" else 0
    told = b""
    end = time.monotonic() + 30
    os.set_blocking(reading, False)
    while told.count(b"\n") < wanted and time.monotonic() < end:
        try:
            told += os.read(reading, 4096)
        except BlockingIOError:
            time.sleep(0.001)
    time.sleep(float(generator.exponential(0.15 if what == "reembed" else 0.03)))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.set_blocking(reading, True)
    with os.fdopen(reading, "rb") as rest:
        told += rest.read()
    return [line for line in told.decode().split("\n") if line]


def check(folder: Path, model: str, present: set[int], possible: set[int]) -> set[int]:
    """Nothing torn, nothing lost, nothing back; what the file holds is what a search finds. Returns the batches."""
    gallery = open_gallery(folder)
    index = RabitqIndex(gallery.catalogue.store, smallest=1)  # type: ignore[attr-defined]
    verdict = gallery.verify()
    assert verdict.ok, verdict.problems
    keys = {row.key for block in gallery.catalogue.scan() for row in block}
    batches = {int(key.split()[1]) for key in keys}
    assert keys == {key_of(batch, number) for batch in batches for number in range(BATCH)}  # no torn batch
    assert present <= batches <= possible
    some = sorted(keys)[:: max(len(keys) // 50, 1)]
    if some:
        expected = np.stack([vector(key, model) for key in some])
        np.testing.assert_allclose(index.vectors(some), expected, atol=2e-3)
        assert index.search(expected[:5], 1).keys[:, 0].tolist() == some[:5]
    assert index.count() == len(keys)
    gallery.catalogue.close()
    return batches


def crash(tmp_path: Path, rounds: int, kinds: tuple[str, ...], seed: int) -> None:
    generator = np.random.default_rng(seed)
    folder = tmp_path / "g"
    model, batches, gone, after = "a", set[int](), set[int](), 0
    for number in range(rounds):
        what = kinds[number % len(kinds)]
        if not folder.exists() or model == "b":
            shutil.rmtree(folder, ignore_errors=True)
            gallery = Gallery.create(folder, space(), retention="keep", thumbnails=True)
            for batch in range(after, after + 4):
                gallery.index.upsert(*batch_rows(batch), [picture()] * BATCH)
            gallery.close()
            model, batches, gone, after = "a", set(range(after, after + 4)), set(), after + 4
        first = min(batches) if what == "erase" else after
        told = killed(folder, what, first, generator)
        confirmed = [int(line.split()[1]) for line in told if line != "reembedded"]
        if what == "erase":
            gone |= set(confirmed)
            beyond = max([first - 1, *confirmed]) + 1  # the one that was under way
            batches = check(folder, model, batches - set(range(first, beyond + 1)), batches - set(confirmed))
            for batch in sorted(gone)[-3:]:
                assert files_with(gallery_files(folder), key_of(batch, 0).encode()) == []
                assert files_with(gallery_files(folder), vector(key_of(batch, 1)).astype(np.float16).tobytes()) == []
        elif what == "reembed":
            opened = open_gallery(folder)
            now = "b" if opened.space.digest == "b" * 64 else "a"
            opened.catalogue.close()
            assert now == "b" or "reembedded" not in told
            batches = check(folder, now, batches, batches)  # the space that answers is whole
            if now == "a":
                opened = open_gallery(folder)
                done = reembed(opened.catalogue, FakeModel(), source="thumbnails", progress=False)  # type: ignore[arg-type]
                assert done.switched
                opened.catalogue.close()
                batches = check(folder, "b", batches, batches)
            model = "b"
        else:
            beyond = max([first - 1, *confirmed]) + 1
            batches = check(folder, model, batches | set(confirmed), batches | set(confirmed) | {beyond})
            after = beyond + 1
        assert not gone & batches
        if not batches:
            shutil.rmtree(folder)


def test_killed_writers_lose_nothing_that_was_confirmed(tmp_path: Path) -> None:
    crash(tmp_path, 8, KINDS, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_hundred_kills(tmp_path: Path, kind: str) -> None:
    crash(
        tmp_path,
        50 if kind == "erase" else 25,
        ("add", "erase") if kind == "erase" else (kind,),
        seed=KINDS.index(kind),
    )


def test_every_confirmation_comes_after_a_sync(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed: the syncs cannot be seen")
    trace = tmp_path / "trace"
    command = [strace, "-f", "-y", "-e", "trace=fsync,fdatasync,write,pwrite64", "-o", str(trace)]
    command += [sys.executable, "-m", "tests.gallery.writer", str(tmp_path / "g"), "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if "ptrace" in done.stderr.lower() and "not permitted" in done.stderr.lower():
        pytest.skip("this machine does not permit tracing: the syncs cannot be seen")
    lines = trace.read_text(errors="replace").splitlines()
    synced, written, confirmed = False, False, 0
    for line in lines:
        if re.search(r"pwrite64\(\d+<[^>]*gallery\.db", line):
            written, synced = True, False
        elif re.search(r"(fsync|fdatasync)\(\d+<[^>]*gallery\.db(-wal)?>\)\s*= 0", line):
            synced = True
        elif re.search(r'write\(1<[^>]*>, "added \d+', line):
            assert written, "nothing was written before the confirmation"
            assert synced, "confirmed before the sync"
            confirmed, written, synced = confirmed + 1, False, False
    assert confirmed >= 3, done.stderr[-2000:]
