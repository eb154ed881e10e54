"""Video files as rows of a pixel store: frames are counted once, then only those that a clip needs are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gloam.errors import GloamError
from gloam.image_files import MAX_PIXELS
from gloam.pixels.decode import Interpolation, resize_rgb
from gloam.pixels.store import BadImageError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")
# VP8 stores invisible reference frames as packets of their own: its packets are not its images.
_UNCOUNTABLE = ("vp8",)


class BadVideoError(BadImageError):
    """A video that cannot be read."""


@dataclass(frozen=True)
class VideoIndex:
    """What is known of a video after one pass.

    Attributes:
        path: the file.
        length: number of images L.
        times: ``(L,)`` presentation times in the stream's unit, ascending, or None where the file has none (AVI): such
            a file is decoded from its start.
        keys: ``(K,)`` the times where decoding can begin.
    """

    path: Path
    length: int
    times: NDArray[np.int64] | None
    keys: NDArray[np.int64]


def scan_video(path: Path) -> VideoIndex:
    """Count the images of a video and note where each is.

    Reads the file once without decoding; only where packets have no times (AVI) or are no images (VP8) is it decoded.
    Memory: a few numbers per image.

    Raises:
        GloamError: no decoder library, or an empty, cut off or foreign file.
    """
    av = _library()
    with _open(av, path) as (container, stream):
        marks, total, cut = [], 0, False
        for packet in container.demux(stream):
            if packet.size:
                total += 1
                cut |= bool(packet.is_corrupt)
                if not packet.is_discard:
                    marks.append((packet.pts, bool(packet.is_keyframe)))
        # Only this family of containers states a number of images that can be relied on.
        cut |= "mov" in container.format.name and total < stream.frames
        timed = "avi" not in container.format.name  # it stores no times; what the library states are guesses
        countable = timed and stream.codec_context.name not in _UNCOUNTABLE
    if cut:
        raise _bad(path, "it is cut off")
    if not (countable and _ordered(marks)):
        with _open(av, path) as (container, stream):
            marks = [(frame.pts, bool(frame.key_frame)) for frame in container.decode(stream)]
    if not marks:
        raise _bad(path, "it holds no images")
    if not (timed and _ordered(marks)):
        return VideoIndex(path, len(marks), None, np.empty(0, np.int64))
    times = np.sort(np.array([time for time, _ in marks], dtype=np.int64))
    keys = np.sort(np.array([time for time, key in marks if key], dtype=np.int64))
    return VideoIndex(path, len(marks), times, keys)


def read_frames(
    video: VideoIndex, numbers: NDArray[np.int64], height: int, width: int, interpolation: Interpolation = "lanczos"
) -> NDArray[np.uint8]:
    """Images of a video by number.

    Decoding jumps to the last key image before each wanted one and stops behind the last; other images are neither
    converted nor kept. Orientation marks are ignored, as for images.

    Args:
        video: from :func:`scan_video`.
        numbers: ``(n,)`` int64 in ``0..L-1``; any order, repeats allowed.
        height: rows of the result.
        width: columns of the result.
        interpolation: resize filter.

    Returns:
        ``(n, 3, height, width)`` uint8.

    Raises:
        GloamError: the file is damaged.
    """
    av = _library()
    wanted, inverse = np.unique(numbers, return_inverse=True)
    out = np.empty((len(wanted), 3, height, width), np.uint8)

    def keep(position: int, frame: Any) -> None:
        if frame.is_corrupt:
            raise _bad(video.path, f"image {wanted[position]} is damaged")
        out[position] = resize_rgb(Image.fromarray(frame.to_ndarray(format="rgb24")), height, width, interpolation)

    if not _read_by_time(av, video, wanted, keep):
        _read_in_order(av, video, wanted, keep)
    return out[inverse]


def _read_by_time(
    av: ModuleType, video: VideoIndex, wanted: NDArray[np.int64], keep: Callable[[int, Any], None]
) -> bool:
    """Jump from image to image; False if the file does not lead to the places that its index names."""
    if video.times is None or not len(video.keys):
        return False
    with _open(av, video.path) as (container, stream):
        frames: Iterator[Any] | None = None
        reached = 0
        for position, time in enumerate(video.times[wanted].tolist()):
            before = int(np.searchsorted(video.keys, time, side="right")) - 1
            if frames is None or before > reached:
                if before < 0:
                    return False
                container.seek(int(video.keys[before]), stream=stream, backward=True)
                frames, reached = container.decode(stream), before
            found = next((frame for frame in frames if frame.pts is None or frame.pts >= time), None)
            if found is None or found.pts != time:
                return False
            keep(position, found)
    return True


def _read_in_order(
    av: ModuleType, video: VideoIndex, wanted: NDArray[np.int64], keep: Callable[[int, Any], None]
) -> None:
    """Decode from the start to the last wanted image."""
    with _open(av, video.path) as (container, stream):
        position = 0
        for number, frame in enumerate(container.decode(stream)):
            if number == wanted[position]:
                keep(position, frame)
                position += 1
                if position == len(wanted):
                    return
    raise _bad(video.path, f"it ends before image {wanted[position]} of {video.length}")


def presentation_times(video: VideoIndex) -> NDArray[np.int64]:
    """When each image is shown: ``(L,)`` microseconds after the first. Files without times (AVI) have a frame rate.

    Raises:
        GloamError: neither times nor a frame rate.
    """
    with _open(_library(), video.path) as (_, stream):
        if video.times is not None:
            unit = Fraction(stream.time_base)
            ticks = video.times - video.times[0]
        elif stream.average_rate:
            unit, ticks = 1 / Fraction(stream.average_rate), np.arange(video.length)
        else:
            raise _bad(video.path, "it states neither times nor a frame rate")
    return np.array([round(tick * unit * 1_000_000) for tick in ticks.tolist()], dtype=np.int64)


def walk_frames(video: VideoIndex, wanted: Iterable[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Images of a video in order, at full size and upright (turned as the file's orientation mark says).

    The file is decoded once, from its start to the last wanted image; others are neither converted nor kept.

    Args:
        video: from :func:`scan_video`.
        wanted: numbers of images; None: all.

    Yields:
        The number and ``(H, W, 3)`` uint8 RGB.

    Raises:
        GloamError: the file is damaged.
    """
    numbers = range(video.length) if wanted is None else sorted(set(wanted))
    rest = iter(numbers)
    target = next(rest, None)
    if target is None:
        return
    with _open(_library(), video.path) as (container, stream):
        for number, frame in enumerate(container.decode(stream)):
            if number != target:
                continue
            if frame.is_corrupt:
                raise _bad(video.path, f"image {number} is damaged")
            # The mark says how far to turn the image counterclockwise, in steps of 90 degrees.
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            yield number, np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            target = next(rest, None)
            if target is None:
                return
    raise _bad(video.path, f"it ends before image {target} of {video.length}")


