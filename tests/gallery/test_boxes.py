"""Readers of boxes: counting from 1 and from 0, tracks, classes, damaged files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from gloam.errors import GloamError
from gloam.gallery.boxes import Box, boxes_of_detections, pixels_of, read_boxes
from gloam.gallery.rows import microseconds
from gloam.gallery.tracklets import BoxRules, Tracker


def test_motchallenge_counts_frames_and_pixels_from_one(tmp_path: Path) -> None:
    file = tmp_path / "gt.txt"
    file.write_text("\ufeff2,3,1,1,10,20,1,7,0.5\n\n1,-1,5.5,6,10,20,-1,-1,-1,-1\r\n1 4 2 3 10 20\n")
    assert read_boxes(file) == [
        Box(0, 4.5, 5, 10, 20, None, None, None),
        Box(0, 1, 2, 10, 20, None, "4", None),
        Box(1, 0, 0, 10, 20, 1.0, "3", "7"),
    ]
    file.write_text("0,3,1,1,10,20,1\n")
    with pytest.raises(GloamError, match="from 1"):
        read_boxes(file)


def test_coco_and_tables_count_from_zero(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"image_id": 1, "bbox": [0, 2, 10, 20], "score": 0.5, "track_id": 3}]))
    (tmp_path / "t.csv").write_text("frame, left, top, width, height, id, conf\n1, 0, 2, 10, 20, 3, 0.5\n")
    pd.DataFrame(
        {"frame": [1], "x1": [0], "y1": [2.0], "x2": [10], "y2": [22], "track_id": [3.0], "score": [0.5]}
    ).to_parquet(tmp_path / "t.parquet")
    for name in ("t.json", "t.csv", "t.parquet"):
        assert read_boxes(tmp_path / name) == [Box(1, 0, 2, 10, 20, 0.5, "3")]


def test_a_table_says_what_it_knows(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        "frame\tleft\ttop\twidth\theight\ttrack\tclass\tcamera\tmodality\tperson\ttime\n"
        "0\t1\t2\t3\t4\tab\tman\t5\tir\tAda\t2026-03-01T08:00:00Z\n1\t1\t2\t3\t4\t-1\t\t\t\t-1\t\n"
    )
    when = microseconds("2026-03-01T08:00:00Z")
    assert read_boxes(tmp_path / "t.tsv") == [
        Box(0, 1, 2, 3, 4, None, "ab", "man", 5, 1, "Ada", when),
        Box(1, 1, 2, 3, 4),
    ]


def coco(path: Path, images: list[dict[str, Any]], image: int) -> Path:
    found = [{"image_id": image, "bbox": [1, 2, 3, 4], "instance_id": 8, "category_id": 1}]
    path.write_text(json.dumps({"images": images, "annotations": found, "categories": [{"id": 1, "name": "person"}]}))
    return path


def test_which_frame_a_coco_image_is(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    assert read_boxes(coco(file, [{"id": 7, "frame_id": 2, "file_name": "0009.png"}], 7))[0].frame == 2
    assert read_boxes(coco(file, [{"id": 7, "file_name": "frame_000007.PNG"}], 7))[0].frame == 7
    names = ["a/1.png", "a/2.png", "a/10.png"]
    assert read_boxes(coco(file, [{"id": 5, "file_name": "a/10.png"}], 5), names=names)[0].frame == 2
    assert read_boxes(coco(file, [{"id": 5, "file_name": "2.png"}], 5), names=names) == [
        Box(1, 1, 2, 3, 4, None, "8", "person")
    ]
    # Identities from 1, names from 0: which of them counts, nobody can know.
    with pytest.raises(GloamError, match="frame_id"):
        read_boxes(coco(file, [{"id": 1, "file_name": "frame_000000.PNG"}], 1))
    with pytest.raises(GloamError, match="not among the frames"):
        read_boxes(coco(file, [{"id": 5, "file_name": "3.png"}], 5), names=names)
    with pytest.raises(GloamError, match="lacks"):
        read_boxes(coco(file, [{"id": 5}], 6))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", "", "no boxes"),
        ("t.txt", "frame,track,left\n", "line 1"),
        ("t.txt", "1,2,3,4,5\n", "line 1"),
        ("t.txt", "1.5,2,3,4,5,6\n", "line 1"),
        ("t.txt", "1,2,nan,4,5,6\n", "no numbers of pixels"),
        ("t.txt", "1,2,3,4,1e308,6\n", "no numbers of pixels"),
        ("t.json", '[{"image_id": null, "bbox": [1, 2, 3, 4]}]', "names no image"),
        ("t.json", '[{"image_id": 1, "bbox": [1, 2, 3, 4], "track_id": [1]}]', "no name of a track"),
        ("t.json", "{", "no JSON"),
        ("t.json", "{}", "annotations"),
        ("t.json", '{"annotations": []}', "no boxes"),
        ("t.json", '[{"image_id": 1}]', "bbox"),
        ("t.json", '[{"image_id": "a", "bbox": [1, 2, 3, 4]}]', "whole number"),
        ("t.csv", "1,2,3,4,5,6\n", "columns frame"),
        ("t.csv", "frame,left,top,width,height\n1,a,2,3,4\n", "numbers"),
        ("t.csv", "frame,left,top,width,height\n1.5,1,2,3,4\n", "whole number"),
        ("t.csv", "frame,left,top,width,height\n,1,2,3,4\n", "no frame"),
        ("t.csv", "frame,left,top,width,height\n-1,1,2,3,4\n", "before the first"),
        ("t.csv", "frame,left,top,width,height,conf\n1,1,2,3,4,x\n", "confidence"),
        ("t.xml", "", "boxes-format"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(GloamError, match=message):
        read_boxes(tmp_path / name)


def test_pixels_are_rounded_halves_up_and_clipped() -> None:
    assert pixels_of((0.5, 1.5, 2, 2), 100, 50) == (1, 2, 3, 4)
    assert pixels_of((0.49, 1.51, 2, 2), 100, 50) == (0, 2, 2, 4)
    assert pixels_of((-3, -4, 200, 100), 100, 50) == (0, 0, 100, 50)
    assert pixels_of((99, 49, 9, 9), 100, 50) == (99, 49, 100, 50)
    assert pixels_of((100, 0, 9, 9), 100, 50) is None
    assert pixels_of((-9, 0, 9, 9), 100, 50) is None
    assert pixels_of((5, 5, 0.2, 9), 100, 50) is None
    assert pixels_of((5, 5, -2, 9), 100, 50) is None


def test_what_detectors_return() -> None:
    assert boxes_of_detections([(1, 2, 3, 4), [1, 2, 3, 4, None, 7.0], (1, 2, 3, 4, 0.5, "x")], 6) == [
        Box(6, 1, 2, 3, 4),
        Box(6, 1, 2, 3, 4, None, "7"),
        Box(6, 1, 2, 3, 4, 0.5, "x"),
    ]
    for wrong in ([(1, 2, 3)], [(1, 2, 3, "a")], [5], [(1, 2, 3, float("nan"))], [(1, 2, 3, 4, 1, float("inf"))]):
        with pytest.raises(GloamError):
            boxes_of_detections(wrong, 0)


@pytest.mark.parametrize("length", [1, 3, 8, 9, 50, 1000])
def test_chosen_frames_are_spread_and_memory_is_bounded(length: int) -> None:
    tracker = Tracker(BoxRules(frames_per_tracklet=4))
    for frame in range(length):
        tracker.step(frame, [Box(frame, 10, 10, 5, 5, None, "1")], 100, 100)
        assert len(tracker._open["1"]._best) <= 8
    (tracklet,) = tracker.finish()
    found = [one.box.frame for one in tracklet.chosen()]
    assert len(found) == min(4, length)
    assert found == sorted(set(found))
    if length >= 8:  # the first of four parts each, equal boxes count as the earlier one
        assert max(b - a for a, b in zip(found, [*found[1:], length], strict=True)) <= length / 2


def test_a_name_is_never_given_twice() -> None:
    tracker, names = Tracker(BoxRules(max_gap=2)), []
    for frame, track in [(0, "3.2"), (5, "3"), (10, "3"), (15, "3.2")]:
        names += tracker.step(frame, [Box(frame, 10, 10, 5, 5, None, track)], 100, 100)[1]
    names += tracker.finish()
    assert [one.name for one in names] == ["3.2", "3", "3.3", "3.2.2"]
