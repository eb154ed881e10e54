from gloam.datasets.query_gallery import NO_MATCH, ONE_CAMERA, divide, fitting_protocols, has_match
from gloam.datasets.records import Modality, Record


def record(pid, cam, number=0, modality=Modality.VISIBLE):
    return Record((f"{pid}_{cam}_{number}.jpg",), pid, cam, modality, pid)


def test_one_query_per_id_and_camera():
    records = [record(1, c, n) for c in (1, 2) for n in range(3)] + [record(2, 1), record(2, 2), record(3, 1)]
    test = divide(records, "d")
    # Id 2 has one image per camera: the first is its query. Id 3 has one at all: a distractor.
    assert [(r.pid, r.cam, r.paths[0]) for r in test.query] == [
        (1, 1, "1_1_0.jpg"),
        (1, 2, "1_2_0.jpg"),
        (2, 1, "2_1_0.jpg"),
    ]
    assert [(r.pid, r.cam) for r in test.gallery] == [(1, 1), (1, 1), (1, 2), (1, 2), (2, 2), (3, 1)]
    assert test.notice is None


def test_equal_records_are_kept_apart():
    twin = [record(1, 1), record(1, 1), record(1, 2)]
    test = divide(twin, "d")
    assert (len(test.query), len(test.gallery)) == (1, 2)


def test_rule_is_dropped_only_if_no_query_has_a_match():
    gallery = [record(1, 1, 9), record(2, 1, 9)]
    protocols, notice = fitting_protocols([record(1, 1), record(2, 2)], gallery, "d")
    assert (protocols["d/default"].camera_rule, notice) == ("same_id_same_cam", None)
    protocols, notice = fitting_protocols([record(1, 1), record(2, 1)], gallery, "d")
    assert (protocols["d/default"].camera_rule, notice) == ("none", ONE_CAMERA)
    protocols, notice = fitting_protocols([record(5, 1)], gallery, "d", "validation")
    assert (list(protocols), notice) == (["d/validation"], NO_MATCH)
    assert fitting_protocols([], gallery, "d") == ({}, None)


def test_has_match():
    gallery = [record(1, 1), record(1, 2), record(2, 1)]
    assert has_match([record(1, 1)], gallery, "same_id_same_cam")
    assert not has_match([record(2, 1)], gallery, "same_id_same_cam")
    assert has_match([record(2, 1)], gallery, "none")
    assert not has_match([record(3, 1)], gallery, "none")
