"""What is asked of features: search, scores, re-ranking, clusters, figures. One call each, the same words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from gloam.clustering.pseudo_labels import cluster as cluster_vectors
from gloam.datasets.records import DatasetSplits, Protocol
from gloam.errors import GloamError, did_you_mean
from gloam.evaluation.evaluator import Results
from gloam.evaluation.evaluator import evaluate as evaluate_vectors
from gloam.evaluation.rerank import rerank_blocks
from gloam.inference.features import UNKNOWN, Features
from gloam.search.nearest import nearest, nearest_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Which gallery rows a block of queries may not see: (first, stop) -> (stop - first, G) mask, or None.
Mask = Callable[[int, int], NDArray[np.bool_] | None]
Exclude = Literal["nothing", "itself", "same_camera", "same_id_same_camera"] | Mask


@dataclass(frozen=True, eq=False, repr=False)
class Matches:
    """For every query its nearest gallery rows, nearest first.

    Attributes:
        query: Q features.
        gallery: G features of the same model.
        rows: ``(Q, top)`` int64 gallery rows; -1 where a query may see fewer.
        distances: ``(Q, top)`` float32: 1 - cosine similarity, or the re-ranked distance; inf beside -1.
        reranked: whether re-ranking made the distances.
    """

    query: Features
    gallery: Features
    rows: NDArray[np.int64]
    distances: NDArray[np.float32]
    reranked: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def scores(self) -> NDArray[np.float32]:
        """``(Q, top)``, larger is more alike: the cosine similarity in [-1, 1], or 1 - distance after re-ranking."""
        return 1 - self.distances

    def of(self, query: int) -> pd.DataFrame:
        """Matches of one query: rank (from 1), score, and the gallery's columns."""
        rows = self.rows[query]
        found = rows >= 0
        table: pd.DataFrame = self.gallery.columns.iloc[rows[found]].reset_index(drop=True)
        table.insert(0, "score", self.scores[query][found])
        table.insert(0, "rank", np.arange(1, int(found.sum()) + 1))
        return table

    def to_frame(self) -> pd.DataFrame:
        """All matches, query after query: the query's row and path before the columns of :meth:`of`."""
        parts = []
        for query, path in enumerate(self.query.columns["path"]):
            part = self.of(query)
            part.insert(0, "query_path", path)
            part.insert(0, "query", query)
            parts.append(part)
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def __iter__(self) -> Iterator[pd.DataFrame]:
        return (self.of(query) for query in range(len(self)))

    def __repr__(self) -> str:
        kind = "re-ranked" if self.reranked else "cosine similarity"
        return (
            f"Matches of {len(self.query):,} queries among {len(self.gallery):,} gallery rows\n"
            f"  top {self.rows.shape[1]}, {kind}\n"
            f"  model {self.query.fingerprint}"
        )


def search(query: Features, gallery: Features, *, top: int = 10, exclude: Exclude = "nothing") -> Matches:
    """The gallery rows most similar to every query, exact, ties by gallery row.

    Args:
        query: Q features.
        gallery: G features of the same model.
        top: matches per query.
        exclude: what a query may not find: ``nothing``; ``itself`` (rows with its path); ``same_camera``;
            ``same_id_same_camera`` (the benchmarks' rule); or a function ``(first, stop) -> (stop - first, G)`` mask of
            the rows that queries ``first .. stop - 1`` may not see.

    Returns:
        The matches. Memory: 64 MiB of distances at a time, never Q x G.

    Raises:
        GloamError: features of different models, nothing to search, or an unknown rule.
    """
    query.require_same_model(gallery)
    rows, distances = nearest(query.vectors, gallery.vectors, top, exclude=_mask(query, gallery, exclude))
    return Matches(query, gallery, rows, distances)


