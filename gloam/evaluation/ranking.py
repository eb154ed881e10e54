"""Ranking without sorting: positions of the few matches, counted instead of sorted.

A match's position is one plus the number of kept gallery entries that come before it in a stable sort, so it is enough
to sort a query's matches and to count the other entries against them. ``rank_features`` fuses this with the distance
product, block by block, and never holds a Q x G matrix. The counting is compiled on CPUs (``ranking_kernels.py``) and
made of tensor operations on accelerators (``ranking_tensor.py``).
"""

from __future__ import annotations

from typing import Any

from gloam.datasets.records import CameraRule, CmcKind
from gloam.errors import GloamError
from gloam.evaluation.metrics import RankingMetrics
from gloam.evaluation.ranking_plan import ApKind, RankingPlan, check_max_rank
from gloam.search.arrays import as_distances, as_features, comparable
from gloam.search.distances import Metric, block_rows, distance_blocks

__all__ = ["ApKind", "Metric", "RankingMetrics", "RankingPlan", "distance_blocks", "rank_features", "rank_metrics"]


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

    *Source*: the evaluators of the SYSU-MM01, RegDB, LLCM and Market-1501 releases. Deliberate differences: ties are
    broken by gallery index, as a stable sort does (theirs depend on the machine), the CMC of a list shorter than K
    keeps its last value (theirs raise, or read stale memory), and NaN raises.

    Args:
        distances: ``(Q, G)`` NumPy or torch, CPU or GPU, smaller is nearer. float64 and integers are compared as
            float64, other types as float32.
        query_pids: ``(Q,)`` integer ids.
        gallery_pids: ``(G,)`` ids.
        query_cams: ``(Q,)`` cameras.
        gallery_cams: ``(G,)`` cameras.
        camera_rule: ``none``; ``same_id_same_cam`` removes the query's own id seen by its own camera; ``sysu`` removes
            everything of camera 2 for queries of camera 3.
        cmc: ``standard``; ``unique_id`` counts each id once, at its nearest entry.
        ap: ``standard``; ``grouped`` treats equal distances as one threshold (scikit-learn); ``trapezoid`` (original
            Market-1501 and VeRi-776 code).
        max_rank: K, length of the CMC.

    Returns:
        The metrics. Memory beyond the input: a few numbers per query and gallery entry (on a GPU about ten times 64
        MiB).

    Raises:
        GloamError: no numbers, shapes that do not fit, NaN distances, or no query with a match.
    """
    plan = RankingPlan(query_pids, gallery_pids, query_cams, gallery_cams, camera_rule=camera_rule, cmc=cmc, ap=ap)
    max_rank = check_max_rank(max_rank)
    matrix = as_distances(distances, "Distances")
    expected = (len(plan.query_pids), len(plan.gallery_pids))
    if tuple(matrix.shape) != expected:
        raise GloamError(
            f"Distances have shape {tuple(matrix.shape)}, but there are {expected[0]} query ids and {expected[1]} "
            "gallery ids."
        )
    rows = block_rows(expected[1])
    for first in range(0, expected[0], rows):
        plan.rank_block(comparable(matrix[first : first + rows]), first)
    return plan.metrics(max_rank)


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
        metric: ``cosine`` (negative inner product of unit vectors, norms not below 1e-12) or ``euclidean``; float32.
        camera_rule: see :func:`rank_metrics`.
        cmc: see :func:`rank_metrics`.
        ap: see :func:`rank_metrics`.
        max_rank: see :func:`rank_metrics`.

    Returns:
        The metrics. Memory beyond float32 features: 64 MiB of distances and a few numbers per query and gallery entry
        (a GPU needs about ten times 64 MiB). Other float types add a float32 copy of the gallery's features.

    Raises:
        GloamError: shapes that do not fit, NaN or infinite features, or no query with a match.
    """
    plan = RankingPlan(query_pids, gallery_pids, query_cams, gallery_cams, camera_rule=camera_rule, cmc=cmc, ap=ap)
    max_rank = check_max_rank(max_rank)
    query, gallery = as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features")
    for features, pids, name in ((query, plan.query_pids, "query"), (gallery, plan.gallery_pids, "gallery")):
        if len(features) != len(pids):
            raise GloamError(
                f"{len(features)} {name} features, but {len(pids)} {name} ids. Give one of each per entry."
            )
    for first, block in distance_blocks(query, gallery, metric):
        plan.rank_block(block, first)
    return plan.metrics(max_rank)
