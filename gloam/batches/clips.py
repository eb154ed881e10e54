"""Which frames of a tracklet make a clip."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError

OneClip = Literal["evenly", "spaced", "first_half", "second_half"]
FixedFrames = OneClip | Literal["all"]
FrameChoice = OneClip | Literal["evenly_random", "random"]


def choose_frames(
    length: int,
    frames: int,
    choice: FrameChoice | FixedFrames = "evenly",
    generator: np.random.Generator | None = None,
) -> NDArray[np.int64]:
    """Frame numbers of one clip.

    Let ``n = ceil(max(length, frames) / frames)``; conceptually the tracklet is padded with copies of its last frame to
    ``n * frames`` entries.

    *Source*: ``evenly`` (first entry of each segment of n; the test rule of M3-ReID and MITML), ``evenly_random`` (a
    random entry of each segment; M3-ReID training), ``random`` (consecutive entries, random start): ``data/dataset.py``
    of the M3-ReID release. ``spaced`` (``floor(k * length / frames)``), ``first_half``, ``second_half`` (the same
    inside half a tracklet): ``dataloader.py`` of BUPTCampus; a tracklet of one frame has no first half and gives its
    only frame. ``all`` makes several clips of a tracklet (:func:`all_clips`); here it gives the first, that of
    ``evenly``.

    Args:
        length: frames of the tracklet, L >= 1.
        frames: frames of the clip, T >= 1.
        choice: rule.
        generator: needed by the random rules.

    Returns:
        ``(T,)`` int64 in ``0..L-1``.

    Raises:
        GloamError: an empty tracklet or clip.
    """
    if length < 1 or frames < 1:
        raise GloamError(f"A clip of {frames} frames cannot be taken from a tracklet of {length}.")
    steps = np.arange(frames)
    if choice in ("spaced", "first_half", "second_half"):
        half = length // 2
        start, stop = {"spaced": (0, length), "first_half": (0, max(half, 1)), "second_half": (half, length)}[choice]
        spaced: NDArray[np.int64] = start + steps * (stop - start) // frames
        return spaced
    segment = -(-max(length, frames) // frames)
    if choice in ("evenly", "all"):
        entries = steps * segment
    else:
        if generator is None:
            raise ValueError(f"frame choice {choice!r} draws and needs a generator")
        if choice == "evenly_random":
            entries = steps * segment + generator.integers(0, segment, frames)
        else:
            entries = generator.integers(0, segment * frames - frames + 1) + steps
    clip: NDArray[np.int64] = np.minimum(entries, length - 1)
    return clip


def count_clips(lengths: NDArray[np.int64], frames: int | None, choice: FrameChoice | FixedFrames) -> NDArray[np.int64]:
    """How many clips a rule makes of tracklets with ``lengths`` ``(N,)`` frames; 1 for single images."""
    if choice != "all" or frames is None:
        return np.ones(len(lengths), dtype=np.int64)
    counts: NDArray[np.int64] = -(-np.maximum(lengths, frames) // frames)
    return counts


def all_clips(length: int, frames: int) -> NDArray[np.int64]:
    """Every frame, as interleaved clips: clip ``i`` takes entry ``i`` of each segment.

    *Source*: rule ``all`` in ``data/dataset.py`` of the M3-ReID release, for testing with several clips per tracklet.

    Returns:
        ``(n, T)`` int64 frame numbers; the first clip equals ``choose_frames(length, frames, "evenly")``.
    """
    segment = -(-max(length, frames) // frames)
    entries = np.arange(segment)[:, None] + np.arange(frames) * segment
    clips: NDArray[np.int64] = np.minimum(entries, length - 1)
    return clips
