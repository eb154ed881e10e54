"""Ids, cameras and rules of one ranking, prepared once and applied to any number of distance blocks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.datasets.records import CameraRule, CmcKind
from gloam.errors import GloamError
from gloam.evaluation.metrics import RankingMetrics, summarise
from gloam.search.arrays import as_choice, as_ids, as_whole_number, comparable

ApKind = Literal["standard", "grouped", "trapezoid"]

_CAMERA_RULES = ("none", "same_id_same_cam", "sysu")
_CMC_KINDS = ("standard", "unique_id")
_AP_KINDS = ("standard", "grouped", "trapezoid")
# SYSU-MM01: camera 3 (infrared) films the room of camera 2 (visible), so those queries do not see camera 2.
_SYSU_QUERY_CAM, _SYSU_HIDDEN_CAM = 3, 2
# About a millisecond of counting: less is not worth a thread.
_ENTRIES_PER_THREAD = 200_000
_LONGEST_CMC = 1_000_000


@dataclass(frozen=True)
class _View:
    """The part of a block's columns that some queries see.

    Attributes:
        rows: ``(n,)`` queries that use this view, ascending.
        columns: ``(G,)`` columns of the block; None for all of them in order.
        codes: ``(G,)`` id codes.
        cams: ``(G,)``.
        by_id: ``(G,)`` positions in the view, id by id, so that a query's candidates for a match lie side by side.
        starts: ``(ids + 1,)`` where each id begins in ``by_id``.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64] | None
    codes: NDArray[np.int64]
    cams: NDArray[np.int64]
    by_id: NDArray[np.int64]
    starts: NDArray[np.int64]


