"""Own data in parts: query and gallery apart, nobody known, linked folders, relative and absolute paths."""

import pytest

from gloam.datasets import load_dataset
from gloam.datasets.files import walk_images
from gloam.datasets.records import Modality
from gloam.datasets.validation import hold_out
from gloam.datasets.weak import shuffle_labels_per_modality
from gloam.errors import GloamError
from tests.datasets import trees


def test_query_and_gallery_folders_beside_the_training_folder(tmp_path):
    for part, people in (("train", ("anna", "ben")), ("query", ("cy",)), ("gallery", ("cy", "di"))):
        trees.put(tmp_path, *(f"{part}/{p}/c1_{n}.jpg" for p in people for n in range(2)))
    splits = load_dataset("table", tmp_path / "train", query=str(tmp_path / "query"), gallery=str(tmp_path / "gallery"))
    assert splits.root == tmp_path / "train"
    assert splits.label_map == {"anna": 0, "ben": 1}
    assert {(r.pid, r.pid_raw) for r in splits.query} == {(2, "cy")}
    assert {(r.pid, r.pid_raw) for r in splits.gallery} == {(2, "cy"), (3, "di")}
    # Images outside the root are named absolutely.
    assert splits.query[0].paths == (f"{tmp_path}/query/cy/c1_0.jpg",)
    assert (splits.root / splits.query[0].paths[0]).is_file()
    assert list(splits.protocols) == ["table/default"]


def test_parts_inside_the_root_are_no_training_images(tmp_path, monkeypatch):
    trees.put(tmp_path, "anna/1.jpg", "ben/1.jpg", "test/query/cy/1.jpg", "test/gallery/cy/1.jpg")
    splits = load_dataset("table", tmp_path, query="test/query", gallery="test/gallery")
    assert [r.paths for r in splits.train] == [("anna/1.jpg",), ("ben/1.jpg",)]
    assert [r.paths for r in splits.query] == [("test/query/cy/1.jpg",)]
    # Only a test set: nothing to train on, everything to score.
    monkeypatch.chdir(tmp_path)
    only = load_dataset("table", "test", query="query", gallery="gallery")
    assert only.train == ()
    assert len(only.query) == len(only.gallery) == 1


def test_parts_from_tables_with_paths_of_every_kind(tmp_path, monkeypatch):
    trees.put(tmp_path, "set/a.jpg", "set/b.jpg", "other/q.jpg", "set/g/g.jpg")
    trees.text(tmp_path, "set/train.csv", f"path,pid\na.jpg,1\n{tmp_path}/set/b.jpg,2\n")
    trees.text(tmp_path, "other/query.csv", "path,pid,cam\nq.jpg,9,1\n")
    trees.text(tmp_path, "set/g/gallery.csv", "path,pid,cam,split\n./g.jpg,9,2,gallery\n")
    monkeypatch.chdir(tmp_path)
    options = {"query": "other/query.csv", "gallery": "g/gallery.csv"}  # beside the working directory, beside the root
    with pytest.raises(GloamError, match="row 1 has no cam"):
        load_dataset("table", "set/train.csv", **options)
    trees.text(tmp_path, "set/train.csv", f"path,pid,cam\na.jpg,1,1\n{tmp_path}/set/b.jpg,2,1\n")
    splits = load_dataset("table", "set/train.csv", **options)
    assert [r.paths[0] for r in splits.train] == ["a.jpg", "b.jpg"]
    assert splits.query[0].paths == (f"{tmp_path}/other/q.jpg",)
    assert splits.gallery[0].paths == ("g/g.jpg",)
    assert all((splits.root / r.paths[0]).is_file() for r in (*splits.train, *splits.query, *splits.gallery))


def test_contradicting_parts_are_refused(tmp_path):
    trees.put(tmp_path, "a.jpg", "b.jpg", "q/9/1.jpg", "g/9/1.jpg", "empty/x/note.csv")
    trees.text(tmp_path, "t.csv", "path,pid,split\na.jpg,1,train\nb.jpg,2,test\n")
    trees.text(tmp_path, "fine.csv", "path,pid,split\na.jpg,1,train\nb.jpg,2,\n")
    for name, options, message in (
        ("fine", {"query": "q"}, "give the option gallery too"),
        ("fine", {"query": "q", "gallery": "none"}, "neither a table nor a folder none"),
        ("t", {"query": "q", "gallery": "g"}, r"row 2, column split: 'test' cannot stand beside"),
        ("fine", {"query": "q", "gallery": "empty"}, "there is no gallery"),
    ):
        with pytest.raises(GloamError, match=message):
            load_dataset("table", tmp_path / f"{name}.csv", **options)
    assert len(load_dataset("table", tmp_path / "fine.csv", query="q", gallery="g").train) == 2
    with pytest.raises(GloamError, match=r"q/9/1.jpg is listed twice, in .* and in "):
        load_dataset("table", tmp_path / "fine.csv", query="q", gallery="q")


