"""Rank lists: which entries appear, in which frames, and what a wrong request says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from gloam.datasets.records import Modality
from gloam.errors import GloamError
from gloam.visualize import rank_list
from gloam.visualize.figure_files import save_figure
from gloam.visualize.rank_list import RIGHT, WRONG, draw_rank_list
from tests.visualize.images import COLOURS, count, pixels, write_dataset


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(round(255 * c) for c in to_rgb(colour))


def test_right_and_wrong_entries_are_framed_and_hidden_ones_left_out(tmp_path: Path) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    path = save_figure(draw_rank_list(splits, query, gallery, queries=1, top=1), tmp_path / "out" / "list.png")
    image = pixels(path)
    # Camera 2 is hidden from camera 3, so one right entry; about a frame's worth of blue, orange in the legend only.
    assert count(image, _rgb(RIGHT)) > 10 * count(image, _rgb(WRONG))
    wrong = pixels(save_figure(draw_rank_list(splits, query, 1 - gallery, queries=1, top=1), tmp_path / "wrong.png"))
    assert count(wrong, _rgb(WRONG)) > 10 * count(wrong, _rgb(RIGHT))
    more = pixels(
        save_figure(draw_rank_list(splits, query, gallery, protocol="none", queries=3, top=2), tmp_path / "more.png")
    )
    for colour in COLOURS.values():
        assert count(more, colour) > 3 * 0.8 * 128 * 256  # the query and both entries of each person


def test_rows_are_the_nearest_visible_entries(tmp_path: Path) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    mixed = gallery + 0.3 * np.random.default_rng(0).standard_normal(gallery.shape).astype(np.float32)
    rows = rank_list._rank(
        splits, splits.protocols["x/all"], torch.from_numpy(query), mixed, 3, 10, "best", 0, "euclidean"
    )
    assert [row.precision for row in rows] == sorted((row.precision for row in rows), reverse=True)
    for row in rows:
        own = query[row.query.pid - 1]
        visible = [i for i, entry in enumerate(splits.gallery) if entry.cam != 2]
        order = sorted(visible, key=lambda i: ((mixed[i] - own) ** 2).sum())
        assert row.found == [splits.gallery[i] for i in order]
    worst = rank_list._rank(splits, splits.protocols["x/all"], query, mixed, 3, 1, "worst", 0, "euclidean")
    assert [row.precision for row in worst] == [row.precision for row in rows][::-1]


def test_ties_are_shown_in_gallery_order() -> None:
    distances = torch.tensor([0.5, 0.1, 0.5, 0.5, 0.1, 0.9])
    assert rank_list._nearest(distances, np.array([True] * 6), 4) == [1, 4, 0, 2]
    assert rank_list._nearest(distances, np.array([True, False, True, True, True, True]), 9) == [4, 0, 2, 3, 5]
    assert rank_list._nearest(distances, np.zeros(6, dtype=bool), 3) == []


def test_random_queries_depend_on_the_seed_only(tmp_path: Path) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    first = [
        [row.query.pid for row in rank_list._rank(
            splits, splits.protocols["x/all"], query, gallery, 2, 1, "random", seed, "cosine"
        )]
        for seed in (0, 0, 1, 2, 3, 4)
    ]  # fmt: skip
    assert first[0] == first[1]
    assert len({tuple(f) for f in first}) > 1


def test_tracklets_show_first_middle_and_last_frame(tmp_path: Path) -> None:
    splits, _, _ = write_dataset(tmp_path, frames=5)
    image = rank_list._image(tmp_path, splits.query[0], 300, 100)
    assert image.shape == (100, 300, 3)
    assert [image[50, x, 0] for x in (50, 150, 250)] == [255, 204, 153]
    assert (image[50, 98] == 255).all()


def test_drawing_leaves_pyplot_alone(tmp_path: Path) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    save_figure(draw_rank_list(splits, query, gallery, queries=1, top=1), tmp_path / "list.png")
    assert pyplot.get_fignums() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "al"}, "'all'"),
        ({"choose": "wurst"}, "'worst'"),
        ({"top": 0}, "at least one"),
        ({"metric": "euclid"}, "'euclidean'"),
    ],
)
def test_wrong_requests_are_named(tmp_path: Path, options: dict, message: str) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    with pytest.raises(GloamError, match=message):
        save_figure(draw_rank_list(splits, query, gallery, **options), tmp_path / "list.png")
    assert not (tmp_path / "list.png").exists()


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    splits, query, gallery = write_dataset(tmp_path)
    (tmp_path / splits.query[0].paths[0]).write_bytes(b"")
    with pytest.raises(GloamError, match=r"cam3/1/0\.png"):
        save_figure(draw_rank_list(splits, query, gallery, queries=3), tmp_path / "list.png")
    assert splits.query[0].modality is Modality.INFRARED
