"""What can be embedded: datasets, folders, files, tables, videos and arrays become records and a pixel store."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from gloam.datasets import DatasetSplits, Modality, Record, load_dataset
from gloam.errors import GloamError
from gloam.image_files import IMAGE_SUFFIXES
from gloam.pixels.decode import resize_rgb, to_rgb
from gloam.pixels.store import PixelStore, drop_unreadable, image_paths, open_store
from gloam.pixels.video import VIDEO_SUFFIXES, VideoStore, is_video, scan_video
from gloam.progress import track
from gloam.recipes.recipe import DataConfig

TABLE_SUFFIXES = (".csv", ".parquet")
Split = Literal["train", "query", "gallery"]
ModalityName = Literal["visible", "infrared"]
_log = logging.getLogger(__name__)


def load_splits(config: DataConfig, root: Path | None = None) -> DatasetSplits:
    """The dataset that a recipe names.

    Raises:
        GloamError: no root folder was given.
    """
    folder = root or config.root
    if folder is None:
        raise GloamError(f"Where is {config.name}? Give its folder with --data.root (gloam data check tests it).")
    return load_dataset(config.name, folder, **config.options)


def open_records(
    records: Sequence[Record], root: Path, config: DataConfig, *, progress: bool = True
) -> tuple[Sequence[Record], PixelStore]:
    """A store for records at the recipe's size; unreadable images are an error or dropped, as the recipe says."""
    store = open_store(
        root,
        image_paths(records),
        height=config.height,
        width=config.width,
        interpolation=config.interpolation,
        stretch=config.stretch,
        # A clip data set has far more frames than a run reads; decoded, HITSZ-VCM alone fills 57 GB.
        cache="off" if config.cache == "auto" and config.frames else config.cache,
        progress=progress,
        on_bad_image=config.on_bad_image,
    )
    return drop_unreadable(records, store)


def open_test_records(
    records: Sequence[Record], root: Path, config: DataConfig, *, progress: bool = True
) -> tuple[Sequence[Record], PixelStore]:
    """:func:`open_records` for scoring, which needs every record.

    Raises:
        GloamError: a record has no readable image.
    """
    kept, store = open_records(records, root, config, progress=progress)
    if lost := len(records) - len(kept):
        raise GloamError(
            f"{lost} of {len(records)} test records have no readable image; scores without them could not be "
            "compared. Replace the files: gloam data check lists them."
        )
    return kept, store


def open_source(
    source: Any,
    config: DataConfig,
    *,
    modality: ModalityName | Sequence[ModalityName] = "visible",
    split: Split | None = None,
    root: Path | None = None,
    progress: bool = True,
) -> tuple[Sequence[Record], PixelStore]:
    """Records of anything that a model can embed, and a store of their images at the model's size.

    Args:
        source: a folder (video methods: of tracklet folders, every sub-folder with images is one, or of videos), an
            image, video or table file; several image files; ``DatasetSplits`` (with ``split``) or some of their
            records (with ``root``); one or several PIL images or uint8 arrays ``(H, W, 3)``, or uint8 tensors
            ``(3, H, W)``; for video methods a clip is an array ``(T, H, W, 3)`` or a tensor ``(T, 3, H, W)``.
        config: the ``data`` section of the model's recipe: size, clips, cache.
        modality: of images that do not say it themselves (all but datasets and tables): one for all, or one each.
        split: part of a dataset. With a folder: the folder is the root of the recipe's own dataset.
        root: folder that the paths of records are relative to.
        progress: show bars while videos are looked at and images are decoded.

    Raises:
        GloamError: nothing there, of another kind than the model reads, or unreadable.
    """
    if isinstance(source, DatasetSplits):
        if split is None:
            raise GloamError("Which part of the dataset? Give split='train', 'query' or 'gallery'.")
        return open_records(getattr(source, split), source.root, config, progress=progress)
    if isinstance(source, str | Path):
        return _open_path(Path(source), config, modality, split, progress)
    items = _items(source, config)
    if not items:
        raise GloamError("There is nothing to embed: the source is empty.")
    if all(isinstance(item, Record) for item in items):
        if root is None:
            raise GloamError("Records name files relative to a folder: give it with root=splits.root.")
        return open_records(items, root, config, progress=progress)
    modalities = _modalities(modality, len(items))
    if all(isinstance(item, str | Path) for item in items) and all(is_video(Path(item)) for item in items):
        return open_videos([Path(item) for item in items], None, config, modalities, progress=progress)
    if tracklets := _paths(items, config):
        records = [Record(paths, -1, 0, kind, -1) for paths, kind in zip(tracklets, modalities, strict=True)]
        return open_records(records, Path(), config, progress=progress)
    clips = [_pixels(item, number, config) for number, item in enumerate(items)]
    records = [
        Record((f"[{number}]",) * len(clip), -1, 0, kind, -1)
        for number, (clip, kind) in enumerate(zip(clips, modalities, strict=True))
    ]
    return records, ArrayStore(np.concatenate(clips))


