"""Stripe images: which panels appear, what is right and wrong, and the neighbours of known vectors."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from matplotlib import pyplot
from matplotlib.colors import to_rgb

from gloam.errors import GloamError
from gloam.losses.permutation import draw_orders, order_matrix, shuffle_stripes
from gloam.visualize import stripes
from gloam.visualize.figure_files import save_figure
from gloam.visualize.rank_list import RIGHT, WRONG
from gloam.visualize.stripes import StripeImages, draw_stripes, find_neighbours
from tests.visualize.images import count, pixels

PARTS, COUNT = 4, 2


def _stripe_images(
    *, right: bool = True, orders: bool = True, vectors: bool = True, parts: int = PARTS
) -> StripeImages:
    """Two images of each modality with stripes of their own grey; vectors say which stripe is which."""
    generator = torch.Generator().manual_seed(0)
    images = torch.arange(2 * COUNT * PARTS).mul(8).view(2 * COUNT, 1, PARTS, 1, 1).expand(-1, 3, -1, 12, 24)
    images = images.reshape(2 * COUNT, 3, PARTS * 12, 24).to(torch.uint8)
    true = draw_orders(2 * COUNT, PARTS, generator)
    matrices = order_matrix(true if right else true.roll(1, dims=1))
    features = torch.eye(PARTS)[true] if parts > 1 else torch.eye(COUNT).repeat(2, 1)[:, None]
    return StripeImages(images, true, matrices if orders else None, features if vectors else None)


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(round(255 * c) for c in to_rgb(colour))


def test_right_orders_are_blue_and_wrong_ones_orange(tmp_path: Path) -> None:
    right = pixels(save_figure(draw_stripes(_stripe_images(vectors=False)), tmp_path / "out" / "right.png"))
    wrong = pixels(save_figure(draw_stripes(_stripe_images(vectors=False, right=False)), tmp_path / "wrong.png"))
    assert count(right, _rgb(RIGHT)) > 10 * count(right, _rgb(WRONG))
    assert count(wrong, _rgb(WRONG)) > 10 * count(wrong, _rgb(RIGHT))


def test_images_are_put_back_as_assigned() -> None:
    shown = _stripe_images()
    figure = stripes._draw(shown, 0)
    drawn = {}
    for axes in figure.axes:
        if axes.images:
            drawn.setdefault(axes.get_title(), []).append(torch.as_tensor(axes.images[0].get_array().copy()))
    for number, (shuffled, back) in enumerate(zip(drawn["shuffled"], drawn["put back"], strict=True)):
        assert torch.equal(back.permute(2, 0, 1), shown.images[number])
        expected = shuffle_stripes(shown.images[number : number + 1], shown.orders[number : number + 1])[0]
        assert torch.equal(shuffled.permute(2, 0, 1), expected)
    assert [m.tolist() for m in drawn["soft permutation"]] == [m.tolist() for m in order_matrix(shown.orders).double()]


def test_panels_without_data_are_left_out(tmp_path: Path) -> None:
    titles = {
        key: {axes.get_title() for axes in stripes._draw(_stripe_images(orders=key != "b", vectors=key != "a"), 0).axes}
        for key in "ab"
    }
    assert "put back" in titles["a"]
    assert "soft neighbour" not in titles["a"]
    assert "put back" not in titles["b"]
    assert "soft neighbour" in titles["b"]
    with pytest.raises(GloamError, match="without permutation recovery and without PCC"):
        save_figure(draw_stripes(_stripe_images(orders=False, vectors=False)), tmp_path / "none.png")


def test_whole_images_have_neighbours_too(tmp_path: Path) -> None:
    texts = [t.get_text() for t in stripes._draw(_stripe_images(orders=False, parts=1), 0).texts]
    assert any("cycle closes for 100 % of 2 queries" in text for text in texts)
    assert not any("body stripe" in text for text in texts)


def test_neighbours_of_known_vectors() -> None:
    own = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    other = torch.tensor([[[0.6, 0.8], [5.0, 0.0]]])
    found = find_neighbours(own, other, temperature=0.5)
    weight = 1 / (1 + math.exp((0.6 - 1.0) / 0.5))
    torch.testing.assert_close(found.weights[0], torch.tensor([1 - weight, weight]))
    assert found.nearest.tolist() == [1, 0]
    assert found.back.tolist() == [0, 0]  # both soft neighbours lean to the first axis
    assert find_neighbours(own, other, temperature=0.01).back.tolist() == [0, 1]


def test_shares_tell_the_part_from_the_place() -> None:
    texts = [t.get_text() for t in stripes._draw(_stripe_images(), 0).texts]
    note = next(text for text in texts if text.startswith("visible to infrared"))
    assert "same body stripe 100 %" in note
    assert "(chance of either 25 %)" in note
    places = _stripe_images()
    by_place = StripeImages(places.images, places.orders, None, torch.eye(PARTS).repeat(2 * COUNT, 1, 1))
    texts = [t.get_text() for t in stripes._draw(by_place, 0).texts]
    assert any("same place in the shuffled image 100 %" in text for text in texts)


def test_the_seed_chooses_the_queries_and_pyplot_is_left_alone(tmp_path: Path) -> None:
    before = pyplot.get_fignums()
    files = [
        save_figure(draw_stripes(_stripe_images(), seed=s), tmp_path / f"{n}.png").read_bytes()
        for n, s in enumerate((0, 0, 3))
    ]
    assert files[0] == files[1]
    assert files[0] != files[2]
    assert pyplot.get_fignums() == before
