from __future__ import annotations

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.search import neighbours
from gloam.search.neighbours import nearest_neighbours
from tests.oracles import nearest as oracle
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


def _alike(seed: int, count: int, width: int, cosine: float) -> np.ndarray:
    """Unit rows whose mean cosine is about ``cosine``."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, width))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    centre = generator.standard_normal(width)
    x = np.sqrt(1 - cosine) * x + np.sqrt(cosine) * centre / np.linalg.norm(centre)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(params=["compiled", "tensor"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to propose; the tensor one runs on accelerators, here on the CPU."""
    if request.param == "tensor":
        monkeypatch.setattr("gloam.search.exact._compiled", lambda query: False)
        monkeypatch.setattr("gloam.search.points.Points.on_cpu", False)
    return request.param


@pytest.mark.parametrize("cosine", [0.999, 0.9999, 0.99999, 0.9999999])
@pytest.mark.parametrize(("count", "width"), [(150, 512), (600, 64)])
def test_alike_features_have_their_nearest_neighbours(count: int, width: int, cosine: float, way: str) -> None:
    features = _alike(count, count, width, cosine)
    indices, found = nearest_neighbours(features, 20)
    table = oracle.distances(features, features, "euclidean") ** 2
    assert oracle.wrong_places(table, indices) == 0
    np.testing.assert_allclose(found, np.sort(table, axis=1)[:, :20], rtol=1e-6)


@pytest.mark.parametrize("kind", ["two crowds", "all equal", "few different", "one-hot", "grid", "outlier", "tiny"])
def test_crowds_ties_and_extremes(kind: str, way: str) -> None:
    """More candidates than a row has room for, in float32 and (ties) in float64 too."""
    generator = np.random.default_rng(0)
    crowd = _alike(1, 400, 32, 0.999999)
    features = {
        "two crowds": np.where(np.arange(400)[:, None] % 2, crowd, -crowd[::-1]),
        "all equal": np.repeat(crowd[:1], 400, axis=0),
        "few different": crowd[generator.integers(0, 3, 400)],
        "one-hot": np.eye(32, dtype=np.float32)[generator.integers(0, 32, 400)],
        "grid": generator.integers(-1, 2, (400, 3)).astype(np.float32),
        "outlier": np.concatenate([crowd[:399], np.full((1, 32), 1e12, dtype=np.float32)]),
        "tiny": (1e-20 * generator.standard_normal((400, 32))).astype(np.float32),
    }[kind]
    indices, _ = nearest_neighbours(features, 12)
    if kind in ("one-hot", "grid", "all equal", "few different"):  # float64 has no doubt: ties come by index
        assert indices.tolist() == neighbours_dense(features, 12).tolist()
    assert oracle.wrong_places(oracle.distances(features, features, "euclidean"), indices) == 0


def test_less_precise_products_are_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorFloat-32 multiplies: inputs of ten bits."""

    def coarse(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        if x.dtype == torch.float32:
            x, y = ((part.contiguous().view(torch.int32) & -(2**13)).view(torch.float32) for part in (x, y))
        return torch.mm(x, y.T, out=out)

    monkeypatch.setattr("gloam.search.exact.multiply", coarse)
    monkeypatch.setattr("gloam.search.neighbours.multiply", coarse)
    monkeypatch.setattr("gloam.search.exact._product_mode", lambda device: "tf32")
    features = _alike(0, 500, 64, 0.9)
    indices, _ = nearest_neighbours(features, 10)
    assert oracle.wrong_places(oracle.distances(features, features, "euclidean"), indices) == 0
    monkeypatch.setattr("gloam.search.exact._product_mode", lambda device: "ieee")
    indices, _ = nearest_neighbours(features, 10)
    assert oracle.wrong_places(oracle.distances(features, features, "euclidean"), indices) > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_finds_the_same() -> None:
    features = torch.randn(700, 40, generator=torch.Generator().manual_seed(0))
    assert (nearest_neighbours(features, 20)[0] == nearest_neighbours(features.cuda(), 20)[0]).all()


@pytest.mark.parametrize("bad", [np.zeros((0, 3)), np.zeros(4), np.full((3, 3), np.nan)])
def test_unusable_features_are_explained(bad: np.ndarray) -> None:
    with pytest.raises(GloamError):
        nearest_neighbours(bad, 2)
