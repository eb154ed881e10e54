"""k-reciprocal re-ranking: worked examples, a dense oracle, properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.evaluation.rerank import k_reciprocal, rerank_blocks
from gloam.search import distances as distance_module
from tests.oracles import reranking as oracle


def _blocks(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(axis=2))

    return distances(query, gallery), distances(query, query), distances(gallery, gallery)


@pytest.mark.parametrize(
    ("k1", "k2", "weight", "expected"),
    [
        (2, 1, 0.3, [[0.330490, 0.653534, 1.0], [0.766288, 0.303033, 0.892]]),
        (2, 2, 0.3, [[0.003704, 0.643663, 0.942323], [0.776404, 0.012, 0.658667]]),
        (1, 1, 0.0, [[0.013888, 1, 1], [1, 0.039211, 1]]),
    ],
)
def test_worked_example(k1: int, k2: int, weight: float, expected: list[list[float]]) -> None:
    blocks = _blocks(np.array([[0.0], [5.0]]), np.array([[1.0], [4.0], [9.0]]))
    np.testing.assert_allclose(k_reciprocal(*blocks, k1=k1, k2=k2, weight=weight), expected, atol=1e-6)
    tensors = [torch.from_numpy(block) for block in blocks]
    np.testing.assert_allclose(k_reciprocal(*tensors, k1=k1, k2=k2, weight=weight), expected, atol=1e-6)


def _clustered(seed: int, queries: int, gallery: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = generator.standard_normal((6, 5))
    points = centres[generator.integers(0, 6, queries + gallery)] + 0.4 * generator.standard_normal(
        (queries + gallery, 5)
    )
    return points[:queries], points[queries:]


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (5, 3, 0.0), (7, 1, 0.5), (15, 2, 0.3), (3, 6, 1.0)])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_dense_oracle(seed: int, k1: int, k2: int, weight: float) -> None:
    query, gallery = _clustered(seed, 9 + seed, 40)
    blocks = _blocks(query, gallery)
    expected = oracle.k_reciprocal(*blocks, k1=k1, k2=k2, weight=weight)
    np.testing.assert_allclose(k_reciprocal(*blocks, k1=k1, k2=k2, weight=weight), expected, atol=2e-6)


@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_blocks_from_features_equal_the_matrices(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, gallery = _clustered(1, 12, 50)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    monkeypatch.setattr(distance_module, "BLOCK_BYTES", 4 * 62 * rows)
    for metric, points in (("euclidean", (query, gallery)), ("cosine", unit)):
        expected = oracle.k_reciprocal(*_blocks(*points), k1=10, k2=3)
        found = np.concatenate([b for _, b in rerank_blocks(query, gallery, metric=metric, k1=10, k2=3)])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_squares_may_be_given() -> None:
    blocks = _blocks(*_clustered(2, 8, 30))
    expected = k_reciprocal(*blocks)
    squares = [block**2 for block in blocks]
    np.testing.assert_allclose(k_reciprocal(*squares, input_is_squared=True), expected, atol=1e-6)
    assert np.abs(k_reciprocal(*squares) - expected).max() > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_full_weight_keeps_the_order_of_every_query(seed: int) -> None:
    blocks = _blocks(*_clustered(seed, 8, 30))
    found = k_reciprocal(*blocks, weight=1.0)
    assert np.argsort(found, axis=1).tolist() == np.argsort(blocks[0], axis=1).tolist()


def test_a_permuted_gallery_permutes_the_result() -> None:
    qg, qq, gg = _blocks(*_clustered(3, 8, 30))
    order = np.random.default_rng(0).permutation(30)
    found = k_reciprocal(qg[:, order], qq, gg[np.ix_(order, order)])
    np.testing.assert_allclose(found, k_reciprocal(qg, qq, gg)[:, order], atol=1e-6)


def test_more_neighbours_than_items() -> None:
    found = k_reciprocal(*_blocks(np.array([[0.0]]), np.array([[1.0], [3.0]])), k1=50, k2=20)
    assert found.shape == (1, 2)
    assert found[0, 0] < found[0, 1]


def test_bad_input_is_named() -> None:
    qg, qq, gg = _blocks(*_clustered(0, 4, 6))
    with pytest.raises(GloamError, match="one matrix"):
        k_reciprocal(qg.T, qq, gg)
    with pytest.raises(GloamError, match="weight"):
        k_reciprocal(qg, qq, gg, weight=2)
    with pytest.raises(GloamError, match="NaN"):
        k_reciprocal(np.full_like(qg, np.nan), qq, gg)
