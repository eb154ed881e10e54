"""SpCL's choice of reliable clusters: the quantile, what it ranks, and members at the border."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gloam.clustering.reliability import self_paced_labels
from tests.oracles import self_pacing as oracle

Labels = NDArray[np.int64]


def _clusters_that_grow(count: int, alone: int = 0) -> tuple[Labels, Labels]:
    """``count`` pairs, of which the r-th gains r further images in the loose labels: scores 0, 1/3, 2/4, 3/5 ...

    The images that join are classes of one at eps; ``alone`` more of them stay alone."""
    labels: list[int] = []
    loose: list[int] = []
    following = count
    for number in range(count):
        labels += [number] * 2
        loose += [number] * 2
        for _ in range(number):
            labels.append(following)
            loose.append(number)
            following += 1
    for _ in range(alone):
        labels.append(following)
        loose.append(following)
        following += 1
    return np.array(labels), np.array(loose)


@pytest.mark.parametrize(
    ("count", "place"),
    # 0.9 n rounded half to even, but at most the last: 4.5 is 4, 5.4 is 5, 13.5 is 14, 6.3 is 6, 1.8 is 2.
    [(1, 0), (2, 1), (5, 4), (6, 5), (7, 6), (8, 7), (12, 11), (14, 13), (15, 14), (16, 14), (20, 18), (24, 22)],
)
def test_the_threshold_is_the_score_at_nine_tenths(count: int, place: int) -> None:
    labels, loose = _clusters_that_grow(count, alone=30)
    _, threshold = self_paced_labels(labels, labels, loose)
    assert threshold == pytest.approx(1 - 2 / (2 + place))


def test_a_score_at_the_threshold_is_kept_and_one_above_is_not() -> None:
    labels, loose = _clusters_that_grow(20, alone=3)
    found, threshold = self_paced_labels(labels, labels, loose)
    assert threshold == pytest.approx(18 / 20)
    dissolved = [c for c in range(20) if not (found[labels == c] == c).all()]
    assert dissolved == [19]


@pytest.mark.parametrize("seed", range(20))
def test_labels_are_those_of_the_sets(seed: int) -> None:
    random = np.random.default_rng(seed)

    def classes(largest: int) -> Labels:
        return np.unique(random.integers(0, largest, 30), return_inverse=True)[1].astype(np.int64)

    labels, tight, loose = classes(8), classes(12), classes(5)
    for threshold in (None, 0.4, 0.7):
        found, used = self_paced_labels(labels, tight, loose, threshold)
        expected, at = oracle.reliable(labels.tolist(), tight.tolist(), loose.tolist(), threshold)
        assert found.tolist() == expected
        assert used == pytest.approx(at, abs=1e-12)


def test_without_a_cluster_nothing_is_dissolved() -> None:
    found, threshold = self_paced_labels(np.arange(4), np.arange(4), np.arange(4))
    assert (found.tolist(), threshold) == ([0, 1, 2, 3], 0.0)
