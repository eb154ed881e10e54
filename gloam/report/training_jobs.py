"""Several trainings, each a process of its own, a few at a time; what is finished is not repeated."""

from __future__ import annotations

import logging
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gloam.console import printable
from gloam.errors import GloamError
from gloam.training.run_folder import RunFolder

_log = logging.getLogger(__name__)
_PAUSE = 0.2  # seconds between looks at the processes
_GRACE = 60.0  # a training that is told to stop saves first


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        label: for messages.
        folder: its run folder.
        words: recipe and flags of ``gloam train``, without output and resume.
    """

    label: str
    folder: Path
    words: Sequence[str]

    @property
    def finished(self) -> bool:
        """Its results are written."""
        return RunFolder(self.folder).state() == "finished"

    @property
    def log(self) -> Path:
        """What its process said."""
        return self.folder.parent.parent / "logs" / f"{self.label}.txt"


def run_jobs(jobs: Sequence[Job], *, at_once: int = 1) -> None:
    """Run what is not finished; one that fails does not stop the others.

    Args:
        jobs: in order.
        at_once: processes at a time. Where there are several GPUs each gets one of its own.

    Raises:
        GloamError: some failed; the first one's last words are told.
        Interrupted: after all running processes have been told to stop and have saved.
    """
    if at_once < 1:
        raise GloamError("--jobs is at least 1.")
    waiting = [job for job in jobs if not job.finished]
    _log.warning("%d of %d trainings are finished.", len(jobs) - len(waiting), len(jobs))
    devices: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for device in _devices(at_once):
        devices.put(device)
    running: list[tuple[Job, subprocess.Popen[bytes], str | None]] = []
    failed: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                device = devices.get()
                running.append((waiting[0], _start(waiting[0], device), device))
                _log.warning("%s began.", waiting.pop(0).label)
            for entry in list(running):
                job, process, device = entry
                if process.poll() is None:
                    continue
                running.remove(entry)
                devices.put(device)
                if process.returncode == 0 and job.finished:
                    _log.warning("%s ended.", job.label)
                else:
                    failed.append(job)
                    _log.warning("%s failed (see %s).", job.label, job.log)
            time.sleep(_PAUSE)
    finally:
        _stop([process for _, process, _ in running])
    if failed:
        raise GloamError(
            f"{len(failed)} of {len(jobs)} trainings failed: {', '.join(job.label for job in failed)}. The first said: "
            f"{_last_words(failed[0].log)} The same command goes on with what is missing."
        )


def _devices(count: int) -> list[str | None]:
    """A GPU for each process, in turn; None where there is at most one."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        import torch

        names = [str(number) for number in range(torch.cuda.device_count())]
    else:
        names = [name for name in visible.split(",") if name]
    return [names[number % len(names)] if len(names) > 1 else None for number in range(count)]


def _start(job: Job, device: str | None) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    words = [*job.words, "--output", str(job.folder), "--resume", "auto", "--quiet"]
    around = os.environ if device is None else {**os.environ, "CUDA_VISIBLE_DEVICES": device}
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "gloam", "train", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=around,
        )


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Tell trainings to save and end; those that do not are ended."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _GRACE
    for process in processes:
        try:
            process.wait(max(until - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_words(log: Path) -> str:
    try:
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()
        ]
    except OSError:
        lines = []
    errors = [line for line in lines if line.startswith("error:")]
    return printable((errors or lines or ["nothing."])[-1][:500])
