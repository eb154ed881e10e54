"""What MMGL's two tasks have learned: shuffled stripes put back in order, and stripes found again across modalities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from gloam.errors import GloamError
from gloam.losses.cycle_contrastive import soft_nearest
from gloam.losses.permutation import assign_orders, shuffle_stripes
from gloam.visualize.rank_list import QUERY, RIGHT, WRONG

Side = Literal["V", "T"]
_NAMES: dict[Side, str] = {"V": "visible", "T": "infrared"}
_QUERIES = 2  # stripes per image whose neighbours are shown
# Inches: image height, patch width, gaps, captions, headings.
_TALL, _PATCH, _GAP, _CAPTION, _HEAD = 1.5, 0.95, 0.14, 0.22, 0.95
_PIXELS = 144  # per inch


@dataclass(frozen=True)
class StripeImages:
    """n visible images, then n infrared ones, and what a network makes of their shuffled stripes.

    Attributes:
        images: ``(2n, 3, H, W)`` uint8, in their natural order of stripes.
        orders: ``(2n, P)`` int64; stripe ``r`` of a shuffled image is stripe ``orders[:, r]`` of the image.
        matrices: ``(2n, P, P)`` soft permutation matrices of the shuffled images, or None.
        vectors: ``(2n, K, D)`` stripe vectors of the shuffled images (K = P, or 1 for whole images), or None.
        temperature: of the soft retrieval.
    """

    images: Tensor
    orders: Tensor
    matrices: Tensor | None
    vectors: Tensor | None
    temperature: float = 0.07


@dataclass(frozen=True)
class Neighbours:
    """Where every stripe of one modality finds its likeness, among all shown stripes of both modalities.

    Stripes are numbered ``image * K + place``.

    Attributes:
        weights: ``(nK, nK)`` soft weights on the other modality's stripes.
        nearest: ``(nK,)`` heaviest of them.
        back: ``(nK,)`` the own modality's stripe that is nearest to the soft neighbour: the query itself if the cycle
            closes.
    """

    weights: Tensor
    nearest: Tensor
    back: Tensor


def find_neighbours(queries: Tensor, others: Tensor, temperature: float) -> Neighbours:
    """Soft and hard nearest stripes in the other modality, and the way back.

    Args:
        queries: ``(n, K, D)`` stripe vectors of one modality.
        others: ``(n, K, D)`` of the other.
        temperature: of the soft retrieval.
    """
    own, other = (normalize(x.flatten(0, 1).float(), dim=1, eps=1e-12) for x in (queries, others))
    weights = (own @ other.T / temperature).softmax(dim=1)
    back = (soft_nearest(own, other, temperature) @ own.T).argmax(dim=1)
    return Neighbours(weights, weights.argmax(dim=1), back)


def draw_stripes(shown: StripeImages, *, seed: int = 0) -> Figure:
    """One panel per task.

    Upper panel, per image: the original, its shuffled stripes (numbered by their true place), the image put back by
    the Hungarian assignment of the soft permutation, and that matrix (ring: truth, dot: assignment). Lower panel: query
    stripes, their nearest stripe in the other modality, the mixture that soft retrieval gives, and the stripe of the
    query's own modality to which that mixture leads back. Blue with a tick is right, orange with a cross wrong.

    Args:
        shown: what to draw; a panel whose data are None is left out.
        seed: of the choice of query stripes.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.

    Raises:
        GloamError: neither panel has data.
    """
    if shown.matrices is None and shown.vectors is None:
        raise GloamError("There is nothing to draw: the run was trained without permutation recovery and without PCC.")
    return _draw(shown, seed)


class _Canvas:
    """Axes placed by hand in inches from the upper left corner: automatic layouts are slow."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white", dpi=_PIXELS)

    def text(self, x: float, y: float, text: str, size: float, colour: str = QUERY, weight: str = "bold") -> None:
        place = (x / self.width, 1 - y / self.height)
        self.figure.text(*place, text, fontsize=size, va="top", color=colour, fontweight=weight)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        box = (x / self.width, 1 - (y + height) / self.height, width / self.width, height / self.height)
        axes: Axes = self.figure.add_axes(box)
        axes.set(xticks=[], yticks=[])
        return axes

    def image(self, x: float, y: float, width: float, height: float, image: Tensor, title: str) -> Axes:
        axes = self.axes(x, y, width, height)
        axes.imshow(_pixels(image), aspect="auto", interpolation="bilinear")
        axes.set_title(title, fontsize=7, color=QUERY, pad=3)
        return axes


