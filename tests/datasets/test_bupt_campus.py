import json

import pytest

from gloam.datasets import load_dataset
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from tests.datasets import trees

IR, RGB = Modality.INFRARED, Modality.VISIBLE


def test_records(tmp_path):
    splits = load_dataset("bupt_campus", trees.bupt(tmp_path))
    # 2 before 10: ids are numbers, not strings.
    assert splits.label_map == {2: 0, 10: 1}
    assert [(r.pid, r.pid_raw, r.cam, r.modality) for r in splits.train] == [
        (1, 10, 0, IR),
        (1, 10, 0, RGB),
        (0, 2, 5, IR),
        (0, 2, 5, RGB),
        (0, 2, 1, IR),
        (0, 2, 1, RGB),
    ]
    # Frame order is the JSON's (9 before 10), not the alphabet's.
    assert splits.train[0].paths == ("DATA/10/IR/LS3/10_IR_LS3_1_9.jpg", "DATA/10/IR/LS3/10_IR_LS3_1_10.jpg")
    assert [(r.pid, r.modality) for r in splits.query] == [(30, IR), (31, RGB)]
    assert [(r.pid, r.cam, r.modality) for r in splits.gallery] == [
        (30, 0, IR),
        (30, 0, RGB),
        (31, 2, IR),
        (31, 2, RGB),
    ]
    assert [(r.pid, r.pid_raw) for r in splits.auxiliary] == [(1746, 1746)] * 2


def test_auxiliary_labels_follow_the_training_ids(tmp_path):
    root = trees.bupt(tmp_path)
    splits = load_dataset("bupt_campus", root, auxiliary=True)
    assert splits.label_map == {2: 0, 10: 1, 1746: 2}
    assert [r.pid for r in splits.train[-2:]] == [2, 2]
    assert splits.auxiliary == ()
    assert splits.expected_counts["train_ids"] == 2004
    assert splits.expected_counts["train_visible"] == 3_574 + 930
    (root / "train_auxiliary.txt").unlink()
    assert load_dataset("bupt_campus", root).auxiliary == ()
    with pytest.raises(GloamError, match=r"train_auxiliary\.txt' is missing"):
        load_dataset("bupt_campus", root, auxiliary=True)


def test_fake_infrared(tmp_path):
    splits = load_dataset("bupt_campus", trees.bupt(tmp_path), fake_ir=True)
    assert splits.train[1].paths[0] == "DATA/10/FakeIR/LS3/10_RGB_LS3_1_9.jpg"
    assert splits.train[0].paths[0] == "DATA/10/IR/LS3/10_IR_LS3_1_9.jpg"
    assert all((tmp_path / p).is_file() for r in splits.train + splits.gallery for p in r.paths)


def test_protocols(tmp_path):
    protocols = load_dataset("bupt_campus", trees.bupt(tmp_path)).protocols
    assert [
        (p.name.split("/")[1], p.query_modality, p.gallery_modality, p.camera_rule, p.swapped)
        for p in protocols.values()
    ] == [
        ("infrared_to_visible", IR, RGB, "same_id_same_cam", False),
        ("visible_to_infrared", RGB, IR, "same_id_same_cam", False),
        ("infrared_to_visible_unfiltered", IR, RGB, "none", False),
        ("visible_to_infrared_unfiltered", RGB, IR, "none", False),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("query.txt", "30 IR CQ1", "is not 'pid modality camera tracklet'"),
        ("query.txt", "30 IR CQ7 1", "names the camera 'CQ7'. Did you mean 'CQ1'"),
        ("query.txt", "30 UV CQ1 1", "names the modality 'UV'"),
        ("query.txt", "30 IR CQ1 77", "data_paths.json has no frames for 30 IR CQ1 77"),
        ("data_paths.json", "{", "is not valid JSON"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    root = trees.bupt(tmp_path)
    trees.text(root, name, content)
    with pytest.raises(GloamError, match=message):
        load_dataset("bupt_campus", root)


@pytest.mark.parametrize("frames", ["one.jpg", 3, {"1": 2}, ["a.jpg", 4], True])
def test_frames_that_are_no_list_of_names(tmp_path, frames):
    root = trees.bupt(tmp_path)
    content = json.loads((root / "data_paths.json").read_text())
    content["10"]["IR"]["LS3"]["1"] = frames
    (root / "data_paths.json").write_text(json.dumps(content))
    with pytest.raises(GloamError, match="10 IR LS3 1 is no list of file names"):
        load_dataset("bupt_campus", root)
    (root / "data_paths.json").write_text("[" * 100_000)
    with pytest.raises(GloamError, match="not valid JSON"):
        load_dataset("bupt_campus", root)
