"""Videos with boxes: crops, times, tracklets, and nothing twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gloam.cli.main import main
from gloam.errors import GloamError
from gloam.gallery import ingest
from gloam.gallery.gallery import Gallery, open_gallery
from gloam.gallery.rows import Row, microseconds
from gloam.gallery.space import Space
from gloam.gallery.where import Where
from tests.gallery.drawn_video import (
    BOX,
    HEIGHT,
    LENGTH,
    WIDTH,
    PixelModel,
    frames,
    places,
    write_coco,
    write_mot,
    write_table,
    write_video,
)

START = "2026-03-01T08:00:00Z"


def create(folder: Path, model: PixelModel, *, thumbnails: bool = False) -> Gallery:
    space = Space(digest=model.fingerprint.digest, name="pixels", dim=model.feature_dim)
    gallery = Gallery.create(folder, space, retention="keep", thumbnails=thumbnails)
    gallery._model = model  # type: ignore[assignment]
    return gallery


def add(gallery: Gallery, source: Path, **options: Any) -> str:
    return str(gallery.add(source, progress=False, **options))


def rows_of(gallery: Gallery) -> dict[str, Row]:
    return gallery.catalogue.rows(gallery.select(where=Where(not_cameras=99)))


def expected(image: np.ndarray, x: int, y: int) -> np.ndarray:
    return image[y : y + BOX[1], x : x + BOX[0]]


@pytest.mark.parametrize(("write", "name"), [(write_mot, "t.txt"), (write_coco, "t.json"), (write_table, "t.csv")])
@pytest.mark.parametrize("folder", [False, True])
def test_three_formats_cut_the_drawn_pixels(tmp_path: Path, write: Any, name: str, folder: bool) -> None:
    images, model = frames(), PixelModel()
    if folder:
        source = tmp_path / "video.mkv"
        source.mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(source / f"{number}.png")  # natural order: 2 before 10
    else:
        source = write_video(tmp_path / "video.mkv", images)
    gallery = create(tmp_path / "g", model)
    options = {"frames_per_tracklet": 100, "camera": 3, "modality": "infrared", "start": START}
    if folder:
        options["frame_rate"] = 25
    told = add(gallery, source, boxes=write(tmp_path / name, places()), **options)
    assert told == f"{2 * LENGTH + 2} new, 0 updated, 0 unchanged"
    wanted = {f"video.mkv#t{track}/f{n}": expected(images[n], x, y) for n, track, x, y in places()}
    rows = rows_of(gallery)
    assert set(rows) == {*wanted, "video.mkv#t1", "video.mkv#t2"}
    for key, pixels in wanted.items():
        vector = pixels.transpose(2, 0, 1).astype(np.float32).ravel() - 127
        np.testing.assert_allclose(gallery.index.vectors([key])[0], vector / np.linalg.norm(vector), atol=2e-4)
    drawn = sorted(pixels.tobytes() for pixels in wanted.values())
    assert sorted(np.ascontiguousarray(pixels).tobytes() for pixels in model.seen) == drawn  # exact, each once
    row = rows["video.mkv#t2/f10"]
    assert (row.camera, row.modality, row.tracklet) == (3, 1, "video.mkv#t2")
    assert row.time == microseconds(START) + 400_000
    assert row.box == (23.0, 24.0, *BOX)
    assert (row.frame, row.path) == ((None, "10.png") if folder else (10, "video.mkv"))
    mean = gallery.index.vectors([key for key in wanted if key.startswith("video.mkv#t1/")]).mean(axis=0)
    np.testing.assert_allclose(gallery.index.vectors(["video.mkv#t1"])[0], mean / np.linalg.norm(mean), atol=2e-3)
    assert rows["video.mkv#t1"].frames == LENGTH


def test_presentation_times_are_the_rows_times(tmp_path: Path) -> None:
    times = [0, 40, 45, 1000, 1010, 5000, 5003, 9000]
    video = write_video(tmp_path / "v.mkv", frames(8), times=times, offset=1400)
    gallery = create(tmp_path / "g", PixelModel())
    add(
        gallery,
        video,
        boxes=write_mot(tmp_path / "t.txt", [(n, 1, 9, 9) for n in range(8)]),
        start=START,
        frames_per_tracklet=8,
    )
    rows = rows_of(gallery)
    assert [rows[f"v.mkv#t1/f{n}"].time - microseconds(START) for n in range(8)] == [t * 1000 for t in times]
    assert rows["v.mkv#t1"].time == microseconds(START)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_boxes_are_of_the_upright_image(tmp_path: Path, rotation: int) -> None:
    images, model = frames(3), PixelModel()
    video = write_video(tmp_path / "v.mov", images, rotation=rotation)
    gallery = create(tmp_path / "g", model)
    upright = np.rot90(images[1], rotation // 90)
    add(gallery, video, boxes=write_mot(tmp_path / "t.txt", [(1, 1, 13, 21)]))
    np.testing.assert_array_equal(model.seen[0], expected(upright, 13, 21))


def test_adding_again_embeds_nothing_and_a_kill_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = frames()
    video = write_video(tmp_path / "v.mkv", images)
    found = [(n, n // 4, 10 + n, 20) for n in range(LENGTH)]  # six tracklets of four frames
    boxes = write_mot(tmp_path / "t.txt", found)
    monkeypatch.setattr(ingest, "_BATCH", 8)
    whole = PixelModel()
    gallery = create(tmp_path / "whole", whole)
    assert add(gallery, video, boxes=boxes, start=START) == "30 new, 0 updated, 0 unchanged"

    class Killed(PixelModel):
        def embed_records(self, records: Any, store: Any, **more: Any) -> Any:
            if len(self.seen) >= 16:
                raise KeyboardInterrupt
            return super().embed_records(records, store, **more)

    first, second = Killed(), PixelModel()
    killed = create(tmp_path / "killed", first)
    with pytest.raises(KeyboardInterrupt):
        add(killed, video, boxes=boxes, start=START)
    assert (len(killed), len(first.seen)) == (20, 16)  # two batches of two tracklets, whole ones
    killed._model = second  # type: ignore[assignment]
    assert add(killed, video, boxes=boxes, start=START) == "10 new, 0 updated, 20 unchanged"
    assert len(second.seen) == 8
    assert rows_of(killed) == rows_of(gallery)
    keys = sorted(rows_of(gallery))
    np.testing.assert_array_equal(killed.index.vectors(keys), gallery.index.vectors(keys))
    decoded: list[int] = []
    walk = ingest.cut_sightings
    monkeypatch.setattr(
        ingest, "cut_sightings", lambda footage, wanted: walk(footage, decoded.extend(w[0] for w in wanted) or wanted)
    )
    assert add(killed, video, boxes=boxes, start=START) == "0 new, 0 updated, 30 unchanged"
    killed.name_person("Ada", "v.mkv#t0/f1")
    assert add(killed, video, boxes=boxes, start=START, camera=8) == "0 new, 30 updated, 0 unchanged"
    assert (len(second.seen), decoded) == (8, [])
    assert rows_of(killed)["v.mkv#t0/f1"].person == "Ada"
    found[0] = (0, 0, 11, 20)  # one box moved: its tracklet is made again
    assert add(killed, video, boxes=write_mot(boxes, found), start=START, camera=8) == "0 new, 5 updated, 25 unchanged"
    assert len(second.seen) == 12
    assert killed.verify().ok


def test_gaps_borders_and_confidence(tmp_path: Path) -> None:
    images, model = frames(), PixelModel()
    video = write_video(tmp_path / "v.mkv", images)
    lines = [
        "1,5,10,10,8,16,0.9",  # frame 0
        "4,5,12,10,8,16,0.9",  # frame 3: a gap of 3 is the same tracklet
        "8,5,40,10,8,16,0.9",  # frame 7: a gap of 4 is another
        f"9,6,{WIDTH - 3},{HEIGHT - 9},8,16,0.9",  # over the corner: 4 x 10 are left
        "9,7,-20,10,8,16,0.9",  # beyond
        "9,8,10,10,0,16,0.9",  # empty
        "9,9,10,10,8,16,0.1",  # unsure
        "10,-1,30,30,8,16,-1",  # not tracked, confidence not stated
    ]
    (tmp_path / "t.txt").write_text("\n".join(lines))
    gallery = create(tmp_path / "g", model)
    told = add(gallery, video, boxes=tmp_path / "t.txt", max_gap=3, min_confidence=0.5)
    assert "2 boxes without area in their frame, 1 boxes below the confidence" in told
    rows = rows_of(gallery)
    assert set(rows) == {
        "v.mkv#t5", "v.mkv#t5/f0", "v.mkv#t5/f3", "v.mkv#t5.2/f7", "v.mkv#t6/f8", "v.mkv#f9/29,29,8,16",
    }  # fmt: skip
    assert rows["v.mkv#t6/f8"].box == (WIDTH - 4, HEIGHT - 10, 4, 10)
    assert rows["v.mkv#f9/29,29,8,16"].tracklet is None
    assert rows["v.mkv#t5.2/f7"].tracklet == "v.mkv#t5.2"


def test_the_best_frames_are_whole_large_and_spread(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mkv", frames())
    best = {3: 20, 9: 24, 14: 20, 21: 22}
    lines = [f"{n},1,20,20,8,{best.get(n, 16)}" for n in range(LENGTH)]
    lines[5] = "5,1,0,0,60,60"  # the largest, cut off by the border
    (tmp_path / "t.csv").write_text("frame,tracklet,left,top,width,height\n" + "\n".join(lines))
    gallery = create(tmp_path / "g", PixelModel(), thumbnails=True)
    add(gallery, video, boxes=tmp_path / "t.csv")
    rows = rows_of(gallery)
    assert {row.frame for key, row in rows.items() if "/" in key} == set(best)
    assert (rows["v.mkv#t1"].frame, rows["v.mkv#t1"].frames) == (9, 4)
    assert len(gallery.catalogue.thumbnails(list(rows))) == 5


def test_a_function_that_detects_gives_what_the_file_gives(tmp_path: Path) -> None:
    images = frames()
    video = write_video(tmp_path / "v.mkv", images)
    from_file, from_function = PixelModel(), PixelModel()
    one = create(tmp_path / "one", from_file)
    add(one, video, boxes=write_mot(tmp_path / "t.txt", places()), start=START)
    two = create(tmp_path / "two", from_function)
    asked: list[np.ndarray] = []

    def detect(frame: np.ndarray) -> list[tuple[float, ...]]:
        asked.append(frame.copy())
        frame[:] = 0  # drawing on it does no harm
        here = len(asked) - 1
        return [(x, y, *BOX, 0.9, t) for n, t, x, y in places() if n == here % LENGTH]

    add(two, video, detect=detect, start=START)
    np.testing.assert_array_equal(np.stack(asked), images)
    assert rows_of(one) == rows_of(two)
    assert len(rows_of(two)) == 10
    keys = sorted(rows_of(one))
    np.testing.assert_allclose(one.index.vectors(keys), two.index.vectors(keys), atol=1e-3)
    assert len(from_function.seen) == 8
    assert add(two, video, detect=detect, start=START) == "0 new, 0 updated, 10 unchanged"
    assert len(from_function.seen) == 8
    with pytest.raises(GloamError, match="detect"):
        add(two, video, detect=lambda frame: [(1, 2)])


def test_video_methods_get_one_clip_a_tracklet(tmp_path: Path) -> None:
    video, model = write_video(tmp_path / "v.mkv", frames()), PixelModel(clip=6)
    gallery = create(tmp_path / "g", model)
    assert add(gallery, video, boxes=write_mot(tmp_path / "t.txt", places())) == "2 new, 0 updated, 0 unchanged"
    assert model.clips == [6, 6]
    assert {key: row.frames for key, row in rows_of(gallery).items()} == {"v.mkv#t1": 6, "v.mkv#t2": 6}


def test_boxes_in_tables_of_images(tmp_path: Path) -> None:
    image, model = frames(1)[0], PixelModel()
    Image.fromarray(image).save(tmp_path / "a.png")
    (tmp_path / "t.csv").write_text('path,box\na.png,"3,4,8,16"\na.png,"3.4,5.5,8,16"\na.png,"90,1,8,16"\n')
    gallery = create(tmp_path / "g", model)
    done = gallery.add(tmp_path / "t.csv", progress=False)
    assert (done.new, done.unreadable) == (2, ["a.png#90,1,8,16"])
    np.testing.assert_array_equal(model.seen, [expected(image, 3, 4), expected(image, 3, 6)])
    (tmp_path / "u.csv").write_text("path,key,left,top,width,height\na.png,a.png#3,0,0,8,16\na.png,a.png#4,1,0,8,16\n")
    assert add(gallery, tmp_path / "u.csv") == "2 new, 0 updated, 0 unchanged"
    (tmp_path / "u.csv").write_text("path,key,left,top,width,height\na.png,a.png#3,0,0,8,16\na.png,a.png#4,2,0,8,16\n")
    assert add(gallery, tmp_path / "u.csv") == "0 new, 1 updated, 1 unchanged"
    np.testing.assert_array_equal(model.seen[-1], expected(image, 2, 0))
    assert len(model.seen) == 5


def test_mistakes_are_told_and_leave_nothing(tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mkv", frames(4))
    gallery = create(tmp_path / "g", PixelModel())
    boxes = write_mot(tmp_path / "t.txt", [(n, 1, 9, 9) for n in range(4)])
    late = write_mot(tmp_path / "late.txt", [(0, 1, 9, 9), (4, 1, 9, 9)])
    twice = write_mot(tmp_path / "twice.txt", [(0, 1, 9, 9), (0, 1, 19, 9)])
    frame = tmp_path / "frames"
    frame.mkdir()
    for number in range(4):
        Image.fromarray(frames(4)[number]).save(frame / f"{number}.png")
    for message, source, options in [
        ("--boxes", video, {}),
        ("frame 4", video, {"boxes": late}),
        ("twice in frame 0", video, {"boxes": twice}),
        ("There is no file", video, {"boxes": tmp_path / "absent.txt"}),
        ("one of the two", video, {"boxes": boxes, "detect": lambda frame: []}),
        ("only with the boxes", frame, {"start": START}),
        ("frame-rate", frame, {"boxes": boxes, "start": START}),
        ("frame-rate", video, {"boxes": boxes, "frame_rate": 25}),
        ("neither", boxes, {"boxes": boxes}),
        ("ndarray", frames(2), {"boxes": boxes}),
        ("no boxes of the class", video, {"boxes": boxes, "box_class": "dog"}),
        ("1 or more", video, {"boxes": boxes, "frames_per_tracklet": 0}),
        ("is no time", video, {"boxes": boxes, "start": "noon"}),
        ("tracklet", video, {"boxes": boxes, "tracklet": "t"}),
        ("no JSON", video, {"boxes": boxes, "boxes_format": "coco"}),
        ("columns frame", video, {"boxes": boxes, "boxes_format": "table"}),
    ]:
        with pytest.raises(GloamError, match=message):
            add(gallery, source, **options)
    assert len(gallery) == 0
    other = tmp_path / "other"
    other.mkdir()
    add(gallery, video, boxes=boxes)
    with pytest.raises(GloamError, match="--prefix"):
        add(gallery, write_video(other / "v.mkv", frames(4, seed=1)), boxes=boxes)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    images, model = frames(), PixelModel()
    video = write_video(tmp_path / "v.mkv", images)
    create(tmp_path / "g", model).close()
    monkeypatch.setattr(Gallery, "model", property(lambda self: model))
    (tmp_path / "tracks.csv").write_text("1,1,11,11,8,16,0.9,1,1\n2,1,12,11,8,16,0.2,1,1\n8,1,13,11,8,16,0.9,1,1\n")
    words = ["gallery", "add", str(tmp_path / "g"), str(video), "--boxes", str(tmp_path / "tracks.csv")]
    assert main([*words, "--boxes-format", "table"]) == 2
    assert "--boxes-format mot" in capsys.readouterr().err.replace("\n", " ")
    words += ["--boxes-format", "mot", "--start", START, "--camera", "3", "--modality", "infrared", "--box-class", "1"]
    words += ["--min-confidence", "0.5", "--max-gap", "2", "--frames-per-tracklet", "1", "--prefix", "hall/"]
    assert main(words) == 0
    assert "2 new, 0 updated, 0 unchanged, 1 boxes below the confidence; 2 rows in all" in capsys.readouterr().out
    with open_gallery(tmp_path / "g") as gallery:
        rows = rows_of(gallery)
    assert {key: (row.camera, row.modality, row.time) for key, row in rows.items()} == {
        "hall/v.mkv#t1/f0": (3, 1, microseconds(START)),
        "hall/v.mkv#t1.2/f7": (3, 1, (microseconds(START) or 0) + 280_000),
    }
    np.testing.assert_array_equal(model.seen, [expected(images[0], 10, 10), expected(images[7], 12, 10)])
