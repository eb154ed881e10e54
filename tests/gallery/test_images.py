"""Images become rows: folders, tables, data sets; again, after a kill, unreadable ones; the move to another model."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import gloam
from gloam.datasets import load_dataset
from gloam.demo import search_people
from gloam.errors import GloamError
from gloam.gallery.gallery import Gallery
from gloam.gallery.where import Where
from gloam.inference.features import Features
from gloam.inference.model import Model
from gloam.training.run import train
from tests.gallery.drawn_video import frames, write_video
from tests.training.tiny import tiny_recipe


@pytest.fixture(scope="module")
def runs(sysu_root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs with different weights."""
    folder = tmp_path_factory.mktemp("runs")
    recipes = [tiny_recipe(sysu_root, train={"epochs": 1, "iterations": 1, "seed": seed}) for seed in (0, 1)]
    return [train(recipe, output=folder / f"run{n}", progress=False).path for n, recipe in enumerate(recipes)]


@pytest.fixture(scope="module")
def model(runs: list[Path]) -> Model:
    return gloam.load_model(runs[0])


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    generator = np.random.default_rng(0)
    for number in range(6):
        path = folder / f"c{number % 2}/{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (40, 20, 3), dtype=np.uint8)).save(path)
    return folder


def create(tmp_path: Path, model: Model, *, thumbnails: bool = False) -> Gallery:
    return Gallery.create(tmp_path / "g", model, retention="keep", thumbnails=thumbnails)


def test_rows_are_what_the_model_embeds(tmp_path: Path, model: Model, photos: Path) -> None:
    gallery = create(tmp_path, model, thumbnails=True)
    done = gallery.add(photos, camera=3, time="2026-03-01T08:00:00Z", modality="infrared", person="Ada", progress=False)
    assert str(done) == "6 new, 0 updated, 0 unchanged"
    expected = model.embed(photos, modality="infrared", progress=False)
    found = gallery.index.vectors(expected.columns["path"].tolist())
    np.testing.assert_array_equal(found, expected.numpy().astype(np.float16).astype(np.float32))
    row = gallery.catalogue.rows(["c1/0003.png"])["c1/0003.png"]
    assert (row.camera, row.modality, row.person, row.root) == (3, 1, "Ada", str(photos.resolve()))
    assert row.time == 1_772_352_000_000_000
    for image in gallery.catalogue.thumbnails(list(expected.columns["path"])).values():
        assert Image.open(io.BytesIO(image)).format == "WEBP"
    hits = gallery.search(photos / "c1/0003.png", modality="infrared", top=3)
    assert hits.keys[0] == "c1/0003.png"
    assert hits.scores[0] == pytest.approx(1, abs=1e-3)
    array = np.asarray(Image.open(photos / "c1/0003.png"))
    assert gallery.search(array, modality="infrared", top=3).keys == hits.keys


