"""Painting one image of a person: a figure of numbered materials gets its tones, a place, light and noise.

The figure is drawn as material numbers on a larger canvas; a palette turns numbers into tones of either modality, and
box reduction smooths the edges. Images depend on (seed, person, camera, index) only.
"""

from __future__ import annotations

import functools
import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from gloam.drawing.figure import (
    BAG,
    BAG_DARK,
    EYES,
    HAIR,
    LOWER,
    LOWER_BIT,
    LOWER_FAR,
    OPENING,
    SHOE,
    SHOE_FAR,
    SKIN,
    SKIN_FAR,
    UPPER,
    UPPER_ARM,
    UPPER_BIT,
    UPPER_FAR,
    Body,
    Pose,
)
from gloam.drawing.person import Garment, Material, Person, person, private
from gloam.drawing.scene import Camera, camera, fold_bank, noise_bank

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Shot:
    """One image to draw.

    Attributes:
        path: where it goes, relative to the dataset root.
        number: person in the world of the seed (not the id on disk).
        camera: number of the camera.
        infrared: modality.
        index: image or tracklet of this (person, camera, modality).
        frame: frame of a tracklet, None for a single image.
        aligned: both modalities show the same moment.
        junk: a bad detection: far off the person.
        dim: low-light place.
    """

    path: str
    number: int
    camera: int
    infrared: bool
    index: int
    frame: int | None = None
    aligned: bool = False
    junk: bool = False
    dim: bool = False


def draw_image(seed: int, shot: Shot, height: int, width: int) -> Pixels:
    """Draw one image.

    Args:
        seed: of the world.
        shot: what to draw.
        height: in pixels.
        width: in pixels.

    Returns:
        (height, width, 3) uint8; the channels of an infrared image are equal.
    """
    who = person(seed, shot.number)
    view = camera(seed, shot.camera, shot.infrared, height, width, shot.dim)
    pose = _pose(seed, shot, who)
    factor = max(2, min(6, round(256 / height)))
    # A narrow image still shows the whole person.
    unit = min(height, 2.2 * width) / height
    figure, alpha = _figure(who, pose, view, height * factor, width * factor, unit)
    rng = private("noise", seed, shot.number, shot.camera, shot.infrared, shot.index, shot.frame, shot.path)
    palette = _palette(seed, shot.number, shot.infrared, view.gamma)
    return _light(seed, figure, alpha, palette, factor, pose, view, rng, height, width)


def _pose(seed: int, shot: Shot, who: Person) -> Pose:
    modality = "both" if shot.aligned else shot.infrared
    rng = private("pose", seed, shot.number, shot.camera, modality, shot.index, shot.junk)
    yaw = math.radians(rng.choice((0, 90, 180, 270)) + rng.gauss(0, 17))
    phase = rng.random() * math.tau
    scale = 0.93 * who.stature * rng.uniform(0.93, 1.06)
    x, y = rng.uniform(-0.035, 0.035), rng.uniform(-0.025, 0.03)
    place = (rng.random(), rng.random())
    exposure = rng.uniform(0.82, 1.18)
    hide = rng.choices(("", "bottom", "side", "pole"), (80, 8, 6, 6))[0]
    hide_from = rng.uniform(0.72, 0.88)
    swing = rng.uniform(0.6, 1.1)
    if shot.junk:
        scale, x, y = scale * rng.uniform(0.5, 2.2), rng.choice((-0.22, 0.22)), rng.uniform(-0.4, 0.4)
    if shot.frame is not None:
        step = private("frame", seed, shot.number, shot.camera, modality, shot.index, shot.frame)
        drift = rng.uniform(-0.006, 0.006)
        phase += shot.frame * who.cadence
        yaw += shot.frame * rng.gauss(0, 0.01)
        scale *= 1.0 + shot.frame * rng.uniform(-0.002, 0.002)
        x, y = x + step.gauss(0, 0.004), y + step.gauss(0, 0.004)
        place = ((place[0] + shot.frame * drift) % 1.0, place[1])
        exposure *= 1.0 + step.gauss(0, 0.01)
    return Pose(yaw, phase, swing, scale, x, y, place, hide, hide_from, exposure)


def _figure(who: Person, pose: Pose, view: Camera, rows: int, columns: int, unit: float) -> tuple[Pixels, Pixels]:
    """Material numbers with pattern bits, and 255 where the person is; both (rows, columns)."""
    image = Image.new("L", (columns, rows))
    body = Body(ImageDraw.Draw(image), who, pose, view, rows, columns, unit)
    body.paint()
    numbers: Pixels = np.array(image)
    alpha = np.where(numbers > 0, np.uint8(255), np.uint8(0))
    down = (np.arange(rows, dtype=np.float32)[:, None] - body.point(0, 0, 0.82)[1]) / body.size
    across = (np.arange(columns, dtype=np.float32)[None, :] - body.point(0, 0, 0.6)[0]) / body.size
    if who.upper.pattern != "plain":
        numbers += _pattern(who.upper, down, across, 0.82 - who.hem) * np.uint8(UPPER_BIT)
    if who.lower.pattern != "plain":
        numbers += _pattern(who.lower, down - (0.82 - who.leg), across, who.leg) * np.uint8(LOWER_BIT)
    return numbers, alpha


