"""Jaccard distance and DBSCAN of any unit rows are those of the dense definitions."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gloam.clustering.jaccard import jaccard_distance, near_pairs
from gloam.clustering.pseudo_labels import cluster, dbscan
from tests.clustering.test_jaccard import dense
from tests.oracles.jaccard import dbscan_dense, jaccard_dense

EXAMPLES = settings(max_examples=50, derandomize=True, deadline=None, database=None)


@st.composite
def unit_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows around a few centres, alike or not, some of them more than once."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.integers(2, 8))
    centres = generator.standard_normal((draw(st.integers(1, 6)), width)) + draw(st.sampled_from([0, 100]))
    spread = draw(st.sampled_from([0.05, 0.5, 2.0]))
    count = draw(st.integers(1, 40))
    distinct = centres[generator.integers(0, len(centres), count)] + spread * generator.standard_normal((count, width))
    distinct /= np.linalg.norm(distinct, axis=1, keepdims=True)
    rows = list(range(count)) + draw(st.lists(st.integers(0, count - 1), max_size=20))
    return distinct.astype(np.float32)[rows]


@EXAMPLES
@given(unit_rows(), st.integers(1, 40), st.integers(1, 10))
def test_distances_are_those_of_the_dense_definition(rows: np.ndarray, k1: int, k2: int) -> None:
    found = jaccard_distance(rows, k1=k1, k2=k2)
    np.testing.assert_allclose(dense(found), jaccard_dense(rows, k1, k2), atol=1e-5)
    assert (found.data < 1).all()
    assert (found != found.T).nnz == 0


@EXAMPLES
@given(unit_rows(), st.integers(1, 40), st.integers(1, 10), st.floats(0.05, 0.95), st.integers(1, 6))
def test_labels_are_those_of_the_dense_definition(
    rows: np.ndarray, k1: int, k2: int, eps: float, min_samples: int
) -> None:
    distances = jaccard_dense(rows, k1, k2)
    assume(np.abs(distances - eps).min() > 1e-5)  # else rounding decides
    labels = cluster(rows, eps=eps, min_samples=min_samples, k1=k1, k2=k2)
    assert labels.tolist() == dbscan_dense(distances, eps, min_samples).tolist()
    pairs = near_pairs(rows, limit=eps, k1=k1, k2=k2)
    assert dbscan(pairs, eps=eps, min_samples=min_samples).tolist() == labels.tolist()
    assert pairs.nnz == np.tril(distances <= eps).sum()
