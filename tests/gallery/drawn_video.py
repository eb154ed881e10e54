"""A drawn video with known boxes, and the same boxes in three formats, written from their definitions."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray

from gloam.inference.features import Features, Fingerprint

HEIGHT, WIDTH, LENGTH = 60, 80, 24
BOX = (8, 16)  # width, height: the size of the fake model, so that crops reach it without resizing

# Frame from 0, track, left, top (from 0).
Place = tuple[int, int, int, int]


def frames(length: int = LENGTH, seed: int = 0) -> NDArray[np.uint8]:
    """Noise: every pixel of every frame is another, so that a shift by one is seen."""
    return np.random.default_rng(seed).integers(0, 256, (length, HEIGHT, WIDTH, 3), dtype=np.uint8)


def places(length: int = LENGTH) -> list[Place]:
    """Two people who walk, inside of the frame."""
    return [(n, track, 1 + 2 * n + track, 5 + track * 9 + n % 3) for n in range(length) for track in (1, 2)]


def write_video(
    path: Path, images: NDArray[np.uint8], *, times: list[int] | None = None, rotation: int = 0, offset: int = 0
) -> Path:
    """Lossless (FFV1 in Matroska, PNG in QuickTime); times in milliseconds, or 25 a second."""
    with av.open(str(path), "w") as container:
        codec, pixels = ("png", "rgb24") if path.suffix == ".mov" else ("ffv1", "bgr0")
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = images.shape[2], images.shape[1], pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pixels)
            frame.pts = offset + (times[number] if times is not None else number * 40)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_mot(path: Path, found: list[Place]) -> Path:
    path.write_text("".join(f"{n + 1},{t},{x + 1},{y + 1},{BOX[0]},{BOX[1]},0.9,-1,-1,-1\n" for n, t, x, y in found))
    return path


def write_coco(path: Path, found: list[Place]) -> Path:
    content = {
        "images": [{"id": n, "width": WIDTH, "height": HEIGHT} for n in sorted({place[0] for place in found})],
        "categories": [{"id": 7, "name": "person"}],
        "annotations": [
            {"id": i, "image_id": n, "category_id": 7, "bbox": [x, y, *BOX], "attributes": {"track_id": t}}
            for i, (n, t, x, y) in enumerate(found)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def write_table(path: Path, found: list[Place]) -> Path:
    lines = [f"{n},{t},{x},{y},{x + BOX[0]},{y + BOX[1]}\n" for n, t, x, y in found]
    path.write_text("frame,tracklet,x1,y1,x2,y2\n" + "".join(lines))
    return path


class PixelModel:
    """A model whose vectors are the pixels themselves (one number each, unit length), and that remembers its images."""

    name, feature, feature_dim, size = "pixels", "", 3 * BOX[0] * BOX[1], (BOX[1], BOX[0])
    mirror, precision = False, "32"
    fingerprint = Fingerprint("c" * 64, "pixels")

    def __init__(self, clip: int | None = None) -> None:
        self.is_video, self.seen, self.clips = clip is not None, [], []  # type: ignore[var-annotated]
        data = {"height": BOX[1], "width": BOX[0], "interpolation": "bilinear", "stretch": "1%..99%", "frames": clip}
        data |= {"cache": "off", "on_bad_image": "fail"}
        copy = lambda update: SimpleNamespace(**{**data, **update}, model_copy=lambda update: copy(update))  # noqa: E731
        self.recipe = SimpleNamespace(data=copy({}))
        self.calibration = None

    def embed_records(self, records: Any, store: Any, **_: Any) -> Features:
        vectors, start = [], 0
        for record in records:
            images = store.read(np.arange(start, start + len(record.paths)))
            start += len(record.paths)
            self.seen += list(images.transpose(0, 2, 3, 1))
            self.clips.append(len(record.paths))
            vector = images.astype(np.float32).mean(axis=0).ravel() - 127
            vectors.append(vector / np.linalg.norm(vector))
        return Features.of_records(torch.from_numpy(np.stack(vectors)), records, self.fingerprint)