def test_nobody_is_known_in_a_plain_folder(tmp_path):
    trees.put(tmp_path, "1.jpg", "day/2.jpg", "day/10.jpg", "night/x/3.jpg")
    with pytest.raises(GloamError, match="labels=none"):
        load_dataset("table", tmp_path, pattern="*")
    splits = load_dataset("table", tmp_path, labels="none")
    assert [r.paths[0] for r in splits.train] == ["1.jpg", "day/2.jpg", "day/10.jpg", "night/x/3.jpg"]
    assert not splits.labelled
    assert [(r.pid, r.pid_raw) for r in splits.train] == [(n, -1) for n in range(4)]
    assert splits.num_classes == 4
    assert splits.counts()["train_ids"] == 0
    assert splits.counts()["train_records"] == 4
    assert splits.protocols == {}
    with pytest.raises(GloamError, match="does not say who"):
        hold_out(splits)
    with pytest.raises(GloamError, match="does not say who"):
        shuffle_labels_per_modality(splits, 0)


def test_nobody_is_known_in_training_but_the_test_is_named(tmp_path):
    trees.put(tmp_path, "a.jpg", "b.jpg", "q.jpg", "g.jpg")
    rows = "a.jpg,,1,train\nb.jpg,,2,train\nq.jpg,O'Brien,1,query\ng.jpg,O'Brien,2,gallery\n"
    trees.text(tmp_path, "t.csv", f"path,pid,cam,split\n{rows}")
    splits = load_dataset("table", tmp_path / "t.csv", labels="none")
    assert len(splits.train) == 2
    assert (splits.query[0].pid_raw, splits.query[0].pid) == (splits.gallery[0].pid_raw, splits.gallery[0].pid)
    assert list(splits.protocols) == ["table/default"]
    with pytest.raises(GloamError, match="row 1 has no pid"):
        load_dataset("table", tmp_path / "t.csv")
    trees.text(tmp_path, "u.csv", "path,cam\na.jpg,1\nb.jpg,2\n")
    with pytest.raises(GloamError, match=r"no column 'pid'.*labels=none"):
        load_dataset("table", tmp_path / "u.csv")
    assert [r.cam for r in load_dataset("table", tmp_path / "u.csv", labels="none").train] == [1, 2]


def test_unknown_tracklets_stay_together(tmp_path):
    trees.put(tmp_path, *(f"t{t}/{f}.jpg" for t in (1, 2) for f in (1, 2, 10)))
    splits = load_dataset("table", tmp_path, labels="none", pattern="t{tracklet}/*")
    assert [r.paths for r in splits.train] == [tuple(f"t{t}/{f}.jpg" for f in (1, 2, 10)) for t in (1, 2)]
    assert [r.pid for r in splits.train] == [0, 1]


def test_patterns_still_tell_cameras_and_modalities_of_unknown_people(tmp_path):
    trees.put(tmp_path, "c1_vis_1.jpg", "c2_ir_1.jpg")
    splits = load_dataset("table", tmp_path, labels="none", pattern="c{cam}_{modality}_*")
    assert [(r.cam, r.modality) for r in splits.train] == [(1, Modality.VISIBLE), (2, Modality.INFRARED)]


def test_linked_folders_are_followed_once_around(tmp_path):
    trees.put(tmp_path, "far/anna/1.jpg", "near/ben/1.jpg", "near/ben/.hidden/2.jpg")
    (tmp_path / "near" / "anna").symlink_to(tmp_path / "far" / "anna")
    (tmp_path / "near" / "ben" / "round").symlink_to(tmp_path / "near")
    assert list(walk_images(tmp_path / "near")) == ["anna/1.jpg", "ben/1.jpg"]
    splits = load_dataset("table", tmp_path / "near", test_fraction=0)
    assert [r.paths for r in splits.train] == [("anna/1.jpg",), ("ben/1.jpg",)]


def test_folders_that_may_not_be_listed_are_named(tmp_path, monkeypatch):
    import os

    trees.put(tmp_path, "anna/1.jpg", "ben/1.jpg")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("ben"):
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(GloamError, match=r"ben cannot be listed: Permission denied"):
        list(walk_images(tmp_path))


def test_people_with_one_image_each_cannot_be_scored(tmp_path):
    trees.put(tmp_path, *(f"p{p}/1.jpg" for p in range(4)))
    splits = load_dataset("table", tmp_path, write_split=str(tmp_path / "divided.csv"))
    assert splits.query == ()
    assert len(splits.gallery) == 2
    assert "nothing can be scored" in splits.notice
    again = load_dataset("table", tmp_path / "divided.csv")
    assert (again.train, again.gallery, again.notice) == (splits.train, splits.gallery, splits.notice)


def test_training_only(tmp_path):
    trees.put(tmp_path, *(f"p{p}/{n}.jpg" for p in range(3) for n in range(2)))
    splits = load_dataset("table", tmp_path, test_fraction=0)
    assert len(splits.train) == 6
    assert splits.query == splits.gallery == ()
    assert splits.protocols == {}
    assert splits.notice is None
