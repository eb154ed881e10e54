"""Nearest gallery entries: a sorting oracle, what queries may not see, and given distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.search import nearest as nearest_module
from gloam.search.nearest import nearest, nearest_columns
from tests.oracles import nearest as oracle


@pytest.fixture(params=["compiled", "tensor"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations; the tensor one runs on accelerators, here on the CPU."""
    if request.param == "tensor":
        monkeypatch.setattr("gloam.search.nearest._compiled", lambda distances: False)
        monkeypatch.setattr("gloam.search.exact._compiled", lambda query: False)
        monkeypatch.setattr("gloam.search.exact._FEW", 0)
        monkeypatch.setattr("gloam.search.points.Points.on_cpu", False)
    return request.param


def _features(seed: int, queries: int, gallery: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((queries + gallery, width)) * generator.uniform(0.1, 10, (queries + gallery, 1))
    x[-1] = x[queries]  # a duplicate
    return x[:queries].astype(np.float32), x[queries:].astype(np.float32)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize(("queries", "gallery", "width", "top"), [(3, 40, 5, 4), (70, 300, 33, 10), (40, 9, 2, 9)])
def test_same_as_sorting_all_distances(metric: str, queries: int, gallery: int, width: int, top: int, way: str) -> None:
    query, entries = _features(queries, queries, gallery, width)
    indices, distances = nearest(query, torch.from_numpy(entries), top, metric=metric)
    expected, values = oracle.nearest(query, entries, top, metric)
    assert (indices.dtype, distances.dtype) == (np.int64, np.float32)
    assert indices.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, values, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_hidden_entries_are_not_found_and_short_rows_are_padded(
    metric: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, gallery = _features(0, 50, 120, 6)
    hidden = np.random.default_rng(1).random((50, 120)) < 0.5
    hidden[7] = True
    hidden[8] = True
    hidden[8, [5, 99]] = False
    monkeypatch.setattr(nearest_module, "_MASK_BYTES", 120 * 21)
    asked = []

    def exclude(first: int, stop: int) -> np.ndarray | torch.Tensor | None:
        asked.append((first, stop))
        return torch.from_numpy(hidden[first:stop]) if first else hidden[first:stop]

    indices, distances = nearest(query, gallery, 8, metric=metric, exclude=exclude)
    expected, values = oracle.nearest(query, gallery, 8, metric, hidden)
    assert indices.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, values, rtol=1e-6)
    assert (indices[7] == -1).all()
    assert np.isinf(distances[8, 2:]).all()
    assert asked == [(0, 21), (21, 42), (42, 50)]
    assert nearest(query, gallery, 8, exclude=lambda first, stop: None)[0].min() >= 0


def test_more_entries_than_there_are_is_padded(way: str) -> None:
    query, gallery = _features(2, 20, 4, 3)
    indices, distances = nearest(query, gallery, 6)
    assert indices.shape == (20, 6)
    assert (indices[:, 4:] == -1).all()
    assert np.isinf(distances[:, 4:]).all()
    assert sorted(indices[0, :4].tolist()) == [0, 1, 2, 3]
    assert nearest(query[:0], gallery, 2)[0].shape == (0, 2)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_equal_entries_come_in_index_order(metric: str, way: str) -> None:
    """More duplicates than a row has room for, so every way to decide is taken."""
    gallery = np.repeat(np.random.default_rng(0).standard_normal((3, 8)), 400, axis=0).astype(np.float32)
    gallery = gallery[np.random.default_rng(1).permutation(1200)]
    query = gallery[:40]
    indices, distances = nearest(query, gallery, 5, metric=metric)
    for i in range(40):
        same = np.flatnonzero((gallery == query[i]).all(axis=1))
        assert indices[i].tolist() == same[:5].tolist()
    assert (distances == 0).all()
    doubled = nearest(4 * query, gallery, 5, metric="cosine")
    np.testing.assert_array_equal(doubled[0], indices)
    assert (doubled[1] == 0).all()


def test_a_row_of_zeros_has_cosine_zero_to_everything(way: str) -> None:
    gallery = np.zeros((40, 3), dtype=np.float32)
    gallery[:20] = np.random.default_rng(0).standard_normal((20, 3))
    query = np.concatenate([np.zeros((1, 3)), gallery[:20]]).astype(np.float32)
    indices, distances = nearest(query, gallery, 40)
    expected, values = oracle.nearest(query, gallery, 40, "cosine")
    assert indices.tolist() == expected.tolist()
    np.testing.assert_allclose(distances, values, rtol=1e-6, atol=1e-12)
    assert indices[0].tolist() == list(range(40))


def test_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = _features(4, 90, 200, 12)
    whole = nearest(query, gallery, 7)
    monkeypatch.setattr(nearest_module, "_BLOCK_ROWS", 31)
    monkeypatch.setattr("gloam.search.exact._TILE_ROWS", 17)
    monkeypatch.setattr("gloam.search.exact._TILE_COLUMNS", 23)
    blocked = nearest(query, gallery, 7)
    for one, other in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(one, other)


def test_autocast_does_not_matter() -> None:
    query, gallery = _features(5, 90, 200, 12)
    plain = nearest(query, gallery, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nearest(query, gallery, 7)
    np.testing.assert_array_equal(plain[0], mixed[0])


def test_nearest_columns_of_given_distances(way: str) -> None:
    generator = np.random.default_rng(0)
    distances = generator.integers(0, 9, (60, 80)).astype(np.float32)
    distances[3, 5:] = np.inf
    hidden = generator.random((60, 80)) < 0.3
    hidden[9] = True
    for count in (1, 12, 90):
        found = nearest_columns(torch.from_numpy(distances), count, torch.from_numpy(hidden))
        for i, row in enumerate(found.tolist()):
            order = [j for j in np.argsort(distances[i], kind="stable") if not hidden[i, j]]
            order = [j for j in order if np.isfinite(distances[i, j])][:count]
            assert row == order + [-1] * (count - len(order))
    plain = nearest_columns(torch.from_numpy(distances).double(), 6)
    assert plain[:3].tolist() == np.argsort(distances[:3], axis=1, kind="stable")[:, :6].tolist()
    assert nearest_columns(torch.zeros(0, 4), 2).shape == (0, 2)
    assert nearest_columns(torch.zeros(4, 4), 0).shape == (4, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_gpu_finds_the_same(metric: str) -> None:
    query, gallery = _features(6, 300, 900, 64)
    hidden = np.random.default_rng(0).random((300, 900)) < 0.2
    for exclude in (None, lambda first, stop: hidden[first:stop]):
        expected = nearest(query, gallery, 12, metric=metric, exclude=exclude)
        found = nearest(query, torch.from_numpy(gallery).cuda(), 12, metric=metric, exclude=exclude)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gallery": np.zeros((0, 3))}, "gallery is empty"),
        ({"gallery": np.zeros((5, 4))}, "one model"),
        ({"top": 0}, "at least 1"),
        ({"metric": "cosin"}, "'cosine'"),
        ({"exclude": np.zeros((2, 5), dtype=bool)}, "function"),
        ({"exclude": lambda first, stop: np.zeros((2, 4), dtype=bool)}, r"\(2, 5\)"),
        ({"exclude": lambda first, stop: np.zeros((2, 5))}, "bool mask"),
        ({"top": 10**9}, "at most as many"),
    ],
)
def test_wrong_requests_are_named(change: dict, message: str) -> None:
    arguments = {"query": np.ones((2, 3)), "gallery": np.eye(5, 3), "top": 2} | change
    with pytest.raises(GloamError, match=message):
        nearest(**arguments)
