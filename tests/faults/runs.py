"""Trained runs and the driver's cases, for the tests of this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gloam.training.run import train
from tests.analysis.clip_run import draw_clips
from tests.training.tiny import tiny_recipe

ROOT = Path(__file__).parents[2]


def make_runs(sysu_root: Path, folder: Path) -> dict[str, Path]:
    """Name -> run: ``finished``, ``stopped`` (after one of two epochs), ``stripes`` (MMGL), ``clips`` (M3-ReID)."""
    runs = {name: folder / name for name in ("finished", "stopped", "stripes", "clips")}
    train(tiny_recipe(sysu_root), output=runs["finished"], progress=False)
    train(tiny_recipe(sysu_root), output=runs["stopped"], stop_after=1, progress=False)
    mmgl = {"method": {"name": "mmgl", "arch": "tiny"}, "sampler": {"name": "modality_shuffle", "batch_size": 6}}
    train(tiny_recipe(sysu_root, **mmgl, train={"epochs": 1}), output=runs["stripes"], progress=False)
    video = {
        "data": {"name": "hitsz_vcm", "frames": 3},
        "method": {"name": "m3reid", "arch": "tiny"},
        "sampler": {"name": "norm_triplet"},
        "train": {"epochs": 1, "iterations": 1},
        "evaluation": {"protocols": None},
    }
    train(tiny_recipe(draw_clips(folder / "video"), **video), output=runs["clips"], progress=False)
    return runs


def drive(cases: list[dict[str, Any]], folder: Path, *, mounts: bool = False) -> list[dict[str, Any]]:
    """Run cases of :mod:`tests.faults.driver`; each answer holds its case."""
    folder.mkdir(parents=True, exist_ok=True)
    told = subprocess.run(
        [sys.executable, "-m", "tests.faults.driver"],
        input=json.dumps({"folder": str(folder), "mounts": mounts, "cases": cases}),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ).stdout
    return [case | answer for case, answer in zip(cases, json.loads(told), strict=True)]