class RankingPlan:
    """Ranks blocks of queries and averages what it found.

    The gallery is grouped by id once (the only sort of its length, on ids). Memory: a few integers per query and
    gallery entry.

    Args:
        query_pids: ``(Q,)`` integer ids.
        gallery_pids: ``(G,)``.
        query_cams: ``(Q,)`` camera numbers.
        gallery_cams: ``(G,)``.
        camera_rule: which entries a query may not see.
        cmc: ``standard`` or ``unique_id``.
        ap: ``standard``, ``grouped`` (equal distances share a threshold) or ``trapezoid``.
        columns: ``(G,)`` where the gallery lies in the blocks' columns; all columns in order if not given. Several
            plans with different columns share one block (the trials of a protocol).

    Raises:
        GloamError: lengths that do not fit, ids that are no integers, an unknown option, nothing to rank.
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
        columns: NDArray[np.int64] | None = None,
    ) -> None:
        self.query_pids, self.gallery_pids = as_ids(query_pids, "query_pids"), as_ids(gallery_pids, "gallery_pids")
        self.query_cams, self.gallery_cams = as_ids(query_cams, "query_cams"), as_ids(gallery_cams, "gallery_cams")
        self._check_lengths()
        self.camera_rule = as_choice(camera_rule, _CAMERA_RULES, "camera_rule")
        self._unique_id = as_choice(cmc, _CMC_KINDS, "cmc") == "unique_id"
        self._ap = _AP_KINDS.index(as_choice(ap, _AP_KINDS, "ap"))
        # Ids as 0..M-1.
        self.known, codes = np.unique(self.gallery_pids, return_inverse=True)
        self._gallery_codes = codes.astype(np.int64).reshape(-1)
        place = np.minimum(np.searchsorted(self.known, self.query_pids), len(self.known) - 1)
        self._query_codes = np.where(self.known[place] == self.query_pids, place, -1).astype(np.int64)
        self._columns = self._check_columns(columns)
        self._views = self._make_views()
        queries = len(self.query_pids)
        self.valid = np.zeros(queries, dtype=np.bool_)
        self.first_hit = np.zeros(queries, dtype=np.int64)
        self.average_precision = np.zeros(queries)
        self.penalty = np.zeros(queries)

    def rank_block(self, distances: NDArray[Any] | Tensor, first: int) -> None:
        """Rank some queries.

        Args:
            distances: ``(n, P)``, smaller is nearer. Tensors on an accelerator are ranked there.
            first: number of the first query of the block.

        Raises:
            GloamError: a distance is NaN, or the block does not fit the plan.
        """
        self._check_block(distances, first)
        distances = comparable(distances)
        for view in self._views:
            begin, end = np.searchsorted(view.rows, (first, first + len(distances)))
            rows = view.rows[begin:end] - first
            if len(rows) == 0:
                continue
            if isinstance(distances, Tensor) and not _compiled(distances):
                bad = self._rank_on_device(distances, rows, first, view)
            else:
                array = distances.numpy() if isinstance(distances, Tensor) else distances
                bad = self._rank_compiled(np.ascontiguousarray(array), rows, first, view)
            if bad is not None:
                raise GloamError(
                    f"The distances of query {first + bad} contain NaN. A feature is probably NaN or the network "
                    "diverged; check the features before ranking."
                )

    def metrics(self, max_rank: int) -> RankingMetrics:
        """Averages over everything ranked so far.

        Raises:
            GloamError: no query has a match, with the likely reason, or ``max_rank`` below 1.
        """
        max_rank = check_max_rank(max_rank)
        if not self.valid.any():
            raise GloamError(self._why_nothing_matches())
        return summarise(self.valid, self.first_hit, self.average_precision, self.penalty, max_rank)

    def visible_to(self, query: int) -> NDArray[np.bool_]:
        """``(G,)``: which gallery entries the camera rule leaves for a query."""
        if self.camera_rule == "same_id_same_cam":
            own_id = self.gallery_pids == self.query_pids[query]
            hidden = own_id & (self.gallery_cams == self.query_cams[query])
        elif self.camera_rule == "sysu" and self.query_cams[query] == _SYSU_QUERY_CAM:
            hidden = self.gallery_cams == _SYSU_HIDDEN_CAM
        else:
            hidden = np.zeros(len(self.gallery_pids), dtype=np.bool_)
        return np.asarray(~hidden)

    def match_counts(self) -> NDArray[np.int64]:
        """``(Q,)``: gallery entries of the query's id that the camera rule leaves; 0 for queries without a match."""
        cams, cam_codes = np.unique(self.gallery_cams, return_inverse=True)
        table = np.zeros((len(self.known), len(cams)), dtype=np.int64)
        np.add.at(table, (self._gallery_codes, cam_codes.reshape(-1)), 1)
        counts: NDArray[np.int64] = np.where(self._query_codes >= 0, table.sum(axis=1)[self._query_codes], 0)
        if self.camera_rule == "none":
            return counts
        hidden_cam = self.query_cams
        if self.camera_rule == "sysu":
            hidden_cam = np.where(self.query_cams == _SYSU_QUERY_CAM, _SYSU_HIDDEN_CAM, cams[0] - 1)
        place = np.minimum(np.searchsorted(cams, hidden_cam), len(cams) - 1)
        hides = (cams[place] == hidden_cam) & (self._query_codes >= 0)
        return np.asarray(counts - np.where(hides, table[self._query_codes, place], 0))

    def _check_lengths(self) -> None:
        for pids, cams, name in (
            (self.query_pids, self.query_cams, "query"),
            (self.gallery_pids, self.gallery_cams, "gallery"),
        ):
            if len(pids) != len(cams):
                raise GloamError(f"{len(pids)} {name} ids, but {len(cams)} {name} cameras. Give one of each per entry.")
        if len(self.query_pids) == 0 or len(self.gallery_pids) == 0:
            raise GloamError(
                f"Nothing to rank: {len(self.query_pids)} queries, {len(self.gallery_pids)} gallery entries. "
                "Check the test lists."
            )

    def _check_columns(self, columns: Any) -> NDArray[np.int64] | None:
        """The compiled loops read wherever these point."""
        if columns is None:
            return None
        found = as_ids(columns, "columns")
        if len(found) != len(self.gallery_pids) or found.min() < 0:
            raise GloamError(f"{len(found)} columns for {len(self.gallery_pids)} gallery ids; one each, from 0 on.")
        return found

    def _check_block(self, distances: NDArray[Any] | Tensor, first: int) -> None:
        least = len(self.gallery_pids) if self._columns is None else int(self._columns.max()) + 1
        rows, columns = tuple(distances.shape) if distances.ndim == 2 else (-1, -1)
        fits = columns == least if self._columns is None else columns >= least
        if not fits or first < 0 or first + rows > len(self.query_pids):
            raise GloamError(
                f"Distances of shape {tuple(distances.shape)} from query {first} on do not fit a plan of "
                f"{len(self.query_pids)} queries and {least} columns."
            )

    def _make_views(self) -> list[_View]:
        every = np.arange(len(self.query_pids))
        if self.camera_rule != "sysu":
            return [self._view(every, None)]
        restricted = self.query_cams == _SYSU_QUERY_CAM
        kept = np.flatnonzero(self.gallery_cams != _SYSU_HIDDEN_CAM)
        return [self._view(every[~restricted], None), self._view(every[restricted], kept)]

    def _view(self, rows: NDArray[np.int64], kept: NDArray[np.int64] | None) -> _View:
        codes, cams, columns = self._gallery_codes, self.gallery_cams, self._columns
        if kept is not None:
            codes, cams = codes[kept], cams[kept]
            columns = kept if columns is None else columns[kept]
        by_id = np.argsort(codes, kind="stable").astype(np.int64)
        starts = np.searchsorted(codes[by_id], np.arange(len(self.known) + 1)).astype(np.int64)
        return _View(rows, columns, codes, cams, by_id, starts)

    def _rank_compiled(self, distances: NDArray[Any], rows: NDArray[np.int64], first: int, view: _View) -> int | None:
        from gloam.evaluation.ranking_kernels import rank_rows  # compiled on first use

        kernel: Any = rank_rows

        def rank(some: NDArray[np.int64]) -> NDArray[np.bool_]:
            bad = np.zeros(len(some), dtype=np.bool_)
            kernel(
                distances,
                some,
                first,
                self._query_codes,
                self.query_cams,
                view.columns is None,
                view.by_id if view.columns is None else view.columns,  # unused in the first case
                view.codes,
                view.cams,
                view.by_id,
                view.starts,
                self.camera_rule == "same_id_same_cam",
                self._unique_id,
                self._ap,
                self.valid,
                self.first_hit,
                self.average_precision,
                self.penalty,
                bad,
            )
            return bad

        # A camera rule may leave some queries no gallery at all.
        threads = min(torch.get_num_threads(), -(-len(rows) * len(view.codes) // _ENTRIES_PER_THREAD))
        if threads <= 1:
            bad = rank(rows)
        else:
            # Several pieces a thread: queries of people with many images take longer.
            with ThreadPoolExecutor(threads) as pool:
                bad = np.concatenate(list(pool.map(rank, np.array_split(rows, min(4 * threads, len(rows))))))
        return int(rows[np.argmax(bad)]) if bad.any() else None

    def _rank_on_device(self, distances: Tensor, rows: NDArray[np.int64], first: int, view: _View) -> int | None:
        from gloam.evaluation.ranking_tensor import rank_rows

        def send(values: NDArray[np.int64]) -> Tensor:
            return torch.from_numpy(values).to(distances.device)

        part = distances if len(rows) == len(distances) else distances[send(rows)]
        nan = torch.isnan(part).any(dim=1)
        if bool(nan.any()):
            return int(rows[int(nan.to(torch.uint8).argmax())])
        if view.columns is not None:
            part = part[:, send(view.columns)]
        queries = rows + first
        found = rank_rows(
            part,
            send(self._query_codes[queries]),
            send(self.query_cams[queries]),
            send(view.codes),
            send(view.cams),
            ids=len(self.known),
            own_camera_hidden=self.camera_rule == "same_id_same_cam",
            unique_id=self._unique_id,
            ap=self._ap,
        )
        self.valid[queries], self.first_hit[queries] = found.valid, found.first_hit
        self.average_precision[queries], self.penalty[queries] = found.average_precision, found.penalty
        return None

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
                f"No query has a match: every image is from camera {cameras[0]}, and the camera rule removes matches "
                "of the query's own camera. Use camera_rule 'none' for one-camera data."
            )
        return (
            f"No query has a match: {int(shared.sum())} queries have their id in the gallery, but the camera rule "
            f"{self.camera_rule!r} removes all of those entries. Check the camera numbers."
        )


def _compiled(distances: Tensor) -> bool:
    """Whether the compiled kernels can read a tensor; tests replace this to run the tensor path on CPUs."""
    return distances.device.type == "cpu"


def check_max_rank(value: Any) -> int:
    """The length of a CMC.

    Raises:
        GloamError: no whole number, below 1 or above a million.
    """
    return as_whole_number(value, "max_rank, the length of the CMC,", largest=_LONGEST_CMC)
