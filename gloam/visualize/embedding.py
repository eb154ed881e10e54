"""Features in the plane: identities by colour, modality by marker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from gloam.datasets.records import Modality
from gloam.errors import GloamError, did_you_mean

Projection = Literal["pca", "tsne"]

_LABEL = 7  # font size in points
_SIZE, _INSIDE = (7.6, 6.0), (7.2, 5.4)  # inches of the figure and, at least, of its axes
_ROUNDS = 400
_MARKERS = {Modality.VISIBLE: "o", Modality.INFRARED: "^"}


def draw_embedding(
    features: Any,
    pids: Sequence[int] | NDArray[np.int64],
    modalities: Sequence[int] | NDArray[np.int64],
    *,
    method: Projection = "pca",
    ids: int = 20,
    seed: int = 0,
    title: str = "",
) -> Figure:
    """Features projected to the plane. Circles are visible, triangles infrared.

    Args:
        features: ``(N, D)`` NumPy or torch.
        pids: ``(N,)`` ids; a person has one colour.
        modalities: ``(N,)`` values of ``Modality``.
        method: ``pca`` (exact, fast, distances keep their meaning) or ``tsne`` (neighbourhoods only; through
            scikit-learn).
        ids: draw at most so many persons, those with the most images (ties: lower id).
        seed: of t-SNE.
        title: text above the plot.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.

    Raises:
        GloamError: lengths that do not fit, NaN, fewer than three images, or an unknown method.
    """
    if method not in get_args(Projection):
        raise GloamError(f"There is no projection {method!r}. {did_you_mean(str(method), get_args(Projection))}")
    points, people, kinds = _matrix(features), np.asarray(pids), np.asarray(modalities)
    if not len(points) == len(people) == len(kinds):
        raise GloamError(f"{len(points)} features, {len(people)} ids and {len(kinds)} modalities: give one of each.")
    names, counts = np.unique(people, return_counts=True)
    shown = names[np.argsort(-counts, kind="stable")[: max(ids, 1)]]
    kept = np.isin(people, shown)
    points, people, kinds = points[kept], people[kept], kinds[kept]
    if len(points) < 3:
        raise GloamError(f"An embedding needs at least three images, not {len(points)}.")
    if not np.isfinite(points).all():
        raise GloamError("The features contain NaN or infinity: the network diverged or the file is broken.")
    plane, labels = _project(points, method, seed)
    return _figure(
        plane, people, kinds, np.sort(shown), labels, title or f"{len(shown)} identities, {len(points)} images"
    )


def _matrix(features: Any) -> NDArray[np.float32]:
    array = features.detach().float().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    if array.ndim != 2:
        raise GloamError(f"Features must have shape (N, D), not {array.shape}.")
    return array.astype(np.float32, copy=False)


def _project(points: NDArray[np.float32], method: Projection, seed: int) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Coordinates ``(N, 2)`` and axis labels. Components point where their largest loading is positive."""
    centred = points.astype(np.float64) - points.mean(axis=0, dtype=np.float64)
    left, spread, right = np.linalg.svd(centred, full_matrices=False)
    count = min(50 if method == "tsne" else 2, len(spread))
    signs = np.sign(right[np.arange(count), np.abs(right[:count]).argmax(axis=1)])
    plane = left[:, :count] * spread[:count] * np.where(signs == 0, 1, signs)
    if method == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(points) - 1) / 3)
        reduced = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(plane)
        return np.asarray(reduced, dtype=np.float64), ("t-SNE 1", "t-SNE 2")
    if count < 2:
        plane = np.hstack([plane, np.zeros((len(plane), 1))])
    shares = [*(spread**2 / max(float((spread**2).sum()), 1e-30)), 0.0]
    return plane, (f"component 1 ({100 * shares[0]:.0f} % of variance)", f"component 2 ({100 * shares[1]:.0f} %)")


def _limits(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(2, 2)`` ends of the axes: all points, with a margin."""
    low, high = plane.min(axis=0), plane.max(axis=0)
    margin = np.maximum(0.05 * (high - low), 1e-9)
    return np.stack([low - margin, high + margin], axis=1)


def _spread_labels(
    centres: NDArray[np.float64], plane: NDArray[np.float64], texts: Sequence[str]
) -> NDArray[np.float64]:
    """Places of labels, as near to their centres as they can be without covering one another.

    Two that overlap are pushed apart along the shorter way, again and again.

    Args:
        centres: ``(n, 2)``.
        plane: ``(N, 2)`` all points, which give the axes.
        texts: n labels.
    """
    ends = _limits(plane)
    span = ends[:, 1] - ends[:, 0]
    # In points of the page; boxes a little larger than they are drawn.
    scale = 72 * np.array(_INSIDE) / span
    places = (centres - ends[:, 0]) * scale
    sizes = np.array([(0.75 * _LABEL * len(text) + 6, 1.9 * _LABEL) for text in texts])
    for _ in range(_ROUNDS):
        moved = False
        for one in range(len(places)):
            for other in range(one):
                apart = places[one] - places[other]
                missing = (sizes[one] + sizes[other]) / 2 - np.abs(apart)
                if (missing <= 0).any():
                    continue
                axis = int(missing.argmin())
                step = (missing[axis] / 2 + 0.1) * (1 if apart[axis] >= 0 else -1)
                places[one, axis] += step
                places[other, axis] -= step
                moved = True
        places = np.clip(places, sizes / 2, 72 * np.array(_INSIDE) - sizes / 2)
        if not moved:
            break
    spread: NDArray[np.float64] = places / scale + ends[:, 0]
    return spread


def _figure(
    plane: NDArray[np.float64],
    people: NDArray[np.int64],
    modalities: NDArray[np.int64],
    shown: NDArray[np.int64],
    labels: tuple[str, str],
    title: str,
) -> Figure:
    import matplotlib

    figure = Figure(figsize=_SIZE, layout="constrained", dpi=130)
    axes = figure.subplots()
    centres = np.array([np.median(plane[people == person], axis=0) for person in shown])
    places = _spread_labels(centres, plane, [str(person) for person in shown])
    palette = matplotlib.colormaps["tab20"] if len(shown) <= 20 else matplotlib.colormaps["turbo"]
    for number, person in enumerate(shown):
        colour = palette(number) if len(shown) <= 20 else palette(number / (len(shown) - 1))
        for modality, marker in _MARKERS.items():
            chosen = (people == person) & (modalities == modality)
            axes.scatter(
                plane[chosen, 0],
                plane[chosen, 1],
                s=34,
                marker=marker,
                color=[colour],
                edgecolors="black",
                linewidths=0.4,
                alpha=0.9,
            )
        # A small id at the person's centre or beside it, because no palette separates this many colours for everybody.
        axes.annotate(
            str(person), tuple(centres[number]), tuple(places[number]), fontsize=_LABEL, ha="center", va="center",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": colour, "alpha": 0.85},
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    (left, right), (low, high) = _limits(plane)
    axes.set(xlim=(left, right), ylim=(low, high))
    handles = [
        Line2D([], [], marker=marker, linestyle="", color="0.4", markeredgecolor="black", label=modality.name.lower())
        for modality, marker in _MARKERS.items()
        if (modalities == modality).any()
    ]
    axes.legend(handles=handles, fontsize=9, loc="best")
    axes.set_title(title, fontsize=11, loc="left", fontweight="bold")
    axes.set_xlabel(labels[0], fontsize=9)
    axes.set_ylabel(labels[1], fontsize=9)
    axes.set(xticks=[], yticks=[])
    return figure
