from __future__ import annotations

import numpy as np

from gloam.clustering.reliability import overlap, self_paced_labels


def test_overlap_is_intersection_over_union_of_label_sets() -> None:
    random = np.random.default_rng(0)
    first, second = random.integers(0, 5, 40), random.integers(0, 6, 40)
    for i, value in enumerate(overlap(first, second)):
        a, b = set(np.flatnonzero(first == first[i])), set(np.flatnonzero(second == second[i]))
        assert value == len(a & b) / len(a | b)


def test_members_that_leave_the_tight_cluster_are_left_alone() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2])
    tight = np.array([0, 0, 0, 3, 1, 1, 1, 2])
    result, threshold = self_paced_labels(labels, tight, labels)
    assert result.tolist() == [0, 0, 0, 3, 1, 1, 1, 2]
    assert threshold == 0


def test_clusters_that_merge_in_the_loose_labels_are_dissolved_at_a_low_threshold() -> None:
    labels = np.array([0, 0, 1, 1, 2, 2])
    loose = np.array([0, 0, 0, 0, 1, 1])
    result, threshold = self_paced_labels(labels, labels, loose, threshold=0.0)
    assert result.tolist() == [3, 4, 5, 6, 2, 2]
    assert threshold == 0.0
    # Nine tenths of three scores [0, 0.5, 0.5] is the last one: everything is kept.
    result, threshold = self_paced_labels(labels, labels, loose)
    assert result.tolist() == labels.tolist()
    assert threshold == 0.5
