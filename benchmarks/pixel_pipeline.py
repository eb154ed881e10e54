"""Images per second from disk to augmented float batches, against per-image PIL/torchvision pipelines.

All variants give batches of 64 images of 288 x 144, padded by 10, cropped, flipped, normalised and erased (p 0.5),
and use two threads or processes. Baselines: ``files`` opens, resizes and transforms one JPEG at a time in two loader
processes; ``array`` does the same from an array decoded beforehand, as the AGW and CAJ releases do. ``ratio`` is to
``files``.
"""

from __future__ import annotations

import csv
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T

from gloam.augmentation.augmenter import IMAGENET_MEAN, IMAGENET_STD, AugmentConfig, Augmenter
from gloam.batches.loaders import train_loader
from gloam.datasets.records import Modality, Record
from gloam.pixels.store import open_store
from gloam.sampling import create_sampler, sampler_options

HEIGHT, WIDTH, BATCH, THREADS = 288, 144, 64, 2
CONFIG = AugmentConfig(pad=10, flip=0.5, erase=0.5)


class PerImage(Dataset[tuple[torch.Tensor, int]]):
    """The plain pipeline: one image, one transform after another."""

    def __init__(self, root: Path, names: list[str], pixels: np.ndarray | None = None) -> None:
        self.root, self.names, self.pixels = root, names, pixels
        self.transform = T.Compose(
            [
                T.Pad(10),
                T.RandomCrop((HEIGHT, WIDTH)),
                T.RandomHorizontalFlip(),
                T.ToTensor(),
                T.Normalize(IMAGENET_MEAN, IMAGENET_STD),
                T.RandomErasing(0.5, scale=(0.02, 0.4), ratio=(0.3, 1 / 0.3), value=(0.4914, 0.4822, 0.4465)),
            ]
        )

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self.pixels is None:
            image = Image.open(self.root / self.names[index]).convert("RGB")
            image = image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        else:
            image = Image.fromarray(self.pixels[index])
        return self.transform(image), index


def write_images(root: Path, count: int) -> list[str]:
    """JPEG files of the size of a SYSU-MM01 crop, from smooth noise."""
    random = np.random.default_rng(0)
    names = []
    for number in range(count):
        small = Image.fromarray(random.integers(0, 256, (60, 24, 3), dtype=np.uint8))
        name = f"{number:05d}.jpg"
        size = (int(random.integers(140, 220)), int(random.integers(340, 480)))
        small.resize(size, Image.Resampling.BICUBIC).save(root / name, quality=90)
        names.append(name)
    return names


def gloam_pipeline(root: Path, names: list[str], cache: str | Path, workers: int) -> Callable[[], Iterable[Any]]:
    """One epoch of gloam's own pipeline."""
    records = [Record((name,), 0, 0, Modality.VISIBLE, 0) for name in names]
    store = open_store(root, names, height=HEIGHT, width=WIDTH, cache=cache, workers=THREADS, progress=False)
    zeros = np.zeros(len(names), dtype=np.int64)
    sampler = create_sampler(sampler_options({"name": "shuffle", "batch_size": BATCH}), zeros, zeros, zeros, seed=0)
    loader = train_loader(records, zeros, store, sampler, workers=workers)
    augmenter, generator = Augmenter(CONFIG), torch.Generator().manual_seed(0)
    return lambda: (augmenter(batch, generator) for batch in loader)


def run(count: int = 1024, repeats: int = 3) -> list[dict[str, Any]]:
    """Measure every variant ``repeats`` times in turn and report the fastest pass of each.

    Args:
        count: images per pass.
        repeats: passes; taking turns lets other load on the machine hit all variants alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            names = write_images(root, count)
            store = open_store(root, names, height=HEIGHT, width=WIDTH, cache=root / "cache", progress=False)
            pixels = np.ascontiguousarray(store.read(range(count)).transpose(0, 2, 3, 1))

            def baseline(data: PerImage) -> Callable[[], Iterable[Any]]:
                loader = DataLoader(data, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)
                return lambda: loader

            variants = {
                "per-image files (baseline)": baseline(PerImage(root, names)),
                "per-image array": baseline(PerImage(root, names, pixels)),
                "gloam cached": gloam_pipeline(root, names, root / "cache", 0),
                "gloam cached, 1 worker": gloam_pipeline(root, names, root / "cache", 1),
                "gloam on the fly": gloam_pipeline(root, names, "off", 0),
            }
            best = dict.fromkeys(variants, 0.0)
            for repeat in range(repeats + 1):
                for name, epoch in variants.items():
                    # One worker process and one computing thread: two, like the others.
                    torch.set_num_threads(1 if "worker" in name else THREADS)
                    start = time.perf_counter()
                    batches = sum(1 for _ in epoch())
                    if repeat > 0:  # the first pass starts the workers
                        best[name] = max(best[name], batches * BATCH / (time.perf_counter() - start))
    finally:
        torch.set_num_threads(threads)
    slowest = best["per-image files (baseline)"]
    versions = f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
    versions += f"pillow {PIL.__version__}, numpy {np.__version__}"
    return [
        {
            "benchmark": "pixel_pipeline",
            "variant": name,
            "images_per_second": round(speed, 1),
            "ratio": round(speed / slowest, 2),
            "machine": machine(),
            "versions": versions,
        }
        for name, speed in best.items()
    ]


def machine() -> str:
    """Processor name and number of threads used; no host name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {THREADS} threads"


if __name__ == "__main__":
    rows = run()
    writer = csv.DictWriter(sys.stdout, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