def _pattern(garment: Garment, down: npt.NDArray[Any], across: npt.NDArray[Any], length: float) -> Pixels:
    """1 where the second material shows.

    Args:
        garment: with its pattern.
        down: (rows, 1) distance below the garment's top, in body heights.
        across: (1, columns) distance from the body's axis.
        length: of the garment.
    """
    if garment.pattern == "block":
        mask = np.broadcast_to(down > garment.duty * length, (down.shape[0], across.shape[1]))
        return mask.astype(np.uint8)
    rows, columns = (down / garment.period) % 1.0, (across / garment.period) % 1.0
    if garment.pattern == "horizontal":
        mask = np.broadcast_to(rows < garment.duty, (down.shape[0], across.shape[1]))
    elif garment.pattern == "vertical":
        mask = np.broadcast_to(columns < garment.duty, (down.shape[0], across.shape[1]))
    elif garment.pattern == "checks":
        mask = (rows < 0.5) ^ (columns < 0.5)
    else:
        mask = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < (0.2 + 0.25 * garment.duty) ** 2
    return mask.astype(np.uint8)


@functools.lru_cache(maxsize=2048)
def _palette(seed: int, number: int, infrared: bool, gamma: float) -> bytes:
    """RGB bytes of the 128 canvas numbers of a person in one modality, with a camera's response curve."""
    who = person(seed, number)

    def tones(material: Material, shade: float = 1.0) -> list[int]:
        channels = (material.infrared,) * 3 if infrared else material.visible
        return [int(255 * min(1.0, max(0.0, channel * shade)) ** gamma) for channel in channels]

    dark = Material((0.08, 0.06, 0.06), 0.12)
    table = [0] * (128 * 3)
    for bits in range(4):
        upper = who.upper.second if bits & 1 else who.upper.base
        lower = who.lower.second if bits & 2 else who.lower.base
        entries = {
            SKIN: tones(who.skin),
            SKIN_FAR: tones(who.skin, 0.75),
            HAIR: tones(who.hair_material),
            UPPER: tones(upper),
            UPPER_FAR: tones(upper, 0.68),
            UPPER_ARM: tones(upper, 0.86),
            LOWER: tones(lower),
            LOWER_FAR: tones(lower, 0.72),
            SHOE: tones(who.shoes),
            SHOE_FAR: tones(who.shoes, 0.72),
            BAG: tones(who.bag_material),
            BAG_DARK: tones(who.bag_material, 0.5),
            OPENING: tones(who.opening or who.upper.second),
            EYES: tones(dark),
        }
        for entry, value in entries.items():
            start = 3 * (entry + UPPER_BIT * bits)
            table[start : start + 3] = value
    return bytes(table)


def _light(
    seed: int,
    figure: Pixels,
    alpha: Pixels,
    palette: bytes,
    factor: int,
    pose: Pose,
    view: Camera,
    rng: random.Random,
    height: int,
    width: int,
) -> Pixels:
    """Figure before background, things before the figure, light, noise."""
    channels = view.background.shape[2]
    mapped = Image.fromarray(figure)
    mapped.putpalette(palette)
    toned = mapped.convert("RGB" if channels == 3 else "L").reduce(factor)
    body = np.asarray(toned, dtype=np.float32).reshape(height, width, channels)
    cover = np.asarray(Image.fromarray(alpha).reduce(factor), dtype=np.float32)[:, :, None]
    spare_rows, spare_columns = view.background.shape[0] - height, view.background.shape[1] - width
    row, column = int(pose.place[1] * spare_rows), int(pose.place[0] * spare_columns)
    behind = view.background[row : row + height, column : column + width]
    row, column = rng.randrange(height), rng.randrange(width)
    folds = fold_bank(seed, height, width)[row : row + height, column : column + width]
    # The palette's background is black, so the reduced figure is already weighted by its cover.
    picture: npt.NDArray[np.float32] = behind * (1.0 - cover / np.float32(255.0)) + body * folds
    if pose.hide:
        _hide(picture, pose, view)
    across = np.linspace(-view.slope[0], view.slope[0], width, dtype=np.float32)[None, :, None]
    down = np.linspace(1 - view.slope[1], 1 + view.slope[1], height, dtype=np.float32)[:, None, None]
    picture *= (across + down) * np.float32(pose.exposure)
    picture *= view.gain
    row, column = rng.randrange(height), rng.randrange(width)
    noise = noise_bank(seed, channels == 1, height, width)[row : row + height, column : column + width]
    picture += noise * np.float32(view.noise)
    np.clip(picture, 0, 255, out=picture)
    pixels = picture.astype(np.uint8)
    return pixels if channels == 3 else np.repeat(pixels, 3, axis=2)


def _hide(picture: npt.NDArray[np.float32], pose: Pose, view: Camera) -> None:
    """Put a piece of the camera's surroundings before the person."""
    height, width = picture.shape[:2]
    row, column = int(pose.place[1] * 0.2 * height), int((1 - pose.place[0]) * (view.background.shape[1] - width))
    piece = view.background[row : row + height, column : column + width]
    if pose.hide == "bottom":
        start = int(height * pose.hide_from)
        picture[start:] = piece[start:] * np.float32(0.85)
    elif pose.hide == "side":
        start = int(width * pose.hide_from)
        if pose.place[1] < 0.5:
            picture[:, start:] = piece[:, start:]
        else:
            picture[:, : width - start] = piece[:, : width - start]
    else:
        start, thick = int(width * (0.1 + 0.7 * pose.place[1])), max(1, width // 12)
        picture[:, start : start + thick] = piece[:, start : start + thick] * np.float32(0.7)
