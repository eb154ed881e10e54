"""A SYSU-MM01-like folder of tiny patterned images, written in a second, for tests that train."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

VISIBLE_CAMS, INFRARED_CAMS = (1, 2, 4, 5), (3, 6)


def write_sysu(root: Path, *, train: int = 6, val: int = 2, test: int = 4, images: int = 3, seed: int = 0) -> Path:
    """Every person has a stripe pattern that both modalities show; ids 1.. are train, then val, then test."""
    generator = np.random.default_rng(seed)
    total = train + val + test
    for pid in range(1, total + 1):
        pattern = generator.integers(0, 256, (12, 4, 1)).astype(np.float64)
        tint = generator.uniform(0.4, 1.0, 3)
        for cam in (*VISIBLE_CAMS, *INFRARED_CAMS):
            folder = root / f"cam{cam}" / f"{pid:04d}"
            folder.mkdir(parents=True)
            for number in range(1, images + 1):
                noise = generator.normal(0, 20, (12, 4, 1 if cam in INFRARED_CAMS else 3))
                image = pattern * (1 if cam in INFRARED_CAMS else tint) + noise
                pixels = np.broadcast_to(image, (12, 4, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).resize((16, 48), Image.Resampling.NEAREST).save(folder / f"{number:04d}.jpg")
    folder = root / "exp"
    folder.mkdir()
    ids = list(range(1, total + 1))
    for name, part in (
        ("train", ids[:train]),
        ("val", ids[train : train + val]),
        ("test", ids[train + val :]),
        ("available", ids),
    ):
        (folder / f"{name}_id.txt").write_text(",".join(map(str, part)) + "\n")
    return root
