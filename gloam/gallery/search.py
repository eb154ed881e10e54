"""The search itself: filter, expand, feedback, re-rank, group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gloam.errors import GloamError
from gloam.gallery.confidence import Judge, judge
from gloam.gallery.contract import Catalogue
from gloam.gallery.engines.contract import Float, VectorIndex, exact_scores
from gloam.gallery.hits import Hit, Hits
from gloam.gallery.query import SHOWN, Query, expand, feedback
from gloam.gallery.rows import MODALITIES, Row, plain
from gloam.gallery.thumbnails import thumbnail_of
from gloam.gallery.where import Where

Group = Literal["tracklet", "person"]
GroupScore = Literal["best", "mean"]
MOST_RERANKED = 200  # their neighbours included, at most 4,200 rows and 71 MB of distances
NEIGHBOURS = 20  # of every re-ranked row


@dataclass(frozen=True)
class Ask:
    """How to search.

    Attributes:
        top: hits (or groups) wanted.
        where: which rows may be found.
        group: one hit per tracklet or person.
        group_score: score of a group: of its best row, or the mean of its best ``group_top``.
        group_top: see there; a smaller group takes the mean of all.
        rerank: re-rank so many of the best by k-reciprocal neighbours; 0: do not. Groups then come in the order of
            their first rows.
        expand: mean the query with so many neighbours first; 0: do not.
        like: keys of rows that show the person.
        unlike: keys of rows that do not.
        exact: compare every row.
        fmr: only what keeps this false match rate; None: everything.
        prior: probability that a row shows the one who is asked for, before they are compared; None: no probabilities.
    """

    top: int = 20
    where: Where = field(default_factory=Where)
    group: Group | None = None
    group_score: GroupScore = "best"
    group_top: int = 3
    rerank: int = 0
    expand: int = 0
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    exact: bool = False
    fmr: float | None = None
    prior: float | None = None

    def check(self) -> None:
        """Raises GloamError for options out of range or that exclude each other."""
        if self.top < 1 or self.group_top < 1 or self.expand < 0:
            raise GloamError("A search needs --top of at least 1, and no negative numbers.")
        if not 0 <= self.rerank <= MOST_RERANKED:
            raise GloamError(f"Re-ranking takes 1 to {MOST_RERANKED} rows (with their neighbours), not {self.rerank}.")
        if self.group not in (None, "tracklet", "person"):
            raise GloamError(f"Rows can be grouped by tracklet or person, not by {plain(self.group)!r}.")
        if self.group_score not in ("best", "mean"):
            raise GloamError(f"A group's score is best or mean, not {plain(self.group_score)!r}.")
        if self.group and self.rerank and self.group_score == "mean":
            raise GloamError("Re-ranked groups come in the order of their best rows: leave out --group-score mean.")
        if self.fmr is not None and self.rerank:
            raise GloamError("Re-ranked distances have no false match rate: give one of --fmr and --rerank.")
        if both := set(self.like) & set(self.unlike):
            raise GloamError(f"{plain(min(both))!r} is marked as like and as unlike.")


Entry = tuple[str, float, "float | None", "str | None", tuple[str, ...]]  # key, score, distance, group, members


@dataclass
class _Searcher:
    """One query on its way through the engine, without the rows that it was made from."""

    index: VectorIndex
    ask: Ask
    without: frozenset[str]
    exact: bool = True

    def __call__(self, queries: Float, top: int) -> tuple[list[list[str]], list[Float]]:
        """Keys and scores of the best ``top`` of every query."""
        found = self.index.search(queries, top + len(self.without), self.ask.where, self.ask.exact)
        self.exact &= found.exact
        keys, scores = [], []
        for names, values in zip(found.keys, found.scores, strict=True):
            keep = [place for place, name in enumerate(names) if name not in self.without][:top]
            keys.append([str(names[place]) for place in keep])
            scores.append(values[keep])
        return keys, scores


def find(query: Query, ask: Ask, catalogue: Catalogue, index: VectorIndex, *, notes: Sequence[str] = ()) -> Hits:
    """Search one person.

    Raises:
        GloamError: options out of range, unknown keys.
    """
    ask.check()
    search = _Searcher(index, ask, frozenset(query.keys))
    vector, told = query.vector, list(query.notes)
    if ask.expand:
        vector = _expanded(vector, ask.expand, search)
    if ask.like or ask.unlike:
        before, _ = search(vector[None], ask.top)
        vector = feedback(vector, _vectors(index, ask.like), _vectors(index, ask.unlike))
        after, _ = search(vector[None], ask.top)
        came, went = len(set(after[0]) - set(before[0])), len(set(before[0]) - set(after[0]))
        told.append(
            f"feedback: {came} of {len(after[0])} rows are new, {went} fell below rank {ask.top}; none is hidden, "
            "marked rows stay in the list"
        )
    judged = judge(catalogue.space, ask, modality=query.modality, count=query.size)
    if ask.fmr is None:
        found = _found(vector, ask, search, catalogue, index)
    else:
        found, said = _matches(vector, ask, ask.fmr, judged, search, catalogue, index)
        told.append(said)
    rows = catalogue.rows([entry[0] for entry in found])
    marks = {**dict.fromkeys(ask.like, "like"), **dict.fromkeys(ask.unlike, "unlike")}
    hits = tuple(
        Hit(
            score,
            rows[key],
            group,
            members,
            distance,
            marks.get(key, ""),
            judged.probability(score, rows[key].modality),
            ask.prior,
        )
        for key, score, distance, group, members in found
        if key in rows  # erased between the two reads
    )
    if ask.rerank:
        told.append(f"the best {ask.rerank} are in the order of their re-ranked distances, the others of their scores")
    told.append(_how(search.exact, catalogue))
    told += judged.notes(sorted({hit.row.modality for hit in hits}))

    def again(like: Sequence[str], unlike: Sequence[str]) -> Hits:
        liked = tuple(dict.fromkeys((*(key for key in ask.like if key not in unlike), *like)))
        unliked = tuple(dict.fromkeys((*(key for key in ask.unlike if key not in like), *unlike)))
        return find(query, replace(ask, like=liked, unlike=unliked), catalogue, index, notes=notes)

    def asked() -> list[bytes]:
        stored = catalogue.thumbnails(query.keys[:SHOWN])
        known = [row for key, row in catalogue.rows(query.keys[:SHOWN]).items() if key not in stored]
        found = [*query.images, *stored.values(), *(image for row in known if (image := thumbnail_of(row)) is not None)]
        return found[:SHOWN]

    every = tuple(note for note in (*notes, *told) if note)
    return Hits(hits, every, search.exact, again, catalogue.thumbnails, asked)


def _matches(
    vector: Float, ask: Ask, fmr: float, judged: Judge, search: _Searcher, catalogue: Catalogue, index: VectorIndex
) -> tuple[list[Entry], str]:
    """Rows (or groups, by their best row) that reach the threshold of their modality, and a sentence about it.

    Each modality is searched for itself: rows of the one that are below their threshold would else take the places of
    rows of the other that are above theirs.
    """
    only = ask.where.modality_number
    parts = {kind: replace(ask.where, modality=word) for kind, word in MODALITIES.items() if only in (None, kind)}
    counts = {kind: count for kind, where in parts.items() if (count := index.count(where))}
    thresholds = judged.thresholds(fmr, counts)
    found: dict[tuple[str, str], Entry] = {}
    for kind, threshold in thresholds.items():
        part = replace(ask, where=parts[kind])
        searcher = _Searcher(index, part, search.without)
        for entry in _found(vector, part, searcher, catalogue, index):
            if entry[1] < threshold:
                continue
            name = ("alone", entry[0]) if entry[3] is None else ("group", entry[3])
            # A person may be seen in both modalities: one group, by its best row.
            first, second = sorted((entry, found.get(name, entry)), key=lambda one: (-one[1], one[0]))
            members = first[4] if first is second else first[4] + second[4]
            found[name] = (*first[:4], members)
        search.exact &= searcher.exact
    entries = sorted(found.values(), key=lambda entry: (-entry[1], entry[0]))[: ask.top]
    least = ", ".join(f"{threshold:.3f} ({judged.pair(kind)})" for kind, threshold in thresholds.items())
    strangers = fmr * sum(counts.values())
    note = (
        f"false match rate {fmr:g}: scores from {least} on; among {sum(counts.values()):,} rows of other people about "
        f"{strangers:,.{0 if strangers >= 10 else 1}f} reach that by chance"
    )
    return entries, note if thresholds else ""


def _found(vector: Float, ask: Ask, search: _Searcher, catalogue: Catalogue, index: VectorIndex) -> list[Entry]:
    if ask.group:
        return (_grouped_in_order if ask.rerank else _grouped)(vector, ask, search, catalogue, index)
    return _ranked(vector, ask, search, index)


def _how(exact: bool, catalogue: Catalogue) -> str:
    if exact:
        return "exact: every row that matches was compared"
    tuning = catalogue.space.tuning
    if tuning is None:
        return "by codes: recall not measured yet (gloam gallery info --measure); --exact compares every row"
    return (
        f"by codes: {tuning['oversampling']} candidates a hit, recall@10 {tuning['recall']:.3f} measured on "
        f"{tuning['queries']} stored rows; --exact compares every row"
    )


def _ranked(vector: Float, ask: Ask, search: _Searcher, index: VectorIndex) -> list[Entry]:
    rows = _ordered(vector, ask.top, ask, search, index)
    return [(key, score, distance, None, (key,)) for key, score, distance in rows[: ask.top]]


def _ordered(
    vector: Float, count: int, ask: Ask, search: _Searcher, index: VectorIndex
) -> list[tuple[str, float, float | None]]:
    """Keys, scores and re-ranked distances of the best ``count`` rows, or of all that are re-ranked."""
    (keys,), (scores,) = search(vector[None], max(count, ask.rerank))
    distances: list[float | None] = [None] * len(keys)
    if ask.rerank and keys:
        first = min(ask.rerank, len(keys))
        order, reranked = _rerank(vector, keys[:first], search, index)
        keys = [keys[place] for place in order] + keys[first:]
        scores = np.concatenate([scores[:first][order], scores[first:]])
        distances[:first] = [float(reranked[place]) for place in order]
    return list(zip(keys, scores.tolist(), distances, strict=True))


def _grouped_in_order(
    vector: Float, ask: Ask, search: _Searcher, catalogue: Catalogue, index: VectorIndex
) -> list[Entry]:
    """Groups in the order of their first rows after re-ranking; more rows are fetched until there are enough groups."""
    wanted = max(4 * ask.top, ask.rerank)
    while True:
        found = _ordered(vector, wanted, ask, search, index)
        rows = catalogue.rows([key for key, _, _ in found])
        groups: dict[tuple[str, str], list[tuple[str, float, float | None]]] = {}
        for entry in found:
            if entry[0] in rows:
                groups.setdefault(_group_of(rows[entry[0]], ask.group), []).append(entry)
        if len(groups) >= ask.top or len(found) < wanted:
            return [
                (*members[0], name if kind == "group" else None, tuple(key for key, _, _ in members))
                for (kind, name), members in list(groups.items())[: ask.top]
            ]
        wanted *= 2


def _rerank(
    vector: Float, keys: Sequence[str], search: _Searcher, index: VectorIndex
) -> tuple[NDArray[np.int64], Float]:
    """Order of the best rows by k-reciprocal distance among them and their own neighbours, and the distances.

    Reciprocity is decided outside of the best rows too: without their neighbours most of its gain is lost.
    """
    from gloam.evaluation.rerank import rerank_blocks

    best = index.vectors(keys)
    around, _ = search(best, NEIGHBOURS)
    others = sorted({key for names in around for key in names} - set(keys))
    gallery = np.concatenate([best, index.vectors(others)]) if others else best
    _, block = next(rerank_blocks(vector[None], gallery))  # one query is one block
    distances = block[0, : len(keys)]
    order = np.array(sorted(range(len(keys)), key=lambda place: (distances[place], keys[place])), dtype=np.int64)
    return order, distances


def _grouped(vector: Float, ask: Ask, search: _Searcher, catalogue: Catalogue, index: VectorIndex) -> list[Entry]:
    """The best groups. More and more rows are fetched until no unseen group can be among them."""
    wanted = 4 * ask.top
    while True:
        (keys,), (scores,) = search(vector[None], wanted)
        rows = catalogue.rows(keys)
        groups: dict[tuple[str, str], list[tuple[str, float]]] = {}
        for key, score in zip(keys, scores.tolist(), strict=True):
            if key in rows:
                groups.setdefault(_group_of(rows[key], ask.group), []).append((key, score))
        complete = len(keys) < wanted
        if ask.group_score == "mean":
            _complete_groups(groups, vector, ask, search, catalogue, index)
        ranked = sorted(
            ((_group_score(members, ask), members[0][0], name, members) for name, members in groups.items()),
            key=lambda entry: (-entry[0], entry[1]),
        )[: ask.top]
        # A group that was not seen has no row above the last one fetched, so neither a better mean.
        if complete or (len(ranked) == ask.top and ranked[-1][0] > float(scores[-1])):
            return [
                (key, score, None, name[1] if name[0] == "group" else None, tuple(member for member, _ in members))
                for score, key, name, members in ranked
            ]
        wanted *= 2


def _group_of(row: Row, group: Group | None) -> tuple[str, str]:
    """Name of a row's group; rows without one stand alone."""
    name = row.tracklet if group == "tracklet" else row.person
    return ("alone", row.key) if name is None else ("group", name)


