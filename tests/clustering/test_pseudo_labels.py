from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.cluster import DBSCAN

from gloam.clustering.jaccard import jaccard_distance
from gloam.clustering.pseudo_labels import check_clusters, cluster, dbscan, outliers_alone
from gloam.errors import GloamError
from tests.clustering.test_jaccard import dense, groups
from tests.oracles.jaccard import dbscan_dense, jaccard_dense


def stored(distances: np.ndarray) -> csr_array:
    count = len(distances)
    starts = np.arange(count + 1) * count
    return csr_array(
        (distances.ravel().astype(np.float32), np.tile(np.arange(count), count), starts), shape=(count, count)
    )


def test_same_labels_as_the_dense_route_on_many_random_sets() -> None:
    random = np.random.default_rng(0)
    compared = 0
    for seed in range(60):
        features = groups(
            seed,
            count=int(random.integers(2, 90)),
            ids=int(random.integers(1, 9)),
            width=8,
            noise=random.uniform(0.1, 1),
        )
        k1, k2, eps = (
            int(random.integers(1, 35)),
            int(random.integers(1, 8)),
            float(random.choice([0.3, 0.4, 0.6, 0.7])),
        )
        expected = jaccard_dense(features, k1, k2)
        if np.abs(expected - eps).min() < 1e-5:
            continue  # rounding decides
        compared += 1
        labels = cluster(features, eps=eps, k1=k1, k2=k2)
        assert labels.tolist() == dbscan_dense(expected, eps, 4).tolist()
    assert compared > 50


@pytest.mark.parametrize("min_samples", [1, 2, 4])
def test_same_labels_as_scikit_learn_with_border_conflicts(min_samples: int) -> None:
    random = np.random.default_rng(min_samples)
    for _ in range(60):
        points = random.uniform(size=(40, 2))
        distances = np.abs(points[:, None] - points[None]).sum(-1).astype(np.float32)
        eps = float(random.uniform(0.05, 0.25))
        expected = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit_predict(distances)
        assert dbscan(stored(distances), eps=eps, min_samples=min_samples).tolist() == expected.tolist()


def test_a_border_point_joins_the_lower_cluster_whatever_its_distance() -> None:
    # 0-1-2 and 4-5-6 are clusters; 3 touches both, nearer to the second.
    points = np.array([0.0, 0.1, 0.2, 1.1, 1.9, 2.0, 2.1])
    distances = np.abs(points[:, None] - points[None])
    distances[3, 2] = distances[2, 3] = 0.5
    distances[3, 4] = distances[4, 3] = 0.3
    distances[0, 2] = distances[2, 0] = distances[4, 6] = distances[6, 4] = 0.2
    labels = dbscan(stored(distances), eps=0.5, min_samples=4)
    assert labels.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_the_lower_triangle_is_enough() -> None:
    features = groups(1)
    full = jaccard_distance(features)
    for eps in (0.3, 0.5, 0.7):
        assert dbscan(full, eps=eps).tolist() == cluster(torch.from_numpy(features), eps=eps).tolist()
        expected = DBSCAN(eps=eps, min_samples=4, metric="precomputed").fit_predict(dense(full).astype(np.float32))
        assert expected.tolist() == dbscan(full, eps=eps).tolist()


def test_outliers_get_classes_of_their_own_after_the_clusters() -> None:
    assert outliers_alone(np.array([1, -1, 0, -1, 1])).tolist() == [1, 2, 0, 3, 1]
    assert outliers_alone(np.array([-1, -1])).tolist() == [0, 1]


def test_no_cluster_at_all_is_explained() -> None:
    with pytest.raises(GloamError, match=r"larger method.eps"):
        check_clusters(np.array([-1, -1]), "eps 0.6")
    with pytest.raises(GloamError, match="min_samples"):
        cluster(groups(0), eps=0.5, min_samples=0)
