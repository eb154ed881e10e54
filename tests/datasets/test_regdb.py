import pytest

from gloam.datasets import load_dataset
from gloam.datasets.records import Modality
from gloam.errors import GloamError
from tests.datasets import trees


@pytest.mark.parametrize(("trial", "train", "test"), [(1, {285: 0, 7: 1}, {40, 3}), (2, {3: 0, 40: 1}, {7, 285})])
def test_trials(tmp_path, trial, train, test):
    splits = load_dataset("regdb", trees.regdb(tmp_path), trial=trial)
    # Labels come from the lists, whatever the folder numbers say.
    assert splits.label_map == train
    assert {(r.pid_raw, r.pid) for r in splits.train} == set(train.items())
    assert {r.pid for r in splits.query} == {r.pid for r in splits.gallery} == test
    assert {r.modality for r in splits.query} == {Modality.VISIBLE}
    assert {r.modality for r in splits.gallery} == {Modality.INFRARED}
    assert {(r.modality, r.cam) for r in splits.train} == {(Modality.VISIBLE, 1), (Modality.INFRARED, 2)}
    assert all(r.paths[0].endswith(f"_{r.pid_raw}.bmp") and (tmp_path / r.paths[0]).is_file() for r in splits.train)
    counts = splits.counts()
    assert [counts[f"train_{k}"] for k in ("ids", "records", "visible", "infrared")] == [2, 8, 4, 4]
    # List order is kept.
    assert splits.train[0].paths[0].split("/")[1] == str(list(train)[1])


def test_protocols(tmp_path):
    protocols = load_dataset("regdb", trees.regdb(tmp_path)).protocols
    assert [(p.name, p.swapped, p.camera_rule, p.cmc, p.trials) for p in protocols.values()] == [
        ("regdb/visible_to_thermal", False, "none", "standard", 1),
        ("regdb/thermal_to_visible", True, "none", "standard", 1),
    ]


def test_bad_options_and_files(tmp_path):
    root = trees.regdb(tmp_path)
    with pytest.raises(GloamError, match=r"has no option 'trail'\. Did you mean 'trial'"):
        load_dataset("regdb", root, trail=1)
    with pytest.raises(GloamError, match="trial=11 must be from 1 to 10"):
        load_dataset("regdb", root, trial=11)
    with pytest.raises(GloamError, match="trial='x' must be a number"):
        load_dataset("regdb", root, trial="x")
    with pytest.raises(GloamError, match=r"idx/train_visible_3\.txt' is missing[\s\S]*cannot be rebuilt"):
        load_dataset("regdb", root, trial=3)
    trees.text(root, "idx/train_visible_1.txt", "Visible/285/a.bmp\n")
    with pytest.raises(GloamError, match=r"cannot read the line 'Visible/285/a\.bmp'"):
        load_dataset("regdb", root)


def test_folders_that_disagree_with_labels(tmp_path):
    """Two folders under one label: the label decides who is who."""
    root = trees.regdb(tmp_path)
    for modality, folder in (("visible", "Visible"), ("thermal", "Thermal")):
        trees.text(root, f"idx/test_{modality}_1.txt", f"{folder}/40/a.bmp 5\n{folder}/3/a.bmp 5\n{folder}/7/a.bmp 6\n")
    splits = load_dataset("regdb", root)
    assert [r.pid for r in splits.query] == [5, 5, 6]
