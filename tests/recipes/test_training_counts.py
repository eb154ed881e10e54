"""The training set that a recipe states is the one that its options read from an official tree."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from gloam.datasets import load_dataset
from gloam.drawing.dataset import draw_dataset
from gloam.recipes.recipe import list_recipes, load_recipe, resolve
from gloam.training.run import resumed_recipe
from gloam.training.training_data import prepare_data
from tests.training.tiny import tiny_recipe


def _lines(*names: str) -> Callable[[Path], int]:
    return lambda root: sum(len((root / name).read_text().split("\n")) - 1 for name in names)


def _files(folder: str) -> Callable[[Path], int]:
    return lambda root: sum(not path.name.startswith("-1") for path in (root / folder).glob("*.jpg"))


def _of_people(*lists: str) -> Callable[[Path], int]:
    """Images below cam*/<id>/ of the people in some lists."""

    def count(root: Path) -> int:
        people = [int(pid) for name in lists for pid in (root / name).read_text().strip().split(",")]
        return sum(len(list(root.glob(f"cam*/{pid:04d}/*.jpg"))) for pid in people)

    return count


def _twice(count: Callable[[Path], int]) -> Callable[[Path], int]:
    return lambda root: 2 * count(root)


# Parts of the official training data: published size, and how many are in a tree, counted without gloam's readers.
PARTS: dict[str, dict[str, tuple[int, Callable[[Path], int]]]] = {
    "sysu_mm01": {"train_id and val_id": (34_167, _of_people("exp/train_id.txt", "exp/val_id.txt"))},
    "regdb": {"trial 1": (4_120, _lines("idx/train_visible_1.txt", "idx/train_thermal_1.txt"))},
    "llcm": {"lists": (30_921, _lines("idx/train_vis.txt", "idx/train_nir.txt"))},
    "hitsz_vcm": {"tracklets": (9_751, _lines("info/track_train_info.txt"))},
    "bupt_campus": {
        "train": (7_148, _twice(_lines("train.txt"))),
        "train_auxiliary": (3_730, _twice(_lines("train_auxiliary.txt"))),
    },
    "market1501": {"folder": (12_936, _files("bounding_box_train"))},
    "dukemtmc": {"folder": (16_522, _files("bounding_box_train"))},
    "msmt17": {"list_train": (30_248, _lines("list_train.txt")), "list_val": (2_373, _lines("list_val.txt"))},
    "personx": {"folder": (9_840, _files("bounding_box_train"))},
    "veri776": {"folder": (37_778, _files("image_train"))},
}


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder = tmp_path_factory.mktemp("official")

    def tree(name: str) -> Path:
        if not (folder / name).exists():
            draw_dataset(name, folder / name, ids=12, images=2, height=16, width=8, progress=False)
        return folder / name

    return tree


@pytest.mark.parametrize("name", [name for name in list_recipes() if not name.startswith(("demo/", "table/"))])
def test_a_recipe_reads_the_training_set_that_it_states(name: str, trees: Callable[[str], Path]) -> None:
    recipe = resolve(load_recipe(name)).recipe
    stated = recipe.trains_on
    assert stated is not None
    assert stated.source
    parts = PARTS[recipe.data.name]
    chosen = [
        some
        for size in range(1, len(parts) + 1)
        for some in itertools.combinations(parts, size)
        if sum(parts[part][0] for part in some) == stated.records
    ]
    assert len(chosen) == 1, "the stated number is that of no part of the official training data"
    root = trees(recipe.data.name)
    splits = load_dataset(recipe.data.name, root, **recipe.data.options)
    drawn = {part: count(root) for part, (_, count) in parts.items()}
    assert all(drawn.values())
    assert len(splits.train) == sum(drawn[part] for part in chosen[0])
    assert (stated.tracklets is not None) == splits.is_video
    # What the data set itself expects under the recipe's options.
    assert splits.expected_counts["train_records"] == stated.records
    assert splits.expected_counts["train_ids"] == stated.identities


def test_a_run_from_before_the_counts_goes_on(tmp_path: Path) -> None:
    saved = tiny_recipe(tmp_path)
    given = tiny_recipe(tmp_path, trains_on={"images": 3, "identities": 2, "source": "me"}, description="mine")
    assert resumed_recipe(given, saved) == resolve(saved).recipe
    assert resumed_recipe(saved, given) == resolve(given).recipe


def test_another_number_is_warned_of(sysu_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    stated = {"images": 34167, "identities": 395, "source": "the paper"}
    data = prepare_data(resolve(tiny_recipe(sysu_root, trains_on=stated)), progress=False)
    assert f"34,167 images of 395 people (the paper); these data have {len(data.records)}" in caplog.text
    caplog.clear()
    prepare_data(resolve(tiny_recipe(sysu_root, trains_on={**stated, "images": len(data.records)})), progress=False)
    prepare_data(resolve(tiny_recipe(sysu_root)), progress=False)
    assert "published run" not in caplog.text
