"""One image at a time, one published step after another: what the batched augmentation must equal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gloam.augmentation.draws import Draws

MEAN = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1)


def augment_image(image: NDArray[np.uint8], draws: Draws, r: int, pad_mode: str = "zeros") -> NDArray[np.float64]:
    """Output row ``r`` from its ``(3, H, W)`` uint8 source image."""
    _, height, width = image.shape
    weights = draws.weighted_grey[r].double().numpy()
    if weights.any():
        grey = np.floor(np.tensordot(weights, image.astype(np.float64), 1) + 1e-4).astype(np.uint8)
        image = np.stack([grey] * 3)
    if draws.random_grey[r]:
        red, green, blue = image.astype(np.int64)
        image = np.stack([((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)] * 3)

    border = [(0, 0), (draws.pad, draws.pad), (draws.pad, draws.pad)]
    padded = np.pad(image, border, mode="edge" if pad_mode == "replicate" else "constant")
    top, left = int(draws.top[r]), int(draws.left[r])
    x = padded[:, top : top + height, left : left + width]
    if draws.flip[r]:
        x = x[:, :, ::-1]

    x = x / 255.0
    scaled = x * draws.jitter_gain[r].double().numpy().reshape(3, 1, 1)
    x = np.minimum(scaled[draws.jitter_order[r].numpy()], 1.0)

    x = (x - MEAN) / STD
    box_top, box_left, box_height, box_width = draws.box[r].tolist()
    x[:, box_top : box_top + box_height, box_left : box_left + box_width] = (
        draws.fill[r].double().numpy().reshape(3, 1, 1)
    )
    channel = int(draws.channel[r])
    if channel == 3:
        x = np.stack([0.2989 * x[0] + 0.5870 * x[1] + 0.1140 * x[2]] * 3)
    elif channel >= 0:
        x = np.stack([x[channel]] * 3)
    result: NDArray[np.float64] = x * draws.style[r].double().numpy().reshape(3, 1, 1)
    return result
