"""Random hostile numbers: every numeric function returns sound numbers or raises ``GloamError``, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from gloam.clustering.jaccard import jaccard_distance, near_pairs
from gloam.clustering.pseudo_labels import cluster
from gloam.errors import GloamError
from gloam.evaluation.ranking import rank_features, rank_metrics
from gloam.evaluation.rerank import k_reciprocal, rerank_blocks
from gloam.search.nearest import nearest
from gloam.search.neighbours import nearest_neighbours

EXTREMES = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-45, 1e300, 1e30]
TORCH = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
NUMPY = ["f4", "f8", "f2", ">f4", "O", "g", "i4", "?"]


class Draw:
    """Arguments by chance."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    @np.errstate(all="ignore")
    def matrix(self, rows: int, columns: int, unit: float = 0.5) -> Any:
        """Numbers of any size and type; unit rows with this probability."""
        random = self.random
        x = random.standard_normal((rows, columns))
        shape = random.integers(0, 9)
        if shape == 0:
            x *= 10.0 ** random.uniform(-45, 38)
        elif shape == 1:
            x *= 10.0 ** random.uniform(-300, 300)
        elif shape == 2 and x.size:
            x.flat[random.integers(0, x.size)] = random.choice(EXTREMES)
        elif shape == 3:
            x *= 10.0 ** random.uniform(-35, 35, (rows, 1))
        elif shape == 4:
            x = np.full((rows, columns), random.choice([0, 1, 1e20, 3e38, 1e-40]))
        elif shape == 5:
            x = random.integers(-3, 3, (rows, columns)).astype(np.float64)
        if random.random() < unit:
            x /= np.linalg.norm(x, axis=1, keepdims=True)
        if random.random() < 0.5:
            return torch.from_numpy(x).to(TORCH[random.integers(0, len(TORCH))])
        return x.astype(NUMPY[random.integers(0, len(NUMPY))])

    def rows(self) -> int:
        return int(self.random.choice([0, 1, 2, 3, 17, 90]))

    def count(self) -> int:
        return int(self.random.choice([-1, 0, 1, 2, 3, 5, 30, 300], p=[0.02, 0.02, 0.2, 0.2, 0.2, 0.2, 0.1, 0.06]))

    def ids(self, rows: int) -> np.ndarray:
        return self.random.integers(0, 5, rows)


def _neighbours(draw: Draw, rows: int, others: int, width: int) -> None:
    indices, distances = nearest_neighbours(draw.matrix(rows, width), draw.count())
    assert np.isfinite(distances).all()
    assert ((indices >= 0) & (indices < rows)).all()
    assert (np.diff(distances, axis=1) >= 0).all()


def _nearest(draw: Draw, rows: int, others: int, width: int) -> None:
    metric = draw.random.choice(["cosine", "euclidean"])
    hide = (
        (lambda first, stop: draw.random.random((stop - first, others)) < 0.5) if draw.random.random() < 0.4 else None
    )
    left, right = draw.matrix(rows, width), draw.matrix(others, width)
    indices, distances = nearest(left, right, draw.count(), metric=str(metric), exclude=hide)
    assert (np.isfinite(distances) == (indices >= 0)).all()
    assert (indices < others).all()
    assert (distances >= 0).all()
    assert metric == "euclidean" or (distances[indices >= 0] <= 2.000001).all()


def _rerank_matrices(draw: Draw, rows: int, others: int, width: int) -> None:
    tables = [draw.matrix(*shape, unit=0) for shape in ((rows, others), (rows, rows), (others, others))]
    tables = [table if draw.random.random() < 0.5 or "bool" in str(table.dtype) else abs(table) for table in tables]
    squared = bool(draw.random.random() < 0.5)
    options = {"k1": draw.count(), "k2": draw.count(), "weight": draw.random.uniform(), "input_is_squared": squared}
    assert np.isfinite(k_reciprocal(*tables, **options)).all()


def _rerank_features(draw: Draw, rows: int, others: int, width: int) -> None:
    sides = draw.matrix(rows, width), draw.matrix(others, width)
    for _, block in rerank_blocks(*sides, k1=draw.count(), k2=draw.count(), metric="euclidean"):
        assert np.isfinite(block).all()


def _jaccard(draw: Draw, rows: int, others: int, width: int) -> None:
    options = {"k1": draw.count(), "k2": draw.count()}
    features = draw.matrix(rows, width, unit=0.9)
    found = jaccard_distance(features, **options)
    assert ((found.data >= 0) & (found.data < 1)).all()
    near_pairs(features, limit=draw.random.uniform(-0.1, 1.1), **options)
    cluster(features, eps=draw.random.uniform(), min_samples=draw.count(), **options)


def _ranking(draw: Draw, rows: int, others: int, width: int) -> None:
    ids = [draw.ids(size) for size in (rows, others, rows, others)]
    rules = {
        "camera_rule": str(draw.random.choice(["none", "sysu", "same_id_same_cam"])),
        "cmc": str(draw.random.choice(["standard", "unique_id"])),
    }
    if draw.random.random() < 0.5:
        metrics = rank_metrics(draw.matrix(rows, others, unit=0), *ids, **rules)
    else:
        metric = str(draw.random.choice(["cosine", "euclidean"]))
        metrics = rank_features(draw.matrix(rows, width), draw.matrix(others, width), *ids, **rules, metric=metric)
    assert 0 < metrics.mINP <= 1
    assert 0 < metrics.mAP <= 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("call", [_neighbours, _nearest, _rerank_matrices, _rerank_features, _jaccard, _ranking])
def test_numbers_or_a_reason(call: Callable[[Draw, int, int, int], None]) -> None:
    answered = 0
    for seed in range(300):
        draw = Draw(seed)
        try:
            call(draw, draw.rows(), draw.rows(), int(draw.random.choice([1, 2, 8, 40])))
            answered += 1
        except GloamError as error:
            assert len(str(error)) > 30  # noqa: PT017 (either is right)
    assert answered > 50
