import pytest

from gloam.datasets import get_dataset, load_dataset
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.mark.parametrize("layout", ["A", "B", "C"])
def test_layouts(tmp_path, layout):
    splits = load_dataset("hitsz_vcm", trees.vcm(tmp_path, layout))
    prefix = {"A": "Train/", "B": "", "C": ""}[layout]
    # Person 10 has only short tracklets: dropped, but its class remains.
    assert splits.label_map == {1: 0, 2: 1, 10: 2}
    assert [(r.pid, r.pid_raw, r.cam, len(r.paths)) for r in splits.train] == [
        (1, 2, 1, 12),
        (1, 2, 10, 12),
        (0, 1, 3, 13),
    ]
    assert splits.num_classes == 3
    assert splits.train[1].paths[:2] == (f"{prefix}0002/rgb/D10/201.jpg", f"{prefix}0002/rgb/D10/202.jpg")
    assert splits.train[0].paths[-1] == f"{prefix}0002/ir/D1/112.jpg"
    assert [(r.pid, r.cam, r.modality) for r in splits.query] == [
        (20, 12, Modality.INFRARED),
        (30, 2, Modality.INFRARED),
    ]
    assert [(r.pid, r.cam, r.modality) for r in splits.gallery] == [
        (20, 12, Modality.VISIBLE),
        (30, 2, Modality.VISIBLE),
    ]
    assert splits.is_video
    assert all((tmp_path / p).is_file() for part in (splits.train, splits.query) for r in part for p in r.paths)


def test_length_filter(tmp_path):
    root = trees.vcm(tmp_path, "A")
    dataset = get_dataset("hitsz_vcm")(root, min_frames=1)
    everything = dataset.load()
    counts = everything.counts()
    assert (counts["train_records"], counts["query_records"], counts["gallery_records"]) == (5, 3, 2)
    assert counts["train_images"] == 12 + 12 + 11 + 11 + 13
    assert everything.expected_counts["train_records"] == 11_061
    assert load_dataset("hitsz_vcm", root).expected_counts["train_records"] == 9_751


def test_longer_filter_may_empty_a_part(tmp_path):
    with pytest.raises(GloamError, match="No query image"):
        load_dataset("hitsz_vcm", trees.vcm(tmp_path, "B"), min_frames=13)


def test_protocols(tmp_path):
    protocols = load_dataset("hitsz_vcm", trees.vcm(tmp_path, "A")).protocols
    assert [(p.name, p.swapped, p.camera_rule, p.cmc, p.shots) for p in protocols.values()] == [
        ("hitsz_vcm/infrared_to_visible", False, "same_id_same_cam", "standard", None),
        ("hitsz_vcm/visible_to_infrared", True, "same_id_same_cam", "standard", None),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("query_IDX.txt", "1 2", "1 of 2 query tracklets are not infrared"),
        ("query_IDX.txt", "2 9", "9 are not row numbers 1..5"),
        ("track_train_info.txt", "1 1 12 0002", "is not 'modality start end pid camera'"),
        ("track_train_info.txt", "1 0 12 0002 1", "frames inside 1..59"),
        ("track_train_info.txt", "1 50 60 0002 1", "frames inside 1..59"),
        ("track_train_info.txt", "3 1 12 0002 1", "modality 1 or 2"),
        ("train_name.txt", "0001_1.jpg\n" * 59, "cannot read the frame name '0001_1.jpg'"),
    ],
)
def test_broken_files(tmp_path, name, content, message):
    root = trees.vcm(tmp_path, "A")
    trees.text(root, f"info/{name}", content)
    with pytest.raises(GloamError, match=message):
        load_dataset("hitsz_vcm", root)


def test_missing_file(tmp_path):
    root = trees.vcm(tmp_path, "C")
    (root / "query_IDX.txt").unlink()
    with pytest.raises(GloamError, match=r"query_IDX\.txt' is missing"):
        load_dataset("hitsz_vcm", root)
