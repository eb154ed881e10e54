from __future__ import annotations

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.search import neighbours
from gloam.search.neighbours import nearest_neighbours
from tests.oracles.jaccard import neighbours_dense


@pytest.mark.parametrize(("count", "width", "k"), [(1, 3, 5), (7, 2, 7), (60, 16, 9), (301, 5, 30)])
def test_same_as_sorting_all_distances(count: int, width: int, k: int) -> None:
    features = np.random.default_rng(count).normal(size=(count, width)).astype(np.float32)
    indices, distances = nearest_neighbours(features, k)
    assert indices.tolist() == neighbours_dense(features, k).tolist()
    direct = ((features[:, None] - features[indices]) ** 2).sum(-1)
    np.testing.assert_allclose(distances, direct, rtol=1e-5, atol=1e-7)


def test_duplicates_are_ordered_by_index() -> None:
    features = np.random.default_rng(0).normal(size=(40, 64)).astype(np.float32)
    features[10:30] = features[3]
    indices, distances = nearest_neighbours(features, 6)
    assert indices[20].tolist() == [3, 10, 11, 12, 13, 14]
    assert (distances[20] == 0).all()


def test_blocks_and_threads_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.nn.functional.normalize(torch.randn(500, 33, generator=torch.Generator().manual_seed(0)), dim=1)
    whole, distances = nearest_neighbours(features, 12)
    monkeypatch.setattr(neighbours, "_TILE_ROWS", 33)
    monkeypatch.setattr(neighbours, "_TILE_COLUMNS", 70)
    blocked, blocked_distances = nearest_neighbours(features.double(), 12)
    assert (whole == blocked).all()
    assert (distances == blocked_distances).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_finds_the_same() -> None:
    features = torch.randn(700, 40, generator=torch.Generator().manual_seed(0))
    assert (nearest_neighbours(features, 20)[0] == nearest_neighbours(features.cuda(), 20)[0]).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(4), np.full((3, 3), np.nan)])
def test_unusable_features_are_explained(bad: np.ndarray) -> None:
    with pytest.raises(GloamError):
        nearest_neighbours(bad, 2)
