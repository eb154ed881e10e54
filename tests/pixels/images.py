"""Small image files for the tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_images(root: Path, count: int, *, seed: int = 0, size: tuple[int, int] = (40, 24)) -> list[str]:
    """``count`` JPEG files of blurred noise under ``root``; returns their names."""
    generator = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    names = []
    for number in range(count):
        noise = generator.integers(0, 256, (size[0] // 4, size[1] // 4, 3), dtype=np.uint8)
        name = f"{number:04d}.jpg"
        Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(root / name, quality=90)
        names.append(name)
    return names