class VideoStore:
    """Videos as a pixel store: row ``i`` is an image of the video that owns it, in the order of the videos.

    Args:
        videos: from :func:`scan_video`.
        height: rows after resizing.
        width: columns after resizing.
        interpolation: resize filter.
    """

    def __init__(
        self, videos: Sequence[VideoIndex], height: int, width: int, interpolation: Interpolation = "lanczos"
    ) -> None:
        self.height = height
        self.width = width
        self.bad_indices: tuple[int, ...] = ()
        self._videos = list(videos)
        self._interpolation: Interpolation = interpolation
        self._ends = np.cumsum([video.length for video in videos], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def read(self, indices: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """``(n, 3, H, W)`` uint8; every video is opened once."""
        rows = np.asarray(indices, dtype=np.int64)
        owners = np.searchsorted(self._ends, rows, side="right")
        out = np.empty((len(rows), 3, self.height, self.width), np.uint8)
        for owner in np.unique(owners).tolist():
            video, mine = self._videos[owner], owners == owner
            numbers = rows[mine] - (int(self._ends[owner]) - video.length)
            out[mine] = read_frames(video, numbers, self.height, self.width, self._interpolation)
        return out


def is_video(path: Path) -> bool:
    """True for a file with one of the known suffixes."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _ordered(marks: Iterable[tuple[int | None, bool]]) -> bool:
    """Every image has a time, and no two the same."""
    times = [time for time, _ in marks]
    return None not in times and len(set(times)) == len(times)


def _library() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise GloamError('Reading video files needs PyAV. Install it with pip install "gloam[video]".') from error
    module: ModuleType = av
    return module


class _open:
    """Context of an open container and its first video stream; errors of the library become ours."""

    def __init__(self, av: ModuleType, path: Path) -> None:
        self._av, self._path = av, path

    def __enter__(self) -> tuple[Any, Any]:
        # An absolute name: the library takes what precedes a colon for a protocol. Titles and the like are not read,
        # and recorders write them in the encoding of their country.
        try:
            self._container = self._av.open(os.path.abspath(self._path), metadata_errors="replace")
        except self._av.FFmpegError as error:
            empty = self._path.is_file() and self._path.stat().st_size == 0
            raise _bad(self._path, "the file is empty" if empty else error.strerror) from error
        if not self._container.streams.video:
            self._container.close()
            raise _bad(self._path, "it holds no images")
        stream = self._container.streams.video[0]
        if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
            size = f"{stream.codec_context.width} x {stream.codec_context.height}"
            self._container.close()
            raise _bad(self._path, f"its images have {size} pixels; at most {MAX_PIXELS:,} are read")
        return self._container, stream

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._container.close()
        if isinstance(error, self._av.FFmpegError):
            raise _bad(self._path, error.strerror) from error


def _bad(path: Path, reason: str) -> BadVideoError:
    return BadVideoError(
        f"The video {path} cannot be read: {reason}. Copy it again, convert it (ffmpeg -i FILE -c:v libx264 NEW.mp4), "
        "or leave it out."
    )
