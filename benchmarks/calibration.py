"""Thresholds and probabilities per pair of modalities, against one threshold for all: what they do to unseen people.

Features are drawn, so the truth is known: identities around some styles of clothing, an offset of each camera and of the
infrared modality, and a part of each identity that only one modality shows. A calibration of ``people`` identities is
held against ``UNSEEN`` fresh ones. ``fmr_ratio`` is the real false match rate of the threshold over the target (1: as
promised), as the median over ``draws`` calibrations and as the largest factor on either side for nine of ten of them.
``pooled`` is one threshold from the pairs of all modalities together. ``brier`` and ``ece`` judge the probabilities of
unseen pairs at equal priors; ``covered`` is the share of draws whose 95 % interval holds the real rate.

    python -m benchmarks calibration
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.machine import machine_info
from gloam.datasets.records import Modality

UNSEEN, WIDTH, LATENT, STYLES = 3000, 64, 48, 60
VISIBLE_CAMS, INFRARED_CAMS = (1, 2, 4, 5), (3, 6)
TARGETS = (1e-2, 1e-3)
Drawn = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
PAIRS = {
    "visible-visible": (Modality.VISIBLE, Modality.VISIBLE),
    "visible-infrared": (Modality.VISIBLE, Modality.INFRARED),
    "infrared-infrared": (Modality.INFRARED, Modality.INFRARED),
}


def draw_features(people: int, seed: int, *, images: int = 1, visible_cams: int = 4, noise: float = 0.8) -> Drawn:
    """Unit features of people, their ids, cameras and modalities: ``images`` in each of the cameras."""
    world = np.random.default_rng(20_240_101)  # cameras and styles are the same for everybody
    basis = np.linalg.qr(world.standard_normal((WIDTH, LATENT)))[0].T
    styles = world.standard_normal((STYLES, LATENT))
    camera_offsets = 0.35 * world.standard_normal((7, WIDTH)) / np.sqrt(WIDTH) * np.sqrt(LATENT)
    infrared = world.standard_normal(WIDTH) / np.sqrt(WIDTH) * np.sqrt(LATENT) * 0.9
    generator = np.random.default_rng(seed)
    identity = 0.45 * styles[generator.integers(0, STYLES, people)] + 0.9 * generator.standard_normal((people, LATENT))
    own = 0.6 * generator.standard_normal((2, people, LATENT))  # what one modality alone shows
    parts, ids, cams, kinds = [], [], [], []
    for cam in (*VISIBLE_CAMS[:visible_cams], *INFRARED_CAMS):
        kind = Modality.INFRARED if cam in INFRARED_CAMS else Modality.VISIBLE
        for _ in range(images):
            latent = identity + own[int(kind)] + noise * generator.standard_normal((people, LATENT))
            parts.append(latent @ basis + camera_offsets[cam] + (infrared if kind else 0))
            ids.append(np.arange(people))
            cams.append(np.full(people, cam))
            kinds.append(np.full(people, int(kind)))
    vectors = np.concatenate(parts)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.concatenate(ids), np.concatenate(cams), np.concatenate(kinds)


class Truth:
    """Sorted scores of unseen people, by pair: what thresholds and probabilities really do."""

    def __init__(self, people: int = UNSEEN, seed: int = 999_999, **options: Any) -> None:
        vectors, ids, cams, kinds = draw_features(people, seed, **options)
        self.impostor: dict[str, NDArray[np.float32]] = {}
        self.genuine: dict[str, NDArray[np.float32]] = {}
        for name, (first, second) in PAIRS.items():
            rows, columns = np.flatnonzero(kinds == first), np.flatnonzero(kinds == second)
            same: list[NDArray[np.float32]] = []
            other: list[NDArray[np.float32]] = []
            for start in range(0, len(rows), 500):
                part = rows[start : start + 500]
                scores = vectors[part] @ vectors[columns].T
                equal = ids[part][:, None] == ids[columns][None]
                counts = part[:, None] < columns[None] if first == second else np.ones_like(equal)
                same.append(scores[equal & counts & (cams[part][:, None] != cams[columns][None])])
                other.append(scores[~equal & counts])
            self.genuine[name] = np.sort(np.concatenate(same))
            self.impostor[name] = np.sort(np.concatenate(other))

    def fmr(self, pair: str, threshold: float) -> float:
        """Share of impostor scores at or above a threshold."""
        scores = self.impostor[pair]
        return 1 - np.searchsorted(scores, np.float32(threshold), side="left") / len(scores)

    def fnmr(self, pair: str, threshold: float) -> float:
        """Share of genuine scores below a threshold."""
        scores = self.genuine[pair]
        return np.searchsorted(scores, np.float32(threshold), side="left") / len(scores)

    def threshold(self, pair: str, target: float) -> float:
        """The score that a share ``target`` of impostor scores reach."""
        scores = self.impostor[pair]
        return float(scores[-max(int(target * len(scores)), 1)])