def test_nothing_is_embedded_twice_and_a_changed_image_is(
    tmp_path: Path, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery = create(tmp_path, model)
    embedded: list[int] = []
    original = Model.embed_records

    def count(self: Model, records, *more, **options):  # type: ignore[no-untyped-def]
        embedded.append(len(records))
        return original(self, records, *more, **options)

    monkeypatch.setattr(Model, "embed_records", count)
    monkeypatch.setattr("gloam.gallery.adding._IMAGE_BATCH", 2)
    (photos / "c0/0004.png").rename(tmp_path / "later.png")
    assert gallery.add(photos, progress=False).new == 5
    (tmp_path / "later.png").rename(photos / "c0/0004.png")
    assert str(gallery.add(photos, progress=False)) == "1 new, 0 updated, 5 unchanged"  # as after a kill
    assert sum(embedded) == 6
    gallery.name_person("Ada", "c0/0000.png")
    assert str(gallery.add(photos, camera=9, progress=False)) == "0 new, 6 updated, 0 unchanged"
    assert sum(embedded) == 6  # facts changed, images did not
    assert gallery.catalogue.rows(["c0/0000.png"])["c0/0000.png"].person == "Ada"
    Image.new("RGB", (20, 40)).save(photos / "c1/0001.png")
    assert str(gallery.add(photos, camera=9, progress=False)) == "0 new, 1 updated, 5 unchanged"
    assert sum(embedded) == 7
    assert gallery.verify().ok


def test_two_folders_with_equal_names_are_not_mixed(tmp_path: Path, model: Model, photos: Path) -> None:
    gallery = create(tmp_path, model)
    gallery.add(photos, progress=False)
    other = shutil.copytree(photos, tmp_path / "other")
    assert gallery.add(other, progress=False).updated == 6  # the same images at another place: they moved
    Image.new("RGB", (20, 40)).save(photos / "c1/0001.png")
    with pytest.raises(GloamError, match="--prefix"):
        gallery.add(photos, progress=False)
    assert gallery.add(photos, prefix="first/", progress=False).new == 6


def test_unreadable_images_are_listed_and_left_out(tmp_path: Path, model: Model, photos: Path) -> None:
    gallery = create(tmp_path, model)
    (photos / "c0/0002.png").write_bytes(b"")
    (photos / "c1/0005.png").write_bytes((photos / "c1/0005.png").read_bytes()[:60])
    done = gallery.add(photos, progress=False)
    assert (done.new, done.unreadable) == (4, ["c0/0002.png", "c1/0005.png"])
    kept = ["c0/0000.png", "c0/0004.png", "c1/0001.png", "c1/0003.png"]
    expected = model.embed([photos / key for key in kept], progress=False).numpy()
    np.testing.assert_array_equal(gallery.index.vectors(kept), expected.astype(np.float16).astype(np.float32))


def test_tables_patterns_and_splits_say_who_is_where(
    tmp_path: Path, model: Model, photos: Path, sysu_root: Path
) -> None:
    gallery = create(tmp_path, model)
    (photos / "people.csv").write_text(
        "path,key,camera,time,modality,tracklet,person\n"
        "c0/0000.png,first,4,2026-03-01T08:00:00Z,ir,t1,Ada\nc1/0001.png,,,,,,\n"
    )
    assert gallery.add(photos / "people.csv", camera=8, progress=False).new == 2
    rows = gallery.catalogue.rows(["first", "c1/0001.png"])
    assert (rows["first"].camera, rows["first"].modality, rows["first"].tracklet, rows["first"].person) == (
        4,
        1,
        "t1",
        "Ada",
    )
    assert (rows["c1/0001.png"].camera, rows["c1/0001.png"].modality, rows["c1/0001.png"].time) == (8, 0, None)
    expected = model.embed([photos / "c0/0000.png"], modality="infrared", progress=False).numpy()
    np.testing.assert_array_equal(gallery.index.vectors(["first"]), expected.astype(np.float16).astype(np.float32))
    (photos / "boxes.csv").write_text('path,box,frame\nc0/0000.png,"1,2,3,4",7\n')
    with pytest.raises(GloamError, match="--boxes"):
        gallery.add(photos / "boxes.csv", progress=False)
    (photos / "boxes.csv").unlink()
    (photos / "people.csv").unlink()
    assert gallery.add(photos, pattern="c{cam}/{pid}.png", prefix="p/", progress=False).new == 6
    assert gallery.catalogue.rows(["p/c1/0003.png"])["p/c1/0003.png"].camera == 1
    assert gallery.catalogue.rows(["p/c1/0003.png"])["p/c1/0003.png"].person == "0003"
    with pytest.raises(GloamError, match="does not match"):
        gallery.add(photos, pattern="x{cam}/{pid}.png", progress=False)
    splits = gloam.load_dataset("sysu_mm01", sysu_root)
    done = gallery.add(sysu_root, split="query", progress=False)
    assert done.rows == len(splits.query)
    record = splits.query[0]
    row = gallery.catalogue.rows([record.paths[0]])[record.paths[0]]
    assert (row.camera, row.person, row.modality) == (record.cam, str(record.pid_raw), int(record.modality))
    assert gallery.count(Where(persons=str(record.pid_raw))) >= 1


def test_another_model_is_refused_and_both_are_named(
    tmp_path: Path, model: Model, runs: list[Path], photos: Path
) -> None:
    gallery = create(tmp_path, model)
    other = gloam.load_model(runs[1])
    mirrored = gloam.load_model(runs[0], mirror=not model.mirror)
    half = gloam.load_model(runs[0], precision="bf16")
    names = (model.fingerprint.digest[:12],)
    for wrong in (other, mirrored, half):
        for step in (
            lambda wrong=wrong: gallery.add(photos, model=wrong, progress=False),
            lambda wrong=wrong: gallery.search(photos / "c0/0000.png", model=wrong),
            lambda wrong=wrong: gallery.add(wrong.embed(photos, progress=False), progress=False),
        ):
            with pytest.raises(GloamError) as told:
                step()
            assert all(name in str(told.value) for name in (*names, wrong.fingerprint.digest[:12]))
    assert len(gallery) == 0
    gallery.close()
    # A run whose weights were replaced is not taken for the one that the gallery remembers.
    moved = shutil.copytree(runs[1], tmp_path / "moved")
    with gloam.open_gallery(tmp_path / "g", run=moved) as opened, pytest.raises(GloamError, match="moved"):
        opened.add(photos, progress=False)


def test_people_of_a_video_are_what_the_model_embeds_of_their_crops(tmp_path: Path, model: Model) -> None:
    images = frames(4)
    video = write_video(tmp_path / "v.mkv", images)
    gallery = create(tmp_path, model, thumbnails=True)
    (tmp_path / "t.txt").write_text("".join(f"{n + 1},7,{11 + n},6,{20 + n},40,0.5\n" for n in range(4)))
    assert gallery.add(video, boxes=tmp_path / "t.txt", modality="infrared", progress=False).new == 5
    crops = [image[5:45, 10 + n : 30 + 2 * n] for n, image in enumerate(images)]
    expected = model.embed(crops, modality="infrared", progress=False).numpy()
    found = gallery.index.vectors([f"v.mkv#t7/f{n}" for n in range(4)])
    np.testing.assert_array_equal(found, expected.astype(np.float16).astype(np.float32))
    mean = expected.mean(axis=0)
    assert gallery.index.vectors(["v.mkv#t7"])[0] @ mean == pytest.approx(np.linalg.norm(mean), abs=1e-3)
    assert gallery.search("tracklet:v.mkv#t7", top=1).keys == []
    hits = gallery.search(crops[2], modality="infrared", top=1)
    assert hits.keys[0] == "v.mkv#t7/f2"


def test_nothing_that_was_searched_or_added_stays_in_a_cache(
    tmp_path: Path, model: Model, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOAM_CACHE", str(tmp_path / "cache"))
    gallery = create(tmp_path, model)
    gallery.add(photos, progress=False)
    gallery.search(photos / "c0/0000.png")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("source", ["sources", "thumbnails"])
def test_moving_to_another_model(tmp_path: Path, model: Model, runs: list[Path], photos: Path, source: str) -> None:
    gallery = create(tmp_path, model, thumbnails=True)
    gallery.add(photos, progress=False)
    before = gallery.search(photos / "c0/0000.png").keys
    new = gloam.load_model(runs[1])
    lost = photos / "c1/0003.png"
    image = lost.read_bytes()
    if source == "sources":
        lost.unlink()
        done = gallery.reembed(new, progress=False)
        assert (done.rows, done.switched, len(done.missing)) == (5, False, 1)
        assert "c1/0003.png" in done.missing[0]
        assert gallery.space.digest == model.fingerprint.digest
        assert gallery.search(photos / "c0/0000.png").keys == before  # the old space still answers
        lost.write_bytes(image)
    done = gallery.reembed(new, source=source, progress=False)  # type: ignore[arg-type]
    assert (done.rows, done.switched, done.missing) == (1 if source == "sources" else 6, True, ())
    assert gallery.space.fingerprint == new.fingerprint
    expected = new.embed(photos, progress=False)
    found = gallery.index.vectors(expected.columns["path"].tolist())
    if source == "sources":
        np.testing.assert_array_equal(found, expected.numpy().astype(np.float16).astype(np.float32))
    else:
        assert (found * expected.numpy()).sum(axis=1).min() > 0.8
    assert gallery.verify().ok
    with pytest.raises(GloamError, match="already"):
        gallery.reembed(new, progress=False)
    with pytest.raises(GloamError):
        gallery.add(model.embed(photos, progress=False), progress=False)
    gallery.close()
    with gloam.open_gallery(tmp_path / "g") as again:
        assert again.search(photos / "c0/0000.png").keys[0] == "c0/0000.png"


def test_rows_whose_image_is_gone_can_be_dropped(tmp_path: Path, model: Model, runs: list[Path], photos: Path) -> None:
    gallery = create(tmp_path, model)
    gallery.add(photos, progress=False)
    extra = Features.of_arrays(
        model.embed(photos, progress=False).numpy()[:1], model=model.fingerprint, path=["x"], key=["no file"]
    )
    gallery.add(extra, progress=False)
    (photos / "c1/0003.png").unlink()
    done = gallery.reembed(gloam.load_model(runs[1]), drop_missing=True, progress=False)
    assert (done.switched, done.dropped, len(gallery)) == (True, 2, 5)
    assert gallery.verify().ok


def test_the_demo_ends_with_a_gallery_and_a_search(tmp_path: Path, runs: list[Path], sysu_root: Path) -> None:
    splits = load_dataset("sysu_mm01", sysu_root)
    person, hits = search_people(tmp_path / "gallery", runs[0], splits, tmp_path / "hits.html")
    model = gloam.load_model(runs[0])
    asked = next(record for record in splits.query if record.pid_raw == person)
    query = model.embed(splits.root / asked.paths[0], modality="infrared", progress=False).numpy()[0]
    stored = model.embed(splits, split="gallery", progress=False)
    best = np.argsort(-(stored.numpy() @ query), kind="stable")[:8]
    assert hits.scores == pytest.approx((stored.numpy() @ query)[best].tolist(), abs=2e-3)
    assert {hit.row.modality for hit in hits} == {0}
    assert all(str(hit.row.person) in repr(hits) for hit in hits)
    assert (tmp_path / "hits.html").read_text().count("data:image/webp") == len(hits) + 1
    with gloam.open_gallery(tmp_path / "gallery") as gallery:
        assert len(gallery) == len(splits.gallery)
