"""The drawing of synthetic people: every layout loads, same seed same bytes, nothing half-written, neither trivial nor
hopeless across modalities."""

from __future__ import annotations

import hashlib
import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from gloam.datasets import Record, load_dataset
from gloam.drawing import layouts, person, render
from gloam.drawing.dataset import draw_dataset
from gloam.drawing.layouts import LAYOUTS
from gloam.errors import GloamError, WriteError

SMALL: dict[str, Any] = {"ids": 5, "height": 32, "width": 16, "progress": False}
VIDEO = ("hitsz_vcm", "bupt_campus")
Features = npt.NDArray[np.float64]


def digest(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in root.rglob("*")
        if path.is_file()
    }


def read(root: Path, path: str) -> npt.NDArray[np.uint8]:
    with Image.open(root / path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_loads(layout: str, tmp_path: Path) -> None:
    out = tmp_path / layout
    found = draw_dataset(layout, out, images=2, **SMALL)
    splits = load_dataset(layout, out)
    parts = {"train": splits.train, "query": splits.query, "gallery": splits.gallery}
    assert all(parts.values())
    files = [p for p in out.rglob("*") if p.suffix in (".jpg", ".bmp")]
    assert len(files) == found["images"]
    assert found["people"] == 5
    named = [path for part in (*parts.values(), splits.auxiliary) for record in part for path in record.paths]
    assert len(named) == len(set(named))
    assert all((out / name).is_file() for name in named)
    # Every image is listed, except junk (Market), list_val (MSMT17) and the validation ids' none.
    unlisted = {p.relative_to(out).as_posix() for p in files} - set(named)
    if layout == "msmt17":
        val = load_dataset(layout, out, train="train_val")
        unlisted -= {path for record in val.train for path in record.paths}
    assert all(name.startswith("bounding_box_test/-1") for name in unlisted)
    assert splits.is_video == (layout in VIDEO)
    if layout == "msmt17":
        assert {r.pid_raw for r in splits.train} & {r.pid_raw for r in splits.query}
    else:
        assert not {r.pid_raw for r in splits.train} & {r.pid_raw for r in (*splits.query, *splits.gallery)}
    for modality in splits.modalities:
        lit = {r.pid for r in splits.train if r.modality == modality}
        assert lit == set(range(splits.num_classes))
    with Image.open(files[0]) as image:
        assert image.size == (16, 32)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_query_has_a_match_that_counts(layout: str, tmp_path: Path) -> None:
    draw_dataset(layout, tmp_path / "d", images=1, **SMALL)
    splits = load_dataset(layout, tmp_path / "d")
    for protocol in splits.protocols.values():
        query, gallery = (splits.gallery, splits.query) if protocol.swapped else (splits.query, splits.gallery)
        if protocol.query_modality is not None:
            query = tuple(r for r in query if r.modality == protocol.query_modality)
        if protocol.gallery_modality is not None:
            gallery = tuple(r for r in gallery if r.modality == protocol.gallery_modality)
        if protocol.gallery_cams is not None and protocol.sampled == "gallery":
            gallery = tuple(r for r in gallery if r.cam in protocol.gallery_cams)

        def counts(q: Record, g: Record, rule: str = protocol.camera_rule) -> bool:
            if rule == "same_id_same_cam":
                return g.pid == q.pid and g.cam != q.cam
            if rule == "sysu":
                return g.pid == q.pid and not (q.cam == 3 and g.cam == 2)
            return g.pid == q.pid

        matched = [any(counts(q, g) for g in gallery) for q in query if q.pid > 0]
        assert any(matched), protocol.name
        if "indoor" not in protocol.name:
            assert all(matched), protocol.name


def test_regdb_has_ten_different_divisions(tmp_path: Path) -> None:
    draw_dataset("regdb", tmp_path / "d", images=2, ids=6, height=32, width=16, progress=False)
    divisions = {tuple(sorted(load_dataset("regdb", tmp_path / "d", trial=t).label_map)) for t in range(1, 11)}
    assert len(divisions) > 3
    assert all(len(division) == 3 for division in divisions)
    assert (tmp_path / "d" / "idx" / "test_thermal_10.txt").is_file()


def test_sysu_lacks_cameras_for_some_people_and_serves_ten_shots(tmp_path: Path) -> None:
    plan = layouts.LAYOUTS["sysu_mm01"].plan(layouts.Sizes(40, 10, 0, 0))
    seen: dict[int, set[int]] = {}
    for shot in plan.shots:
        seen.setdefault(shot.number, set()).add(shot.camera)
    assert len(plan.texts) == 4
    assert any(not cams & {1, 2} for cams in seen.values())
    assert any(len(cams) == 6 for cams in seen.values())
    assert all(cams & {3, 6} and cams & {4, 5} for cams in seen.values())
    lists = {name: {int(i) for i in text.split(",")} for name, text in plan.texts.items()}
    assert len(lists["exp/train_id.txt"]) == 18
    assert len(lists["exp/val_id.txt"]) == 6
    assert len(lists["exp/test_id.txt"]) == 16


def test_tracklets_are_long_enough_and_campus_modalities_are_aligned(tmp_path: Path) -> None:
    draw_dataset("hitsz_vcm", tmp_path / "v", frames=12, images=2, **SMALL)
    splits = load_dataset("hitsz_vcm", tmp_path / "v")
    unfiltered = load_dataset("hitsz_vcm", tmp_path / "v", min_frames=1)
    assert len(splits.train) == len(unfiltered.train)
    draw_dataset("bupt_campus", tmp_path / "b", frames=3, ids=4, height=64, width=32, progress=False)
    campus = load_dataset("bupt_campus", tmp_path / "b")
    assert campus.auxiliary
    infrared, visible = campus.train[:2]
    assert (infrared.cam, infrared.pid) == (visible.cam, visible.pid)
    shot = render.Shot("x", 1, 0, False, 1, 2, aligned=True)
    twin = render.Shot("x", 1, 0, True, 1, 2, aligned=True)
    who = person.person(0, 1)
    assert render._pose(0, shot, who) == render._pose(0, twin, who)


def test_same_seed_same_bytes_whatever_the_workers_and_the_order(tmp_path: Path) -> None:
    for name, options in (("a", {}), ("b", {"workers": 2}), ("c", {"seed": 1})):
        draw_dataset("llcm", tmp_path / name, images=4, **{**SMALL, **options})
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & {value for key, value in c.items() if key.endswith(".jpg")}
    shots = [render.Shot(str(i), i % 3, 1 + i % 2, i % 2 == 1, i) for i in range(6)]
    forth = [render.draw_image(0, shot, 32, 16) for shot in shots]
    for cached in (person.person, render._palette):
        cached.cache_clear()
    back = [render.draw_image(0, shot, 32, 16) for shot in reversed(shots)]
    assert all(np.array_equal(x, y) for x, y in zip(forth, reversed(back), strict=True))


def test_infrared_channels_are_equal_and_colours_are_not(tmp_path: Path) -> None:
    draw_dataset("sysu_mm01", tmp_path / "d", images=1, **SMALL)
    splits = load_dataset("sysu_mm01", tmp_path / "d")
    infrared = read(tmp_path / "d", splits.query[0].paths[0])
    visible = read(tmp_path / "d", splits.gallery[0].paths[0])
    assert np.array_equal(infrared[..., 0], infrared[..., 1])
    assert np.array_equal(infrared[..., 0], infrared[..., 2])
    assert not np.array_equal(visible[..., 0], visible[..., 2])


def test_infrared_brightness_does_not_follow_visible_brightness() -> None:
    people = [person.person(0, n) for n in range(300)]
    visible = [person._luminance(p.upper.base.visible) for p in people]
    infrared = [p.upper.base.infrared for p in people]
    assert abs(np.corrcoef(visible, infrared)[0, 1]) < 0.15
    assert min(p.skin.infrared for p in people) > 0.8
    assert all(abs(p.upper.base.infrared - p.upper.second.infrared) >= 0.28 for p in people)


def test_a_walk_moves_smoothly() -> None:
    frames = [render.draw_image(0, render.Shot("x", 5, 1, False, 0, t), 64, 32).astype(float) for t in range(8)]
    near = np.mean([np.abs(a - b).mean() for a, b in itertools.pairwise(frames)])
    far = np.abs(frames[0] - frames[7]).mean()
    assert 1.0 < near < 0.8 * far


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = 0

    def full(seed: int, shot: render.Shot, height: int, width: int) -> npt.NDArray[np.uint8]:
        nonlocal drawn
        drawn += 1
        if drawn > 5:
            raise OSError(28, "No space left on device")
        return np.zeros((height, width, 3), dtype=np.uint8)

    monkeypatch.setattr(render, "draw_image", full)
    with pytest.raises(WriteError, match="no space is left"):
        draw_dataset("market1501", tmp_path / "d", **SMALL)
    assert os.listdir(tmp_path) == []


def test_a_used_folder_stays_as_it_is_and_an_empty_one_is_taken(tmp_path: Path) -> None:
    used = tmp_path / "used"
    used.mkdir()
    (used / "mine.txt").write_text("keep")
    with pytest.raises(GloamError, match="not empty"):
        draw_dataset("regdb", used, **SMALL)
    assert [p.name for p in tmp_path.rglob("*")] == ["used", "mine.txt"]
    empty = tmp_path / "empty"
    empty.mkdir()
    assert draw_dataset("personx", empty, images=1, **SMALL)["images"] == len(list(empty.rglob("*.jpg")))


@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        ("sysu_mm1", {}, "sysu_mm01"),
        ("regdb", {"ids": 3}, "4 or more"),
        ("regdb", {"images": 0}, "images is 0"),
        ("hitsz_vcm", {"frames": 8}, "12"),
        ("regdb", {"height": 4}, "cannot be drawn"),
        ("regdb", {"workers": 0}, "workers"),
        ("regdb", {"seed": -1}, "seed"),
    ],
)
def test_wrong_arguments(layout: str, options: dict[str, int], message: str, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        draw_dataset(layout, tmp_path / "d", **{**SMALL, **options})
    assert os.listdir(tmp_path) == []


def rank1(query: Features, gallery: Features) -> float:
    """Share of query rows whose nearest gallery row is of the same person; rows are (person, images, features)."""
    people, pictures, size = gallery.shape
    flat = gallery.reshape(-1, size)
    rows = query.reshape(-1, size)
    distances = np.sqrt(np.maximum((rows**2).sum(1)[:, None] + (flat**2).sum(1) - 2 * rows @ flat.T, 0))
    nearest = distances.argmin(1) // pictures
    return float((nearest == np.repeat(np.arange(people), query.shape[1])).mean())


def mean_colour(picture: npt.NDArray[np.uint8]) -> Features:
    return np.asarray(picture.reshape(-1, 3).mean(0), dtype=np.float64)


def grey_histogram(picture: npt.NDArray[np.uint8]) -> Features:
    return np.asarray(np.histogram(picture.mean(-1), bins=32, range=(0, 256), density=True)[0], dtype=np.float64)


def gradient_profile(picture: npt.NDArray[np.uint8]) -> Features:
    """A hand-made descriptor: strength of horizontal and vertical edges in cells of a grid, sign left out."""
    grey = picture.mean(-1)
    grey = (grey - grey.mean()) / (grey.std() + 1e-6)
    smooth = grey[:, 16:48]
    for axis in (0, 1):
        smooth = (np.roll(smooth, 1, axis) + 2 * smooth + np.roll(smooth, -1, axis)) / 4
    down, across = np.abs(np.diff(smooth, axis=0))[:, 1:], np.abs(np.diff(smooth, axis=1))[1:]
    height = down.shape[0] // 16 * 16
    cells = [
        edge[:height].reshape(16, height // 16, edge.shape[1])[:, :, part].mean((1, 2))
        for edge in (down, across)
        for part in (slice(0, 10), slice(10, 21), slice(21, None))
    ]
    feature = np.sqrt(np.concatenate(cells))
    return np.asarray(feature / np.linalg.norm(feature), dtype=np.float64)


def test_neither_trivial_nor_hopeless_across_modalities() -> None:
    """Colour and brightness know nothing across modalities, shape and pattern do. 40 people: chance is 2.5 %."""
    people, pictures = 40, 6

    def draw(infrared: bool, cams: tuple[int, ...]) -> list[list[npt.NDArray[np.uint8]]]:
        return [
            [
                render.draw_image(0, render.Shot("x", n, cams[i % len(cams)], infrared, i), 128, 64)
                for i in range(pictures)
            ]
            for n in range(people)
        ]

    infrared, visible = draw(True, (3, 6)), draw(False, (1, 2, 4, 5))
    score = {
        describe.__name__: rank1(
            *(np.array([[describe(p) for p in group] for group in modality]) for modality in (infrared, visible))
        )
        for describe in (mean_colour, grey_histogram, gradient_profile)
    }
    chance = 1 / people
    assert score["mean_colour"] < 3 * chance, score
    assert score["grey_histogram"] < 3 * chance, score
    assert score["gradient_profile"] > 4 * chance, score
    assert score["gradient_profile"] > 2 * max(score["mean_colour"], score["grey_histogram"]), score
    assert score["gradient_profile"] < 0.9, score
