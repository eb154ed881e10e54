"""Rank lists: queries with their nearest gallery entries, right and wrong marked by colour and by sign."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from gloam.atomic import atomic_path
from gloam.datasets.records import DatasetSplits, Record
from gloam.errors import GloamError
from gloam.evaluation.protocols import find_protocols, select, trials
from gloam.evaluation.ranking import Metric, RankingPlan, distance_blocks

# Blue and orange of the Okabe-Ito palette: told apart with every kind of colour vision.
RIGHT, WRONG, QUERY = "#0072B2", "#D55E00", "#444444"


def draw_rank_list(
    splits: DatasetSplits,
    query_features: Any,
    gallery_features: Any,
    output: Path,
    *,
    protocol: str | None = None,
    queries: int = 8,
    top: int = 10,
    choose: Literal["random", "worst", "best"] = "random",
    seed: int = 0,
    metric: Metric = "cosine",
) -> Path:
    """Draw a PNG with one row per query: the query, then its nearest gallery entries of the protocol's first trial.

    Args:
        splits: the dataset.
        query_features: ``(len(splits.query), D)``.
        gallery_features: ``(len(splits.gallery), D)``.
        output: PNG file.
        protocol: name; the dataset's first if not given.
        queries: rows.
        top: entries per row.
        choose: random valid queries, or those with the lowest or highest average precision.
        seed: of the random choice.
        metric: see ``rank_features``.

    Returns:
        The path written.

    Raises:
        GloamError: an unknown protocol, or no query with a match.
    """
    if queries < 1 or top < 1:
        raise GloamError("A rank list needs at least one query and one match: raise --queries or --top.")
    chosen = find_protocols(splits, None if protocol is None else [protocol])[0]
    selection = select(splits, chosen)
    features = {"query": torch.as_tensor(query_features), "gallery": torch.as_tensor(gallery_features)}
    sides = ("gallery", "query") if selection.swapped else ("query", "gallery")
    kept_queries, kept_entries = next(trials(chosen, selection))
    query_rows, gallery_rows = selection.query[kept_queries], selection.gallery[kept_entries]
    query_records = [selection.query_side[row] for row in query_rows]
    gallery_records = [selection.gallery_side[row] for row in gallery_rows]
    plan = RankingPlan(
        [r.pid for r in query_records],
        [r.pid for r in gallery_records],
        [r.cam for r in query_records],
        [r.cam for r in gallery_records],
        camera_rule=chosen.camera_rule,
        cmc=chosen.cmc,
    )
    query, gallery = features[sides[0]][query_rows], features[sides[1]][gallery_rows]
    for first, block in distance_blocks(query, gallery, metric):
        plan.rank_block(block, first)
    plan.metrics(1)
    rows = _choose(plan, queries, choose, seed)
    distances = np.concatenate([block.copy() for _, block in distance_blocks(query[rows], gallery, metric)])
    figure = _figure(len(rows), top)
    axes = figure.subplots(len(rows), top + 1, squeeze=False)
    for line, row in enumerate(rows):
        record, precision = query_records[row], plan.average_precision[row]
        _draw(axes[line, 0], splits.root, record, QUERY, f"query  AP {100 * precision:.0f}", "")
        nearest = _nearest(distances[line], record, gallery_records, chosen.camera_rule, top)
        for place in range(top):
            if place < len(nearest):
                found = gallery_records[nearest[place]]
                match = found.pid == record.pid
                _draw(
                    axes[line, place + 1],
                    splits.root,
                    found,
                    RIGHT if match else WRONG,
                    str(place + 1),
                    "✓" if match else "✗",
                )
            else:
                axes[line, place + 1].axis("off")
    figure.suptitle(f"{chosen.name}: {choose} queries, blue ✓ same person, orange ✗ another person", fontsize=11)
    with atomic_path(output) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    return output


def _choose(plan: RankingPlan, count: int, choose: str, seed: int) -> NDArray[np.int64]:
    valid = np.flatnonzero(plan.valid)
    if choose == "random":
        return np.sort(np.random.default_rng(seed).permutation(valid)[:count])
    order = valid[np.argsort(plan.average_precision[valid], kind="stable")]
    return order[:count] if choose == "worst" else order[::-1][:count]


def _nearest(
    distances: NDArray[np.float32], query: Record, gallery: Sequence[Record], rule: str, top: int
) -> list[int]:
    """The first ``top`` entries that the camera rule leaves."""
    hidden = np.array(
        [
            (rule == "same_id_same_cam" and entry.pid == query.pid and entry.cam == query.cam)
            or (rule == "sysu" and query.cam == 3 and entry.cam == 2)
            for entry in gallery
        ]
    )
    kept = np.where(hidden, np.inf, distances)
    count = min(top, int((~hidden).sum()))
    candidates = np.argpartition(kept, count - 1)[:count] if count else np.array([], dtype=np.int64)
    return sorted(candidates.tolist(), key=lambda j: (kept[j], j))


def _figure(rows: int, top: int) -> Figure:
    return Figure(figsize=(1.05 * (top + 1) + 0.4, 2.35 * rows + 0.6), layout="constrained")


def _draw(axes: Axes, root: Path, record: Record, colour: str, title: str, sign: str) -> None:
    axes.imshow(_picture(root, record), aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(colour)
        spine.set_linewidth(3)
    axes.set_title(f"{sign} {title}".strip(), fontsize=8, color=colour, fontweight="bold", pad=3)
    axes.set_xlabel(f"id {record.pid}  cam {record.cam}\n{record.modality.name.lower()}", fontsize=6.5, labelpad=2)


def _picture(root: Path, record: Record, height: int = 192, width: int = 96) -> NDArray[np.uint8]:
    """A picture, or the first, middle and last frame of a tracklet above each other."""
    last = len(record.paths) - 1
    shown = [record.paths[0]] if last == 0 else [record.paths[i] for i in (0, last // 2, last)]
    parts = []
    for path in shown:
        with Image.open(root / path) as image:
            parts.append(np.asarray(image.convert("RGB").resize((width, height // len(shown)))))
    return np.concatenate(parts)
