"""Scores of all pairs of images of two modalities, counted by blocks: the pairs are never held.

Scores are cosines, binned by their distance from 1: the leading bits of ``1 - score`` as float32 number the bins, so
that a bin is 0.006 % of that distance wide (3e-5 around a score of 0.3, ever finer towards 1, where collapsed or very
good features crowd).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gloam.datasets.records import CameraRule
from gloam.evaluation.pair_kernels import NO_RULE, SAME_ID_SAME_CAM, SYSU, count_levels, count_scores
from gloam.evaluation.pairs import PAIRS

_MANTISSA = 14  # bits of the distance's mantissa that number a bin
_COARSE = 8
_DROPPED = 23 - _MANTISSA
_NEAREST = np.float32(2.0**-24)  # distances below are rounding
_FIRST = int(_NEAREST.view(np.int32)) >> _DROPPED
BINS = (int(np.float32(2).view(np.int32)) >> _DROPPED) - _FIRST + 1
SHIFT = _MANTISSA - _COARSE
COARSE_BINS = ((BINS - 1) >> SHIFT) + 1
_RULES = {"none": NO_RULE, "same_id_same_cam": SAME_ID_SAME_CAM, "sysu": SYSU}
_BLOCK_SCORES = 4_000_000  # scores of one block
_BLOCK_COUNTS = 16_000_000  # counts by identity and threshold of one block


@dataclass(frozen=True, eq=False)
class People:
    """Images of known identities, sorted by identity.

    Attributes:
        vectors: ``(N, D)`` float32 of length 1.
        ids: ``(N,)`` identities 0..P-1, ascending.
        cams: ``(N,)``.
        modalities: ``(N,)`` values of ``Modality``.
        folds: ``(P,)`` part that an identity belongs to, for checks on identities that were not fitted to.
        camera_rule: which pairs do not count: see ``Calibration.camera_rule``.
    """

    vectors: NDArray[np.float32]
    ids: NDArray[np.int64]
    cams: NDArray[np.int64]
    modalities: NDArray[np.int64]
    folds: NDArray[np.int64]
    camera_rule: CameraRule

    @property
    def count(self) -> int:
        """P."""
        return len(self.folds)


@dataclass(frozen=True, eq=False)
class ScoreCounts:
    """Histograms of a pair of modalities, best scores first.

    Attributes:
        impostor: ``(BINS,)`` pairs of different identities.
        genuine: ``(BINS,)`` pairs of one identity.
        impostor_by_fold: ``(folds, folds, COARSE_BINS)``.
        genuine_by_fold: ``(folds, folds, COARSE_BINS)``.
    """

    impostor: NDArray[np.int64]
    genuine: NDArray[np.int64]
    impostor_by_fold: NDArray[np.int64]
    genuine_by_fold: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Block:
    codes: NDArray[np.int32]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    symmetric: bool


def count_pairs(people: People, pair: str) -> ScoreCounts:
    """Histograms of all pairs' scores.

    Args:
        people: the images.
        pair: a key of ``PAIRS``.

    Returns:
        Counts. Memory: them, and one block of scores.
    """
    folds = int(people.folds.max(initial=0)) + 1
    fine = np.zeros((2, BINS), dtype=np.int64)
    coarse = np.zeros((2, folds, folds, COARSE_BINS), dtype=np.int64)
    for block in _blocks(people, pair):
        rules = (block.symmetric, _RULES[people.camera_rule])
        count_scores(block.codes, block.left, block.right, *rules, SHIFT, fine, coarse)
    return ScoreCounts(fine[0], fine[1], coarse[0], coarse[1])


def resample_rates(
    people: People, pair: str, last_bins: NDArray[np.int64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """FMR and FNMR at some thresholds when identities are drawn anew.

    An identity that is drawn m times weighs m in its genuine pairs, and a pair of identities weighs the product of
    both: both sides of every comparison are drawn. Copies of one identity make no impostor pairs.

    Args:
        people: the images.
        pair: a key of ``PAIRS``.
        last_bins: ``(T,)`` descending; a score reaches threshold t if its bin is at most ``last_bins[t]``.
        weights: ``(P, B)`` how often each identity is drawn in each of B draws.

    Returns:
        ``(B, T)`` false match rates, ``(B, T)`` false non-match rates (NaN where a draw has no such pair), and the
        number of identities with genuine pairs. Memory: one block of counts, never a table of all pairs of identities.
    """
    steps, draws = len(last_bins), weights.shape[1]
    # Bin -> number of thresholds reached.
    levels = np.searchsorted(-last_bins, -np.arange(BINS), side="right").astype(np.int16)
    genuine = np.zeros((people.count, steps + 1), dtype=np.int64)
    reached = np.zeros((steps + 1, draws))
    counts_per_identity = people.count * (steps + 1)
    for block in _blocks(people, pair, max(_BLOCK_COUNTS // counts_per_identity, 1)):
        low, high = int(block.left[0, 0]), int(block.left[0, -1]) + 1
        impostor = np.zeros((high - low, people.count, steps + 1), dtype=np.float32)
        rules = (block.symmetric, _RULES[people.camera_rule])
        count_levels(block.codes, block.left, block.right, *rules, levels, low, impostor, genuine)
        by_level = impostor.transpose(0, 2, 1).reshape(-1, people.count) @ weights
        weighted = by_level.reshape(high - low, steps + 1, draws) * weights[low:high, None, :]
        reached += weighted.sum(axis=0, dtype=np.float64)
    # Level k reaches the thresholds 0..k-1.
    false_matches = np.cumsum(reached[::-1], axis=0)[::-1]
    matches = np.cumsum((genuine.T @ weights.astype(np.float64))[::-1], axis=0)[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        fmr = false_matches[1:] / false_matches[:1]
        fnmr = 1 - matches[1:] / matches[:1]
    return fmr.T, fnmr.T, int(genuine.any(axis=1).sum())


def identity_pairs(people: People, pair: str) -> tuple[int, int]:
    """Identities that take part in a pair of modalities, and pairs of different ones among them."""
    left, right = (people.modalities == kind for kind in PAIRS[pair])
    first, second = np.unique(people.ids[left]), np.unique(people.ids[right])
    both = len(np.intersect1d(first, second))
    either = len(np.union1d(first, second))
    # Unordered pairs of two identities of which one has an image on the left, the other one on the right.
    only_first, only_second = len(first) - both, len(second) - both
    pairs = both * (both - 1) // 2 + both * (only_first + only_second) + only_first * only_second
    return either, pairs


def bin_scores() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``(BINS,)`` the smallest score of every fine bin, and ``(COARSE_BINS,)`` the middle of every coarse one."""
    numbers = np.arange(BINS, dtype=np.int64)
    last = (((numbers + 1 + _FIRST) << _DROPPED) - 1).astype(np.int32).view(np.float32).astype(np.float64)
    edges = ((np.minimum(np.arange(COARSE_BINS + 1) << SHIFT, BINS - 1) + _FIRST) << _DROPPED).astype(np.int32)
    distances = edges.view(np.float32).astype(np.float64)
    return 1 - last, 1 - (distances[:-1] + distances[1:]) / 2


