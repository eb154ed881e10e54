"""A small dataset with images of one colour per person, and features that rank it in a known way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from gloam.datasets.records import DatasetSplits, Modality, Protocol, Record

COLOURS = {1: (255, 0, 255), 2: (0, 255, 0), 3: (0, 255, 255)}


def write_dataset(root: Path, frames: int = 1) -> tuple[DatasetSplits, np.ndarray, np.ndarray]:
    """Three persons, infrared queries of camera 3, two visible entries each; perfect features."""

    def record(pid: int, cam: int, modality: Modality) -> Record:
        paths = tuple(f"cam{cam}/{pid}/{frame}.png" for frame in range(frames))
        for number, path in enumerate(paths):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            colour = tuple(int(c * (1 - number / (2 * frames))) for c in COLOURS[pid])
            Image.new("RGB", (20, 40), colour).save(root / path)
        return Record(paths, pid, cam, modality, pid)

    query = tuple(record(pid, 3, Modality.INFRARED) for pid in COLOURS)
    gallery = tuple(record(pid, cam, Modality.VISIBLE) for pid in COLOURS for cam in (1, 2))
    protocols = {"x/all": Protocol("x/all", camera_rule="sysu"), "x/none": Protocol("x/none", camera_rule="none")}
    splits = DatasetSplits("x", root, (), query, gallery, protocols, {})
    features = [np.eye(4, dtype=np.float32)[[r.pid for r in part]] for part in (query, gallery)]
    return splits, features[0], features[1]


def pixels(path: Path) -> np.ndarray:
    """An image as (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Pixels of exactly this colour."""
    return int((picture == np.array(colour)).all(axis=2).sum())
