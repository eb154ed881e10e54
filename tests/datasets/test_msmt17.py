import pytest

from gloam.datasets import get_dataset, load_dataset
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.mark.parametrize("release", ["V1", "V2"])
def test_official_releases(tmp_path, release):
    root = trees.msmt(tmp_path, release)
    splits = load_dataset("msmt17", root)
    folder = {"V1": "train", "V2": "mask_train_v2"}[release]
    assert [(r.pid, r.pid_raw, r.cam) for r in splits.train] == [(0, 0, 0), (1, 1, 14)]
    assert splits.train[0].paths == (f"{folder}/0000/0000_000_01_0303morning_0015_0.jpg",)
    # Test people carry the same numbers as training people; they are kept apart.
    assert [(r.pid, r.cam) for r in splits.query + splits.gallery] == [(0, 11), (0, 2), (1, 11)]
    assert splits.expected_counts["train_records"] == 30_248
    whole = load_dataset("msmt17", root, train="train_val")
    assert [r.cam for r in whole.train] == [0, 14, 1]
    assert whole.expected_counts["train_records"] == 32_621


def test_folder_names_with_underscores(tmp_path):
    """The camera is read from the base name, not from the relative path."""
    root = trees.msmt(tmp_path, "V1")
    trees.put(root, "train/a_b_c/0000_000_07_0303morning_0015_0.jpg")
    trees.text(root, "list_train.txt", "a_b_c/0000_000_07_0303morning_0015_0.jpg 0")
    assert load_dataset("msmt17", root).train[0].cam == 6


def test_repacked(tmp_path):
    trees.put(tmp_path, "bounding_box_train/0781_c11_0015.jpg", "query/0003_c9_0001.jpg")
    trees.put(tmp_path, "bounding_box_test/0003_c15_0001.jpg")
    dataset = get_dataset("msmt17")(tmp_path)
    splits = dataset.load()
    assert [part[0].cam for part in (splits.train, splits.query, splits.gallery)] == [10, 8, 14]
    assert splits.expected_counts["train_records"] == 32_621
    assert "does not say which" in dataset.remarks[0]


def test_errors(tmp_path):
    root = trees.msmt(tmp_path, "V2")
    trees.text(root, "list_train.txt", "0000/0000_000_16_0303morning_0015_0.jpg 0")
    with pytest.raises(GloamError, match=r"names no camera 1\.\.15 in third place"):
        load_dataset("msmt17", root)
    (root / "list_val.txt").unlink()
    trees.text(root, "list_train.txt", "0000/0000_000_01_0303morning_0015_0.jpg 0")
    assert len(load_dataset("msmt17", root).train) == 1
    with pytest.raises(GloamError, match=r"list_val\.txt' is missing"):
        load_dataset("msmt17", root, train="train_val")
    with pytest.raises(GloamError, match="neither train/ and test/"):
        load_dataset("msmt17", root / "mask_train_v2")
