"""Finished runs as reports and comparisons see them: scores, recipe, surroundings; repeats of one system together."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gloam.errors import GloamError
from gloam.evaluation.evaluator import Results, combine
from gloam.recipes.recipe import Recipe, load_recipe

FILES = ("results.json", "evaluation.json")
# Parts of a recipe that do not make another system: where it ran, what it is called, what it is measured against.
_ELSEWHERE = ("description", "plugins", "loggers", "logger_options", "expected", "trains_on")
_MACHINE = {
    "data": ("root", "cache", "workers"),
    "train": ("seed", "accelerator", "devices", "nodes", "log_every", "save_every"),
    "evaluation": ("every", "batch_size", "protocols"),
}


@dataclass(frozen=True)
class FinishedRun:
    """Scores of one training.

    Attributes:
        path: as the user named it.
        file: the results file.
        results: with the queries' scores where they were asked for.
        recipe: the run's, or None where the results stand alone.
        environment: what ``environment.json`` says.
    """

    path: Path
    file: Path
    results: Results
    recipe: Recipe | None
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Seed of the training."""
        return self.recipe.train.seed if self.recipe else 0

    @property
    def split(self) -> int:
        """RegDB's trial, which decides who is trained on and who is searched for; 0 for other data."""
        return int(self.recipe.data.options.get("trial", 0)) if self.recipe else 0

    @property
    def kind(self) -> str:
        """Equal for runs that differ in seed and split only."""
        if self.recipe is None:
            return f"file {self.file.absolute()}"
        content = self.recipe.model_dump(mode="json", exclude=set(_ELSEWHERE))
        for section, keys in _MACHINE.items():
            content[section] = {key: value for key, value in content[section].items() if key not in keys}
        content["data"]["options"] = {k: v for k, v in content["data"]["options"].items() if k != "trial"}
        return json.dumps(content, sort_keys=True)


@dataclass(frozen=True)
class System:
    """Runs that differ in seed and split only: what a table has one row for.

    Attributes:
        label: short name, unique among the systems read together.
        runs: in the order given.
    """

    label: str
    runs: tuple[FinishedRun, ...]

    @cached_property
    def repeats(self) -> list[Results]:
        """One entry per seed: its splits joined."""
        groups: dict[tuple[int, int], list[FinishedRun]] = {}
        for run in self.runs:
            again = 0
            while any(other.split == run.split for other in groups.get((run.seed, again), ())):
                again += 1
            groups.setdefault((run.seed, again), []).append(run)
        return [combine([run.results for run in group]) for group in groups.values()]

    @property
    def protocols(self) -> list[str]:
        """Protocols that every run was scored with, in the first run's order."""
        return [name for name in self.runs[0].results.trials if all(name in run.results.trials for run in self.runs)]

    def score(self, protocol: str, name: str) -> Score | None:
        """Mean of one score with its spread, or None where a run lacks it."""
        rows = [repeat.trials[protocol] for repeat in self.repeats if protocol in repeat.trials]
        if not rows or any(name not in row for trials in rows for row in trials):
            return None
        means = [float(np.mean([row[name] for row in trials])) for trials in rows]
        if len(means) > 1:
            return Score(float(np.mean(means)), float(np.std(means, ddof=1)), len(means), "seeds")
        values = [row[name] for row in rows[0]]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        return Score(means[0], spread, len(values), "trials")


@dataclass(frozen=True)
class Score:
    """A mean with its spread, as fractions.

    Attributes:
        mean: over everything.
        spread: sample standard deviation over ``count`` seeds, or over the trials of a single seed.
        count: how many.
        over: ``seeds`` or ``trials``.
    """

    mean: float
    spread: float
    count: int
    over: str


def read_run(path: Path, *, queries: bool = False) -> FinishedRun:
    """Read the scores of a run folder, or a results file.

    Args:
        path: a run folder (results.json, else evaluation.json), or such a file.
        queries: the scores of single queries too.

    Raises:
        GloamError: no such run, or one that was not scored.
    """
    file = path
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise GloamError(f"{path} has no results.json: the run is not finished. Go on with gloam train --resume.")
        file = found
    elif not path.exists():
        raise GloamError(f"There is no run or results file {path}.")
    saved, around = file.parent / "recipe.yaml", file.parent / "environment.json"
    environment: dict[str, Any] = {}
    if around.is_file():
        try:
            environment = json.loads(around.read_text(encoding="utf-8"))
        except ValueError as error:
            raise GloamError(f"{around} is damaged ({error}). Delete it to go on without it.") from error
    recipe = load_recipe(saved) if saved.is_file() else None
    return FinishedRun(path, file, Results.load(file, queries=queries), recipe, environment)


def read_systems(paths: Sequence[Path], *, queries: bool = False, apart: bool = False) -> list[System]:
    """Read runs and put those that differ in seed and split only together.

    Args:
        paths: run folders or results files.
        queries: the scores of single queries too.
        apart: every run is a system of its own.

    Raises:
        GloamError: no runs, the same one twice, or what :func:`read_run` raises.
    """
    if not paths:
        raise GloamError("Which runs? Give run folders or results files.")
    files = [path.resolve() for path in paths]
    for number, file in enumerate(files):
        if file in files[:number]:
            raise GloamError(f"{paths[number]} is given twice.")
    groups: dict[str, list[FinishedRun]] = {}
    for number, path in enumerate(paths):
        run = read_run(path, queries=queries)
        groups.setdefault(f"{number} {run.kind}" if apart else run.kind, []).append(run)
    labels = _labels(list(groups.values()))
    return [System(label, tuple(runs)) for label, runs in zip(labels, groups.values(), strict=True)]


def chosen_protocols(systems: Sequence[System], patterns: Sequence[str] = ()) -> list[str]:
    """Protocols of all systems that fit a pattern (full name or the part behind the slash), the first system's first.

    Raises:
        GloamError: none fits.
    """
    names = list(dict.fromkeys(name for system in systems for name in system.protocols))
    if not patterns:
        return names
    kept = [n for n in names if any(fnmatch.fnmatch(n, p) or fnmatch.fnmatch(n.split("/")[-1], p) for p in patterns)]
    if not kept:
        raise GloamError(f"No protocol fits {' or '.join(patterns)}. These runs have {', '.join(names) or 'none'}.")
    return kept


def _labels(groups: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """The method's name where it is enough; else the folder's, with as many parents as tell all apart."""
    methods = [runs[0].recipe.method_name if runs[0].recipe else "" for runs in groups]
    if "" not in methods and len(set(methods)) == len(methods):
        return methods
    places = [runs[0].path.absolute() for runs in groups]
    for depth in range(1, max(len(place.parts) for place in places)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return names
    return [str(place) for place in places]
