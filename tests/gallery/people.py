"""Drawn vectors of people on cameras, and the obvious way to search them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gloam.gallery.gallery import Gallery
from gloam.gallery.rows import Row
from gloam.gallery.space import Space

DIM = 96
START = 1_700_000_000_000_000  # microseconds
HOUR = 3_600_000_000


def draw(count: int, seed: int = 0, dim: int = DIM) -> tuple[list[Row], NDArray[np.float32]]:
    """Rows of people (five crops each) and unit vectors; every tenth vector repeats the one before."""
    generator = np.random.default_rng(seed)
    people = generator.standard_normal((count // 5 + 1, dim)).repeat(5, axis=0)[:count]
    vectors = people + 0.7 * generator.standard_normal((count, dim))
    vectors[9::10] = vectors[8::10][: len(vectors[9::10])]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    order = generator.permutation(count)
    rows = [
        Row(
            key=f"crop {order[n]:06d}.jpg",
            path=f"images/{order[n]}.jpg",
            root="/photos",
            camera=int(n % 7),
            time=None if n % 11 == 0 else START + n * HOUR,
            modality=int(n % 7 >= 5),
            tracklet=None if n % 13 == 0 else f"t{n // 3}",
            person=f"P{n // 5}" if n % 2 else None,
            frame=n if n % 4 == 0 else None,
            box=(float(n), 1.5, 20.0, 40.0) if n % 4 == 0 else None,
            sha256=bytes([n % 256]) * 32,
        )
        for n in range(count)
    ]
    return rows, vectors.astype(np.float32)


def queries(vectors: NDArray[np.float32], count: int, seed: int = 9) -> NDArray[np.float32]:
    """Fresh views of some of the people."""
    generator = np.random.default_rng(seed)
    chosen = vectors[generator.integers(0, len(vectors), count)]
    moved = chosen + 0.1 * generator.standard_normal(chosen.shape)
    return (moved / np.linalg.norm(moved, axis=1, keepdims=True)).astype(np.float32)


def oracle(
    rows: Sequence[Row],
    vectors: NDArray[np.float32],
    query: NDArray[np.float32],
    top: int,
    keep: Callable[[Row], bool] = lambda row: True,
) -> list[tuple[str, float]]:
    """Sort everything by score, then key: what an exact search is defined to return."""
    stored = vectors.astype(np.float16).astype(np.float64)
    found = [
        (row.key, float(np.float32((vector * query.astype(np.float64)).sum())))
        for row, vector in zip(rows, stored, strict=True)
        if keep(row)
    ]
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))[:top]


def space(name: str = "a", dim: int = DIM) -> Space:
    """A space of no run."""
    return Space(digest=name * 64, name=f"model {name}", dim=dim)


def filled(folder: Path, count: int = 300, *, thumbnails: bool = False) -> Gallery:
    """A gallery of drawn people."""
    gallery = Gallery.create(folder, space(), retention="keep", thumbnails=thumbnails)
    rows, vectors = draw(count)
    images = [b"RIFF" + row.key.encode() * 4 for row in rows] if thumbnails else None
    gallery.index.upsert(rows, vectors, images)
    return gallery
