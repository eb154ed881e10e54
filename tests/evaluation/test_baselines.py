"""Descriptors without training."""

from __future__ import annotations

import numpy as np

from gloam.evaluation.baselines import grey_histogram_features, mean_colour_features


def test_mean_colour() -> None:
    pixels = np.zeros((2, 3, 4, 5), dtype=np.uint8)
    pixels[1, 0], pixels[1, 1, :2] = 255, 51
    np.testing.assert_allclose(mean_colour_features(pixels), [[0, 0, 0], [1, 0.1, 0]], atol=1e-6)


def test_grey_histograms_count_pixels_of_every_stripe() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, 13, 6), dtype=np.uint8)
    found = grey_histogram_features(pixels, bins=8, stripes=4)
    assert found.shape == (3, 32)
    assert found.dtype == np.float32
    grey = pixels.astype(np.float64).mean(axis=1)
    expected = [
        np.histogram(stripe, bins=8, range=(0, 256))[0] / stripe.size
        for image in grey
        for stripe in np.array_split(image, 4, axis=0)
    ]
    np.testing.assert_allclose(found.reshape(-1, 8), expected, atol=1e-6)
