"""Tiny video files for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

av = pytest.importorskip("av")


def write_video(
    path: Path,
    length: int,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (48, 16),
    seed: int = 0,
    gop: int = 4,
    titles: tuple[str, str] | None = None,
) -> np.ndarray:
    """Write a video whose image ``i`` has brightness ``20 + 200 i / length`` and a fixed pattern.

    ``titles`` are those of the file and of its stream.

    Returns:
        ``(length,)`` mean brightness written.
    """
    height, width = size
    pattern = np.random.default_rng(seed).integers(-15, 16, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    levels = 20 + 200 * np.arange(length) / max(length, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = gop
        if titles is not None:
            container.metadata["title"], stream.metadata["title"] = titles
        if codec == "libx264":
            stream.codec_context.max_b_frames = 2
        for level in levels:
            pixels = (level + pattern).clip(0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return levels
