"""InfoMap clusters: which neighbours are linked, how similar they must be, how large a module must be."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from gloam.clustering.infomap_clusters import cluster_by_infomap
from gloam.errors import GloamError

needs_infomap = pytest.mark.skipif(
    importlib.util.find_spec("infomap") is None, reason="the extra infomap is not installed"
)


def _groups(*sizes: int, noise: float = 0.05, seed: int = 0) -> Tensor:
    """Groups of alike rows in orthogonal directions."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    return torch.eye(16)[ids] + noise * torch.randn(len(ids), 16, generator=generator)


@needs_infomap
def test_modules_of_at_most_the_given_size_are_outliers() -> None:
    features = _groups(4, 5, 6, 7)
    sizes = [4, 5, 6, 7]

    def expected(kept: list[int]) -> list[int]:
        return [label for group, size in enumerate(sizes) for label in [kept[group]] * size]

    assert cluster_by_infomap(features).tolist() == expected([-1, 0, 1, 2])
    assert cluster_by_infomap(features, largest_outlier_module=3).tolist() == expected([0, 1, 2, 3])
    assert cluster_by_infomap(features, largest_outlier_module=5).tolist() == expected([-1, -1, 0, 1])
    assert cluster_by_infomap(features, largest_outlier_module=7).tolist() == expected([-1] * 4)


@needs_infomap
def test_numbers_follow_the_smallest_index() -> None:
    order = torch.randperm(24, generator=torch.Generator().manual_seed(3))
    labels = cluster_by_infomap(_groups(5, 6, 6, 7)[order])
    assert sorted(set(labels.tolist())) == [0, 1, 2, 3]
    first = [labels.tolist().index(c) for c in range(4)]
    assert first == sorted(first)


def _at_angles(*degrees: float) -> Tensor:
    """Unit rows in a plane."""
    radians = [math.radians(x) for x in degrees]
    return torch.tensor([[math.cos(x), math.sin(x)] for x in radians], dtype=torch.float32)


def _links(monkeypatch: pytest.MonkeyPatch, features: Tensor, **options: object) -> dict[tuple[int, int], float]:
    """The links that a clustering hands to InfoMap."""
    seen: list[tuple[int, int, float]] = []

    class Infomap:
        def __init__(self, arguments: str) -> None:
            assert "--two-level" in arguments
            assert "--directed" in arguments

        def add_links(self, links: list[tuple[int, int, float]]) -> None:
            seen.extend(links)

        def run(self) -> None:
            pass

        def write_clu(self, file: str) -> None:
            Path(file).write_text("# node_id module flow\n0 1 1\n")

    module = type(sys)("infomap")
    module.Infomap = Infomap  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "infomap", module)
    cluster_by_infomap(features, **options)  # type: ignore[arg-type]
    return {(i, j): weight for i, j, weight in seen}


def test_links_are_the_similar_neighbours_with_their_cosine(monkeypatch: pytest.MonkeyPatch) -> None:
    """By loops: the k nearest, itself included; a link while the cosine is at least the smallest one."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(20, 4, generator=generator)
    units = normalize(features.double(), dim=1)
    for k, smallest in ((4, 0.5), (6, 0.2), (20, 0.7)):
        expected = {}
        for i in range(20):
            cosines = (units @ units[i]).tolist()
            nearest = sorted(range(20), key=lambda j, c=cosines: -c[j])[:k]
            expected |= {(i, j): cosines[j] for j in nearest if j != i and cosines[j] >= smallest}
        found = _links(monkeypatch, features, k=k, min_similarity=smallest)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_link_at_the_border_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosines of 0, 0.5 and 1 are exact in float32."""
    rows = torch.tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0.5, 0.5], [0, 1.0, 0, 0]])
    assert _links(monkeypatch, rows, min_similarity=0.5).keys() == {(0, 1), (1, 0), (1, 2), (2, 1)}
    assert _links(monkeypatch, rows, min_similarity=0.51).keys() == set()


def test_fifteen_neighbours_and_half_a_cosine_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    links = _links(monkeypatch, _at_angles(*(0.01 * i for i in range(30))))
    assert {sum(i == node for i, _ in links) for node in range(30)} == {14}
    assert _links(monkeypatch, _at_angles(0, 59)).keys() == {(0, 1), (1, 0)}
    assert _links(monkeypatch, _at_angles(0, 61)) == {}


def test_lengths_of_the_features_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(12, 3, generator=torch.Generator().manual_seed(2))
    lengths = torch.linspace(0.1, 9, 12)[:, None]
    assert _links(monkeypatch, features * lengths) == pytest.approx(_links(monkeypatch, features), abs=1e-5)


def test_images_without_links_are_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infomap", type(sys)("infomap"))
    sys.modules["infomap"].Infomap = None  # type: ignore[attr-defined]  # never asked
    assert cluster_by_infomap(np.eye(5)).tolist() == [-1] * 5


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(GloamError, match=r"gloam\[infomap\]"):
        cluster_by_infomap(np.eye(5))


@needs_infomap
@pytest.mark.skipif(importlib.util.find_spec("faiss") is None, reason="the extra search is not installed")
def test_a_process_that_has_loaded_faiss_clusters_too() -> None:
    """Both packages share SWIG's iterator type: reading infomap's lists with FAISS's iterator ends the process."""
    script = (
        "import faiss, infomap, torch\n"
        "from gloam.clustering.infomap_clusters import cluster_by_infomap\n"
        "generator = torch.Generator().manual_seed(0)\n"
        "ids = torch.arange(40).repeat_interleave(20)\n"
        "features = torch.randn(40, 64, generator=generator)[ids] + torch.randn(800, 64, generator=generator) / 5\n"
        "read = []\n"
        "def walk(self):\n    read.append(1)\n    raise StopIteration\n"
        "faiss.swigfaiss.SwigPyIterator.__next__ = walk\n"
        "print(len(set(cluster_by_infomap(features).tolist())), read)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["40", "[]"], done.stderr[-500:]
