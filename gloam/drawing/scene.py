"""Where drawn people walk: cameras with their background, colour cast, light and noise.

Nothing here knows a person: a background is cropped at a place drawn per image.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from gloam.drawing.person import private

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """One camera in one modality, for images of one size.

    Attributes:
        background: (rows, columns, channels) in 0..255, larger than an image; 3 channels visible, 1 infrared.
        gamma: response curve, already applied to ``background``.
        gain: per channel, colour cast and exposure.
        slope: brightness change from the left to the right border, and from top to bottom.
        noise: standard deviation in grey levels.
        squash: vertical foreshortening of a camera that looks down.
        roll: sideways slant per body height.
    """

    background: Array
    gamma: float
    gain: Array
    slope: tuple[float, float]
    noise: float
    squash: float
    roll: float


@functools.lru_cache(maxsize=64)
def camera(seed: int, number: int, infrared: bool, height: int, width: int, dim: bool) -> Camera:
    """Camera ``number`` of the world of ``seed``; both modalities of one number show the same place.

    Args:
        seed: of the world.
        number: camera.
        infrared: modality.
        height: image height in pixels.
        width: image width in pixels.
        dim: a low-light place: darker and noisier visible images.
    """
    place = private("place", seed, number)
    light = private("light", seed, number, infrared)
    squash, roll = place.uniform(0.93, 1.0), place.uniform(-0.05, 0.05)
    gamma = light.uniform(0.8, 1.25)
    exposure = light.uniform(0.8, 1.1) * (light.uniform(0.4, 0.6) if dim and not infrared else 1.0)
    if infrared:
        gain = np.full(1, exposure, dtype=np.float32)
    else:
        gain = np.array([exposure * light.uniform(0.86, 1.14) for _ in range(3)], dtype=np.float32)
    noise = light.uniform(7.0, 11.0) if infrared else light.uniform(2.5, 5.0) * (1.5 if dim else 1.0)
    background = _background(seed, number, infrared, round(height * 1.3), width * 5)
    background = (255.0 * (background / 255.0) ** gamma).astype(np.float32)
    slope = (light.uniform(-0.18, 0.18), light.uniform(-0.1, 0.1))
    return Camera(background, gamma, gain, slope, noise, squash, roll)


def _background(seed: int, number: int, infrared: bool, height: int, width: int) -> Array:
    """A street or a hall: wall, floor, things on them; geometry is shared by both modalities, tones are not."""
    shape = private("background", seed, number)
    tone = private("background tones", seed, number, infrared)

    def colour(low: float, high: float, tint: int = 22) -> tuple[int, int, int]:
        grey = tone.uniform(low, high)
        return (
            int(min(255, max(0, grey + tone.uniform(-tint, tint)))),
            int(grey),
            int(min(255, max(0, grey + tone.uniform(-tint, tint)))),
        )

    image = Image.new("RGB", (width, height), colour(70, 190))
    draw = ImageDraw.Draw(image)
    horizon = int(height * shape.uniform(0.5, 0.75))
    for _ in range(shape.randint(24, 40)):
        x, w = shape.uniform(-0.05, 1) * width, shape.uniform(0.01, 0.12) * width
        top = shape.uniform(-0.1, 0.9) * horizon
        draw.rectangle((x, top, x + w, top + shape.uniform(0.05, 0.7) * horizon), fill=colour(40, 220, 40))
    for _ in range(shape.randint(4, 14)):
        x, y, r = shape.random() * width, shape.random() * horizon, shape.uniform(0.05, 0.3) * height
        draw.ellipse((x - r, y - r, x + r, y + r * 0.8), fill=colour(50, 170, 45))
    draw.rectangle((0, horizon, width, height), fill=colour(60, 190))
    for _ in range(shape.randint(6, 16)):
        y = horizon + shape.random() ** 1.5 * (height - horizon)
        draw.line((0, y, width, y + shape.uniform(-0.1, 0.1) * height), colour(50, 200), max(1, height // 90))
    for _ in range(shape.randint(8, 20)):
        x, slant = shape.random() * width, shape.uniform(-1.0, 1.0) * height
        draw.line((x, horizon, x + slant, height), colour(50, 200), max(1, height // 70))
    for _ in range(shape.randint(5, 12)):
        x, w = shape.random() * width, shape.uniform(0.01, 0.06) * height
        bottom = horizon + shape.uniform(0, 0.4) * (height - horizon)
        draw.rectangle((x, shape.uniform(0, 0.5) * horizon, x + w, bottom), fill=colour(30, 210, 40))
    image = image.filter(ImageFilter.GaussianBlur(height / 110))
    if infrared:
        return np.asarray(image.convert("L"), dtype=np.float32)[:, :, None]
    return np.asarray(image, dtype=np.float32)


@functools.lru_cache(maxsize=8)
def noise_bank(seed: int, infrared: bool, height: int, width: int) -> Array:
    """Unit noise, twice as large as an image on each side; images cut their own piece out.

    Infrared noise has one channel and a coarser grain.
    """
    generator = np.random.default_rng([abs(seed), int(infrared), height, width])
    if not infrared:
        shared = generator.standard_normal((2 * height, 2 * width, 1), dtype=np.float32)
        own = generator.standard_normal((2 * height, 2 * width, 3), dtype=np.float32)
        return np.asarray(0.8 * shared + 0.6 * own, dtype=np.float32)
    fine = generator.standard_normal((2 * height, 2 * width, 1), dtype=np.float32)
    coarse = fine + np.roll(fine, 1, 0) + np.roll(fine, 1, 1) + np.roll(fine, (1, 1), (0, 1))
    mixed = 0.6 * generator.standard_normal(fine.shape, dtype=np.float32) + 0.4 * coarse
    return np.asarray(mixed, dtype=np.float32)


@functools.lru_cache(maxsize=4)
def fold_bank(seed: int, height: int, width: int) -> Array:
    """Soft light and shade of folds around 1, twice as large as an image on each side, (rows, columns, 1)."""
    generator = np.random.default_rng([abs(seed), 2, height, width])
    small = generator.normal(128, 45, (max(2, height // 4), max(2, width // 2))).clip(0, 255).astype(np.uint8)
    large = Image.fromarray(small).resize((2 * width, 2 * height), Image.Resampling.BICUBIC)
    return (1.0 + (np.asarray(large, dtype=np.float32)[:, :, None] - 128.0) / 500.0).astype(np.float32)
