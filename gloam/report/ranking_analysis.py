"""What lies behind a protocol's score: by camera pair, by score, by number of matches, query by query.

Everything is gathered block by block from the same distances; nothing of size queries x gallery is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.evaluation.protocols import select, trials
from gloam.evaluation.ranking_plan import RankingPlan
from gloam.search.arrays import as_features
from gloam.search.distances import Metric, distance_blocks
from gloam.search.nearest import nearest_columns

RECALLS = np.linspace(0, 1, 101)
_BINS = 2000
# Scores of unit vectors: cosine similarity, or minus the Euclidean distance.
_RANGES = {"cosine": (-1.0, 1.0), "euclidean": (-2.0, 0.0)}
_MATCH_EDGES = (1, 2, 3, 5, 9, 17, 33, 65)


@dataclass(frozen=True)
class CameraPairs:
    """Scores of the queries of one camera in the gallery of one camera; NaN where the protocol allows no match.

    Attributes:
        query_cams: ``(A,)`` rows.
        gallery_cams: ``(B,)`` columns.
        rank1: ``(A, B)``.
        mAP: ``(A, B)``.
        queries: ``(A, B)`` valid queries.
    """

    query_cams: list[tuple[int, str]]
    gallery_cams: list[tuple[int, str]]
    rank1: NDArray[np.float64]
    mAP: NDArray[np.float64]
    queries: NDArray[np.int64]


@dataclass(frozen=True)
class ScoreHistograms:
    """How alike pairs of one person and pairs of two people are.

    Attributes:
        edges: ``(n + 1,)`` scores.
        right: ``(n,)`` pairs of one person.
        wrong: ``(n,)`` pairs of two people.
    """

    edges: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]

    def equal_error(self) -> tuple[float, float]:
        """Equal error rate and its threshold: as many wrong pairs reach it as right pairs miss it."""
        missed = np.concatenate([[0.0], np.cumsum(self.right) / max(self.right.sum(), 1)])
        accepted = 1 - np.concatenate([[0.0], np.cumsum(self.wrong) / max(self.wrong.sum(), 1)])
        place = int(np.argmax(missed >= accepted))
        return float((missed[place] + accepted[place]) / 2), float(self.edges[place])

    def found_at(self, rate: float) -> tuple[float, float]:
        """Share of right pairs found, and threshold, where at most a share ``rate`` of the wrong pairs is accepted."""
        accepted = 1 - np.concatenate([[0.0], np.cumsum(self.wrong) / max(self.wrong.sum(), 1)])
        found = 1 - np.concatenate([[0.0], np.cumsum(self.right) / max(self.right.sum(), 1)])
        place = int(np.argmax(accepted <= rate + 1e-12))
        return float(found[place]), float(self.edges[place])


@dataclass(frozen=True)
class ListedQuery:
    """One query with its nearest gallery entries.

    Attributes:
        kinds: "worst", "best", "random": why it is listed.
        query: its record.
        ap: average precision.
        first_match: position of the first match.
        matches: number of right entries.
        found: nearest entries, nearest first.
        right: whether each shows the query's identity.
        scores: how alike each is.
    """

    kinds: tuple[str, ...]
    query: Record
    ap: float
    first_match: int
    matches: int
    found: list[Record]
    right: list[bool]
    scores: list[float]


@dataclass(frozen=True)
class RankingAnalysis:
    """The first trial of a protocol, taken apart.

    Attributes:
        protocol: full name.
        queries: valid queries.
        gallery: gallery entries.
        precision: ``(101,)`` mean interpolated precision at ``RECALLS``.
        pairs: by camera pair.
        histograms: by score.
        by_matches: (least, most) number of matches -> mean AP and number of queries.
        listed: queries worth looking at.
    """

    protocol: str
    queries: int
    gallery: int
    precision: NDArray[np.float64]
    pairs: CameraPairs
    histograms: ScoreHistograms
    by_matches: dict[tuple[int, int], tuple[float, int]]
    listed: list[ListedQuery]


def analyse_ranking(
    splits: DatasetSplits,
    protocol: Protocol,
    query_features: Any,
    gallery_features: Any,
    *,
    metric: Metric = "cosine",
    listed: int = 24,
    top: int = 10,
    seed: int = 0,
) -> RankingAnalysis:
    """Take the first trial of a protocol apart.

    Args:
        splits: the dataset.
        protocol: one of its protocols.
        query_features: ``(len(splits.query), D)`` unit vectors.
        gallery_features: ``(len(splits.gallery), D)``.
        metric: see ``rank_features``.
        listed: so many worst, best and random queries each.
        top: gallery entries for each.
        seed: of the random queries.

    Returns:
        The parts. Time: about that of ranking twice, and a sort of the gallery's scores per query. Memory: a few blocks
        of 64 MiB.

    Raises:
        GloamError: nothing to match.
    """
    selection = select(splits, protocol)
    kept_queries, kept_entries = next(trials(protocol, selection))
    query_rows, gallery_rows = selection.query[kept_queries], selection.gallery[kept_entries]
    queries = [selection.query_side[row] for row in query_rows]
    entries = [selection.gallery_side[row] for row in gallery_rows]
    sides = as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features")
    left, right = sides[::-1] if selection.swapped else sides
    query = left[torch.from_numpy(query_rows).to(left.device)]
    gallery = right[torch.from_numpy(gallery_rows).to(right.device)]
    whole = _plan(queries, entries, protocol)
    cameras = sorted({entry.cam for entry in entries})
    places = [np.array([i for i, entry in enumerate(entries) if entry.cam == cam]) for cam in cameras]
    parts = [_plan(queries, [entries[i] for i in place], protocol, place) for place in places]
    edges = np.linspace(*_RANGES[metric], _BINS + 1)
    histograms = np.zeros((2, _BINS), dtype=np.int64)
    precision = np.zeros(len(RECALLS))
    pids = np.array([entry.pid for entry in entries])
    for first, block in distance_blocks(query, gallery, metric):
        for plan in (whole, *parts):
            plan.rank_block(block, first)
        distances = block.cpu().numpy()
        codes = ((-distances - edges[0]) * (_BINS / (edges[-1] - edges[0]))).astype(np.int32).clip(0, _BINS - 1)
        for line in range(len(distances)):
            number = first + line
            seen = whole.visible_to(number)
            same = pids == queries[number].pid
            mine, others = seen & same, seen & ~same
            histograms[0] += np.bincount(codes[line, mine], minlength=_BINS)
            histograms[1] += np.bincount(codes[line, others], minlength=_BINS)
            if mine.any():
                precision += _interpolated(distances[line, mine], distances[line, others])
    whole.metrics(1)  # tells why where nothing matches
    matches = whole.match_counts()
    return RankingAnalysis(
        protocol=protocol.name,
        queries=int(whole.valid.sum()),
        gallery=len(entries),
        precision=precision / whole.valid.sum(),
        pairs=_pairs(queries, [entries[place[0]] for place in places], parts),
        histograms=ScoreHistograms(edges, histograms[0], histograms[1]),
        by_matches=_by_matches(whole, matches),
        listed=_list(whole, matches, queries, entries, query, gallery, metric, listed, top, seed),
    )


def _plan(
    queries: Sequence[Record], entries: Sequence[Record], protocol: Protocol, columns: NDArray[np.int64] | None = None
) -> RankingPlan:
    return RankingPlan(
        [record.pid for record in queries],
        [record.pid for record in entries],
        [record.cam for record in queries],
        [record.cam for record in entries],
        camera_rule=protocol.camera_rule,
        cmc=protocol.cmc,
        columns=columns,
    )


def _interpolated(mine: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(101,)``: best precision at this recall or beyond, of one query."""
    steps = np.arange(1, len(mine) + 1)
    positions = steps + np.searchsorted(np.sort(others), np.sort(mine))
    best = np.maximum.accumulate((steps / positions)[::-1])[::-1]
    return np.asarray(best[np.maximum(np.ceil(RECALLS * len(mine) - 1e-9).astype(np.int64), 1) - 1])


