"""A process that writes to a gallery until it is killed, and confirms every call that returned on a pipe.

``python -m tests.gallery.writer FOLDER SECONDS`` confirms on standard output: for a trace of system calls.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from gloam.gallery.catalogue import FileCatalogue
from gloam.gallery.engines.rabitq import RabitqIndex
from gloam.gallery.erase import erase
from gloam.gallery.gallery import Gallery
from gloam.gallery.reembed import reembed
from gloam.gallery.rows import Row
from gloam.gallery.store import Store
from gloam.inference.features import Features, Fingerprint
from tests.gallery.people import DIM, space

BATCH = 40


def vector(key: str, model: str = "a") -> np.ndarray:
    """The vector that a key has in a model's space, rounded as it is stored."""
    seed = int.from_bytes(hashlib.sha256(f"{model}|{key}".encode()).digest()[:8], "big")
    drawn = np.random.default_rng(seed).standard_normal(DIM)
    return (drawn / np.linalg.norm(drawn)).astype(np.float16).astype(np.float32)


def key_of(batch: int, number: int) -> str:
    return f"batch {batch:05d} row {number:03d}"


def batch_rows(batch: int) -> tuple[list[Row], np.ndarray]:
    keys = [key_of(batch, number) for number in range(BATCH)]
    return [Row(key, path=f"{key}.webp", camera=batch % 5) for key in keys], np.stack([vector(key) for key in keys])


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (8, 16)).save(out, "WEBP")
    return out.getvalue()


class FakeModel:
    """What ``reembed`` asks of a model; vectors depend on keys only."""

    name, feature, feature_dim, size = "model b", "", DIM, (16, 8)
    mirror, precision, is_video = False, "32", False
    calibration = None
    fingerprint = Fingerprint("b" * 64, "model b")
    recipe = SimpleNamespace(data=SimpleNamespace(height=16, width=8, interpolation="bilinear"))

    def embed_records(self, records: Any, _store: Any, **_: Any) -> Features:
        vectors = np.stack([vector(record.paths[0], "b") for record in records])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Features.of_records(torch.from_numpy(vectors), records, self.fingerprint)


def write(folder: Path, what: str, first: int, confirm: Any) -> None:
    """Write for ever; ``confirm(text)`` after every call that returned.

    Args:
        folder: the gallery.
        what: ``add``, ``erase``, ``codes`` or ``reembed``.
        first: number of the first batch to add or erase.
        confirm: tells the parent.
    """
    store = Store(folder)
    gallery = Gallery(FileCatalogue(store), RabitqIndex(store, smallest=1))
    if what == "reembed":
        reembed(gallery.catalogue, FakeModel(), source="thumbnails", progress=False)  # type: ignore[arg-type]
        confirm("reembedded")
        time.sleep(60)
    batch = first
    while True:
        if what == "erase":
            keys = [key_of(batch, number) for number in range(BATCH)]
            if erase(gallery.catalogue, gallery.index, keys).done:
                confirm(f"erased {batch}")
        else:
            gallery.index.upsert(*batch_rows(batch), [picture()] * BATCH)
            confirm(f"added {batch}")
            if what == "codes":
                gallery.index.search(vector("x")[None], 3)
                gallery.index._saved = (0, 0)  # type: ignore[attr-defined]  # save at every turn
                gallery.index.sync()
        batch += 1


def main() -> None:
    folder, end = Path(sys.argv[1]), time.monotonic() + float(sys.argv[2])
    Gallery.create(folder, space(), retention="keep").close()

    def confirm(text: str) -> None:
        os.write(1, f"{text}\n".encode())
        if time.monotonic() > end:
            os._exit(0)

    write(folder, "add", 0, confirm)


if __name__ == "__main__":
    main()
