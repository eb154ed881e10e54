"""Scoring features with a dataset's protocols: trials, averages, tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from gloam.atomic import write_text
from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.errors import GloamError
from gloam.evaluation.metrics import RankingMetrics
from gloam.evaluation.protocols import Selection, find_protocols, select, trials
from gloam.evaluation.ranking import Metric, RankingPlan, distance_blocks

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")


@dataclass(frozen=True)
class Results:
    """Scores of a model: per protocol one row of numbers per trial.

    Attributes:
        trials: protocol name -> list of ``RankingMetrics.to_dict()``.
        notes: how the scores came about (selection rule, re-ranking).
    """

    trials: dict[str, list[dict[str, float]]]
    notes: dict[str, str] = field(default_factory=dict)

    def mean(self, protocol: str) -> dict[str, float]:
        """Arithmetic mean of every number over the trials, as fractions."""
        rows = self.trials[protocol]
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def spread(self, protocol: str) -> dict[str, float]:
        """Standard deviation of every number over the trials (0 for one trial)."""
        rows = self.trials[protocol]
        return {key: float(np.std([row[key] for row in rows], ddof=min(len(rows) - 1, 1))) for key in rows[0]}

    def with_notes(self, **notes: str) -> Results:
        """A copy with more notes."""
        return replace(self, notes={**self.notes, **notes})

    def table(self) -> Table:
        """Percent with two decimals, mean and spread over the trials."""
        from rich.table import Table

        dataset = next(iter(self.trials), "").split("/")[0]
        notes = "".join(f"; {key}: {value}" for key, value in self.notes.items())
        table = Table(title=f"{dataset}{notes}", title_justify="left")
        table.add_column("protocol", no_wrap=True)
        for name in (*COLUMNS, "valid", "trials"):
            table.add_column(name, justify="right", min_width=5)
        for protocol, rows in self.trials.items():
            mean, spread = self.mean(protocol), self.spread(protocol)
            cells = [_percent(mean.get(c), spread.get(c), len(rows)) for c in COLUMNS]
            table.add_row(protocol.split("/")[-1], *cells, f"{mean['num_valid']:.0f}", str(len(rows)))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values: per protocol mean, std and trials, as fractions."""
        protocols = {
            name: {"mean": self.mean(name), "std": self.spread(name), "trials": rows}
            for name, rows in self.trials.items()
        }
        return {"notes": self.notes, "protocols": protocols}

    def to_json(self, path: str | Path) -> None:
        """Write :meth:`to_dict`, atomically."""
        write_text(path, json.dumps(self.to_dict(), indent=2))

    def to_csv(self, path: str | Path) -> None:
        """One row per protocol and trial, and a mean and std row, as fractions; atomically."""
        names = list(dict.fromkeys(key for rows in self.trials.values() for row in rows for key in row))
        lines = [",".join(["protocol", "trial", *names])]
        for protocol, rows in self.trials.items():
            labelled = [*((str(i), row) for i, row in enumerate(rows)), ("mean", self.mean(protocol))]
            for label, row in [*labelled, ("std", self.spread(protocol))]:
                lines.append(",".join([protocol, label, *(repr(row.get(name, "")) for name in names)]))
        write_text(path, "\n".join(lines) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read what :meth:`to_json` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return cls({name: value["trials"] for name, value in content["protocols"].items()}, content["notes"])


def evaluate(
    splits: DatasetSplits,
    query_features: Any,
    gallery_features: Any,
    *,
    protocols: Sequence[str] | None = None,
    metric: Metric = "cosine",
    rerank: bool = False,
    max_rank: int = 20,
) -> Results:
    """Score features with a dataset's protocols.

    Args:
        splits: the dataset.
        query_features: ``(len(splits.query), D)`` NumPy or torch.
        gallery_features: ``(len(splits.gallery), D)``.
        protocols: names or wildcards; all of the dataset's if not given.
        metric: ``cosine`` or ``euclidean``.
        rerank: k-reciprocal re-ranking with its published defaults; needs the dense distances of each trial.
        max_rank: length of the CMC.

    Returns:
        Scores of every trial. Memory: 64 MiB of distances at a time (without re-ranking).

    Raises:
        GloamError: wrong number of features, an unknown protocol, or nothing to match.
    """
    features = {"query": _tensor(query_features), "gallery": _tensor(gallery_features)}
    for name, found in features.items():
        if len(found) != len(getattr(splits, name)):
            raise GloamError(f"{len(found)} {name} features for {len(getattr(splits, name))} {name} records.")
    scores = {}
    for protocol in find_protocols(splits, protocols):
        selection = select(splits, protocol)
        sides = ("gallery", "query") if selection.swapped else ("query", "gallery")
        query, gallery = features[sides[0]][selection.query], features[sides[1]][selection.gallery]
        rank = _rank_reranked if rerank else _rank_trials
        scores[protocol.name] = [m.to_dict() for m in rank(protocol, selection, query, gallery, metric, max_rank)]
    return Results(scores, {"re-ranking": "k-reciprocal, k1 20, k2 6, weight 0.3"} if rerank else {})


def combine(results: Sequence[Results]) -> Results:
    """Join the trials of several models (RegDB trains one per trial); means and spreads are then over all of them."""
    joined: dict[str, list[dict[str, float]]] = {}
    for result in results:
        for name, rows in result.trials.items():
            joined.setdefault(name, []).extend(rows)
    notes = dict(results[0].notes)
    if len(results) > 1:
        notes["models"] = str(len(results))
    return Results(joined, notes)


def _rank_trials(
    protocol: Protocol,
    selection: Selection,
    query: torch.Tensor,
    gallery: torch.Tensor,
    metric: Metric,
    max_rank: int,
) -> list[RankingMetrics]:
    """All trials from one pass over the distances to the pooled gallery."""
    drawn = list(trials(protocol, selection))
    plans = [_plan(protocol, selection, queries, entries) for queries, entries in drawn]
    if protocol.sampled == "query":
        return [
            _finish(plan, distance_blocks(query[queries], gallery[entries], metric), None, max_rank)
            for plan, (queries, entries) in zip(plans, drawn, strict=True)
        ]
    pooled = np.unique(np.concatenate([entries for _, entries in drawn]))
    columns = [np.searchsorted(pooled, entries) for _, entries in drawn]
    for first, block in distance_blocks(query, gallery[pooled], metric):
        for plan, chosen in zip(plans, columns, strict=True):
            plan.rank_block(np.ascontiguousarray(block[:, chosen]) if len(chosen) < len(pooled) else block, first)
    return [plan.metrics(max_rank) for plan in plans]


def _finish(plan: RankingPlan, blocks: Any, columns: NDArray[np.int64] | None, max_rank: int) -> RankingMetrics:
    for first, block in blocks:
        plan.rank_block(block if columns is None else np.ascontiguousarray(block[:, columns]), first)
    return plan.metrics(max_rank)


def _rank_reranked(
    protocol: Protocol,
    selection: Selection,
    query: torch.Tensor,
    gallery: torch.Tensor,
    metric: Metric,
    max_rank: int,
) -> list[RankingMetrics]:
    from gloam.evaluation.rerank import rerank_features

    found = []
    for queries, entries in trials(protocol, selection):
        plan = _plan(protocol, selection, queries, entries)
        plan.rank_block(rerank_features(query[queries], gallery[entries], metric=metric), 0)
        found.append(plan.metrics(max_rank))
    return found


def _plan(
    protocol: Protocol, selection: Selection, queries: NDArray[np.int64], entries: NDArray[np.int64]
) -> RankingPlan:
    query = _columns(selection.query_side, selection.query[queries])
    gallery = _columns(selection.gallery_side, selection.gallery[entries])
    return RankingPlan(query[0], gallery[0], query[1], gallery[1], camera_rule=protocol.camera_rule, cmc=protocol.cmc)


def _columns(records: Sequence[Record], positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    chosen = [records[position] for position in positions]
    return np.array([r.pid for r in chosen]), np.array([r.cam for r in chosen])


def _tensor(values: Any) -> torch.Tensor:
    return values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))


def _percent(mean: float | None, spread: float | None, count: int) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + (f" ±{100 * (spread or 0):.2f}" if count > 1 else "")
