"""Features in the plane."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gloam.errors import GloamError
from gloam.visualize import embedding
from gloam.visualize.embedding import draw_embedding
from gloam.visualize.figure_files import save_figure
from tests.visualize.images import pixels


def _points(count: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    pids = np.arange(count) % 6
    features = generator.standard_normal((6, 8))[pids] * 4 + generator.standard_normal((count, 8))
    return features.astype(np.float32), pids, generator.integers(0, 2, count)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_an_embedding_is_drawn(method: str, tmp_path: Path) -> None:
    features, pids, modalities = _points()
    path = save_figure(
        draw_embedding(torch.from_numpy(features), pids, modalities, method=method, ids=4), tmp_path / "e.png"
    )
    assert pixels(path).shape[2] == 3
    assert pixels(path).std() > 5


def test_principal_components_keep_distances_of_planar_points() -> None:
    generator = np.random.default_rng(1)
    plane = generator.standard_normal((30, 2)) * [5, 1]
    turn, _ = np.linalg.qr(generator.standard_normal((7, 7)))
    points = (np.hstack([plane, np.zeros((30, 5))]) @ turn + 3).astype(np.float32)
    found, labels = embedding._project(points, "pca", 0)
    expected = np.linalg.norm(plane[:, None] - plane[None], axis=2)
    np.testing.assert_allclose(np.linalg.norm(found[:, None] - found[None], axis=2), expected, atol=1e-4)
    shares = np.linalg.eigvalsh(np.cov(plane.T))
    assert f"{100 * shares[1] / shares.sum():.0f} %" in labels[0]
    assert found[:, 0].std() > found[:, 1].std()


def test_one_dimensional_features(tmp_path: Path) -> None:
    assert save_figure(
        draw_embedding(np.arange(5.0)[:, None], [1, 1, 2, 2, 2], [0, 1, 0, 1, 0]), tmp_path / "e.png"
    ).is_file()


def test_wrong_input_is_named(tmp_path: Path) -> None:
    features, pids, modalities = _points()
    with pytest.raises(GloamError, match="59 ids"):
        save_figure(draw_embedding(features, pids[1:], modalities), tmp_path / "e.png")
    with pytest.raises(GloamError, match="'tsne'"):
        save_figure(draw_embedding(features, pids, modalities, method="tsnee"), tmp_path / "e.png")
    with pytest.raises(GloamError, match="at least three"):
        save_figure(draw_embedding(features[:2], pids[:2], modalities[:2]), tmp_path / "e.png")
    features[3] = np.nan
    with pytest.raises(GloamError, match="NaN"):
        save_figure(draw_embedding(features, pids, modalities), tmp_path / "e.png")


@pytest.mark.parametrize("spread", [0.0, 0.3])
def test_labels_do_not_overlap(spread: float) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Annotation

    draws = np.random.default_rng(0)
    pids = np.repeat(np.arange(20) * 1111, 6)
    features = draws.normal(size=(120, 8)).astype(np.float32)
    features[:, :2] += spread * pids[:, None]
    features[0] += 50  # an outlier squeezes all others together
    figure = draw_embedding(features, pids, np.tile([0, 1], 60))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    labels = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert len(labels) == 20
    boxes = [label.get_bbox_patch().get_window_extent(canvas.get_renderer()) for label in labels]
    frame = figure.axes[0].get_window_extent()
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:number])
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
