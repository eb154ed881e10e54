"""What every engine can do: six methods, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gloam.gallery.rows import Row
from gloam.gallery.where import EVERYTHING, Where

Float = NDArray[np.float32]


class Found(NamedTuple):
    """Nearest rows of Q queries.

    Attributes:
        keys: ``(Q, n)`` texts, nearest first, ties by key; ``n`` is ``top`` or the number of rows that match.
        scores: ``(Q, n)`` float32 inner products with the stored vectors.
        exact: whether every matching row was compared; False: codes proposed the candidates.
    """

    keys: NDArray[np.object_]
    scores: Float
    exact: bool


class Added(NamedTuple):
    """What an upsert did, in rows."""

    new: int
    updated: int


class VectorIndex(Protocol):
    """Vectors with their rows. What a call returned is durable when ``upsert``, ``delete`` or ``sync`` has returned."""

    def upsert(self, rows: Sequence[Row], vectors: Float, thumbnails: Sequence[bytes | None] | None = None) -> Added:
        """Add rows, or replace those whose keys exist; all or none. ``vectors``: ``(N, D)`` of unit length."""

    def delete(self, keys: Sequence[str]) -> int:
        """Remove rows with everything that hangs on them; unknown keys are no error. Returns how many went."""

    def search(self, queries: Float, top: int, where: Where = EVERYTHING, exact: bool = False) -> Found:
        """The rows with the largest inner products of queries ``(Q, D)``."""

    def vectors(self, keys: Sequence[str]) -> Float:
        """``(n, D)`` stored vectors in the keys' order; an unknown key is a GloamError."""

    def count(self, where: Where = EVERYTHING) -> int:
        """How many rows match."""

    def sync(self) -> None:
        """Make everything durable, codes too."""


def rank(keys: NDArray[np.object_], scores: Float, top: int) -> NDArray[np.int64]:
    """Positions of the ``top`` best of one query: by score, then by key."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], keys[i]))[:top]
    return np.array(order, dtype=np.int64)


def exact_scores(vectors: Float, query: Float) -> Float:
    """``(n,)`` inner products that depend on the two vectors only: not on blocks, threads or the number of rows."""
    products: Float = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    return products


def as_stored(vectors: Float) -> Float:
    """Vectors as a gallery keeps them: rounded to float16."""
    return vectors.astype(np.float16).astype(np.float32)
