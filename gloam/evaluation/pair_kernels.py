"""Compiled loops over blocks of pair scores. Threads are the caller's; nothing is kept but counts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

NO_RULE, SAME_ID_SAME_CAM, SYSU = 0, 1, 2
_SYSU_CAMS = (2, 3)  # one room, filmed in both modalities: evaluations of SYSU-MM01 leave these pairs out


@njit(cache=True)
def _kept(rule: int, genuine: bool, left_cam: int, right_cam: int) -> Any:
    if rule != NO_RULE and genuine and left_cam == right_cam:
        return False
    if rule == SYSU:
        first, second = _SYSU_CAMS
        return not ((left_cam == first and right_cam == second) or (left_cam == second and right_cam == first))
    return True


@njit(cache=True, nogil=True)
def count_scores(
    codes: Any, left: Any, right: Any, symmetric: bool, rule: int, shift: int, fine: Any, coarse: Any
) -> None:
    """Add a block's pairs to histograms.

    Args:
        codes: ``(r, c)`` int32 bins of the scores.
        left: ``(3, r)`` int64 identity, camera and fold of every row.
        right: ``(3, c)`` the same of every column.
        symmetric: the rows are the first of the columns; each pair of images counts once, and no image with itself.
        rule: which pairs do not count.
        shift: bits that turn a fine bin into a coarse one.
        fine: ``(2, bins)`` int64: impostor, genuine.
        coarse: ``(2, folds, folds, coarse bins)`` int64.
    """
    for i in range(codes.shape[0]):
        for j in range(i + 1 if symmetric else 0, codes.shape[1]):
            genuine = left[0, i] == right[0, j]
            if _kept(rule, genuine, left[1, i], right[1, j]):
                kind = 1 if genuine else 0
                fine[kind, codes[i, j]] += 1
                coarse[kind, left[2, i], right[2, j], codes[i, j] >> shift] += 1


@njit(cache=True, nogil=True)
def count_levels(
    codes: Any,
    left: Any,
    right: Any,
    symmetric: bool,
    rule: int,
    levels: Any,
    lowest: int,
    impostor: Any,
    genuine: Any,
) -> None:
    """Count a block's pairs by identities and by the thresholds that they reach.

    Args:
        codes: see :func:`count_scores`; so are ``left``, ``right``, ``symmetric`` and ``rule``.
        left: see there.
        right: see there.
        symmetric: see there.
        rule: see there.
        levels: ``(bins,)`` how many of the thresholds a score of this bin reaches.
        lowest: identity of the block's first row.
        impostor: ``(identities of the block, identities, thresholds + 1)`` float32, by level.
        genuine: ``(identities, thresholds + 1)`` int64, by level.
    """
    for i in range(codes.shape[0]):
        for j in range(i + 1 if symmetric else 0, codes.shape[1]):
            same = left[0, i] == right[0, j]
            if _kept(rule, same, left[1, i], right[1, j]):
                level = levels[codes[i, j]]
                if same:
                    genuine[left[0, i], level] += 1
                else:
                    impostor[left[0, i] - lowest, right[0, j], level] += np.float32(1)