class ArrayStore:
    """Images that lie in memory already.

    Args:
        pixels: ``(n, 3, H, W)`` uint8.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.bad_indices: tuple[int, ...] = ()
        self._pixels = pixels

    @property
    def height(self) -> int:
        return int(self._pixels.shape[2])

    @property
    def width(self) -> int:
        return int(self._pixels.shape[3])

    def __len__(self) -> int:
        return len(self._pixels)

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        return self._pixels[np.asarray(indices, dtype=np.int64)]


def _open_path(
    source: Path,
    config: DataConfig,
    modality: ModalityName | Sequence[ModalityName],
    split: Split | None,
    progress: bool,
) -> tuple[Sequence[Record], PixelStore]:
    if split is not None:
        splits = load_splits(config, source)
        return open_records(getattr(splits, split), splits.root, config, progress=progress)
    if videos := find_videos(source):
        folder = source if source.is_dir() else source.parent
        return open_videos(videos, folder, config, _modalities(modality, len(videos)), progress=progress)
    records, root = find_records(source, config, modality)
    return open_records(records, root, config, progress=progress)


def find_records(
    source: Path, config: DataConfig, modality: ModalityName | Sequence[ModalityName] = "visible"
) -> tuple[Sequence[Record], Path]:
    """Records of a table, an image or a plain folder, and the folder their paths are relative to.

    Raises:
        GloamError: nothing there.
    """
    if source.is_file() and source.suffix.lower() in IMAGE_SUFFIXES:
        return [Record((source.name,), -1, 0, _modalities(modality, 1)[0], -1)], source.parent
    if source.is_file():
        splits = load_dataset("table", source)
        return [*splits.train, *splits.query, *splits.gallery], splits.root
    if not source.is_dir():
        raise GloamError(f"There is no folder, image, video or table {source}.")
    images = sorted(_files(source, IMAGE_SUFFIXES), key=_natural)
    if not images:
        wanted = IMAGE_SUFFIXES if config.frames is None else (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES)
        raise GloamError(f"{source} holds none of the files that the run can read ({', '.join(wanted)}).")
    names = [p.relative_to(source).as_posix() for p in images]
    if config.frames is None:
        groups: list[tuple[str, ...]] = [(name,) for name in names]
    else:
        tracklets: dict[str, list[str]] = {}
        for name in names:
            tracklets.setdefault(str(Path(name).parent), []).append(name)
        groups = [tuple(frames) for frames in tracklets.values()]
        _warn_of_empty_folders(source)
    kinds = _modalities(modality, len(groups))
    return [Record(paths, -1, 0, kind, -1) for paths, kind in zip(groups, kinds, strict=True)], source


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
    videos: Sequence[Path],
    folder: Path | None,
    config: DataConfig,
    modalities: Sequence[Modality],
    *,
    progress: bool = True,
) -> tuple[list[Record], VideoStore]:
    """One record per video (its path, relative to the folder if any, once per image) and their images as a store.

    Raises:
        GloamError: a model of single images, or a video that cannot be read.
    """
    if config.frames is None:
        raise GloamError(
            f"{videos[0]} is a video, but the run's method works on single images. Use a run of a video method "
            "(m3reid), or write the images that you want to a folder first."
        )
    text = "looking at videos" if progress else None
    scanned = [scan_video(video) for video in track(videos, text, total=len(videos))]
    records = [
        Record(((video.path.relative_to(folder) if folder else video.path).as_posix(),) * video.length, -1, 0, kind, -1)
        for video, kind in zip(scanned, modalities, strict=True)
    ]
    return records, VideoStore(scanned, config.height, config.width, config.interpolation)


def _items(source: Any, config: DataConfig) -> list[Any]:
    """A source as a list of paths, records, images or clips."""
    if isinstance(source, Image.Image | Record):
        return [source]
    if isinstance(source, np.ndarray | Tensor):
        one = 3 if config.frames is None else 4
        if source.ndim not in (one, one + 1):
            raise GloamError(
                f"An array of shape {tuple(source.shape)} is neither {_shape(config)} nor several of them stacked."
            )
        return [source] if source.ndim == one else list(source)
    if not isinstance(source, Sequence):
        raise GloamError(f"A {type(source).__name__} cannot be embedded. Give paths, images, arrays or a dataset.")
    return list(source)


def _paths(items: Sequence[Any], config: DataConfig) -> list[tuple[str, ...]]:
    """Files of every item, an image each or, for video methods, a sequence of frames; empty for other kinds of items.

    Raises:
        GloamError: a file that does not exist.
    """
    found: list[tuple[str, ...]] = []
    for item in items:
        frames = [item] if isinstance(item, str | Path) else item
        several = config.frames is not None and isinstance(frames, Sequence)
        if not (several or isinstance(item, str | Path)) or not all(isinstance(f, str | Path) for f in frames):
            return []
        found.append(tuple(str(frame) for frame in frames))
    if missing := [path for paths in found for path in paths if not Path(path).is_file()]:
        raise GloamError(f"There is no image {missing[0]} ({len(missing)} such paths).")
    return found


def _pixels(item: Any, number: int, config: DataConfig) -> NDArray[np.uint8]:
    """One image or clip as ``(T, 3, H, W)`` at the model's size.

    Raises:
        GloamError: another kind of object, another type than uint8, another shape.
    """
    if isinstance(item, Image.Image):
        frames = [to_rgb(item, config.stretch)]
    elif isinstance(item, np.ndarray | Tensor):
        array = item.detach().cpu().movedim(-3, -1).numpy() if isinstance(item, Tensor) else item
        if array.dtype != np.uint8:
            raise GloamError(f"Image {number} has type {array.dtype}; give uint8 values 0..255, RGB.")
        if array.ndim != (3 if config.frames is None else 4) or array.shape[-1] != 3 or 0 in array.shape:
            raise GloamError(f"Image {number} has shape {tuple(item.shape)}, not {_shape(config)}.")
        frames = [Image.fromarray(np.ascontiguousarray(frame)) for frame in (array[None] if array.ndim == 3 else array)]
    else:
        raise GloamError(
            f"Image {number} is a {type(item).__name__}. Give all as paths, all as PIL images, or all as uint8 arrays."
        )
    return np.stack([resize_rgb(frame, config.height, config.width, config.interpolation) for frame in frames])


def _shape(config: DataConfig) -> str:
    return (
        "(H, W, 3), or (3, H, W) for tensors"
        if config.frames is None
        else "a clip (T, H, W, 3), or (T, 3, H, W) for tensors"
    )


def _modalities(given: ModalityName | Sequence[ModalityName], count: int) -> list[Modality]:
    words = [given] * count if isinstance(given, str) else list(given)
    if len(words) != count:
        raise GloamError(f"{len(words)} modalities for {count} images: give one for all, or one each.")
    for word in words:
        if str(word).upper() not in Modality.__members__:
            raise GloamError(f"There is no modality {word!r}. Give visible or infrared.")
    return [Modality[word.upper()] for word in words]


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


def modality_numbers(records: Sequence[Record]) -> Tensor:
    """``(N,)`` int64 modality of every record."""
    return torch.tensor([int(record.modality) for record in records], dtype=torch.int64)
