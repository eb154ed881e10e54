"""Ranking without sorting: positions of the few matches, counted instead of sorted.

A match's position is one plus the number of kept gallery entries that come before it in a stable sort, so it is enough
to sort a query's matches and to count every other entry against them: O(G log m) per query with m matches.
``rank_features`` fuses this with the distance product, block by block, and never holds a Q x G matrix.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gloam.datasets.records import CameraRule, CmcKind
from gloam.errors import GloamError
from gloam.evaluation.metrics import RankingMetrics, summarise

ApKind = Literal["standard", "grouped", "trapezoid"]
Metric = Literal["cosine", "euclidean"]

_BLOCK_BYTES = 64 * 2**20  # distances held at a time by rank_features
_CAMERA_RULES = {"none": 0, "same_id_same_cam": 1, "sysu": 2}
_CMC_KINDS = {"standard": 0, "unique_id": 1}
_AP_KINDS = {"standard": 0, "grouped": 1, "trapezoid": 2}


class RankingPlan:
    """Ids and cameras of one query set and gallery, prepared once for any number of distance blocks.

    The gallery is grouped by id, so a query's candidates for a match lie side by side. Memory: a few integers per query
    and gallery entry.

    Args:
        query_pids: ``(Q,)`` integer ids.
        gallery_pids: ``(G,)``.
        query_cams: ``(Q,)`` camera numbers.
        gallery_cams: ``(G,)``.
        camera_rule: which entries a query may not see.
        cmc: ``standard`` or ``unique_id``.
        ap: ``standard``, ``grouped`` (equal distances share a threshold) or ``trapezoid``.
    """

    def __init__(
        self,
        query_pids: Any,
        gallery_pids: Any,
        query_cams: Any,
        gallery_cams: Any,
        *,
        camera_rule: CameraRule = "none",
        cmc: CmcKind = "standard",
        ap: ApKind = "standard",
    ) -> None:
        self.query_pids, self.gallery_pids = _ids(query_pids, "query_pids"), _ids(gallery_pids, "gallery_pids")
        self.query_cams, self.gallery_cams = _ids(query_cams, "query_cams"), _ids(gallery_cams, "gallery_cams")
        for left, right, name in (
            (self.query_pids, self.query_cams, "query"),
            (self.gallery_pids, self.gallery_cams, "gallery"),
        ):
            if len(left) != len(right):
                raise GloamError(
                    f"{len(left)} {name} ids, but {len(right)} {name} cameras. Give one of each per entry."
                )
        if len(self.query_pids) == 0 or len(self.gallery_pids) == 0:
            raise GloamError(
                f"Nothing to rank: {len(self.query_pids)} queries, {len(self.gallery_pids)} gallery entries."
            )
        self.camera_rule = _choice(_CAMERA_RULES, camera_rule, "camera_rule")
        self.cmc = _choice(_CMC_KINDS, cmc, "cmc")
        self.ap = _choice(_AP_KINDS, ap, "ap")
        # Ids as 0..M-1, and the gallery's entries id by id.
        self.known, self.gallery_codes = np.unique(self.gallery_pids, return_inverse=True)
        place = np.minimum(np.searchsorted(self.known, self.query_pids), len(self.known) - 1)
        self.query_codes = np.where(self.known[place] == self.query_pids, place, -1).astype(np.int64)
        self.by_id = np.argsort(self.gallery_codes, kind="stable").astype(np.int64)
        self.starts = np.searchsorted(self.gallery_codes[self.by_id], np.arange(len(self.known) + 1)).astype(np.int64)
        queries = len(self.query_pids)
        self.valid = np.zeros(queries, dtype=np.bool_)
        self.first_hit = np.zeros(queries, dtype=np.int64)
        self.average_precision = np.zeros(queries)
        self.penalty = np.zeros(queries)

    def rank_block(self, distances: NDArray[np.float32], first: int) -> None:
        """Rank some queries.

        Args:
            distances: ``(n, G)`` float32 or float64, smaller is nearer.
            first: number of the first query of the block.

        Raises:
            GloamError: a distance is NaN.
        """
        from gloam.evaluation.kernels import rank_rows

        last = first + len(distances)
        bad = rank_rows(
            distances,
            self.query_codes[first:last],
            self.query_cams[first:last],
            self.gallery_codes,
            self.gallery_cams,
            self.by_id,
            self.starts,
            self.camera_rule,
            self.cmc,
            self.ap,
            self.valid[first:last],
            self.first_hit[first:last],
            self.average_precision[first:last],
            self.penalty[first:last],
        )
        if bad >= 0:
            raise GloamError(
                f"The distances of query {first + bad} contain NaN. A feature is probably NaN or the network diverged; "
                "check the features before ranking."
            )

    def metrics(self, max_rank: int) -> RankingMetrics:
        """Averages over everything ranked so far.

        Raises:
            GloamError: no query has a match, with the likely reason.
        """
        if not self.valid.any():
            raise GloamError(self._why_nothing_matches())
        return summarise(self.valid, self.first_hit, self.average_precision, self.penalty, max_rank)

    def _why_nothing_matches(self) -> str:
        shared = np.isin(self.query_pids, self.known)
        if not shared.any():
            return (
                "No query has a match: query and gallery share no id "
                f"(queries {self.query_pids[:3].tolist()}..., gallery {self.known[:3].tolist()}...). Are ids of "
                "different splits mixed, or numbered differently?"
            )
        cameras = np.unique(np.concatenate([self.query_cams, self.gallery_cams]))
        if len(cameras) == 1:
            return (
                f"No query has a match: every picture is from camera {cameras[0]}, and the camera rule removes matches "
                "of the query's own camera. Use camera_rule 'none' for one-camera data."
            )
        return (
            f"No query has a match: {int(shared.sum())} queries have their id in the gallery, but the camera rule "
            "removes all of those entries. Check the camera numbers."
        )


def rank_metrics(
    distances: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_cams: Any,
    gallery_cams: Any,
    *,
    camera_rule: CameraRule = "none",
    cmc: CmcKind = "standard",
    ap: ApKind = "standard",
    max_rank: int = 20,
) -> RankingMetrics:
    """Rank a gallery for every query from given distances.

    *Source*: protocols of SYSU-MM01, RegDB, LLCM, Market-1501; ties are broken by gallery index, as a stable sort does.

    Args:
        distances: ``(Q, G)`` NumPy or torch, smaller is nearer.
        query_pids: ``(Q,)`` ids.
        gallery_pids: ``(G,)`` ids.
        query_cams: ``(Q,)`` cameras.
        gallery_cams: ``(G,)`` cameras.
        camera_rule: ``none``; ``same_id_same_cam`` removes the query's own id seen by its own camera; ``sysu`` removes
            camera 2 for queries of camera 3.
        cmc: ``standard``; ``unique_id`` counts each id once, at its nearest entry.
        ap: ``standard``; ``grouped`` treats equal distances as one threshold (scikit-learn); ``trapezoid`` (original
            Market-1501 and VeRi-776 code).
        max_rank: K, length of the CMC.

    Returns:
        The metrics; memory beyond the input is a few numbers per query.

    Raises:
        GloamError: shapes that do not fit, NaN distances, or no query with a match.
    """
    array = distances.detach().cpu().numpy() if isinstance(distances, torch.Tensor) else np.asarray(distances)
    if array.dtype != np.float64:
        array = array.astype(np.float32, copy=False)
    plan = RankingPlan(query_pids, gallery_pids, query_cams, gallery_cams, camera_rule=camera_rule, cmc=cmc, ap=ap)
    expected = (len(plan.query_pids), len(plan.gallery_pids))
    if array.shape != expected:
        raise GloamError(
            f"Distances have shape {array.shape}, but there are {expected[0]} queries and {expected[1]} ids."
        )
    plan.rank_block(np.ascontiguousarray(array), 0)
    return plan.metrics(_positive(max_rank))


def rank_features(
    query_features: Any,
    gallery_features: Any,
    query_pids: Any,
    gallery_pids: Any,
    query_cams: Any,
    gallery_cams: Any,
    *,
    metric: Metric = "cosine",
    camera_rule: CameraRule = "none",
    cmc: CmcKind = "standard",
    ap: ApKind = "standard",
    max_rank: int = 20,
) -> RankingMetrics:
    """Rank a gallery for every query from features, never holding the Q x G distances.

    Args:
        query_features: ``(Q, D)`` NumPy or torch, CPU or GPU.
        gallery_features: ``(G, D)``.
        query_pids: see :func:`rank_metrics`, as all further options.
        gallery_pids: see :func:`rank_metrics`.
        query_cams: see :func:`rank_metrics`.
        gallery_cams: see :func:`rank_metrics`.
        metric: ``cosine`` (negative inner product of unit vectors) or ``euclidean``; float32.
        camera_rule: see :func:`rank_metrics`.
        cmc: see :func:`rank_metrics`.
        ap: see :func:`rank_metrics`.
        max_rank: see :func:`rank_metrics`.

    Returns:
        The metrics. Memory beyond the input: 64 MiB of distances, and a float32 unit copy of the gallery features for
        ``cosine`` (none for ``euclidean`` on float32 input).

    Raises:
        GloamError: shapes that do not fit, NaN features, or no query with a match.
    """
    plan = RankingPlan(query_pids, gallery_pids, query_cams, gallery_cams, camera_rule=camera_rule, cmc=cmc, ap=ap)
    for first, block in distance_blocks(query_features, gallery_features, metric):
        if first == 0 and block.shape[1] != len(plan.gallery_pids):
            raise GloamError(f"{block.shape[1]} gallery features, but {len(plan.gallery_pids)} gallery ids.")
        if first + len(block) > len(plan.query_pids):
            raise GloamError(f"More query features than the {len(plan.query_pids)} query ids.")
        plan.rank_block(block, first)
    return plan.metrics(_positive(max_rank))


def distance_blocks(query_features: Any, gallery_features: Any, metric: Metric = "cosine") -> Any:
    """Yield ``(first query, (n, G) float32 distances)`` in blocks of at most 64 MiB.

    Raises:
        GloamError: features of different widths, or an unknown metric.
    """
    query, gallery = _features(query_features), _features(gallery_features)
    if query.shape[1] != gallery.shape[1]:
        raise GloamError(f"Query features have {query.shape[1]} numbers, gallery features {gallery.shape[1]}.")
    if metric not in ("cosine", "euclidean"):
        raise GloamError(f"There is no metric {metric!r}. Known: cosine, euclidean.")
    rows = max(_BLOCK_BYTES // (4 * len(gallery)), 1)
    if metric == "cosine":
        gallery = torch.nn.functional.normalize(gallery, dim=1, eps=1e-12)
        squares = None
    else:
        squares = gallery.square().sum(dim=1)
    # One reused block: a fresh 64 MiB per step would be returned to the system each time.
    out = torch.empty(min(rows, len(query)), len(gallery), device=gallery.device)
    for first in range(0, len(query), rows):
        part = query[first : first + rows].to(gallery.device)
        block = out[: len(part)]
        if squares is None:
            part = torch.nn.functional.normalize(part, dim=1, eps=1e-12)
            torch.mm(part, gallery.T, out=block)
            block.neg_()
        else:
            torch.mm(part, gallery.T, out=block)
            block.mul_(-2).add_(squares).add_(part.square().sum(dim=1)[:, None])
        yield first, block.cpu().numpy()


def _features(values: Any) -> torch.Tensor:
    tensor = values.detach() if isinstance(values, torch.Tensor) else torch.from_numpy(np.asarray(values))
    if tensor.ndim != 2:
        raise GloamError(f"Features must have shape (N, D), not {tuple(tensor.shape)}.")
    return tensor.to(torch.float32)


def _ids(values: Any, name: str) -> NDArray[np.int64]:
    array = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    if array.ndim != 1:
        raise GloamError(f"{name} must be a vector, not of shape {array.shape}.")
    if array.dtype.kind not in "iub" and array.size:
        raise GloamError(f"{name} must be integers, not {array.dtype}. Map other ids to integers first.")
    return array.astype(np.int64)


def _choice(known: dict[str, int], value: str, name: str) -> int:
    from gloam.errors import did_you_mean

    if value not in known:
        raise GloamError(f"{name} {value!r} is unknown. {did_you_mean(str(value), known)}")
    return known[value]


def _positive(max_rank: int) -> int:
    if max_rank < 1:
        raise GloamError(f"max_rank must be at least 1, not {max_rank}.")
    return max_rank
