import pytest

from gloam.datasets import get_dataset, load_dataset
from gloam.datasets.check import gallery_size
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.fixture
def root(tmp_path):
    # Splitting absolute paths at "cam" breaks here.
    return trees.llcm(tmp_path / "campus_cam3" / "LLCM")


def test_training(root):
    splits = load_dataset("llcm", root)
    assert splits.label_map == {1: 0, 4: 1, 11: 2}
    assert [(r.pid, r.pid_raw, r.cam, r.modality) for r in splits.train[:3]] == [
        (0, 1, 1, Modality.VISIBLE),
        (0, 1, 9, Modality.VISIBLE),
        (1, 4, 1, Modality.VISIBLE),
    ]
    assert splits.counts()["train_infrared"] == 6


def test_pools_in_reference_order(root):
    dataset = get_dataset("llcm")(root)
    splits = dataset.load()
    assert [(r.pid, r.cam) for r in splits.query] == [(3, 1), (3, 1), (3, 2), (3, 2), (3, 9), (3, 9), (10, 2)]
    # Infrared camera 3 exists on disk and is left out.
    assert [(r.pid, r.cam) for r in splits.gallery] == [(3, 1), (3, 1), (3, 2), (3, 2), (10, 2)]
    assert any("cam3 is ignored" in remark for remark in dataset.remarks)
    assert splits.query[0].paths == ("test_vis/cam1/0003/0003_c01_s1_f1_vis.jpg",)


def test_protocols(root):
    splits = load_dataset("llcm", root)
    assert list(splits.protocols) == ["llcm/infrared_to_visible", "llcm/visible_to_infrared", "llcm/released_script"]
    i2v, v2i, released = splits.protocols.values()
    assert all(
        (p.shots, p.trials, p.camera_rule, p.cmc) == (1, 10, "same_id_same_cam", "unique_id") for p in (i2v, v2i)
    )
    assert (i2v.swapped, i2v.gallery_cams) == (True, tuple(range(1, 10)))
    assert (v2i.swapped, v2i.gallery_cams) == (False, (1, 2, 4, 5, 6, 7, 8, 9))
    assert (released.swapped, released.sampled, released.gallery_cams) == (True, "query", v2i.gallery_cams)
    # One per (id, camera).
    assert [gallery_size(splits, p) for p in (i2v, v2i, released)] == [4, 3, 3]


def test_missing_and_broken_files(root):
    trees.text(root, "idx/train_vis.txt", "vis/0001/image.jpg 0")
    with pytest.raises(GloamError, match=r"'vis/0001/image\.jpg' names no camera"):
        load_dataset("llcm", root)
    (root / "idx/test_id.txt").unlink()
    (root / "idx/train_vis.txt").unlink()
    with pytest.raises(GloamError, match=r"idx/train_vis\.txt' is missing"):
        load_dataset("llcm", root)
