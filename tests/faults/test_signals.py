"""Signals to real processes: exit codes, what is said, what is left, and who else dies."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.runs import ROOT
from tests.training.test_interruption import same_end
from tests.training.tiny import tiny_recipe

# gloam as users start it, with a network that takes its time over every batch and says when it has begun.
SLOW = """
import os, sys, time
from pathlib import Path
from gloam.methods import get_method

cls = get_method("base")
original, delay = cls.training_step, float(os.environ["DELAY"])

def step(self, batch):
    with open(os.environ["TRACE"], "a+") as file:
        file.write("step\\n")
        file.seek(0)
        stands_still = len(file.readlines()) == int(os.environ["HOLD"])
    time.sleep(600 if stands_still else delay)
    return original(self, batch)

cls.training_step = step
from gloam.cli import main
sys.exit(main())
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start gloam in a process group of its own, as a terminal does; everything is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str, delay: float = 0.0, hold: int = 0) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment |= {"TRACE": str(tmp_path / "trace"), "DELAY": str(delay), "HOLD": str(hold)}
        (tmp_path / "trace").unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _steps(tmp_path: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until a number of steps has begun."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if len((tmp_path / "trace").read_text().splitlines()) >= count:
                return
        time.sleep(0.02)
    raise AssertionError(f"{count} steps did not begin: {process.communicate()}")


def _words(sysu_root: Path, tmp_path: Path, run: Path, **sections: object) -> list[str]:
    recipe = tmp_path / "recipe.yaml"
    tiny_recipe(sysu_root, **{"train": {"epochs": 2, "iterations": 4}, **sections}).save(recipe)
    return ["train", str(recipe), "--output", str(run), "--quiet"]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _end(process: subprocess.Popen[str], code: int) -> str:
    _, err = process.communicate(timeout=120)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    return err


@pytest.mark.slow
def test_sigterm_saves_and_names_the_command_that_goes_on(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    words = _words(sysu_root, tmp_path, tmp_path / "run with space")
    process = start(*words, delay=0.3)
    _steps(tmp_path, 2, process)
    process.send_signal(signal.SIGTERM)
    err = _end(process, 143)
    assert "after batch 2 of epoch 1" in err
    command = shlex.split(err.split("Go on with: gloam ")[1].strip())
    _end(start(*command, "--quiet"), 0)
    _end(start(*_words(sysu_root, tmp_path, tmp_path / "whole")), 0)
    same_end(tmp_path / "whole", tmp_path / "run with space")


@pytest.mark.slow
def test_ctrl_c_of_a_terminal_reaches_loader_processes_too(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    words = _words(sysu_root, tmp_path, tmp_path / "run", data={"workers": 2})
    process = start(*words, delay=0.3)
    _steps(tmp_path, 2, process)
    workers = _children(process.pid)
    assert len(workers) >= 2
    os.killpg(process.pid, signal.SIGINT)
    err = _end(process, 130)
    assert "after batch 2 of epoch 1" in err
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(Path(f"/proc/{pid}").exists() for pid in workers):
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    process = start(*_words(sysu_root, tmp_path, tmp_path / "run"), delay=60)
    _steps(tmp_path, 1, process)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    err = _end(process, 130)
    assert "Ctrl-C again stops at once" in err


@pytest.mark.slow
def test_schedulers_may_send_sigterm_more_than_once(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    process = start(*_words(sysu_root, tmp_path, tmp_path / "run"), delay=2)
    _steps(tmp_path, 1, process)
    for _ in range(4):
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.4)
    assert "after batch 1 of epoch 1" in _end(process, 143)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_killed_loader_process_is_one_sentence(
    number: signal.Signals, start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    words = _words(sysu_root, tmp_path, tmp_path / "run", data={"workers": 2}, train={"epochs": 2, "iterations": 40})
    process = start(*words, delay=0.3)
    _steps(tmp_path, 2, process)
    os.kill(_children(process.pid)[-1], number)
    if number is signal.SIGTERM:  # the out-of-memory killer does not ask; a process that is asked does not listen
        _steps(tmp_path, 5, process)
        process.send_signal(signal.SIGTERM)
        _end(process, 143)
        return
    err = _end(process, 2)
    assert err.count("error:") == 1
    assert "loader process" in err
    assert "--data.workers" in err


@pytest.mark.slow
def test_a_killed_run_leaves_no_lock_and_a_running_one_does(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = [*_words(sysu_root, tmp_path, run, data={"workers": 2}), "--resume", "auto"]
    first = start(*words, hold=6)  # in the second epoch: there is a checkpoint
    _steps(tmp_path, 6, first)
    err = _end(start(*words), 2)
    assert f"in use by process {first.pid} on " in err
    err = _end(start("train", "--resume", str(run), "--quiet"), 2)
    assert f"in use by process {first.pid} on " in err
    first.kill()
    first.wait()
    # Its loader processes may live for a moment; they hold nothing.
    _end(start(*words), 0)
    assert (run / "results.json").exists()


@pytest.mark.slow
def test_one_command_for_every_start_of_a_job(
    start: Callable[..., subprocess.Popen[str]], sysu_root: Path, tmp_path: Path
) -> None:
    """Killed before the first checkpoint, terminated inside an epoch, killed inside another, then left alone."""
    run = tmp_path / "run"
    words = [*_words(sysu_root, tmp_path, run), "--resume", "auto"]
    process = start(*words, delay=0.5)
    _steps(tmp_path, 2, process)
    process.kill()
    process.wait()
    assert not list((run / "checkpoints").glob("*.ckpt"))
    process = start(*words, delay=0.5)
    _steps(tmp_path, 3, process)
    process.terminate()
    _end(process, 143)
    process = start(*words, delay=0.5)
    _steps(tmp_path, 3, process)
    process.kill()
    process.wait()
    _end(start(*words), 0)
    finished = start(*words)
    out, err = finished.communicate()
    assert finished.returncode == 0, err
    assert "already finished" in out
    _end(start(*_words(sysu_root, tmp_path, tmp_path / "whole")), 0)
    same_end(tmp_path / "whole", run)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_other_commands_stop_at_once(
    number: int, code: int, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("data", "draw", "sysu_mm01", str(tmp_path / "drawn"), "--ids", "400", "--workers", "2")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(tmp_path.glob(".drawn.*.tmp/*"))) < 2:
        time.sleep(0.05)
    time.sleep(3)
    os.killpg(process.pid, number)
    _end(process, code)
    assert sorted(path.name for path in tmp_path.iterdir()) == []