def _group_score(members: Sequence[tuple[str, float]], ask: Ask) -> float:
    scores = [score for _, score in members]
    return scores[0] if ask.group_score == "best" else float(np.mean(scores[: ask.group_top]))


def _complete_groups(
    groups: dict[tuple[str, str], list[tuple[str, float]]],
    vector: Float,
    ask: Ask,
    search: _Searcher,
    catalogue: Catalogue,
    index: VectorIndex,
) -> None:
    """Score the rows of groups that were seen in part only, so that means do not depend on how many were fetched."""
    names = tuple(name for (kind, name), members in groups.items() if kind == "group" and len(members) < ask.group_top)
    if not names:
        return
    where = replace(ask.where, tracklets=names) if ask.group == "tracklet" else replace(ask.where, persons=names)
    for block in catalogue.scan(where):
        rows = [row for row in block if row.key not in search.without]
        scores = exact_scores(index.vectors([row.key for row in rows]), vector) if rows else np.empty(0)
        for row, score in zip(rows, scores.tolist(), strict=True):
            members = groups[_group_of(row, ask.group)]
            if all(row.key != key for key, _ in members):
                members.append((row.key, score))
    for members in groups.values():
        members.sort(key=lambda member: (-member[1], member[0]))


def _expanded(vector: Float, count: int, search: _Searcher) -> Float:
    keys, _ = search(vector[None], count)
    return expand(vector, search.index.vectors(keys[0])) if keys[0] else vector


def _vectors(index: VectorIndex, keys: Sequence[str]) -> Float:
    return index.vectors(keys) if keys else np.empty((0, 0), np.float32)