def rerank(
    query: Features,
    gallery: Features,
    *,
    top: int = 10,
    exclude: Exclude = "nothing",
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> Matches:
    """:func:`search` in the order of k-reciprocal re-ranking over the whole gallery.

    Args:
        query: Q features.
        gallery: G features of the same model.
        top: matches per query.
        exclude: see :func:`search`. Rows are left out of the lists; neighbourhoods are those of all rows.
        k1: see :func:`gloam.evaluation.rerank.k_reciprocal`.
        k2: see there.
        weight: see there.

    Raises:
        GloamError: what :func:`search` raises, or options out of range.
    """
    query.require_same_model(gallery)
    mask = _mask(query, gallery, exclude)
    rows = np.full((len(query), top), -1, dtype=np.int64)
    distances = np.full((len(query), top), np.inf, dtype=np.float32)
    for first, block in rerank_blocks(query.vectors, gallery.vectors, k1=k1, k2=k2, weight=weight):
        stop = first + len(block)
        hidden = None if mask is None else mask(first, stop)
        found = nearest_columns(torch.from_numpy(block), top, None if hidden is None else torch.from_numpy(hidden))
        rows[first:stop] = found.numpy()
        seen = rows[first:stop] >= 0
        distances[first:stop][seen] = np.take_along_axis(block, np.maximum(rows[first:stop], 0), axis=1)[seen]
    return Matches(query, gallery, rows, distances, reranked=True)


def evaluate(
    query: Features,
    gallery: Features,
    protocol: Protocol | DatasetSplits | Iterable[Protocol] | None = None,
    *,
    rerank: bool | Mapping[str, Any] | None = None,
    max_rank: int = 20,
) -> Results:
    """Score features against the identities in their tables.

    Args:
        query: Q features with known ``pid``.
        gallery: G features of the same model with known ``pid``.
        protocol: a protocol, several, or a dataset (all of its protocols). Default: every query against the whole
            gallery, where rows of the query's own identity and camera do not count.
        rerank: see :func:`gloam.evaluation.evaluator.evaluate`.
        max_rank: length of the CMC.

    Raises:
        GloamError: features of different models, unknown identities, or no query with a match.
    """
    query.require_same_model(gallery)
    for name, side in (("query", query), ("gallery", gallery)):
        unknown = int((side.columns["pid"].astype(str) == str(UNKNOWN)).sum())
        if unknown == len(side):
            raise GloamError(f"No {name} feature has an identity (column pid), so nothing can be scored.")
    if isinstance(protocol, DatasetSplits):
        protocols = list(protocol.protocols.values())
    elif isinstance(protocol, Protocol):
        protocols = [protocol]
    else:
        protocols = list(protocol) if protocol is not None else [Protocol("own/all", "every query, whole gallery")]
    records = (query + gallery.to(query.vectors.device)).records()
    splits = DatasetSplits(
        name=protocols[0].name.split("/")[0] if protocols else "own",
        root=Path(),
        train=(),
        query=tuple(records[: len(query)]),
        gallery=tuple(records[len(query) :]),
        protocols={one.name: one for one in protocols},
        label_map={},
    )
    return evaluate_vectors(splits, query.vectors, gallery.vectors, rerank=rerank, max_rank=max_rank)


def cluster(features: Features, *, eps: float, min_samples: int = 4, k1: int = 30, k2: int = 6) -> NDArray[np.int64]:
    """Groups of features that look like one identity: DBSCAN on the Jaccard distance of k-reciprocal encodings.

    Returns:
        ``(N,)`` group numbers, -1 for rows in no group; see :func:`gloam.clustering.pseudo_labels.cluster`.
    """
    labels = cluster_vectors(features.vectors, eps=eps, min_samples=min_samples, k1=k1, k2=k2)
    return np.asarray(labels, dtype=np.int64)


def draw(matches: Matches, root: str | Path = ".", *, queries: int = 8, top: int = 10) -> Figure:
    """The first queries with their first matches as a figure; right and wrong are marked where identities are known.

    Args:
        matches: from :func:`search` or :func:`rerank`.
        root: folder that the paths in the tables are relative to.
        queries: rows of the figure.
        top: matches per row.

    Returns:
        The figure; :func:`gloam.visualize.figure_files.save_figure` writes it.

    Raises:
        GloamError: an image that cannot be read.
    """
    from gloam.visualize.rank_list import RankedRow, draw_rows

    shown = range(min(queries, len(matches)))
    asked, known = matches.query.take(np.array(shown, dtype=np.int64)).records(), matches.gallery.columns["pid"]
    rows = []
    for number in shown:
        places = matches.rows[number][:top]
        found = matches.gallery.take(places[places >= 0])
        own = matches.query.columns["pid"].iloc[number]
        right = [None if UNKNOWN in (own, other) else bool(own == other) for other in known.iloc[places[places >= 0]]]
        rows.append(RankedRow(asked[number], found.records(), right, matches.distances[number].tolist()))
    return draw_rows(Path(root), rows, f"{len(rows)} queries and their matches")


def _mask(query: Features, gallery: Features, exclude: Exclude) -> Mask | None:
    """The rule as a function of a block of queries."""
    if callable(exclude):
        return exclude
    if exclude == "nothing":
        return None
    names = {"itself": ("path",), "same_camera": ("cam",), "same_id_same_camera": ("pid", "cam")}
    if exclude not in names:
        raise GloamError(f"There is no rule {exclude!r}. {did_you_mean(str(exclude), ['nothing', *names])}")
    columns = [(query.columns[name].to_numpy(), gallery.columns[name].to_numpy()) for name in names[exclude]]

    def hidden(first: int, stop: int) -> NDArray[np.bool_]:
        masks = [left[first:stop, None] == right[None] for left, right in columns]
        hidden_rows: NDArray[np.bool_] = np.logical_and.reduce(masks)
        return hidden_rows

    return hidden
