import random

import numpy as np
import pytest
from scipy.io import savemat

from gloam.datasets import load_dataset
from gloam.datasets.check import gallery_size
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from tests.datasets import trees


def test_records_are_sorted_by_id_camera_name(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    assert splits.label_map == {1: 0, 2: 1, 5: 2, 7: 3}
    assert splits.validation_pids == (7,)
    assert [(r.pid_raw, r.cam, r.paths[0]) for r in splits.train] == sorted(
        (r.pid_raw, r.cam, r.paths[0]) for r in splits.train
    )
    assert {(r.pid, r.pid_raw) for r in splits.train} == {(0, 1), (1, 2), (2, 5), (3, 7)}
    assert all((r.modality is Modality.INFRARED) == (r.cam in (3, 6)) for r in splits.train + splits.query)
    assert splits.train[0].paths == ("cam1/0001/0001.jpg",)
    counts = splits.counts()
    assert (counts["train_visible"], counts["train_infrared"]) == (3 * 8 + 2, 3 * 4 + 1)
    assert (counts["query_records"], counts["query_visible"]) == (3 + 3 + 4, 0)
    assert (counts["gallery_records"], counts["gallery_infrared"]) == (4 * 12 + 2 * 11, 0)
    assert not splits.is_video


def test_protocols_and_gallery_sizes(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    assert list(splits.protocols) == [
        "sysu_mm01/all_single",
        "sysu_mm01/indoor_single",
        "sysu_mm01/all_multi",
        "sysu_mm01/indoor_multi",
    ]
    sizes = {name.split("/")[1]: gallery_size(splits, p) for name, p in splits.protocols.items()}
    # One (ten) per (id, camera): id 9 in four cameras, id 12 in the two outdoor ones.
    assert sizes == {"all_single": 6, "indoor_single": 2, "all_multi": 60, "indoor_multi": 20}
    for protocol in splits.protocols.values():
        assert (protocol.camera_rule, protocol.cmc, protocol.trials) == ("sysu", "unique_id", 10)
    assert splits.protocols["sysu_mm01/indoor_single"].gallery_cams == (1, 2)


def test_gallery_draw_of_the_references_follows_from_record_order(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    # The references' loop over folders ...
    generator = random.Random(3)
    wanted = []
    for pid in (9, 12):
        for cam in (1, 2, 4, 5):
            folder = tmp_path / f"cam{cam}" / f"{pid:04d}"
            if folder.is_dir():
                wanted.append(f"cam{cam}/{pid:04d}/{generator.choice(sorted(f.name for f in folder.iterdir()))}")
    # ... equals a loop over consecutive groups of the gallery records.
    groups: dict[tuple[int, int], list[str]] = {}
    for record in splits.gallery:
        groups.setdefault((record.pid, record.cam), []).append(record.paths[0])
    generator = random.Random(3)
    assert [generator.choice(group) for group in groups.values()] == wanted


def test_ori_data_folder_crlf_and_upper_case(tmp_path):
    root = trees.sysu(tmp_path / "ori_data")
    trees.text(root, "exp/test_id.txt", "\ufeff9, 12,\r\n\r\n")
    trees.put(root, "cam1/0009/0013.JPEG")
    outer, inner = load_dataset("sysu_mm01", tmp_path), load_dataset("sysu_mm01", root)
    assert outer.root == inner.root == root
    assert outer.gallery == inner.gallery
    assert any(r.paths[0].endswith("0013.JPEG") for r in outer.gallery)


def test_train_only(tmp_path):
    root = trees.sysu(tmp_path)
    (root / "exp/val_id.txt").unlink()
    splits = load_dataset("sysu_mm01", root, train="train")
    assert splits.label_map == {1: 0, 2: 1, 5: 2}
    assert splits.validation_pids == ()
    assert splits.expected_counts["train_ids"] == 296
    assert "train_records" not in splits.expected_counts
    with pytest.raises(GloamError, match=r"val_id\.txt' is missing[\s\S]*train=train"):
        load_dataset("sysu_mm01", root)


def test_missing_parts_are_named(tmp_path):
    root = trees.sysu(tmp_path)
    (root / "exp/test_id.txt").rename(root / "exp/test.txt")
    with pytest.raises(GloamError, match=r"exp/test_id\.txt' is missing"):
        load_dataset("sysu_mm01", root)
    trees.text(root, "exp/test_id.txt", "9,x2")
    with pytest.raises(GloamError, match="'x2' is no id"):
        load_dataset("sysu_mm01", root)
    trees.text(root, "exp/test_id.txt", "9,7")
    with pytest.raises(GloamError, match="ids 7 are in the test list and a training list"):
        load_dataset("sysu_mm01", root)
    trees.text(root, "exp/test_id.txt", "99")
    with pytest.raises(GloamError, match="No query image was found"):
        load_dataset("sysu_mm01", root)


def permutation_file(path, images, trials=10):
    """The authors' nested cells: camera -> id -> trials x n, empty where there is nothing."""
    generator = np.random.default_rng(0)
    cameras = np.empty((6, 1), dtype=object)
    orders = {}
    for cam in range(1, 7):
        people = np.empty((20, 1), dtype=object)
        for pid in range(1, 21):
            people[pid - 1, 0] = np.zeros((0, 0))
            if (pid, cam) in images:
                order = np.stack([generator.permutation(images[pid, cam]) + 1 for _ in range(trials)])
                people[pid - 1, 0] = orders[pid, cam] = order.astype(np.uint16)
        cameras[cam - 1, 0] = people
    savemat(path, {"rand_perm_cam": cameras})
    return orders


def test_official_permutations(tmp_path):
    root = trees.sysu(tmp_path / "data")
    orders = permutation_file(tmp_path / "rand_perm_cam.mat", trees.SYSU)
    splits = load_dataset("sysu_mm01", root, permutations=str(tmp_path / "rand_perm_cam.mat"))
    single = splits.protocols["sysu_mm01/all_single"].galleries
    # Camera-major: cameras 1, 2 of id 9, then camera 4 of ids 9 and 12, ...
    keys = [(9, 1), (9, 2), (9, 4), (12, 4), (9, 5), (12, 5)]
    for trial in range(10):
        assert single[trial] == tuple(f"cam{c}/{p:04d}/{orders[p, c][trial, 0]:04d}.jpg" for p, c in keys)
    multi = splits.protocols["sysu_mm01/indoor_multi"].galleries
    assert multi[4][:10] == tuple(f"cam1/0009/{n:04d}.jpg" for n in orders[9, 1][4, :10])
    assert len(multi) == 10
    assert len(multi[0]) == 20
    known = {r.paths[0] for r in splits.gallery}
    assert known.issuperset(path for gallery in multi for path in gallery)
    assert gallery_size(splits, splits.protocols["sysu_mm01/all_single"]) == 6


def test_permutations_of_other_data_are_refused(tmp_path):
    root = trees.sysu(tmp_path / "data")
    permutation_file(tmp_path / "other.mat", {**trees.SYSU, (9, 1): 5})
    with pytest.raises(GloamError, match="camera 1, id 9 needs 10 permutations of 12 images, found 10x5"):
        load_dataset("sysu_mm01", root, permutations=tmp_path / "other.mat")
    with pytest.raises(GloamError, match="There is no permutation file"):
        load_dataset("sysu_mm01", root, permutations=tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("hello")
    with pytest.raises(GloamError, match=r"is not the authors' rand_perm_cam\.mat"):
        load_dataset("sysu_mm01", root, permutations=tmp_path / "text.mat")