def _pairs(queries: Sequence[Record], one_of_each: Sequence[Record], parts: Sequence[RankingPlan]) -> CameraPairs:
    cams = np.array([record.cam for record in queries])
    light = {record.cam: record.modality.name.lower() for record in queries}
    rows = sorted(light)
    shape = (len(rows), len(parts))
    rank1, mean = np.full(shape, np.nan), np.full(shape, np.nan)
    counts = np.zeros(shape, dtype=np.int64)
    for row, cam in enumerate(rows):
        for column, plan in enumerate(parts):
            valid = plan.valid & (cams == cam)
            counts[row, column] = valid.sum()
            if valid.any():
                rank1[row, column] = (plan.first_hit[valid] == 1).mean()
                mean[row, column] = plan.average_precision[valid].mean()
    columns = [(entry.cam, entry.modality.name.lower()) for entry in one_of_each]
    return CameraPairs([(cam, light[cam]) for cam in rows], columns, rank1, mean, counts)


def _by_matches(plan: RankingPlan, matches: NDArray[np.int64]) -> dict[tuple[int, int], tuple[float, int]]:
    found = {}
    largest = int(matches.max())
    for least, beyond in zip(_MATCH_EDGES, [*_MATCH_EDGES[1:], largest + 1], strict=True):
        inside = plan.valid & (matches >= least) & (matches < max(beyond, least + 1))
        if inside.any():
            found[least, max(beyond - 1, least)] = (float(plan.average_precision[inside].mean()), int(inside.sum()))
    return found


def _list(
    plan: RankingPlan,
    matches: NDArray[np.int64],
    queries: Sequence[Record],
    entries: Sequence[Record],
    query: torch.Tensor,
    gallery: torch.Tensor,
    metric: Metric,
    count: int,
    top: int,
    seed: int,
) -> list[ListedQuery]:
    valid = np.flatnonzero(plan.valid)
    order = valid[np.argsort(plan.average_precision[valid], kind="stable")]
    random = np.random.default_rng(seed).permutation(valid)[:count]
    kinds: dict[int, list[str]] = {}
    for name, chosen in (("worst", order[:count]), ("best", order[::-1][:count]), ("random", random)):
        for index in chosen:
            kinds.setdefault(int(index), []).append(name)
    shown = np.array(list(kinds), dtype=np.int64)
    listed = []
    for first, block in distance_blocks(query[torch.from_numpy(shown).to(query.device)], gallery, metric):
        for line, distances in enumerate(block, start=first):
            index = int(shown[line])
            visible = plan.visible_to(index)
            hidden = torch.from_numpy(~visible)[None].to(distances.device)
            nearest: list[int] = nearest_columns(distances[None], min(top, int(visible.sum())), hidden)[0].tolist()
            found = [entries[place] for place in nearest]
            listed.append(
                ListedQuery(
                    kinds=tuple(kinds[index]),
                    query=queries[index],
                    ap=float(plan.average_precision[index]),
                    first_match=int(plan.first_hit[index]),
                    matches=int(matches[index]),
                    found=found,
                    right=[entry.pid == queries[index].pid for entry in found],
                    scores=[-float(distances[place]) for place in nearest],
                )
            )
    return listed
