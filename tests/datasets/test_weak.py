import random

import numpy as np
import pytest

from gloam.datasets import load_dataset
from gloam.datasets.records import DatasetSplits, Modality, Record
from gloam.datasets.weak import WeakLabels, shuffle_labels_per_modality
from gloam.errors import GloamError
from tests.datasets import trees


def people(visible, infrared) -> DatasetSplits:
    """Two images per identity and modality; original ids are 100 + label."""
    train = tuple(
        Record((f"{modality.name}/{pid}_{n}.jpg",), pid, 1, modality, 100 + pid)
        for modality, pids in ((Modality.VISIBLE, visible), (Modality.INFRARED, infrared))
        for pid in pids
        for n in (0, 1)
    )
    labels = {100 + pid: pid for pid in sorted({*visible, *infrared})}
    return DatasetSplits("fake", ".", train, (), (), {}, labels, validation_pids=(100,))


def test_draws_of_the_reference():
    """WSL-VIReID: seed, shuffle visible, shuffle infrared; new label of c = position of c."""
    generator = random.Random(5)
    lists = []
    for _ in range(2):
        order = list(range(20))
        generator.shuffle(order)
        lists.append(order)
    shuffled, weak = shuffle_labels_per_modality(people(range(20), range(20)), seed=5)
    original = people(range(20), range(20))
    for before, after in zip(original.train, shuffled.train, strict=True):
        assert after.pid == lists[before.modality].index(before.pid)
        assert (after.paths, after.cam, after.modality) == (before.paths, before.cam, before.modality)
    assert [weak.visible, weak.infrared] == [tuple(order) for order in lists]
    assert weak.visible != weak.infrared


def test_nothing_leaks_and_the_truth_is_kept():
    original = people(range(20), range(20))
    shuffled, weak = shuffle_labels_per_modality(original, seed=0)
    assert all(record.pid_raw == record.pid for record in shuffled.train)
    assert shuffled.label_map == {label: label for label in range(20)}
    assert shuffled.validation_pids == ()
    assert weak.true_labels(shuffled.train).tolist() == [record.pid for record in original.train]
    assert weak.truth(Modality.INFRARED).dtype == np.int64
    # Inside one modality, people stay together and apart.
    for modality in Modality:
        pairs = {(a.pid, b.pid) for a, b in zip(original.train, shuffled.train, strict=True) if a.modality is modality}
        assert len(pairs) == 20
        assert {new for _, new in pairs} == set(range(20))


def test_modalities_with_different_people():
    shuffled, weak = shuffle_labels_per_modality(people(range(5), (1, 4, 7)), seed=0)
    labels = {modality: {r.pid for r in shuffled.train if r.modality is modality} for modality in Modality}
    assert labels == {Modality.VISIBLE: set(range(5)), Modality.INFRARED: {0, 1, 2}}
    assert sorted(weak.infrared) == [1, 4, 7]
    assert shuffled.num_classes == 5


def test_seed_decides_and_global_state_is_left_alone():
    random.seed(3)
    state = random.getstate()
    first = shuffle_labels_per_modality(people(range(9), range(9)), seed=1)
    assert random.getstate() == state
    assert shuffle_labels_per_modality(people(range(9), range(9)), seed=1) == first
    assert shuffle_labels_per_modality(people(range(9), range(9)), seed=2)[1] != first[1]


def test_saved_permutations_shuffle_again(tmp_path):
    original = people(range(9), range(9))
    shuffled, weak = shuffle_labels_per_modality(original, seed=1)
    weak.save(tmp_path / "weak.json")
    loaded = WeakLabels.load(tmp_path / "weak.json")
    assert loaded == weak
    assert loaded.apply(original) == shuffled
    with pytest.raises(GloamError, match="covers 9 visible identities, fake has 8"):
        loaded.apply(people(range(8), range(9)))
    (tmp_path / "weak.json").write_text("{}")
    with pytest.raises(GloamError, match="is damaged"):
        WeakLabels.load(tmp_path / "weak.json")
    with pytest.raises(GloamError, match="Cannot read the label permutation"):
        WeakLabels.load(tmp_path / "none.json")


def test_test_records_stay_and_one_modality_is_refused(tmp_path):
    splits = load_dataset("sysu_mm01", trees.sysu(tmp_path))
    shuffled, _ = shuffle_labels_per_modality(splits, seed=0)
    assert (shuffled.query, shuffled.gallery, shuffled.protocols) == (splits.query, splits.gallery, splits.protocols)
    with pytest.raises(GloamError, match="no infrared training images"):
        shuffle_labels_per_modality(people(range(3), ()), seed=0)
