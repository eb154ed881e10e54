"""Market-1501, DukeMTMC-reID, PersonX and VeRi-776: one reader, four dialects."""

import pytest

from gloam.datasets import get_dataset, load_dataset
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.fixture
def market(tmp_path):
    # The name pattern must see the file name only, not this folder.
    return trees.market(tmp_path / "9999_c9" / "Market")


def test_market(market):
    dataset = get_dataset("market1501")(market)
    splits = dataset.load()
    assert [(r.pid, r.pid_raw, r.cam) for r in splits.train] == [(0, 2, 0), (0, 2, 5), (1, 7, 1)]
    assert splits.label_map == {2: 0, 7: 1}
    assert [(r.pid, r.cam) for r in splits.query] == [(3, 0), (5, 1)]
    # -1 is gone, 0 stays as a negative, sorted by file name.
    assert [(r.pid, r.cam) for r in splits.gallery] == [(0, 0), (3, 0), (3, 5), (5, 2)]
    (protocol,) = splits.protocols.values()
    assert (protocol.name, protocol.camera_rule, protocol.cmc) == (
        "market1501/single_query",
        "same_id_same_cam",
        "standard",
    )
    assert dataset.remarks == ["bounding_box_test: 1 junk detections (id -1) are ignored"]
    assert splits.notice is None


def test_distractors(market):
    with pytest.raises(GloamError, match="no folder 'images'"):
        load_dataset("market1501", market, distractors="gallery")
    trees.put(market, "images/anything.jpg", "images/0002_c1s1_000451_03.jpg")
    plain = load_dataset("market1501", market)
    wide = load_dataset("market1501", market, distractors="gallery")
    assert wide.gallery[:4] == plain.gallery
    assert [(r.pid, r.paths[0]) for r in wide.gallery[4:]] == [
        (0, "images/0002_c1s1_000451_03.jpg"),
        (0, "images/anything.jpg"),
    ]
    assert "gallery_records" not in wide.expected_counts
    aside = load_dataset("market1501", market, distractors="auxiliary")
    assert (aside.gallery, len(aside.auxiliary)) == (plain.gallery, 2)
    with pytest.raises(GloamError, match=r"is not offered\. Did you mean 'gallery'"):
        load_dataset("market1501", market, distractors="galery")


def test_another_datasets_cameras_are_noticed(market):
    trees.put(market, "query/0003_c12s1_000001_00.jpg")
    with pytest.raises(GloamError, match=r"names camera 12, but cameras are 1\.\.6"):
        load_dataset("market1501", market)


def test_foreign_names_are_remarked(market):
    trees.put(market, "query/selfie.jpg", "query/._0003_c1s1_000001_00.jpg")
    dataset = get_dataset("market1501")(market)
    assert len(dataset.load().query) == 2
    assert "query: 1 images with other names are ignored: selfie.jpg" in dataset.remarks


def test_empty_folder(market):
    for file in (market / "query").iterdir():
        file.unlink()
    with pytest.raises(GloamError, match="No query image was found"):
        load_dataset("market1501", market)


def test_duke_shows_a_notice(tmp_path, caplog):
    trees.put(tmp_path, "bounding_box_train/7140_c2_f0046182.jpg", "bounding_box_train/0001_c8_f0046182.jpg")
    trees.put(tmp_path, "query/0005_c2_f0046985.jpg", "bounding_box_test/0006_c1_f0044158.jpg")
    splits = load_dataset("dukemtmc", tmp_path)
    assert splits.label_map == {1: 0, 7140: 1}
    assert "withdrawn" in splits.notice
    assert "withdrawn" in caplog.text


def test_personx_camera_map(tmp_path):
    cameras = (3, 4, 8, 10, 11, 12)
    trees.put(tmp_path, *(f"bounding_box_train/0001_c{c}s1_{i}.jpg" for i, c in enumerate(cameras)))
    trees.put(tmp_path, "query/0009_c3s1_1.jpg", "bounding_box_test/0009_c12s1_1.jpg")
    splits = load_dataset("personx", tmp_path)
    assert {r.paths[0].split("_c")[1].split("s")[0]: r.cam for r in splits.train} == {
        str(c): i for i, c in enumerate(cameras)
    }
    trees.put(tmp_path, "query/0009_c5s1_1.jpg")
    with pytest.raises(GloamError, match="names camera 5, but the backgrounds are 3, 4, 8, 10, 11, 12"):
        load_dataset("personx", tmp_path)


def test_personx_first_release(tmp_path):
    for k in range(1, 7):
        trees.put(tmp_path, f"{k}/bounding_box_train/0001_c1s1_1.jpg", f"{k}/query/0009_c1s1_1.jpg")
        trees.put(tmp_path, f"{k}/bounding_box_test/0009_c1s1_2.jpg")
    splits = load_dataset("personx", tmp_path)
    assert [(r.cam, r.paths[0]) for r in splits.train] == [
        (k - 1, f"{k}/bounding_box_train/0001_c1s1_1.jpg") for k in range(1, 7)
    ]
    assert len(splits.query) == len(splits.gallery) == 6


def test_veri(tmp_path):
    trees.put(tmp_path, "image_train/0001_c020_00016450_0.jpg", "image_query/0002_c001_00030600_0.jpg")
    trees.put(tmp_path, "image_test/0002_c019_00030600_0.jpg")
    splits = load_dataset("veri776", tmp_path)
    assert [part[0].cam for part in (splits.train, splits.query, splits.gallery)] == [19, 0, 18]
    assert list(splits.protocols) == ["veri776/single_query"]
