from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from gloam.clustering.jaccard import jaccard_distance, near_pairs
from gloam.clustering.pseudo_labels import cluster
from gloam.errors import GloamError
from tests.oracles.jaccard import jaccard_dense

ANGLES = np.deg2rad([0, 10, 25, 80, 95, 30])
PLANE = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)


def groups(seed: int, count: int = 80, ids: int = 7, width: int = 12, noise: float = 0.5) -> np.ndarray:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(ids, width))
    features = centres[random.integers(0, ids, count)] + noise * random.normal(size=(count, width))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def dense(sparse: csr_array) -> np.ndarray:
    full = np.ones(sparse.shape)
    entries = sparse.tocoo()
    full[entries.row, entries.col] = entries.data
    return full


def test_worked_example_without_query_expansion() -> None:
    result = dense(jaccard_distance(PLANE, k1=3, k2=1))
    expected = np.ones((6, 6))
    for i, j, value in [
        (0, 1, 0.486735), (0, 2, 0.810098), (1, 2, 0.528508), (1, 5, 0.808356), (2, 5, 0.483918), (3, 4, 0.065878),
    ]:  # fmt: skip
        expected[i, j] = expected[j, i] = value
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize(("k1", "far"), [(3, 0.809228), (4, 0.139356)])
def test_worked_example_with_query_expansion(k1: int, far: float) -> None:
    result = dense(jaccard_distance(PLANE, k1=k1, k2=2))
    expected = np.ones((6, 6))
    expected[np.ix_([0, 1, 2, 5], [0, 1, 2, 5])] = far
    for pair in ([0, 1], [2, 5], [3, 4]):
        expected[np.ix_(pair, pair)] = 0
    np.testing.assert_allclose(result, expected, atol=2e-6)


@pytest.mark.parametrize(("k1", "k2"), [(30, 6), (5, 1), (7, 3), (15, 4), (1, 1), (200, 6), (4, 9)])
@pytest.mark.parametrize("seed", [0, 1])
def test_same_as_the_dense_definition(k1: int, k2: int, seed: int) -> None:
    features = groups(seed)
    np.testing.assert_allclose(
        dense(jaccard_distance(features, k1=k1, k2=k2)), jaccard_dense(features, k1, k2), atol=1e-5
    )


def test_features_that_are_not_unit_are_refused_with_the_cure() -> None:
    features = groups(3)
    features[17] *= 1.5
    for call in (jaccard_distance, partial(near_pairs, limit=0.5), partial(cluster, eps=0.5)):
        with pytest.raises(GloamError, match=r"row 17 has length 1\.5 .*features / numpy\.linalg\.norm"):
            call(features)
    features[17] = 0
    with pytest.raises(GloamError, match="row 17 has length 0"):
        jaccard_distance(features)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_half_precision_counts_as_unit(kind: torch.dtype) -> None:
    features = torch.from_numpy(groups(3)).to(kind)
    expected = jaccard_dense(features.float().numpy(), 10, 3)
    np.testing.assert_allclose(dense(jaccard_distance(features, k1=10, k2=3)), expected, atol=1e-5)


def test_many_duplicates_leave_empty_encodings_at_distance_one_from_everything() -> None:
    features = groups(4, count=30)
    features[5:25] = features[5]
    result = dense(jaccard_distance(features, k1=6, k2=1))
    np.testing.assert_allclose(result, jaccard_dense(features, 6, 1), atol=1e-5)
    assert (result[20] == 1).all()


def test_symmetric_to_the_bit_sorted_and_with_stored_zeros() -> None:
    features = groups(5)
    result = jaccard_distance(features)
    assert result.dtype == np.float32
    assert result.shape == (80, 80)
    assert (result.diagonal() < 1e-6).all()
    np.testing.assert_array_equal(dense(result), dense(result).T)
    assert all(
        (np.diff(result.indices[a:b]) > 0).all() for a, b in zip(result.indptr[:-1], result.indptr[1:], strict=True)
    )
    duplicated = jaccard_distance(np.concatenate([features[:1], features[:1], features]), k1=8)
    assert (duplicated.data == 0).any()
    assert (result.data < 1).all()


def test_torch_and_numpy_agree_and_threads_do_not_matter() -> None:
    features = groups(6, count=600)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = jaccard_distance(features)
        torch.set_num_threads(3)
        three = jaccard_distance(torch.from_numpy(features))
    finally:
        torch.set_num_threads(threads)
    assert (one != three).nnz == 0
    np.testing.assert_array_equal(one.data, three.data)


def test_near_pairs_are_the_lower_triangle_up_to_the_limit() -> None:
    features = groups(7)
    expected = dense(jaccard_distance(features))
    expected[np.triu_indices(80, 1)] = 1
    expected[expected > np.float32(0.6)] = 1
    np.testing.assert_array_equal(dense(near_pairs(features, limit=0.6)), expected)


@pytest.mark.parametrize("options", [{"k1": 0}, {"k2": 0}])
def test_impossible_settings_are_explained(options: dict[str, int]) -> None:
    with pytest.raises(GloamError, match="at least 1"):
        jaccard_distance(PLANE, **options)
    with pytest.raises(GloamError, match="between 0 and 1"):
        near_pairs(PLANE, limit=1.0)
