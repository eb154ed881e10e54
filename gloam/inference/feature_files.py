"""Features to a file: ``gloam extract``."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from gloam.atomic import atomic_path
from gloam.datasets import Modality, Record, load_dataset
from gloam.errors import GloamError
from gloam.image_files import IMAGE_SUFFIXES
from gloam.inference.checkpoint import Checkpoint, choose_feature, find_checkpoint, restore_method
from gloam.inference.extraction import extract_features
from gloam.pixels.store import PixelStore
from gloam.pixels.video import VIDEO_SUFFIXES, VideoStore, is_video, scan_video
from gloam.progress import track
from gloam.recipes.recipe import Recipe
from gloam.training.training_data import load_splits, open_records

FORMATS = (".parquet", ".npz", ".csv")
_log = logging.getLogger(__name__)


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
    """Write one feature per image or tracklet, with ``path, pid, cam, modality``.

    Args:
        run: run folder or checkpoint file.
        source: a folder of images, a table, or, with ``split``, the dataset's folder. Video methods read a folder of
            tracklets (every sub-folder with images is one, its frames sorted by name, numbers by value), a video file
            or a folder of video files; frames are chosen as for the method's test clips.
        output: ``.parquet`` (column ``feature`` holds lists), ``.npz`` (array ``features``) or ``.csv`` (columns f0,
            f1, ...).
        split: which part of the dataset.
        modality: modality of a plain folder's images or videos.
        feature: one of the method's features.
        mirror: average with mirror images; the recipe's choice if not given.
        batch_size: images per forward pass.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        Number of features written.

    Raises:
        GloamError: an unknown output format, no run, nothing to read, or an unreadable image or video. Nothing is
            written then.
    """
    if output.suffix not in FORMATS:
        raise GloamError(f"{output} must end in one of {', '.join(FORMATS)}.")
    path = find_checkpoint(run)
    checkpoint = Checkpoint.load(path)
    recipe = checkpoint.stage_recipe()
    method = restore_method(checkpoint, str(path))
    if feature is not None:
        choose_feature(method, feature)
    target = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    light = Modality[modality.upper()]
    records: Sequence[Record]
    store: PixelStore
    if split is None and (videos := find_videos(source)):
        records, store = open_videos(videos, source, recipe, light)
    else:
        records, root = find_records(recipe, source, split, light)
        records, store = open_records(records, root, recipe.data)
    features = extract_features(
        method.to(target),
        records,
        store,
        batch_size=recipe.evaluation.batch_size if batch_size is None else batch_size,
        mirror=recipe.evaluation.mirror if mirror is None else mirror,
        frames=recipe.data.frames,
        frame_choice=recipe.data.test_clip,
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
        raise GloamError(f"There is no folder, video or table {source}.")
    images = sorted(_files(source, IMAGE_SUFFIXES), key=_natural)
    if not images:
        wanted = IMAGE_SUFFIXES if recipe.data.frames is None else (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        raise GloamError(f"{source} holds none of the files that the run can read ({', '.join(wanted)}).")
    names = [p.relative_to(source).as_posix() for p in images]
    if recipe.data.frames is None:
        groups: list[tuple[str, ...]] = [(name,) for name in names]
    else:
        tracklets: dict[str, list[str]] = {}
        for name in names:
            tracklets.setdefault(str(Path(name).parent), []).append(name)
        groups = [tuple(frames) for frames in tracklets.values()]
        _warn_of_empty_folders(source)
    return [Record(paths, pid=-1, cam=0, modality=modality, pid_raw=-1) for paths in groups], source


def find_videos(source: Path) -> list[Path]:
    """The video files that ``source`` is or contains, in natural order.

    Raises:
        GloamError: a folder with videos and images.
    """
    if is_video(source):
        return [source]
    videos = sorted(_files(source, VIDEO_SUFFIXES), key=_natural) if source.is_dir() else []
    if videos and (image := next(iter(_files(source, IMAGE_SUFFIXES)), None)):
        raise GloamError(
            f"{source} holds videos ({videos[0].name}, ...) and images ({image.name}, ...). Give one kind at a "
            "time, for example by moving the videos to a folder of their own."
        )
    return videos


def open_videos(
    videos: Sequence[Path], source: Path, recipe: Recipe, modality: Modality
) -> tuple[list[Record], VideoStore]:
    """One record per video (its path once per image) and their images as a store.

    Raises:
        GloamError: a method for single images, or a video that cannot be read.
    """
    if recipe.data.frames is None:
        raise GloamError(
            f"{videos[0]} is a video, but the run's method {recipe.method_name!r} works on single images. Use a run "
            "of a video method (m3reid), or write the images that you want to a folder first."
        )
    folder = source if source.is_dir() else source.parent
    scanned = [scan_video(video) for video in track(videos, "looking at videos", total=len(videos))]
    records = [
        Record((video.path.relative_to(folder).as_posix(),) * video.length, -1, 0, modality, -1) for video in scanned
    ]
    return records, VideoStore(scanned, recipe.data.height, recipe.data.width, recipe.data.interpolation)


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Files below a folder by suffix; hidden ones (``._frame.jpg`` of some archives) are no images."""
    return (p for p in folder.rglob("*") if p.suffix.lower() in suffixes and p.name[0] != "." and p.is_file())


def _natural(path: Path) -> list[list[tuple[int, str]]]:
    """Sort key that puts ``frame_2`` before ``frame_10``."""
    return [
        [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d+)", part) if piece]
        for part in path.parts
    ]


def _warn_of_empty_folders(source: Path) -> None:
    """Say which innermost folders hold no images: they give no feature."""
    folders = [p for p in sorted(source.rglob("*")) if p.is_dir() and not p.name.startswith(".")]
    empty = [p for p in folders if next(_files(p, IMAGE_SUFFIXES), None) is None]
    if empty:
        names = ", ".join(str(p.relative_to(source)) for p in empty[:5])
        _log.warning("%d folders of %s hold no images and are left out: %s", len(empty), source, names)


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
