"""Nearest neighbours of any features are those of the sorting oracle."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gloam.search.nearest import nearest
from gloam.search.neighbours import nearest_neighbours
from tests.oracles import nearest as oracle
from tests.oracles.jaccard import neighbours_dense

EXAMPLES = settings(max_examples=50, derandomize=True, deadline=None, database=None)
# Eighths of small numbers: float64 sums of their squares are exact, so that ties are ties in any order of summation.
EIGHTHS = st.integers(-24, 24).map(lambda n: n / 8)
FLOATS = st.floats(-1e6, 1e6, width=32)


@st.composite
def features(draw: st.DrawFn, numbers: st.SearchStrategy[float], width: int | None = None) -> np.ndarray:
    """Rows, some of them more than once, far from the origin or not."""
    columns = width or draw(st.integers(1, 6))
    distinct = draw(arrays(np.float32, (draw(st.integers(1, 12)), columns), elements=numbers))
    rows = draw(st.lists(st.integers(0, len(distinct) - 1), min_size=1, max_size=120))
    return distinct[rows] + np.float32(draw(st.sampled_from([0, 512, -(2**15)])))


@EXAMPLES
@given(features(EIGHTHS), st.integers(1, 20), st.integers(-60, 60))
def test_neighbours_are_those_of_sorting_at_any_scale(rows: np.ndarray, k: int, power: int) -> None:
    indices, distances = nearest_neighbours(np.ldexp(rows, power), k)
    expected = neighbours_dense(rows, k)
    assert indices.tolist() == expected.tolist()
    squared = oracle.distances(rows, rows, "euclidean") ** 2
    exact = np.ldexp(np.take_along_axis(squared, expected, 1), 2 * power)
    np.testing.assert_allclose(distances, exact, rtol=1e-6, atol=1e-44)


@EXAMPLES
@given(st.data(), st.integers(1, 20))
def test_euclidean_entries_are_those_of_sorting(data: st.DataObject, top: int) -> None:
    query = data.draw(features(EIGHTHS, 3))
    gallery = data.draw(features(EIGHTHS, 3))
    hidden = data.draw(arrays(np.bool_, (len(query), len(gallery))))
    indices, distances = nearest(
        query, gallery, top, metric="euclidean", exclude=lambda first, stop: hidden[first:stop]
    )
    expected, values = oracle.nearest(query, gallery, top, "euclidean", hidden)
    assert indices.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, values, rtol=1e-6)


@EXAMPLES
@given(st.data(), st.integers(1, 20), st.sampled_from([1e-30, 1.0, 1e30]))
def test_cosine_entries_are_as_near_as_those_of_sorting(data: st.DataObject, top: int, scale: float) -> None:
    query = data.draw(features(FLOATS, 4))
    gallery = data.draw(features(FLOATS, 4)) * np.float32(scale)
    indices, distances = nearest(query, gallery, top)
    table = oracle.distances(query, gallery, "cosine")
    found = indices[:, : min(top, len(gallery))]
    got, should = np.take_along_axis(table, found, 1), np.sort(table, axis=1)[:, : found.shape[1]]
    np.testing.assert_allclose(got, should, rtol=1e-7, atol=1e-15)
    np.testing.assert_allclose(distances[:, : found.shape[1]], should, rtol=1e-6, atol=1e-12)
    assert (indices[:, len(gallery) :] == -1).all()
    for line in found.tolist():
        assert len(set(line)) == len(line)
