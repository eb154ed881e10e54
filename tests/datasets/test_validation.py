import pytest

from gloam.datasets import load_dataset
from gloam.datasets.records import Modality
from gloam.datasets.validation import hold_out
from gloam.errors import GloamError
from tests.datasets import trees


def test_authors_validation_ids_are_used(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    held = hold_out(splits)
    assert held.label_map == {1: 0, 2: 1, 5: 2}
    assert {r.pid_raw for r in held.train} == {1, 2, 5}
    assert {(r.pid, r.modality) for r in held.query} == {(7, Modality.INFRARED)}
    assert {(r.pid, r.modality) for r in held.gallery} == {(7, Modality.VISIBLE)}
    assert len(held.query) + len(held.gallery) == 12
    (protocol,) = held.protocols.values()
    assert (protocol.name, protocol.camera_rule, protocol.swapped) == ("sysu_mm01/validation", "none", False)
    assert held.validation_pids == ()
    assert held.expected_counts == {}
    # No test person is anywhere near.
    assert not {9, 12} & {r.pid_raw for r in held.train + held.query + held.gallery}


def test_chosen_ids_renumber_the_rest(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    held = hold_out(splits, pids=[1, 5])
    assert held.label_map == {2: 0, 7: 1}
    assert {(r.pid_raw, r.pid) for r in held.train} == {(2, 0), (7, 1)}
    assert {r.pid for r in held.query} == {1, 5}


def test_random_fraction_of_one_modality(tmp_path):
    trees.put(
        tmp_path, *(f"bounding_box_train/{p:04d}_c{c}s1_{n}.jpg" for p in range(1, 31) for c in (1, 2) for n in (1, 2))
    )
    trees.put(tmp_path, "query/0099_c1s1_1.jpg", "bounding_box_test/0099_c2s1_1.jpg")
    splits = load_dataset("market1501", tmp_path)
    held = hold_out(splits, fraction=0.2)
    assert held.num_classes == 24
    assert len({r.pid for r in held.query}) == 6
    assert (len(held.query), len(held.gallery)) == (12, 12)
    assert held.protocols["market1501/validation"].camera_rule == "same_id_same_cam"
    assert sorted({r.pid for r in held.train}) == list(range(24))
    assert hold_out(splits, fraction=0.2) == held
    assert hold_out(splits, fraction=0.2, seed=1).label_map != held.label_map
    assert 99 not in {r.pid for r in held.query + held.gallery}


def test_video(tmp_path):
    splits = load_dataset("hitsz_vcm", trees.vcm(tmp_path, "A"), min_frames=1)
    held = hold_out(splits, pids=[2, 10])
    assert [(r.pid, r.modality, len(r.paths)) for r in held.query] == [
        (2, Modality.INFRARED, 12),
        (10, Modality.INFRARED, 11),
    ]
    assert held.is_video
    assert held.label_map == {1: 0}


def test_regdb_ids_are_original_ones(tmp_path):
    held = hold_out(load_dataset("regdb", trees.regdb(tmp_path)), pids=[285])
    assert held.label_map == {7: 0}
    assert {r.pid for r in held.query} == {285}


def test_errors(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    with pytest.raises(GloamError, match="Ids 9 are not among the training ids of sysu_mm01"):
        hold_out(splits, pids=[9])
    with pytest.raises(GloamError, match="leaves one side empty"):
        hold_out(splits, pids=[1, 2, 5, 7])
    video = load_dataset("hitsz_vcm", trees.vcm(tmp_path / "vcm", "A"))
    with pytest.raises(GloamError, match="without a match"):
        hold_out(video, pids=[1])
    with pytest.raises(GloamError, match="must lie between 0 and 1"):
        hold_out(video, fraction=1.5)
    with pytest.raises(GloamError, match="too few to hold some out"):
        hold_out(load_dataset("regdb", trees.regdb(tmp_path / "regdb")))
