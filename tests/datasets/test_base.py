import pytest

from gloam.datasets import get_dataset, list_datasets, load_dataset
from gloam.datasets.base import Option, relabel
from gloam.errors import GloamError
from tests.datasets import trees

BENCHMARKS = [name for name in list_datasets() if name != "table"]


def test_all_datasets_are_registered():
    images = {"sysu_mm01", "regdb", "llcm", "market1501", "dukemtmc", "msmt17", "personx", "veri776"}
    assert set(list_datasets()) == images | {"hitsz_vcm", "bupt_campus", "table"}
    with pytest.raises(GloamError, match=r"no dataset called 'market'\. Did you mean 'market1501'"):
        load_dataset("market", "/")


@pytest.mark.parametrize("name", BENCHMARKS)
def test_description(name):
    described = get_dataset(name).describe()
    assert described["name"] == name
    assert set(described["expected"]) >= {"train_ids", "train_records", "query_records", "gallery_records"}
    assert described["tree"]
    assert described["licence"]
    # gloam carries no links to data.
    assert not any(word in described["obtain"] for word in ("http", "www.", ".com", ".cn", ".org"))


@pytest.mark.parametrize("name", BENCHMARKS)
def test_expected_counts_are_names_of_counts(name, tmp_path):
    splits = load_dataset("market1501", trees.market(tmp_path))
    assert set(get_dataset(name).expected) <= set(splits.counts())


@pytest.mark.parametrize("name", BENCHMARKS)
def test_wrong_root_shows_both_trees(name, tmp_path):
    trees.put(tmp_path, "holiday/beach.jpg")
    with pytest.raises(GloamError) as caught:
        load_dataset(name, tmp_path)
    message = str(caught.value)
    first_line = get_dataset(name).tree.strip().splitlines()[0]
    assert all(part in message for part in ("expected", f"found in {tmp_path}", first_line, "holiday/", "beach.jpg"))


@pytest.mark.parametrize("name", list_datasets())
def test_absent_root(name, tmp_path):
    with pytest.raises(GloamError, match="The folder does not exist"):
        load_dataset(name, tmp_path / "nowhere")


def test_relabel_is_the_rank_of_the_id():
    assert relabel([7140, 2, 10, 2]) == {2: 0, 10: 1, 7140: 2}


@pytest.mark.parametrize(
    ("option", "value", "result"),
    [
        (Option(False, ""), "true", True),
        (Option(False, ""), 1, True),
        (Option(12, "", least=1), "3", 3),
        (Option(0.5, ""), 1, 1.0),
        (Option(None, ""), None, None),
        (Option(None, ""), 3, "3"),
        (Option("a", "", choices=("a", "b")), "b", "b"),
    ],
)
def test_option_values(option, value, result):
    found = option.validate("d", "o", value)
    assert (found, type(found)) == (result, type(result))


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        (Option(False, ""), "maybe", "o='maybe' must be true or false"),
        (Option(12, "", least=1), 0, "must be at least 1"),
        (Option(12, ""), True, "must be a number"),
        (Option("train", "", choices=("train", "train_val")), "trainval", "Did you mean 'train_val'"),
    ],
)
def test_bad_option_values(option, value, message):
    with pytest.raises(GloamError, match=message):
        option.validate("d", "o", value)


def test_loading_does_not_touch_global_generators(tmp_path):
    import random

    import numpy as np

    trees.sysu(tmp_path)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the global state is what is tested
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    first = load_dataset("sysu_mm01", tmp_path)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002
    assert load_dataset("sysu_mm01", tmp_path) == first