def _draw(shown: StripeImages, seed: int) -> Figure:
    height, width = shown.images.shape[-2:]
    count = len(shown.images) // 2
    wide = _TALL * width / height
    # The two halves must hold three images and a matrix, and four patches.
    half = max(3 * (wide + _GAP) + _TALL + 0.4, 4 * (_PATCH + _GAP)) + 0.3
    upper = _HEAD + count * (_TALL + _CAPTION + 0.3) if shown.matrices is not None else 0.0
    parts = 0 if shown.vectors is None else shown.vectors.shape[1]
    patch = _PATCH * (height / max(parts, 1)) / width
    lines = count * min(_QUERIES, max(parts, 1))
    lower = _HEAD + lines * (patch + _CAPTION + _GAP) if shown.vectors is not None else 0.0
    canvas = _Canvas(2 * half + _GAP, upper + lower + _GAP)
    if shown.matrices is not None:
        _draw_orders(canvas, shown, shown.matrices, wide, half)
    if shown.vectors is not None:
        _draw_neighbours(canvas, shown, shown.vectors, upper, half, patch, seed)
    return canvas.figure


def _draw_orders(canvas: _Canvas, shown: StripeImages, matrices: Tensor, wide: float, half: float) -> None:
    """The upper panel."""
    assigned = assign_orders(matrices)
    right = assigned == shown.orders
    shuffled = shuffle_stripes(shown.images, shown.orders)
    recovered = shuffle_stripes(shuffled, assigned.argsort(dim=1))
    count, parts = len(shown.images) // 2, shown.orders.shape[1]
    canvas.text(_GAP, 0.10, "permutation recovery", 12)
    share = [f"{_NAMES[modality]} {100 * part.double().mean():.0f} %" for modality, part in _halves(right)]
    canvas.text(_GAP, 0.34, f"stripes in their true place: {', '.join(share)} (chance {100 / parts:.0f} %)", 8.5)
    canvas.text(_GAP, 0.52, "✓ right stripe, dot on ring", 8, RIGHT)
    canvas.text(_GAP + 1.8, 0.52, "✗ wrong stripe, dot off ring (ring: truth)", 8, WRONG)
    for number in range(len(shown.images)):
        modality: Side = "V" if number < count else "T"
        x, y = _GAP + (number // count) * half, _HEAD + (number % count) * (_TALL + _CAPTION + 0.3)
        name = f"{modality}{number % count + 1}"
        order, assignment = shown.orders[number].tolist(), assigned[number].tolist()
        canvas.image(x, y, wide, _TALL, shown.images[number], f"{name} {_NAMES[modality]}")
        axes = canvas.image(x + wide + _GAP, y, wide, _TALL, shuffled[number], "shuffled")
        _mark_stripes(axes, shown.images.shape[-2:], [str(stripe + 1) for stripe in order], [QUERY] * parts)
        axes = canvas.image(x + 2 * (wide + _GAP), y, wide, _TALL, recovered[number], "put back")
        found = [order[assignment.index(place)] for place in range(parts)]
        signs = [f"{stripe + 1} {'✓' if stripe == place else '✗'}" for place, stripe in enumerate(found)]
        colours = [RIGHT if stripe == place else WRONG for place, stripe in enumerate(found)]
        _mark_stripes(axes, shown.images.shape[-2:], signs, colours)
        axes = canvas.axes(x + 3 * (wide + _GAP) + 0.3, y, _TALL, _TALL)
        _show_matrix(axes, matrices[number], order, assignment)


def _mark_stripes(axes: Axes, size: tuple[int, ...], texts: list[str], colours: list[str]) -> None:
    height, width = size
    tall = height / len(texts)
    for place, (text, colour) in enumerate(zip(texts, colours, strict=True)):
        box = (-0.5 + 0.03 * width, place * tall - 0.5 + 0.04 * tall)
        axes.add_patch(Rectangle(box, 0.94 * width, 0.92 * tall, fill=False, edgecolor=colour, linewidth=1.6))
        axes.text(
            0.08 * width,
            (place + 0.5) * tall,
            text,
            fontsize=6.5,
            va="center",
            color="white",
            fontweight="bold",
            bbox={"facecolor": colour, "edgecolor": "none", "pad": 1.2},
        )


def _show_matrix(axes: Axes, matrix: Tensor, order: list[int], assigned: list[int]) -> None:
    parts = len(order)
    axes.imshow(matrix.double().numpy(), cmap="Greys", vmin=0, vmax=1)
    places = np.arange(parts)
    axes.scatter(order, places, s=700 / parts**1.2, facecolors="none", edgecolors="#009E73", linewidths=1.8)
    colours = [RIGHT if a == b else WRONG for a, b in zip(order, assigned, strict=True)]
    axes.scatter(assigned, places, s=130 / parts**1.2, c=colours)
    axes.set_xticks(places, [str(place + 1) for place in places], fontsize=6)
    axes.set_yticks(places, [str(place + 1) for place in places], fontsize=6)
    axes.tick_params(length=0, pad=1.5)
    axes.set_title("soft permutation", fontsize=7, color=QUERY, pad=3)
    axes.set_xlabel("true place", fontsize=6.5, labelpad=1)
    axes.set_ylabel("shuffled place", fontsize=6.5, labelpad=3)


def _draw_neighbours(
    canvas: _Canvas, shown: StripeImages, vectors: Tensor, top: float, half: float, patch: float, seed: int
) -> None:
    """The lower panel."""
    count, parts = len(vectors) // 2, vectors.shape[1]
    patches = _patches(shuffle_stripes(shown.images, shown.orders), parts)
    halves = list(_halves(vectors))
    canvas.text(_GAP, top + 0.10, "stripes found across modalities (PCC)", 12)
    chosen = torch.Generator().manual_seed(seed)
    notes = []
    for side, (modality, own) in enumerate(halves):
        other, others = halves[1 - side]
        found = find_neighbours(own, others, shown.temperature)
        names, other_names = _stripe_names(shown, modality, parts), _stripe_names(shown, other, parts)
        true, other_true = _true_stripes(shown, modality, parts), _true_stripes(shown, other, parts)
        here, there = patches[side], patches[1 - side]
        notes.append(f"{_NAMES[modality]} to {_NAMES[other]}: {_note(found, true, other_true, parts)}")
        line = 0
        for row in range(count):
            for place in sorted(torch.randperm(parts, generator=chosen)[:_QUERIES].tolist()):
                query = row * parts + place
                x, y = _GAP + side * half, top + _HEAD + line * (patch + _CAPTION + _GAP)
                nearest, back = int(found.nearest[query]), int(found.back[query])
                weights = found.weights[query]
                mixture = (weights[:, None] * there.flatten(1).float()).sum(0).view_as(there[0]).round().byte()
                like, closes = bool(true[query] == other_true[nearest]), back == query
                share = f"{other_names[nearest]}, {100 * weights[nearest]:.0f} %"
                columns = (
                    (here[query], f"{names[query]}", QUERY),
                    (there[nearest], f"{_sign(like)} {share}" if parts > 1 else share, _colour(like, parts > 1)),
                    (mixture, "soft neighbour", QUERY),
                    (here[back], f"{_sign(closes)} back: {names[back]}", _colour(closes, True)),
                )
                for column, (image, title, colour) in enumerate(columns):
                    left = x + column * (_PATCH + _GAP)
                    _frame(canvas.image(left, y, _PATCH, patch, image, title), colour)
                line += 1
    for number, note in enumerate(notes):
        canvas.text(_GAP, top + 0.34 + 0.15 * number, note, 8, weight="normal")
    legend = f"✓ {'same stripe of the body, or ' if parts > 1 else ''}back at the query"
    canvas.text(_GAP, top + 0.68, legend, 8, RIGHT)
    canvas.text(_GAP + 3.4, top + 0.68, "✗ another", 8, WRONG)


def _note(found: Neighbours, true: Tensor, other_true: Tensor, parts: int) -> str:
    """How often all shown stripes, not only the drawn ones, find the same part, the same place, and back."""
    places = torch.arange(len(true)) % parts
    closed = (found.back == torch.arange(len(true))).double().mean()
    text = f"cycle closes for {100 * closed:.0f} % of {len(true)} queries"
    if parts == 1:
        return text
    part = (other_true[found.nearest] == true).double().mean()
    place = (places[found.nearest] == places).double().mean()
    return (
        f"same body stripe {100 * part:.0f} %, same place in the shuffled image {100 * place:.0f} % "
        f"(chance of either {100 / parts:.0f} %); {text}"
    )


def _halves(tensor: Tensor) -> tuple[tuple[Side, Tensor], tuple[Side, Tensor]]:
    visible, infrared = tensor.chunk(2)
    return ("V", visible), ("T", infrared)


def _patches(shuffled: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """Stripes of each modality's shuffled images, ``(n * parts, 3, H / parts, W)``, image by image."""
    count, channels, height, width = shuffled.shape
    stripes = shuffled.reshape(count, channels, parts, height // parts, width).transpose(1, 2)
    visible, infrared = stripes.chunk(2)
    return visible.flatten(0, 1), infrared.flatten(0, 1)


def _true_stripes(shown: StripeImages, modality: Side, parts: int) -> Tensor:
    """``(n * parts,)`` original number of every stripe; zeros for whole images."""
    orders = dict(_halves(shown.orders))[modality]
    return orders.flatten() if parts > 1 else torch.zeros(len(orders), dtype=torch.int64)


def _stripe_names(shown: StripeImages, modality: Side, parts: int) -> list[str]:
    true = _true_stripes(shown, modality, parts).tolist()
    return [
        f"{modality}{index // parts + 1} stripe {stripe + 1}" if parts > 1 else f"{modality}{index + 1}"
        for index, stripe in enumerate(true)
    ]


def _sign(right: bool) -> str:
    return "✓" if right else "✗"


def _colour(right: bool, known: bool) -> str:
    return QUERY if not known else RIGHT if right else WRONG


def _frame(axes: Axes, colour: str) -> None:
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=2.5)
    axes.title.set_color(colour)


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    """``(3, H, W)`` uint8 to ``(H, W, 3)``."""
    return np.asarray(image.permute(1, 2, 0).cpu().numpy(), dtype=np.uint8)
