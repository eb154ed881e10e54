"""Features to a file: ``gloam extract``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gloam.atomic import atomic_path
from gloam.datasets import Modality, Record, load_dataset
from gloam.errors import GloamError
from gloam.training.checkpoint import Checkpoint, choose_feature, find_checkpoint, restore_method
from gloam.training.data import load_splits, open_records
from gloam.training.extraction import extract_features
from gloam.training.recipe import Recipe

FORMATS = (".parquet", ".npz", ".csv")
_PICTURES = {".jpg", ".jpeg", ".png", ".bmp"}


def extract_to_file(
    run: Path,
    source: Path,
    output: Path,
    *,
    split: Literal["train", "query", "gallery"] | None = None,
    modality: Literal["visible", "infrared"] = "visible",
    feature: str | None = None,
    mirror: bool | None = None,
    batch_size: int | None = None,
    device: str = "auto",
) -> int:
    """Write one feature per picture or tracklet, with ``path, pid, cam, modality``.

    Args:
        run: run folder or checkpoint file.
        source: a folder of pictures (video methods: a folder of tracklet folders), a table, or, with ``split``, the
            dataset's folder.
        output: ``.parquet`` (column ``feature`` holds lists), ``.npz`` (array ``features``) or ``.csv`` (columns f0,
            f1, ...).
        split: which part of the dataset.
        modality: light of the pictures of a plain folder.
        feature: one of the method's features.
        mirror: average with mirror images; the recipe's choice if not given.
        batch_size: pictures per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        Number of features written.

    Raises:
        GloamError: an unknown output format, no run, or nothing to read.
    """
    if output.suffix not in FORMATS:
        raise GloamError(f"{output} must end in one of {', '.join(FORMATS)}.")
    path = find_checkpoint(run)
    checkpoint = Checkpoint.load(path)
    recipe = checkpoint.stage_recipe()
    method = restore_method(checkpoint, str(path))
    if feature is not None:
        choose_feature(method, feature)
    records, root = find_records(recipe, source, split, Modality[modality.upper()])
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    records, store = open_records(records, root, recipe.data)
    features = extract_features(
        method.to(target),
        records,
        store,
        batch_size=batch_size or recipe.evaluation.batch_size,
        mirror=recipe.evaluation.mirror if mirror is None else mirror,
        frames=recipe.data.frames,
        workers=recipe.data.workers,
        device=target,
        progress="extracting",
    )
    write_features(features, records, output)
    return len(records)


def find_records(recipe: Recipe, source: Path, split: str | None, modality: Modality) -> tuple[Sequence[Record], Path]:
    """Records of a dataset split, a table, or a plain folder, and the folder their paths are relative to.

    Raises:
        GloamError: nothing there.
    """
    if split is not None:
        splits = load_splits(recipe.data, source)
        return getattr(splits, split), splits.root
    if source.is_file():
        splits = load_dataset("table", source)
        return [*splits.train, *splits.query, *splits.gallery], splits.root
    if not source.is_dir():
        raise GloamError(f"There is no folder or table {source}.")
    pictures = sorted(p for p in source.rglob("*") if p.suffix.lower() in _PICTURES)
    if not pictures:
        raise GloamError(f"{source} holds no pictures ({', '.join(sorted(_PICTURES))}).")
    names = [p.relative_to(source).as_posix() for p in pictures]
    if recipe.data.frames is None:
        groups: list[tuple[str, ...]] = [(name,) for name in names]
    else:
        tracklets: dict[str, list[str]] = {}
        for name in names:
            tracklets.setdefault(str(Path(name).parent), []).append(name)
        groups = [tuple(frames) for frames in tracklets.values()]
    return [Record(paths, pid=-1, cam=0, modality=modality, pid_raw=-1) for paths in groups], source


def write_features(features: Tensor, records: Sequence[Record], output: Path) -> None:
    """Write features with their metadata in the format of the file's suffix, atomically."""
    columns: dict[str, Any] = {
        "path": [record.paths[0] for record in records],
        "frames": [len(record.paths) for record in records],
        "pid": [record.pid_raw for record in records],
        "cam": [record.cam for record in records],
        "modality": [record.modality.name.lower() for record in records],
    }
    array = features.numpy()
    with atomic_path(output) as temporary:
        if output.suffix == ".npz":
            with temporary.open("wb") as file:
                arrays: dict[str, Any] = {key: np.array(value) for key, value in columns.items()}
                np.savez(file, features=array, **arrays)
        elif output.suffix == ".csv":
            numbers = pd.DataFrame(array, columns=[f"f{i}" for i in range(array.shape[1])])
            pd.concat([pd.DataFrame(columns), numbers], axis=1).to_csv(temporary, index=False)
        else:
            pd.DataFrame({**columns, "feature": list(array)}).to_parquet(temporary, index=False)
