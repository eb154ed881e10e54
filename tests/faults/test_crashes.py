"""A run that is killed at any step of any write goes on and ends as if nothing had happened."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gloam.inference.checkpoint import Checkpoint
from tests.faults.runs import ROOT
from tests.training.test_interruption import assert_same, same_end
from tests.training.tiny import tiny_recipe

Points = list[tuple[str, str, int]]


def _two_stages(root: Path) -> dict[str, Any]:
    """Both stages select by validation, so ``best`` and ``last`` are written side by side and change hands."""
    stages = {
        "first": {"train": {"epochs": 2}},
        "second": {"method": {"name": "agw", "wrt": "exact"}, "train": {"epochs": 2}},
    }
    recipe = tiny_recipe(root, train={"iterations": 1}, evaluation={"selection": "validation"}, stages=stages)
    return recipe.model_dump(mode="json")


def _drive(
    root: Path, folder: Path, points: list[tuple[str, str, int]] | None, *, half: bool = False
) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.crash_driver"],
        input=json.dumps({"recipe": _two_stages(root), "folder": str(folder), "points": points, "half": half}),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout)
    for point, codes in found["codes"].items():
        where = f"point {point}, {' '.join(found['steps'][int(point) - 1])}: {done.stderr[-2000:]}"
        assert codes == [-9, 0], where
        _check(folder / "whole", folder / f"dies{point}", where)
    return found


def _check(whole: Path, run: Path, where: str) -> None:
    try:
        same_end(whole, run)
        one, other = (Checkpoint.load(path / "checkpoints" / "best.ckpt") for path in (whole, run))
        assert (one.stage, one.epoch, one.best) == (other.stage, other.epoch, other.best)
        assert_same(one.method, other.method)
        assert _numbers(whole) == _numbers(run)
        assert _names(whole) == _names(run)
    except AssertionError as error:
        raise AssertionError(where) from error


def _numbers(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def _names(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.parent.name != "tensorboard")


@pytest.mark.slow
def test_killed_around_the_checkpoints(sysu_root: Path, tmp_path: Path) -> None:
    """The steps where a pair of files is for a moment not a pair."""
    points = [
        ("written", "recipe.yaml", 0),
        ("renamed", "best.ckpt", 0),
        ("renamed", "best.ckpt", -1),  # of the second stage
        ("remove", "best.ckpt", 0),
        ("renamed", "last.ckpt", -1),
        ("renamed", "results.json", 0),
    ]
    _drive(sysu_root, tmp_path / "lives", points)


@pytest.mark.slow
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_every_step_of_every_write(half: bool, sysu_root: Path, tmp_path: Path) -> None:
    found = _drive(sysu_root, tmp_path / "all", None, half=half)
    kinds = {step for step, _ in found["steps"]}
    assert kinds == {"open", "written", "flushed", "renamed", "remove", "removed"}
    assert len(found["codes"]) == len(found["steps"]) > 80
