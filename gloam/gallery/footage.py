"""A video, or a folder of its frames: decoded once and in order, upright, with the time of every frame."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.boxes import Box
from gloam.gallery.tracklets import Sighting
from gloam.image_files import UnreadableImage
from gloam.inference.sources import find_records
from gloam.pixels.decode import read_rgb
from gloam.pixels.video import is_video, presentation_times, scan_video, walk_frames
from gloam.recipes.recipe import DataConfig


class Footage(Protocol):
    """Frames 0 to L - 1 of one camera.

    Attributes:
        name: what keys begin with.
        root: absolute folder.
        names: file names of the frames, relative to ``root``; empty for a video.
        width: of the upright frames.
        height: of the upright frames.
    """

    name: str
    root: str
    names: Sequence[str]
    width: int
    height: int

    def __len__(self) -> int: ...

    def elapsed(self, frame: int) -> int | None:
        """Microseconds since the first frame; None: unknown."""

    def digest(self, frame: int) -> bytes:
        """SHA-256 of the file that the frame is in."""

    def path(self, frame: int) -> str:
        """That file, relative to ``root``."""

    def walk(self, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Numbers and images ``(H, W, 3)`` of wanted frames (None: all) in order."""


class VideoFootage:
    """A video file; see :class:`Footage`.

    Args:
        file: the video.
    """

    names: Sequence[str] = ()

    def __init__(self, file: Path) -> None:
        self.name, self.root = file.name, str(file.parent.resolve())
        self._video = scan_video(file)
        self._times = presentation_times(self._video)
        with file.open("rb") as opened:
            self._digest = hashlib.file_digest(opened, "sha256").digest()
        _, first = next(walk_frames(self._video, [0]))
        self.height, self.width = first.shape[:2]

    def __len__(self) -> int:
        return self._video.length

    def elapsed(self, frame: int) -> int | None:
        """See :class:`Footage`."""
        return int(self._times[frame])

    def digest(self, frame: int) -> bytes:
        """See :class:`Footage`."""
        return self._digest

    def path(self, frame: int) -> str:
        """See :class:`Footage`."""
        return self.name

    def walk(self, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See :class:`Footage`."""
        for number, image in walk_frames(self._video, wanted):
            if image.shape[:2] != (self.height, self.width):
                raise GloamError(
                    f"{self.name}: the size changes at frame {number}. Boxes of such a video mean nothing: convert it "
                    "(ffmpeg -i FILE NEW.mp4) and track the new one."
                )
            yield number, image


class FolderFootage:
    """Images of a folder as frames, in natural order of their names; see :class:`Footage`.

    Args:
        folder: of the images.
        config: how the model reads images.
        frame_rate: frames a second; None: their times are unknown.
    """

    def __init__(self, folder: Path, config: DataConfig, frame_rate: float | None) -> None:
        records, _ = find_records(folder, config.model_copy(update={"frames": None}))
        self.name, self.root = folder.resolve().name, str(folder.resolve())
        self.names: Sequence[str] = [record.paths[0] for record in records]
        self._rate, self._stretch = frame_rate, config.stretch
        self.height, self.width = self._read(0).shape[:2]

    def __len__(self) -> int:
        return len(self.names)

    def elapsed(self, frame: int) -> int | None:
        """See :class:`Footage`."""
        return None if self._rate is None else round(frame * 1_000_000 / self._rate)

    def digest(self, frame: int) -> bytes:
        """See :class:`Footage`."""
        return hashlib.sha256((Path(self.root) / self.names[frame]).read_bytes()).digest()

    def path(self, frame: int) -> str:
        """See :class:`Footage`."""
        return self.names[frame]

    def walk(self, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """See :class:`Footage`."""
        for number in range(len(self)) if wanted is None else sorted(set(wanted)):
            image = self._read(number)
            if image.shape[:2] != (self.height, self.width):
                raise GloamError(
                    f"{self.names[number]} has another size than {self.names[0]}: frames of one camera have one size. "
                    "Give a table with the columns path and box for images of different sizes."
                )
            yield number, image

    def _read(self, number: int) -> NDArray[np.uint8]:
        try:
            return np.asarray(read_rgb(Path(self.root) / self.names[number], self._stretch))
        except UnreadableImage as error:
            raise GloamError(f"The frame {self.names[number]} cannot be read: {error}. Replace it.") from error


def open_footage(source: Path, config: DataConfig, frame_rate: float | None = None) -> Footage:
    """A video or a folder of frames.

    Args:
        source: the file or folder.
        config: how the model reads images.
        frame_rate: of a folder's frames; a video says its times itself.

    Raises:
        GloamError: something else, or unreadable.
    """
    if frame_rate is not None and not 0 < frame_rate < 1e6:
        raise GloamError(f"The frame rate {frame_rate} is none: give frames a second, for example --frame-rate 25.")
    if is_video(source):
        if frame_rate is not None:
            raise GloamError("A video says the times of its frames itself: --frame-rate is for folders of frames.")
        return VideoFootage(source)
    if source.is_dir():
        return FolderFootage(source, config, frame_rate)
    raise GloamError(f"Boxes belong to a video or a folder of frames, and {source} is neither.")


def check_frames(footage: Footage, boxes: Sequence[Box], where: str) -> None:
    """Raise GloamError for boxes behind the last frame."""
    last = max(box.frame for box in boxes)
    if last >= len(footage):
        raise GloamError(
            f"{where} has boxes in frame {last} (from 0), and {footage.name} ends with frame {len(footage) - 1}. Is it "
            "another video, another frame rate, or a table that counts from 1? (Inside gloam, COCO files and tables "
            "count from 0, MOTChallenge text from 1.)"
        )


def cut_sightings(
    footage: Footage, sightings: Iterable[tuple[int, Sighting]]
) -> Iterator[tuple[int, Sighting, NDArray[np.uint8]]]:
    """Crops of numbered sightings, in the order of frames."""
    by_frame: dict[int, list[tuple[int, Sighting]]] = {}
    for number, one in sightings:
        by_frame.setdefault(one.box.frame, []).append((number, one))
    for frame, image in footage.walk(by_frame):
        for number, one in by_frame[frame]:
            yield number, one, crop(image, one.place)


def crop(image: NDArray[np.uint8], place: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Pixels of a frame, as they are."""
    x1, y1, x2, y2 = place
    return image[y1:y2, x1:x2]
