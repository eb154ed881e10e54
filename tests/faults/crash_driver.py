"""Trains one run again and again, dies at another step of its writes each time, and goes on.

A process of its own: ``python -m tests.faults.crash_driver < task.json``. It imports everything once and forks for
every life of a run. Task: ``{"recipe": {...}, "folder": scratch, "points": [["renamed", "best.ckpt", 0], ...] or null
for all, "half": bool}``: a step, the file, and which of these steps, from the start or (-1) from the end. Output:
``{"steps": [[step, file], ...], "codes": {"n": [code of the life that dies, code of the one that goes on]}}``. The run
that nobody disturbs is ``whole``, the others are ``dies<n>``; each has a pixel cache of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gloam import atomic
from gloam.recipes.recipe import Recipe
from gloam.training.run import train


def live(life: Callable[[], Any]) -> int:
    """Call a function in a child process; its exit code (-9: killed)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            life()
            code = 0
        except BaseException:
            traceback.print_exc()
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _find(steps: list[list[str]], step: str, file: str, which: int) -> int:
    return [number for number, found in enumerate(steps, start=1) if found == [step, file]][which]


def main() -> None:
    """Do the task."""
    task = json.load(sys.stdin)
    recipe, folder = Recipe(**task["recipe"]), Path(task["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "steps.txt"

    def note(step: str, path: Path) -> None:
        with trace.open("a") as file:
            name = re.sub(r"^\.(.*)\.[0-9a-f]{8}\.tmp$", r"\1", path.name)  # a temporary name's own file
            file.write(f"{step} {name}\n")

    def whole() -> None:
        os.environ["GLOAM_CACHE"] = str(folder / "cache")
        atomic.on_step = note
        train(recipe, output=folder / "whole", progress=False)

    if live(whole) != 0:
        raise SystemExit("the undisturbed run failed")
    steps = [line.split(maxsplit=1) for line in trace.read_text().splitlines()]
    codes = {}
    points = range(1, len(steps) + 1)
    for point in [_find(steps, *wanted) for wanted in task["points"]] if task["points"] else points:
        run = folder / f"dies{point}"
        os.environ["GLOAM_CACHE"] = str(folder / f"cache{point}")

        def dies(run: Path = run, point: int = point) -> None:
            count = 0

            def kill(step: str, path: Path) -> None:
                nonlocal count
                count += 1
                if count == point:
                    if task["half"] and step == "written":
                        os.truncate(path, path.stat().st_size // 2)
                    os.kill(os.getpid(), signal.SIGKILL)

            atomic.on_step = kill
            train(recipe, output=run, progress=False)

        def goes_on(run: Path = run) -> None:
            train(recipe, output=run, resume="auto", progress=False)

        codes[str(point)] = [live(dies), live(goes_on)]
    print(json.dumps({"steps": steps, "codes": codes}))


if __name__ == "__main__":
    main()
