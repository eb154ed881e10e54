"""The runs of a folder: which recipe, how far, how good, how large."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results
from gloam.recipes.recipe import Recipe, load_recipe
from gloam.training.run_folder import LOCK, RunFolder


@dataclass(frozen=True)
class RunEntry:
    """One run.

    Attributes:
        path: its folder.
        recipe: ``<dataset>/<method>``.
        state: ``finished``, ``running``, ``stopped after epoch 3 of 81``, ``not started``, or ``damaged``.
        protocol: of the score, or None where there is none.
        rank1: mean rank-1 of the final weights, as a fraction.
        mAP: mean of mAP, as a fraction.
        size: bytes of its files.
    """

    path: Path
    recipe: str
    state: str
    protocol: str | None
    rank1: float | None
    mAP: float | None
    size: int

    def facts(self) -> dict[str, Any]:
        """Everything as plain values."""
        return {**self.__dict__, "path": str(self.path)}


def list_runs(folder: Path) -> list[RunEntry]:
    """All runs below a folder, in the order of their paths; runs inside runs too (``gloam demo``).

    Raises:
        GloamError: there is no such folder.
    """
    if not folder.is_dir():
        raise GloamError(f"There is no folder {folder}. Give the folder of the runs: gloam runs DIR.")
    found = []
    for place, folders, files in os.walk(folder):
        folders.sort()
        if "recipe.yaml" in files:
            found.append(_look(Path(place)))
            folders[:] = [name for name in folders if name not in ("checkpoints", "tensorboard")]
    return found


def _look(path: Path) -> RunEntry:
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    try:
        recipe = load_recipe(path)
        state = _state(path, recipe)
    except GloamError:
        return RunEntry(path, "?", "damaged", None, None, None, size)
    name = f"{recipe.data.name}/{recipe.method_name}"
    protocol, rank1, mean = None, None, None
    if state == "finished":
        try:
            results = Results.load(path / "results.json")
            if protocol := next(iter(results.trials), None):
                scores = results.mean(protocol)
                rank1, mean = scores["rank1"], scores["mAP"]
        except GloamError:
            state = "damaged"
    return RunEntry(path, name, state, protocol, rank1, mean, size)


def _state(path: Path, recipe: Recipe) -> str:
    state = RunFolder(path).state()
    if state == "finished":
        return state
    if _is_held(path / LOCK):
        return "running"
    if state != "started":
        return "not started"
    last = _last_row(path / "metrics.csv")
    if last is None:
        return "stopped in its first epoch"
    stages = recipe.resolved_stages()
    of = f" of {stages[last['stage']].train.epochs}" if last.get("stage") in stages else ""
    stage = f" of stage {last['stage']}" if len(stages) > 1 else ""
    return f"stopped after epoch {last['epoch']}{of}{stage}"


def _last_row(table: Path) -> dict[str, str] | None:
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return None
    return rows[-1] if rows else None


def _is_held(lock: Path) -> bool:
    """Whether a process trains in the folder of a lock."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks
        return False
    try:
        with lock.open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    return False
