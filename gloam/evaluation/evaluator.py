"""Scoring features with a dataset's protocols: trials, averages, tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.atomic import write_text
from gloam.datasets.records import DatasetSplits, Protocol, Record
from gloam.errors import GloamError, did_you_mean
from gloam.evaluation.protocols import find_protocols, select, trials
from gloam.evaluation.query_scores import QueryScores, join
from gloam.evaluation.ranking_plan import RankingPlan
from gloam.evaluation.results_file import QueryTable, ResultsFile, digest, read_results_file
from gloam.search.arrays import as_features
from gloam.search.distances import Metric, distance_blocks

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("rank1", "rank5", "rank10", "rank20", "mAP", "mINP")
RERANK_DEFAULTS: dict[str, Any] = {"k1": 20, "k2": 6, "weight": 0.3}


@dataclass(frozen=True)
class Results:
    """Scores of a model: per protocol one row of numbers per trial.

    Attributes:
        trials: protocol name -> list of ``RankingMetrics.to_dict()``.
        notes: how the scores came about (selection rule, re-ranking).
        queries: what every query scored, where that is known; read from a file only when asked for.
    """

    trials: dict[str, list[dict[str, float]]]
    notes: dict[str, str] = field(default_factory=dict)
    queries: QueryScores | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        """The first protocols, below five lines."""
        shown = list(self.trials)[:3]
        lines = [f"Results, rank-1 / mAP in percent{''.join(f'; {k}: {v}' for k, v in self.notes.items())}"]
        for name in shown:
            mean, count = self.mean(name), len(self.trials[name])
            scores = f"{100 * mean['rank1']:.2f} / {100 * mean['mAP']:.2f}"
            lines.append(f"  {name}: {scores} ({count} trial{'' if count == 1 else 's'})")
        if len(self.trials) > len(shown):
            lines.append(f"  and {len(self.trials) - len(shown)} more protocols")
        return "\n".join(lines)

    def mean(self, protocol: str) -> dict[str, float]:
        """Arithmetic mean of every number over the trials, as fractions."""
        rows = self.trials[protocol]
        return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

    def spread(self, protocol: str) -> dict[str, float]:
        """Sample standard deviation (n - 1) of every number over the trials (0 for one trial)."""
        rows = self.trials[protocol]
        return {key: float(np.std([row[key] for row in rows], ddof=min(len(rows) - 1, 1))) for key in rows[0]}

    def with_notes(self, **notes: str) -> Results:
        """A copy with more notes."""
        return replace(self, notes={**self.notes, **notes})

    def table(self) -> Table:
        """Percent with two decimals, mean and spread over the trials."""
        from rich import box
        from rich.table import Table

        dataset = next(iter(self.trials), "").split("/")[0]
        notes = "".join(f"; {key}: {value}" for key, value in self.notes.items())
        # Short heads and narrow gaps: the table fits a terminal of 80 columns.
        table = Table(title=f"{dataset}{notes}", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
        table.add_column("protocol", no_wrap=True)
        for name in ("R1", "R5", "R10", "R20", "mAP", "mINP", "valid", "trials"):
            table.add_column(name, justify="right", no_wrap=name in ("valid", "trials"), min_width=6)
        for protocol, rows in self.trials.items():
            mean, spread = self.mean(protocol), self.spread(protocol)
            cells = [_percent(mean.get(c), spread.get(c), len(rows)) for c in COLUMNS]
            table.add_row(break_name(protocol.split("/")[-1]), *cells, f"{mean['num_valid']:.0f}", str(len(rows)))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Plain values: per protocol mean, std and trials, as fractions."""
        protocols = {
            name: {"mean": self.mean(name), "std": self.spread(name), "trials": rows}
            for name, rows in self.trials.items()
        }
        return {"notes": self.notes, "protocols": protocols}

    def to_json(self, path: str | Path) -> None:
        """Write the scores (form: ``docs/results.schema.json``), and the queries' as Parquet beside; each atomically.

        The table is written first and named with its digest, so results never stand beside another run's queries.
        """
        place = Path(path)
        table = None
        if self.queries is not None:
            beside = place.with_suffix(".parquet")
            self.queries.save(beside)
            table = QueryTable(file=beside.name, rows=len(self.queries), sha256=digest(beside))
        content = ResultsFile.model_validate({**self.to_dict(), "queries": table})
        write_text(place, json.dumps(content.model_dump(mode="json", exclude_none=True), indent=2))

    def to_csv(self, path: str | Path) -> None:
        """One row per protocol and trial, then a mean and a std row, as fractions; atomically."""
        names = list(dict.fromkeys(key for rows in self.trials.values() for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, ["protocol", "trial", *names], lineterminator="\n")
        writer.writeheader()
        for protocol, rows in self.trials.items():
            labelled = [*enumerate(rows), ("mean", self.mean(protocol)), ("std", self.spread(protocol))]
            for label, row in labelled:
                writer.writerow({"protocol": protocol, "trial": label, **row})
        write_text(path, text.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, queries: bool = False) -> Results:
        """Read what :meth:`to_json` wrote, now or with an earlier gloam.

        Args:
            path: the JSON file.
            queries: read the queries' scores too.

        Raises:
            GloamError: no such file, another kind of file, or, where they are asked for, no queries' scores.
        """
        place = Path(path)
        content = read_results_file(place)
        trials = {
            name: [row.model_dump(exclude_none=True) for row in scores.trials]
            for name, scores in content.protocols.items()
        }
        table = None
        if queries:
            if content.queries is None:
                raise GloamError(
                    f"{path} has no scores of single queries (of an earlier gloam). gloam evaluate RUN writes them."
                )
            beside = place.parent / Path(content.queries.file).name
            table = QueryScores.load(beside)
            if digest(beside) != content.queries.sha256:
                raise GloamError(f"{beside} is not the table that {path} was written with. Run gloam evaluate again.")
        return cls(trials, content.notes, table)


def evaluate(
    splits: DatasetSplits,
    query_features: Any,
    gallery_features: Any,
    *,
    protocols: str | Sequence[str] | None = None,
    metric: Metric = "cosine",
    rerank: bool | Mapping[str, Any] | None = None,
    max_rank: int = 20,
) -> Results:
    """Score features with a dataset's protocols.

    Distances are computed once for all trials and protocols that rank the same queries.

    Args:
        splits: the dataset.
        query_features: ``(len(splits.query), D)`` NumPy or torch, CPU or GPU.
        gallery_features: ``(len(splits.gallery), D)``.
        protocols: names or wildcards; all of the dataset's if not given.
        metric: ``cosine`` or ``euclidean``.
        rerank: k-reciprocal re-ranking: True for ``k1=20, k2=6, weight=0.3``, or a mapping with some of these.
        max_rank: length of the CMC.

    Returns:
        Scores of every trial. Memory: 64 MiB of distances at a time, and a copy of the features where a protocol takes
        a part of the records.

    Raises:
        GloamError: wrong number of features, an unknown protocol or option, or nothing to match.
    """
    if not splits.protocols:
        return Results({})  # data for training only
    features = {"query": as_features(query_features), "gallery": as_features(gallery_features)}
    for name, found in features.items():
        if len(found) != len(getattr(splits, name)):
            raise GloamError(
                f"{len(found)} {name} features for {len(getattr(splits, name))} {name} records. Extract features of "
                "every record, in the dataset's order."
            )
    options = _rerank_options(rerank)
    jobs = list(_jobs(splits, find_protocols(splits, protocols)))
    for group in _sharing_queries(jobs):
        query_side, gallery_side = group[0].sides
        query = _rows(features[query_side], group[0].queries)
        if options is None:
            _rank_together(group, query, features[gallery_side], metric)
        else:
            for job in group:
                _rank_again(job, query, _rows(features[gallery_side], job.gallery), metric, options)
    scores: dict[str, list[dict[str, float]]] = {}
    single: list[QueryScores] = []
    for job in jobs:
        rows = scores.setdefault(job.protocol.name, [])
        records = getattr(splits, job.sides[0])
        single.append(QueryScores.of_plan(job.finished(), job.protocol.name, len(rows), job.queries, records))
        rows.append(job.finished().metrics(max_rank).to_dict())
    notes = {} if options is None else {"re-ranking": ", ".join(f"{key} {value}" for key, value in options.items())}
    return Results(scores, notes, join(single))


def combine(results: Sequence[Results]) -> Results:
    """Join the trials of several models (RegDB trains one per trial); means and spreads are then over all of them.

    Raises:
        GloamError: no results, or results of different protocols.
    """
    if not results:
        raise GloamError("There are no results to combine.")
    joined: dict[str, list[dict[str, float]]] = {}
    single: list[QueryScores] = []
    for result in results:
        if set(result.trials) != set(results[0].trials):
            raise GloamError(
                f"Results of {', '.join(results[0].trials)} cannot be averaged with results of "
                f"{', '.join(result.trials)}. Evaluate every model with the same protocols."
            )
        if result.queries is not None:
            single.append(result.queries.later({name: len(joined.get(name, ())) for name in result.trials}))
        for name, rows in result.trials.items():
            joined.setdefault(name, []).extend(rows)
    notes = dict(results[0].notes)
    if len(results) > 1:
        notes["models"] = str(len(results))
    return Results(joined, notes, join(single) if len(single) == len(results) else None)


@dataclass
class _Job:
    """One trial of a protocol: positions in the records of its two sides."""

    protocol: Protocol
    sides: tuple[str, str]
    queries: NDArray[np.int64]
    gallery: NDArray[np.int64]
    labels: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    plan: RankingPlan | None = None

    def start(self, columns: NDArray[np.int64] | None = None) -> RankingPlan:
        """A plan whose gallery lies in these columns of the blocks."""
        rules = self.protocol
        self.plan = RankingPlan(*self.labels, camera_rule=rules.camera_rule, cmc=rules.cmc, columns=columns)
        return self.plan

    def finished(self) -> RankingPlan:
        if self.plan is None:
            raise RuntimeError("a job is ranked before it is read")
        return self.plan


def _jobs(splits: DatasetSplits, protocols: Iterable[Protocol]) -> Iterator[_Job]:
    labels = {"query": _labels(splits.query), "gallery": _labels(splits.gallery)}
    for protocol in protocols:
        selection = select(splits, protocol)
        left, right = ("gallery", "query") if selection.swapped else ("query", "gallery")
        for chosen, entries in trials(protocol, selection):
            queries, gallery = selection.query[chosen], selection.gallery[entries]
            (query_pids, query_cams), (pids, cams) = labels[left], labels[right]
            columns = (query_pids[queries], pids[gallery], query_cams[queries], cams[gallery])
            yield _Job(protocol, (left, right), queries, gallery, columns)


def _sharing_queries(jobs: Iterable[_Job]) -> Iterable[list[_Job]]:
    groups: dict[tuple[str, bytes], list[_Job]] = {}
    for job in jobs:
        groups.setdefault((job.sides[0], job.queries.tobytes()), []).append(job)
    return groups.values()


def _rank_together(jobs: Sequence[_Job], query: Tensor, gallery: Tensor, metric: Metric) -> None:
    """All jobs from one pass over the distances to their pooled galleries."""
    pooled = np.unique(np.concatenate([job.gallery for job in jobs]))
    plans = []
    for job in jobs:
        columns = np.searchsorted(pooled, job.gallery)
        plans.append(job.start(None if np.array_equal(columns, np.arange(len(pooled))) else columns))
    for first, block in distance_blocks(query, _rows(gallery, pooled), metric):
        for plan in plans:
            plan.rank_block(block, first)


def _rank_again(job: _Job, query: Tensor, gallery: Tensor, metric: Metric, options: Mapping[str, Any]) -> None:
    from gloam.evaluation.rerank import rerank_blocks

    plan = job.start()
    for first, block in rerank_blocks(query, gallery, metric=metric, **options):
        plan.rank_block(block, first)


def _rerank_options(rerank: bool | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if rerank is None or rerank is False:
        return None
    given = {} if rerank is True else dict(rerank)
    for key in given:
        if key not in RERANK_DEFAULTS:
            raise GloamError(f"Re-ranking has no option {key!r}. {did_you_mean(key, RERANK_DEFAULTS)}")
    return {**RERANK_DEFAULTS, **given}


def _rows(features: Tensor, positions: NDArray[np.int64]) -> Tensor:
    """Some rows; the tensor itself where that is all of them."""
    if np.array_equal(positions, np.arange(len(features))):
        return features
    return features[torch.from_numpy(positions).to(features.device)]


def _labels(records: Sequence[Record]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and cameras."""
    return np.array([r.pid for r in records], dtype=np.int64), np.array([r.cam for r in records], dtype=np.int64)


def break_name(name: str, width: int = 20) -> str:
    """A long protocol name on several lines for narrow tables, broken before underscores."""
    lines = [""]
    for piece in name.replace("_", " _").split(" "):
        if len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(lines)


def _percent(mean: float | None, spread: float | None, count: int) -> str:
    if mean is None:
        return "-"
    return f"{100 * mean:.2f}" + (f"\n±{100 * (spread or 0):.2f}" if count > 1 else "")
