"""Runs commands of gloam in places that fail. A process of its own: ``python -m tests.faults.driver < cases.json``.

It may mount small file systems, which only it sees (a private mount namespace), and forks for every case after
importing everything once: a case costs a fraction of a second instead of an interpreter with torch.

Input: ``{"folder": scratch, "mounts": bool, "cases": [{"place": kind, "words": [...], "prepare": {...}}]}``. In the
words, ``{place}`` is the failing folder. Kinds of place: ``full`` (a file system without space), ``readonly`` (a file
system that takes no writes, holding a copy of what ``prepare`` names), ``limit`` (files may not grow: ``RLIMIT_FSIZE``)
and ``below_file`` (a path below a file).

Output: a list of ``{"code", "out", "err", "left"}``; ``left`` are the files in the place afterwards.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18
LIMIT = 512  # bytes that a file may have in a place of kind "limit": log lines fit, results do not


def enter_namespace() -> bool:
    """Give this process its own mounts; False where the machine does not allow it."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if user == 0:
        entered = libc.unshare(CLONE_NEWNS) == 0
    else:
        entered = libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
        if entered:
            with contextlib.suppress(OSError):
                Path("/proc/self/setgroups").write_text("deny")
                Path("/proc/self/uid_map").write_text(f"0 {user} 1")
                Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return entered and libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) == 0


def mount_memory(place: Path, size: int) -> None:
    """A file system of so many bytes at a folder."""
    _mount(b"tmpfs", place, 0, f"size={size}")


def make_readonly(place: Path) -> None:
    """Take no writes any more."""
    _mount(None, place, MS_REMOUNT | MS_RDONLY, "")


def _mount(kind: bytes | None, place: Path, flags: int, options: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(place), kind or b"tmpfs", flags, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"mount {place}")


def can_mount(folder: Path) -> bool:
    """True where this machine lets a process mount a small file system; tried in a child."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if enter_namespace():
                mount_memory(folder, 1 << 20)
                code = 0
        except OSError:
            pass
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def set_up(case: dict[str, Any], place: Path) -> Path:
    """Make the place of a case and return the folder that stands for ``{place}``."""
    place.mkdir()
    kind, copies = case["place"], case.get("prepare", {})
    if kind == "below_file":
        (place / "file").write_text("in the way")
        return place / "file" / "folder"
    if kind in ("full", "readonly"):
        mount_memory(place, 64 << 20)
    for name, source in copies.items():
        (shutil.copytree if Path(source).is_dir() else shutil.copyfile)(source, place / name)
    if kind == "full":
        _fill(place, case.get("free", 0))
    elif kind == "readonly":
        make_readonly(place)
    return place


def _fill(place: Path, free: int) -> None:
    """Leave ``free`` bytes."""
    with contextlib.suppress(OSError), (place / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * (1 << 20))
    with (place / "ballast").open("r+b") as file:
        file.truncate(max(0, (place / "ballast").stat().st_size - free))
    while True:  # what is left of the last megabyte
        try:
            with (place / "ballast").open("ab", buffering=0) as file:
                if free or not file.write(b"\0" * 4096):
                    return
        except OSError:
            return


def run_case(case: dict[str, Any], folder: Path, number: int) -> dict[str, Any]:
    """One command in a child process."""
    place = set_up(case, folder / f"place{number}")
    before = set(place.rglob("*")) if place.is_dir() else set()
    words = [word.replace("{place}", str(place)) for word in case["words"]]
    pipes = [os.pipe() for _ in range(2)]
    child = os.fork()
    if child == 0:
        for stream, (_, write) in enumerate(pipes, start=1):
            os.dup2(write, stream)
        for pipe in pipes:
            os.close(pipe[0])
            os.close(pipe[1])
        sys.stdout, sys.stderr = (open(stream, "w", closefd=False) for stream in (1, 2))  # noqa: SIM115
        os._exit(_command(case, words, folder))
    for _, write in pipes:
        os.close(write)
    out, err = _drain([read for read, _ in pipes])
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [path for path in place.rglob("*") if path not in before] if place.is_dir() else []
    return {"code": code, "out": out, "err": err, "left": sorted(str(path.relative_to(place)) for path in left)}


def _drain(descriptors: list[int]) -> list[str]:
    import threading

    texts = ["", ""]

    def read(position: int) -> None:
        with os.fdopen(descriptors[position], "rb") as stream:
            texts[position] = stream.read().decode(errors="replace")

    threads = [threading.Thread(target=read, args=(position,)) for position in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return texts


def _command(case: dict[str, Any], words: list[str], folder: Path) -> int:
    from gloam import cli

    try:
        os.environ.update(case.get("environment", {}))
        os.chdir(folder)
        if case["place"] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.get("limit", LIMIT), resource.RLIM_INFINITY))
        code = cli.main(words)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def main() -> None:
    """Read the cases, run them, print what happened."""
    task = json.load(sys.stdin)
    folder = Path(task["folder"])
    if task["mounts"] and not enter_namespace():
        raise SystemExit("no mount namespace")
    import gloam.analysis.clips
    import gloam.analysis.stripes
    import gloam.demo
    import gloam.inference.feature_files
    import gloam.training.run  # noqa: F401  - once, for all children

    print(json.dumps([run_case(case, folder, number) for number, case in enumerate(task["cases"])]))


if __name__ == "__main__":
    main()
