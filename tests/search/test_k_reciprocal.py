"""Expanded k-reciprocal sets, averaged rows and overlaps, against sets and dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array

from gloam.search.k_reciprocal import averaged, expanded_sets, half_width, inverted, overlap_pairs, overlap_rows
from tests.oracles.jaccard import neighbours_dense


@pytest.mark.parametrize(("full", "half"), [(8, 5), (8, 3), (3, 8), (1, 1), (30, 16)])
def test_expanded_sets_are_the_definition(full: int, half: int) -> None:
    neighbours = neighbours_dense(np.random.default_rng(0).standard_normal((40, 3)), 30).astype(np.int32)
    starts, columns = expanded_sets(neighbours, full, half)

    def reciprocal(i: int, width: int) -> set[int]:
        return {j for j in neighbours[i, :width].tolist() if i in neighbours[j, :width]}

    for i in range(40):
        own = reciprocal(i, full)
        expected = set(own)
        for j in own:
            other = reciprocal(j, half)
            if 3 * len(other & own) > 2 * len(other):
                expected |= other
        assert columns[starts[i] : starts[i + 1]].tolist() == sorted(expected)


def test_half_width_is_half_rounded_to_even_plus_one() -> None:
    assert [half_width(k) for k in (1, 2, 3, 5, 7, 15, 30)] == [1, 2, 3, 3, 5, 9, 16]
    assert half_width(10**400) > 10**399


def _encoding(seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    dense = generator.random((30, 30)) * (generator.random((30, 30)) < 0.2)
    dense[4] = 0
    return (dense / np.maximum(dense.sum(axis=1, keepdims=True), 1e-9)).astype(np.float32)


def test_rows_are_averaged_over_neighbours() -> None:
    dense = _encoding(0)
    neighbours = neighbours_dense(np.random.default_rng(1).standard_normal((30, 3)), 6).astype(np.int32)
    found = averaged(csr_array(dense), neighbours, 4)
    np.testing.assert_allclose(found.toarray(), dense[neighbours[:, :4]].mean(axis=1), atol=1e-7)
    assert averaged(found, neighbours, 1) is found


def test_overlaps_are_the_jaccard_distance() -> None:
    dense = _encoding(2)
    shared = np.minimum(dense[:, None], dense[None]).sum(-1, dtype=np.float64)
    expected = 1 - shared / (2 - shared)
    encoding = csr_array(dense)
    pairs = overlap_pairs(encoding)
    full = np.ones((30, 30))
    entries = pairs.tocoo()
    full[entries.row, entries.col] = entries.data
    np.testing.assert_allclose(full, np.maximum(expected, 0), atol=1e-6)
    lower = overlap_pairs(encoding, limit=0.5, lower=True).tocoo()
    assert (lower.col <= lower.row).all()
    assert lower.nnz == (np.tril(expected <= 0.5)).sum()
    rows = overlap_rows(encoding[:9], inverted(encoding[9:]), 2, 7)
    np.testing.assert_allclose(rows, expected[2:7, 9:], atol=1e-6)


@pytest.mark.parametrize("bad", [-1, 40])
def test_indices_outside_the_items_never_reach_the_compiled_loops(bad: int) -> None:
    neighbours = np.zeros((40, 5), dtype=np.int32)
    neighbours[7, 2] = bad
    with pytest.raises(IndexError, match="40 items"):
        expanded_sets(neighbours, 5, 3)
    with pytest.raises(IndexError, match="40 items"):
        averaged(csr_array(np.eye(40, dtype=np.float32)), neighbours, 3)
    with pytest.raises(IndexError, match="name 6"):
        expanded_sets(np.zeros((40, 5), dtype=np.int32), 6, 3)
