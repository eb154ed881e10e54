"""The figure of a drawn person: a small 3-D skeleton, projected and filled with material numbers, back to front."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import ImageDraw

from gloam.drawing.person import Person
from gloam.drawing.scene import Camera

Point = tuple[float, float]

# Material numbers on the canvas. 0 is the background; bits 32 and 64 mark the second material of a pattern.
SKIN, SKIN_FAR, HAIR, UPPER, UPPER_FAR, UPPER_ARM, LOWER, LOWER_FAR = range(1, 9)
SHOE, SHOE_FAR, BAG, BAG_DARK, OPENING, EYES = range(9, 15)
UPPER_BIT, LOWER_BIT = 32, 64


@dataclass(frozen=True, slots=True)
class Pose:
    """How a person stands before the camera; lengths are shares of the image's height."""

    yaw: float
    phase: float
    swing: float
    scale: float
    x: float
    y: float
    place: Point
    hide: str
    hide_from: float
    exposure: float


class Body:
    """Paints material numbers of one posed person, back to front.

    Body coordinates: lateral (the person's left is positive), forward, up; shares of body height, feet at 0.
    """

    def __init__(
        self, draw: ImageDraw.ImageDraw, who: Person, pose: Pose, view: Camera, rows: int, columns: int, unit: float
    ) -> None:
        self.draw, self.who, self.pose = draw, who, pose
        self.size = rows * pose.scale * unit
        self.cos, self.sin = math.cos(pose.yaw), math.sin(pose.yaw)
        self.centre = columns / 2 + pose.x * rows
        self.floor = rows * (0.5 + pose.y) + self.size * view.squash / 2
        self.squash, self.roll = view.squash, view.roll
        # The side that is nearer to the camera.
        self.near = 1 if self.sin < 0 else -1

    def point(self, lateral: float, forward: float, up: float) -> Point:
        """Canvas position of a body point."""
        forward += self.who.lean * up
        x = lateral * self.cos + forward * self.sin + self.roll * (up - 0.5)
        return self.centre + self.size * x, self.floor - self.size * self.squash * up

    def half(self, lateral: float, depth: float) -> float:
        """Half width on the canvas of a body with an elliptic section."""
        return self.size * math.hypot(lateral * self.cos, depth * self.sin)

    def limb(self, a: Point, b: Point, wide: float, narrow: float, fill: int) -> None:
        """A tapered, round-ended stroke."""
        r0, r1 = wide * self.size * self.who.limb, narrow * self.size * self.who.limb
        dx, dy = b[0] - a[0], b[1] - a[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length, dx / length
        self.draw.polygon(
            (
                (a[0] + nx * r0, a[1] + ny * r0),
                (b[0] + nx * r1, b[1] + ny * r1),
                (b[0] - nx * r1, b[1] - ny * r1),
                (a[0] - nx * r0, a[1] - ny * r0),
            ),
            fill=fill,
        )
        self.draw.ellipse((a[0] - r0, a[1] - r0, a[0] + r0, a[1] + r0), fill=fill)
        self.draw.ellipse((b[0] - r1, b[1] - r1, b[0] + r1, b[1] + r1), fill=fill)

    def slab(self, rings: list[tuple[float, float, float]], fill: int) -> None:
        """A body of elliptic sections (up, lateral half width, depth half width), from top to bottom."""
        left, right = [], []
        for up, lateral, depth in rings:
            x, y = self.point(0, 0, up)
            half = self.half(lateral, depth)
            left.append((x - half, y))
            right.append((x + half, y))
        self.draw.polygon(left + right[::-1], fill=fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: int) -> None:
        """A filled ellipse in canvas units."""
        self.draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=fill)

    def paint(self) -> None:
        """The whole person, far parts first."""
        who = self.who
        facing = self.cos > 0
        if who.bag == "trolley":
            self.trolley()
        self.arm(-self.near)
        self.leg(-self.near)
        self.leg(self.near)
        if who.bag == "backpack" and facing:
            self.backpack()
        self.hips()
        if not facing:
            self.head_and_hair()
        self.torso()
        if who.bag == "backpack":
            if facing:
                self.straps()
            else:
                self.backpack()
        if facing:
            self.head_and_hair()
        elif who.hair in ("long", "ponytail"):
            self.hanging_hair()
        if who.bag == "shoulder":
            self.shoulder_bag()
        self.arm(self.near)

    def leg(self, side: int) -> None:
        """One leg with its shoe."""
        who, far = self.who, side != self.near
        phase = self.pose.phase + (0.0 if side > 0 else math.pi)
        angle = who.stride * self.pose.swing * math.sin(phase)
        bend = 0.9 * who.stride * self.pose.swing * max(0.0, math.cos(phase)) + 0.04
        lateral, top = side * who.hip * 0.52, who.leg
        thigh, shin = top * 0.5, top * 0.44
        knee_f, knee_u = thigh * math.sin(angle), top - thigh * math.cos(angle)
        ankle_f, ankle_u = knee_f + shin * math.sin(angle - bend), knee_u - shin * math.cos(angle - bend)
        hip = self.point(lateral, 0, top)
        knee = self.point(lateral, knee_f, knee_u)
        ankle = self.point(lateral, ankle_f, ankle_u)
        toe = self.point(lateral, ankle_f + 0.055, max(0.0, ankle_u - 0.03))
        cloth, bare = (LOWER_FAR, SKIN_FAR) if far else (LOWER, SKIN)
        shoe = SHOE_FAR if far else SHOE
        covered = who.lower_kind in ("trousers", "wide")
        wide = 0.012 if who.lower_kind == "wide" else 0.0
        self.limb(knee, ankle, 0.032 + wide, 0.02 + 2 * wide, cloth if covered else bare)
        self.limb(hip, knee, 0.05, 0.034 + wide, bare if who.lower_kind in ("skirt", "long_skirt") else cloth)
        if who.boots:
            share = who.boots / shin
            shaft = (ankle[0] + (knee[0] - ankle[0]) * share, ankle[1] + (knee[1] - ankle[1]) * share)
            self.limb(shaft, ankle, 0.03, 0.024, shoe)
        self.limb(ankle, toe, 0.022, 0.018, shoe)

    def hips(self) -> None:
        """What joins the legs: trouser seat or a skirt."""
        who = self.who
        waist = (who.leg + 0.06, who.hip * 0.92, who.depth * 0.9)
        if who.lower_kind in ("skirt", "long_skirt"):
            low = who.leg - (0.19 if who.lower_kind == "skirt" else 0.38)
            spread = 1.25 if who.lower_kind == "skirt" else 1.4
            self.slab([waist, (who.leg, who.hip, who.depth), (low, who.hip * spread, who.depth * spread * 1.2)], LOWER)
        else:
            self.slab([waist, (who.leg, who.hip, who.depth), (who.leg - 0.05, who.hip * 0.9, who.depth * 0.8)], LOWER)

    def torso(self) -> None:
        """Neck, upper garment, and what shows of it from the front."""
        who = self.who
        self.limb(self.point(0, 0, 0.88), self.point(0, 0, 0.8), 0.026, 0.03, SKIN)
        hem = min(who.hem, who.leg + 0.05)
        rings = [
            (0.845, 0.035, 0.035),
            (0.825, who.shoulder * 0.85, who.depth * 0.75),
            (0.79, who.shoulder, who.depth),
            (who.leg + 0.11, (who.shoulder + who.hip) * 0.43, who.depth * 0.95),
            (max(hem, who.leg), who.hip * 1.05, who.depth * 1.05),
        ]
        if hem < who.leg:
            rings.append((hem, who.hip * who.flare * 1.08, who.depth * who.flare * 1.15))
        self.slab(rings, UPPER)
        if who.opening is not None and self.cos > 0.35:
            top, low = self.point(0, who.depth, 0.83), self.point(0, who.depth, hem)
            r = self.size * 0.028 * self.cos
            self.draw.polygon(
                ((top[0] - r * 1.5, top[1]), (top[0] + r * 1.5, top[1]), (low[0] + r, low[1]), (low[0] - r, low[1])),
                fill=OPENING,
            )

    def arm(self, side: int) -> None:
        """One arm; it swings against the leg of its side."""
        who, far = self.who, side != self.near
        phase = self.pose.phase + (math.pi if side > 0 else 0.0)
        angle = who.arm_swing * self.pose.swing * math.sin(phase)
        if who.bag in ("hand", "trolley") and side == who.bag_side:
            angle *= 0.25
        bend = 0.15 + 0.5 * who.arm_swing * max(0.0, math.sin(phase))
        lateral = side * (who.shoulder + 0.004)
        shoulder = self.point(side * (who.shoulder - 0.012), 0, 0.795)
        elbow_f, elbow_u = 0.15 * math.sin(angle), 0.795 - 0.15 * math.cos(angle)
        elbow = self.point(lateral * 1.12, elbow_f, elbow_u)
        hand_f, hand_u = elbow_f + 0.145 * math.sin(angle + bend), elbow_u - 0.145 * math.cos(angle + bend)
        hand = self.point(lateral * 1.14, hand_f, hand_u)
        cloth, bare = (UPPER_FAR, SKIN_FAR) if far else (UPPER_ARM, SKIN)
        self.limb(elbow, hand, 0.023, 0.018, cloth if who.sleeves == "long" else bare)
        self.limb(shoulder, elbow, 0.032, 0.025, bare if who.sleeves == "none" else cloth)
        self.disc(*hand, self.size * 0.02, self.size * 0.022, bare)
        if who.bag == "hand" and side == who.bag_side:
            w, h = self.size * 0.05 * who.bag_size * (0.55 + 0.45 * abs(self.sin)), self.size * 0.075 * who.bag_size
            self.draw.rectangle((hand[0] - w, hand[1] + h * 0.35, hand[0] + w, hand[1] + h * 1.6), fill=BAG)
            self.draw.line((hand[0] - w * 0.6, hand[1] + h * 0.4, hand[0], hand[1]), BAG_DARK, max(1, round(w / 6)))
            self.draw.line((hand[0] + w * 0.6, hand[1] + h * 0.4, hand[0], hand[1]), BAG_DARK, max(1, round(w / 6)))

    def head_and_hair(self) -> None:
        """Head with hair, hat or hood; the face turns with the view."""
        who = self.who
        x, y = self.point(0, 0.012, 0.925)
        rx, ry = self.size * 0.05 * who.head, self.size * 0.068 * who.head
        hair = UPPER_ARM if who.hair == "hood" else HAIR
        if who.hair == "bald":
            self.disc(x, y, rx, ry, SKIN)
        else:
            grow = {"hood": 1.22, "bob": 1.2, "long": 1.12}.get(who.hair, 1.05)
            if who.hair == "bob":
                self.disc(x, y + ry * 0.35, rx * 1.35, ry * 0.9, hair)
            if who.hair in ("long", "ponytail") and self.cos > 0:
                self.hanging_hair()
            if who.hair == "bun":
                bun = self.point(0, -0.045, 0.985)
                self.disc(*bun, rx * 0.6, rx * 0.6, hair)
            self.disc(x, y - ry * 0.06, rx * grow, ry * (grow if who.hair != "long" else 1.05), hair)
        if self.cos > -0.45:
            width = rx * (0.48 + 0.38 * max(0.0, self.cos))
            fx, fy = x + rx * 0.5 * self.sin, y + ry * 0.22
            self.disc(fx, fy, width, ry * 0.76, SKIN)
            if self.cos > 0.2:
                r = max(0.6, rx * 0.13)
                for eye in (-1, 1):
                    self.disc(fx + eye * width * 0.45, fy - ry * 0.15, r, r, EYES)
        elif who.hair in ("short", "cap", "bun"):
            self.disc(x, y + ry * 0.75, rx * 0.6, ry * 0.3, SKIN)
        if who.hair == "cap":
            brim = self.point(0, 0.06, 0.955)
            self.draw.pieslice((x - rx * 1.12, y - ry * 1.15, x + rx * 1.12, y + ry * 0.65), 180, 360, fill=HAIR)
            self.disc(brim[0], brim[1], rx * (0.9 if abs(self.sin) < 0.7 else 0.75), ry * 0.14, BAG_DARK)

    def hanging_hair(self) -> None:
        """Long hair or a tail on the back."""
        who = self.who
        if who.hair == "long":
            a, b = self.point(0, -0.012, 0.92), self.point(0, -0.045, 0.76)
            self.limb(a, b, 0.06 * who.head, 0.05, HAIR)
        else:
            a, b = self.point(0, -0.055, 0.94), self.point(0, -0.085, 0.79)
            self.limb(a, b, 0.024, 0.014, HAIR)

    def backpack(self) -> None:
        """A box on the back."""
        size = self.who.bag_size
        behind = -(self.who.depth + 0.045 * size)
        x, top = self.point(0, behind, 0.82)
        low = self.point(0, behind, 0.82 - 0.22 * size)[1]
        half = self.half(0.085 * size, 0.055 * size)
        self.draw.rounded_rectangle((x - half, top, x + half, low), half * 0.4, fill=BAG)
        middle = top + (low - top) * 0.55
        self.draw.rectangle((x - half * 0.7, middle, x + half * 0.7, middle + (low - top) * 0.12), fill=BAG_DARK)

    def straps(self) -> None:
        """Backpack straps on the chest."""
        width = max(1, round(self.size * 0.02))
        for side in (-1, 1):
            a = self.point(side * self.who.shoulder * 0.62, self.who.depth * 0.8, 0.83)
            b = self.point(side * self.who.shoulder * 0.75, self.who.depth * 0.8, 0.66)
            self.draw.line((*a, *b), BAG_DARK, width)

    def shoulder_bag(self) -> None:
        """A strap across the chest and a bag at the hip."""
        who = self.who
        front = who.depth * (1 if self.cos > 0 else -1)
        a = self.point(-who.bag_side * who.shoulder * 0.6, front * 0.4, 0.83)
        x, y = self.point(who.bag_side * (who.hip + 0.02), 0, 0.5)
        self.draw.line((*a, x, y), BAG_DARK, max(1, round(self.size * 0.018)))
        if who.bag_side == self.near or abs(self.sin) < 0.75:
            half, tall = self.half(0.045 * who.bag_size, 0.07 * who.bag_size), self.size * 0.05 * who.bag_size
            self.draw.rectangle((x - half, y - tall * 0.6, x + half, y + tall * 1.4), fill=BAG)

    def trolley(self) -> None:
        """A wheeled case pulled behind."""
        who = self.who
        x, low = self.point(who.bag_side * (who.shoulder + 0.03), -0.17, 0.02)
        half, tall = self.half(0.06 * who.bag_size, 0.05 * who.bag_size), self.size * 0.24 * who.bag_size
        hand = self.point(who.bag_side * (who.shoulder + 0.01), -0.02, 0.5)
        self.draw.line((x, low - tall, *hand), BAG_DARK, max(1, round(self.size * 0.014)))
        self.draw.rectangle((x - half, low - tall, x + half, low), fill=BAG)
        self.draw.rectangle((x - half, low - tall * 0.55, x + half, low - tall * 0.47), fill=BAG_DARK)
