"""Two descriptors that need no training: what a model has to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def mean_colour_features(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Mean colour: ``(N, 3, H, W)`` uint8 to ``(N, 3)`` in [0, 1]."""
    means: NDArray[np.float32] = pixels.mean(axis=(2, 3), dtype=np.float32) / np.float32(255)
    return means


def grey_histogram_features(pixels: NDArray[np.uint8], bins: int = 16, stripes: int = 6) -> NDArray[np.float32]:
    """Grey histograms of horizontal stripes.

    Args:
        pixels: ``(N, 3, H, W)`` uint8.
        bins: grey levels per histogram.
        stripes: horizontal parts.

    Returns:
        ``(N, stripes * bins)`` float32; every histogram sums to 1.
    """
    grey = pixels.mean(axis=1, dtype=np.float32)
    levels = np.minimum((grey * (bins / 256)).astype(np.int64), bins - 1)
    parts = []
    for stripe in np.array_split(levels, stripes, axis=1):
        counts = np.zeros((len(pixels), bins), dtype=np.float32)
        flat = stripe.reshape(len(pixels), -1)
        np.add.at(counts, (np.arange(len(pixels))[:, None], flat), 1.0)
        parts.append(counts / flat.shape[1])
    return np.concatenate(parts, axis=1)
