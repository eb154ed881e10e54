"""Finished runs without training: features of a known quality, scored and written as a run does it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from gloam.datasets.records import DatasetSplits, Modality, Protocol
from gloam.evaluation.evaluator import Results, evaluate
from gloam.inference.features import Features, Fingerprint
from gloam.recipes.recipe import Recipe
from tests.evaluation.records import record, splits

PROTOCOLS = (
    Protocol("x/sampled", camera_rule="sysu", shots=1, trials=3, gallery_cams=(1, 2, 4)),
    Protocol("x/whole", camera_rule="none"),
)


def made_splits(people: int = 20, first: int = 0) -> DatasetSplits:
    """Two infrared query cameras, three visible gallery cameras."""
    ids = range(first, first + people)
    query = [record(p, c, Modality.INFRARED, n) for p in ids for c in (3, 6) for n in range(2)]
    gallery = [record(p, c, Modality.VISIBLE, n) for p in ids for c in (1, 2, 4) for n in range(2)]
    return splits(query, gallery, *PROTOCOLS)


def made_results(noise: float, seed: int, data: DatasetSplits) -> Results:
    """Scores of features that are a person's own direction plus noise."""
    draws = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(1000, 16))
    sides = [
        np.array([centres[r.pid] for r in part]) + noise * draws.normal(size=(len(part), 16))
        for part in (data.query, data.gallery)
    ]
    return evaluate(data, *sides)


def made_run(
    folder: Path,
    *,
    method: str = "base",
    noise: float = 1.5,
    seed: int = 0,
    trial: int | None = None,
    data: DatasetSplits | None = None,
    **sections: Any,
) -> Path:
    """A run folder with recipe and scores."""
    name = "sysu_mm01" if trial is None else "regdb"
    recipe = Recipe(
        data={"name": name, "options": {} if trial is None else {"trial": trial}},
        method={"name": method},
        train={"seed": seed},
        **sections,
    )
    folder.mkdir(parents=True)
    recipe.save(folder / "recipe.yaml")
    (folder / "environment.json").write_text(json.dumps({"gloam": "0.1.0", "device": "cpu"}))
    made_results(noise, 1000 * (trial or 0) + seed, data or made_splits()).to_json(folder / "results.json")
    return folder


def made_images(root: Path, people: int = 20) -> DatasetSplits:
    """The records of :func:`made_splits` with an image for each: a colour per person."""
    data = made_splits(people)
    for part in (data.query, data.gallery):
        for one in part:
            path = root / one.paths[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(one.pid).integers(0, 255, (64, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
    return replace(data, root=root)


def made_features(data: DatasetSplits, noise: float = 1.5) -> tuple[Features, Features]:
    """Unit vectors: a person's own direction plus noise."""
    draws = np.random.default_rng(0)
    centres = np.random.default_rng(99).normal(size=(1000, 16))
    sides = []
    for part in (data.query, data.gallery):
        vectors = np.array([centres[r.pid] for r in part]) + noise * draws.normal(size=(len(part), 16))
        unit = torch.nn.functional.normalize(torch.from_numpy(vectors).float(), dim=1)
        sides.append(Features.of_records(unit, part, Fingerprint.foreign("made")))
    return sides[0], sides[1]
