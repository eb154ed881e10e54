"""Who a drawn person is: proportions, hair, garments, carried things, gait.

Every attribute comes from a private generator of (seed, person), so that people do not depend on each other.
"""

from __future__ import annotations

import colorsys
import functools
import random
from dataclasses import dataclass
from typing import Literal

Colour = tuple[float, float, float]
PatternKind = Literal["plain", "horizontal", "vertical", "checks", "dots", "block"]
Hair = Literal["bald", "short", "bob", "long", "ponytail", "bun", "cap", "hood"]
Sleeves = Literal["none", "short", "long"]
Lower = Literal["trousers", "wide", "shorts", "skirt", "long_skirt"]
Bag = Literal["none", "backpack", "shoulder", "hand", "trolley"]

PATTERNS: tuple[PatternKind, ...] = ("plain", "horizontal", "vertical", "checks", "dots", "block")


@dataclass(frozen=True, slots=True)
class Material:
    """How a thing looks in both modalities.

    Attributes:
        visible: red, green, blue in 0..1.
        infrared: brightness in 0..1, drawn independently of ``visible``.
    """

    visible: Colour
    infrared: float


@dataclass(frozen=True, slots=True)
class Garment:
    """A garment with a pattern of two materials.

    Attributes:
        base: main material.
        second: material of stripes, squares, dots or the other block; contrasts with ``base`` in both modalities.
        pattern: kind of pattern.
        period: its repeat, as a share of body height.
        duty: share of the repeat that ``second`` covers; for blocks the height of the border.
    """

    base: Material
    second: Material
    pattern: PatternKind
    period: float
    duty: float


@dataclass(frozen=True, slots=True)
class Person:
    """One identity. Lengths are shares of body height; angles are radians."""

    gender: Literal["male", "female"]
    stature: float
    shoulder: float
    hip: float
    depth: float
    leg: float
    head: float
    limb: float
    hair: Hair
    hair_material: Material
    skin: Material
    upper: Garment
    hem: float
    flare: float
    sleeves: Sleeves
    opening: Material | None
    lower: Garment
    lower_kind: Lower
    shoes: Material
    boots: float
    bag: Bag
    bag_side: int
    bag_size: float
    bag_material: Material
    stride: float
    cadence: float
    arm_swing: float
    lean: float


def private(*key: object) -> random.Random:
    """A generator that depends on the key only (not on the process, nor on what was drawn before)."""
    return random.Random("/".join(map(str, key)))


@functools.lru_cache(maxsize=4096)
def person(seed: int, number: int) -> Person:
    """The attributes of person ``number`` in the world of ``seed``."""
    rng = private("person", seed, number)
    female = rng.random() < 0.5
    hair: Hair = rng.choices(
        ("bald", "short", "bob", "long", "ponytail", "bun", "cap", "hood"),
        (0, 2, 3, 4, 3, 2, 1, 1) if female else (2, 7, 1, 1, 0.5, 0.2, 3, 2),
    )[0]
    lower_kind: Lower = rng.choices(
        ("trousers", "wide", "shorts", "skirt", "long_skirt"), (4, 2, 2, 3, 2) if female else (6, 3, 3, 0, 0)
    )[0]
    tone = rng.random()
    skin = Material((0.93 - 0.45 * tone, 0.76 - 0.46 * tone, 0.64 - 0.44 * tone), rng.uniform(0.82, 0.96))
    return Person(
        gender="female" if female else "male",
        stature=rng.uniform(0.93, 1.03),
        shoulder=rng.uniform(0.098, 0.128) + (0.0 if female else 0.012),
        hip=rng.uniform(0.078, 0.112),
        depth=rng.uniform(0.058, 0.098),
        leg=rng.uniform(0.45, 0.53),
        head=rng.uniform(0.9, 1.12),
        limb=rng.uniform(0.82, 1.25),
        hair=hair,
        hair_material=_hair_material(rng, hair),
        skin=skin,
        upper=_garment(rng, (3, 3, 2.5, 2.5, 2, 3)),
        hem=rng.choices((0.56, 0.48, 0.37, 0.24), (2, 5, 2, 1))[0] + rng.uniform(-0.015, 0.015),
        flare=rng.uniform(0.95, 1.35),
        sleeves=rng.choices(("none", "short", "long"), (1, 3, 4))[0],
        opening=_material(rng) if rng.random() < 0.3 else None,
        lower=_garment(rng, (6, 1, 1.5, 1.5, 0.7, 1)),
        lower_kind=lower_kind,
        shoes=_material(rng),
        boots=rng.choices((0.0, 0.09, 0.19), (6, 1.5, 1.5))[0],
        bag=rng.choices(("none", "backpack", "shoulder", "hand", "trolley"), (4, 3, 2.5, 2, 1))[0],
        bag_side=rng.choice((-1, 1)),
        bag_size=rng.uniform(0.8, 1.3),
        bag_material=_material(rng),
        stride=rng.uniform(0.3, 0.62),
        cadence=rng.uniform(0.3, 0.55),
        arm_swing=rng.uniform(0.15, 0.7),
        lean=rng.uniform(-0.02, 0.05),
    )


def _colour(rng: random.Random) -> Colour:
    kind = rng.random()
    if kind < 0.2:
        value = rng.uniform(0.06, 0.2)
        return (value, value, value * rng.uniform(1.0, 1.25))
    if kind < 0.4:
        value = rng.uniform(0.5, 0.97)
        return (value, value * rng.uniform(0.94, 1.0), value * rng.uniform(0.88, 1.0))
    if kind < 0.52:
        return colorsys.hsv_to_rgb(rng.uniform(0.57, 0.66), rng.uniform(0.4, 0.75), rng.uniform(0.25, 0.65))
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.45, 0.95), rng.uniform(0.35, 0.95))


def _material(rng: random.Random) -> Material:
    return Material(_colour(rng), rng.uniform(0.1, 0.88))


def _hair_material(rng: random.Random, hair: Hair) -> Material:
    if hair == "cap":
        return _material(rng)
    visible = rng.choice(((0.08, 0.07, 0.07), (0.22, 0.14, 0.09), (0.4, 0.26, 0.14), (0.78, 0.64, 0.38), (0.62,) * 3))
    return Material(visible, rng.uniform(0.15, 0.6))


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _garment(rng: random.Random, weights: tuple[float, ...]) -> Garment:
    base, second = _material(rng), _material(rng)
    # A pattern must survive in both modalities: its contrast is drawn anew until it does, its sign stays free.
    while abs(_luminance(base.visible) - _luminance(second.visible)) < 0.28:
        second = Material(_colour(rng), second.infrared)
    while abs(base.infrared - second.infrared) < 0.28:
        second = Material(second.visible, rng.uniform(0.08, 0.92))
    pattern = rng.choices(PATTERNS, weights)[0]
    duty = rng.uniform(0.35, 0.65)
    return Garment(base, second, pattern, rng.uniform(0.05, 0.12), duty)
