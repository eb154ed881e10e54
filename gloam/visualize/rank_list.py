"""Rank lists: queries with their nearest gallery entries, right and wrong marked by colour and by sign."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.errors import GloamError, did_you_mean
from gloam.evaluation.protocols import find_protocols, select, trials
from gloam.evaluation.ranking_plan import RankingPlan
from gloam.image_files import UnreadableImage
from gloam.pixels.decode import read_rgb
from gloam.search.arrays import as_features
from gloam.search.distances import Metric, distance_blocks
from gloam.search.nearest import nearest_columns

Choice = Literal["random", "worst", "best"]

# Blue and orange of the Okabe-Ito palette: told apart with every kind of colour vision.
RIGHT, WRONG, QUERY = "#0072B2", "#D55E00", "#333333"
_MARKS = {True: ("✓ ", RIGHT), False: ("✗ ", WRONG), None: ("", QUERY)}
# Inches: width and height of an image and of a tracklet's three frames, the gaps around them, the captions.
_IMAGE, _TRACKLET = (1.0, 2.0), (1.95, 1.3)
_GAP, _TITLE, _CAPTION, _HEAD = 0.12, 0.20, 0.36, 0.62
_NAME, _CHARACTERS = 5.5, 19  # file names: points, characters an inch
_PIXELS = 128  # per inch: an image is drawn 128 x 256


@dataclass(frozen=True)
class RankedRow:
    """One query and what it found.

    Attributes:
        query: the query.
        found: its matches, nearest first.
        right: whether each match shows the query's identity; None where that is unknown.
        distances: of each match, smaller is more alike.
        precision: the query's average precision, or None where identities are unknown.
    """

    query: Record
    found: Sequence[Record]
    right: Sequence[bool | None]
    distances: Sequence[float]
    precision: float | None = None


def draw_rank_list(
    splits: DatasetSplits,
    query_features: Any,
    gallery_features: Any,
    *,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Choice = "random",
    seed: int = 0,
    metric: Metric = "cosine",
    names: bool = False,
) -> Figure:
    """One row per query: the query, then its nearest gallery entries in the protocol's first trial.

    Right entries have a blue frame and a tick, wrong ones an orange frame and a cross. Tracklets show their first,
    middle and last frame. Entries that the camera rule hides are left out.

    Args:
        splits: the dataset.
        query_features: ``(len(splits.query), D)`` NumPy or torch.
        gallery_features: ``(len(splits.gallery), D)``.
        protocol: name; the dataset's first if not given.
        queries: rows.
        top: entries per row.
        choose: random valid queries, or those with the lowest or highest average precision.
        seed: of the random choice.
        metric: see ``rank_features``.
        names: write the file below every image.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.

    Raises:
        GloamError: an unknown protocol or choice, no query with a match, or an image that cannot be read.
    """
    if queries < 1 or top < 1:
        raise GloamError("A rank list needs at least one query and one match: raise --queries or --top.")
    if choose not in get_args(Choice):
        raise GloamError(f"There is no choice {choose!r} of queries. {did_you_mean(str(choose), get_args(Choice))}")
    chosen = find_protocols(splits, protocol)
    if not chosen:
        raise GloamError(f"{splits.name} has no protocol to draw.")
    rows = _rank(splits, chosen[0], query_features, gallery_features, queries, top, choose, seed, metric)
    heading = f"{chosen[0].name}, {_heading(choose, len(rows))}, d: {metric} distance"
    return draw_rows(splits.root, rows, heading, names=names)


def _rank(
    splits: DatasetSplits,
    protocol: Protocol,
    query_features: Any,
    gallery_features: Any,
    queries: int,
    top: int,
    choose: Choice,
    seed: int,
    metric: Metric,
) -> list[RankedRow]:
    selection = select(splits, protocol)
    kept_queries, kept_entries = next(trials(protocol, selection))
    query_rows, gallery_rows = selection.query[kept_queries], selection.gallery[kept_entries]
    query_records = [selection.query_side[row] for row in query_rows]
    gallery_records = [selection.gallery_side[row] for row in gallery_rows]
    plan = RankingPlan(
        [r.pid for r in query_records],
        [r.pid for r in gallery_records],
        [r.cam for r in query_records],
        [r.cam for r in gallery_records],
        camera_rule=protocol.camera_rule,
        cmc=protocol.cmc,
    )
    features = (as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features"))
    left, right = features[::-1] if selection.swapped else features
    query = left[torch.from_numpy(query_rows).to(left.device)]
    gallery = right[torch.from_numpy(gallery_rows).to(right.device)]
    for first, block in distance_blocks(query, gallery, metric):
        plan.rank_block(block, first)
    plan.metrics(1)
    shown = _choose(plan, queries, choose, seed)
    found = []
    for first, block in distance_blocks(query[torch.from_numpy(shown).to(query.device)], gallery, metric):
        for line, distances in enumerate(block, start=first):
            index = int(shown[line])
            nearest = _nearest(distances, plan.visible_to(index), top)
            entries = [gallery_records[place] for place in nearest]
            same = [entry.pid == query_records[index].pid for entry in entries]
            # Of cosine the blocks hold minus the similarity.
            lengths = [float(distances[place]) + (1.0 if metric == "cosine" else 0.0) for place in nearest]
            precision = float(plan.average_precision[index])
            found.append(RankedRow(query_records[index], entries, same, lengths, precision))
    return found


def _choose(plan: RankingPlan, count: int, choose: Choice, seed: int) -> NDArray[np.int64]:
    valid = np.flatnonzero(plan.valid)
    if choose == "random":
        return np.sort(np.random.default_rng(seed).permutation(valid)[:count])
    order = np.argsort(plan.average_precision[valid] * (1 if choose == "worst" else -1), kind="stable")
    return np.asarray(valid[order[:count]])


def _nearest(distances: torch.Tensor, visible: NDArray[np.bool_], top: int) -> list[int]:
    """The first ``top`` visible entries, ties by index."""
    hidden = torch.from_numpy(~visible)[None].to(distances.device)
    found: list[int] = nearest_columns(distances[None], min(top, int(visible.sum())), hidden)[0].tolist()
    return found


def _heading(choose: Choice, count: int) -> str:
    kinds = {"random": "random queries", "worst": "queries with the lowest AP", "best": "queries with the highest AP"}
    return f"{count} {kinds[choose]}"


def draw_rows(root: Path, rows: Sequence[RankedRow], heading: str, *, names: bool = False) -> Figure:
    """Queries with their matches, a row each.

    Args:
        root: folder that the records' paths are relative to.
        rows: what to draw.
        heading: text above.
        names: write the file (of a tracklet its first) below every image.

    Raises:
        GloamError: an image that cannot be read.
    """
    # Axes are placed by hand: automatic layouts take seconds for a hundred images.
    top = max((len(row.found) for row in rows), default=0)
    video = any(len(record.paths) > 1 for row in rows for record in (row.query, *row.found))
    size = _TRACKLET if video else _IMAGE
    # The query stands apart from its matches by half an image.
    apart = 0.5 * _IMAGE[0]
    width = _GAP + (top + 1) * (size[0] + _GAP) + apart
    shown = [record for row in rows for record in (row.query, *row.found)] if names else []
    lines = max((len(textwrap.wrap(record.paths[0], _characters(record))) for record in shown), default=0)
    line = _TITLE + size[1] + _CAPTION + _GAP + lines * _NAME * 1.25 / 72
    height = _HEAD + len(rows) * line
    figure = Figure(figsize=(width, height), facecolor="white", dpi=_PIXELS)
    figure.text(_GAP / width, 1 - 0.12 / height, heading, fontsize=12, fontweight="bold", va="top", color=QUERY)
    legend = 1 - 0.36 / height
    if any(right is not None for row in rows for right in row.right):
        figure.text(_GAP / width, legend, "✓ same identity", fontsize=10, va="top", color=RIGHT, fontweight="bold")
        figure.text(
            (_GAP + 1.45) / width, legend, "✗ another identity", fontsize=10, va="top", color=WRONG, fontweight="bold"
        )
    for number, row in enumerate(rows):
        base = height - _HEAD - number * line - _TITLE - size[1]
        for place, record in enumerate([row.query, *row.found]):
            left = _GAP + place * (size[0] + _GAP) + (apart if place else 0)
            axes = figure.add_axes((left / width, base / height, size[0] / width, size[1] / height))
            pixels = _image(root, record, round(size[0] * _PIXELS), round(size[1] * _PIXELS))
            if place == 0:
                told = "" if row.precision is None else f", AP {100 * row.precision:.1f}"
                _show(axes, pixels, record, QUERY, f"query{told}", names=names)
            else:
                sign, colour = _MARKS[row.right[place - 1]]
                _show(axes, pixels, record, colour, f"{sign}{place} · d {row.distances[place - 1]:.2f}", names=names)
    return figure


def _show(axes: Axes, pixels: NDArray[np.uint8], record: Record, colour: str, title: str, *, names: bool) -> None:
    axes.imshow(pixels, aspect="auto", interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(color=colour, linewidth=3.5)
    axes.set_title(title, fontsize=8.5, color=colour, fontweight="bold", pad=4)
    told = "" if record.pid < 0 else f"id {record.pid_raw}, "
    axes.set_xlabel(f"{told}cam {record.cam}\n{record.modality.name.lower()}", fontsize=7.5, labelpad=4)
    if names:
        text = "\n".join(textwrap.wrap(record.paths[0], _characters(record)))
        below = (0.5, -_CAPTION / (_TRACKLET if len(record.paths) > 1 else _IMAGE)[1])
        axes.text(*below, text, fontsize=_NAME, ha="center", va="top", transform=axes.transAxes, color=QUERY)


def _characters(record: Record) -> int:
    """How many characters of a file name fit below its image."""
    return round(_CHARACTERS * (_TRACKLET if len(record.paths) > 1 else _IMAGE)[0])


def _image(root: Path, record: Record, width: int, height: int) -> NDArray[np.uint8]:
    """An image, or the first, middle and last frame of a tracklet side by side."""
    last = len(record.paths) - 1
    shown = [record.paths[i] for i in dict.fromkeys((0, last // 2, last))]
    canvas = np.full((height, width, 3), 255, dtype=np.uint8)
    edges = np.linspace(0, width, len(shown) + 1).round().astype(int)
    for path, start, stop in zip(shown, edges[:-1], edges[1:], strict=True):
        inner = int(stop - start) - (3 if stop < width else 0)  # a white line between frames
        try:
            frame = read_rgb(root / path).resize((inner, height), Image.Resampling.BILINEAR)
            canvas[:, start : start + inner] = np.asarray(frame)
        except UnreadableImage as error:
            raise GloamError(
                f"Cannot read the image {root / path}: {error}. gloam data check lists such files."
            ) from error
    return canvas