def _blocks(people: People, pair: str, most_identities: int | None = None) -> Iterator[_Block]:
    """Some rows against all columns; of the same modality: against those from the first row on."""
    left_kind, right_kind = PAIRS[pair]
    symmetric = left_kind == right_kind
    rows, columns = (np.flatnonzero(people.modalities == kind) for kind in (left_kind, right_kind))
    if not len(rows) or not len(columns):
        return
    right_side, right_facts = people.vectors[columns], _facts(people, columns)
    most_rows = max(_BLOCK_SCORES // len(columns), 1)
    first = 0
    while first < len(rows):
        stop = min(first + most_rows, len(rows))
        if most_identities is not None:
            ids = people.ids[rows[first:stop]]
            stop = first + int(np.searchsorted(ids, ids[0] + most_identities))
        behind = first if symmetric else 0
        chosen = rows[first:stop]
        scores = people.vectors[chosen] @ right_side[behind:].T
        yield _Block(_codes(scores), _facts(people, chosen), right_facts[:, behind:], symmetric)
        first = stop


def _facts(people: People, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.stack([people.ids[rows], people.cams[rows], people.folds[people.ids[rows]]])


def _codes(scores: NDArray[np.float32]) -> NDArray[np.int32]:
    """Bins of scores, in place."""
    np.subtract(np.float32(1), scores, out=scores)
    np.clip(scores, _NEAREST, np.float32(2), out=scores)
    codes = scores.view(np.int32)
    codes >>= _DROPPED
    codes -= _FIRST
    return codes
