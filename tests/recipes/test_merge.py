"""How changes are laid over a recipe, and recipes that extend others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gloam import cli
from gloam.errors import GloamError
from gloam.recipes.merge import merge
from gloam.recipes.reading import RECIPES, read_recipe, read_yaml
from gloam.recipes.recipe import list_recipes, load_recipe, resolve

BASE = {
    "data": {"name": "market1501", "height": 64, "options": {"distractors": "auxiliary"}},
    "method": {"name": "agw", "arch": "tiny", "wrt": "exact"},
    "augment": {"pad": 4, "infrared": {"channels": "adaptive_grey", "erase": 0.5}},
    "sampler": {"name": "identity", "identities": 3, "instances": 5, "partners": True},
    "optimizer": {"name": "sgd", "lr": 0.3, "momentum": 0.5, "weight_decay": 0.1},
    "schedule": {"name": "multistep", "milestones": [2, 4], "warmup_epochs": 1},
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": {"height": 32}}, {"data": {**BASE["data"], "height": 32}}),
        # Nested mappings merge, lists are replaced.
        (
            {"augment": {"infrared": {"erase": 0.1}}},
            {"augment": {"pad": 4, "infrared": {"channels": "adaptive_grey", "erase": 0.1}}},
        ),
        ({"schedule": {"milestones": [9]}}, {"schedule": {**BASE["schedule"], "milestones": [9]}}),
        # The same name keeps everything, another keeps what both have.
        ({"method": {"name": "agw", "triplet": "adp"}}, {"method": {**BASE["method"], "triplet": "adp"}}),
        ({"method": {"name": "base"}}, {"method": {"name": "base", "arch": "tiny"}}),
        (
            {"sampler": {"name": "camera_identity", "instances": 2}},
            {"sampler": {"name": "camera_identity", "identities": 3, "instances": 2, "partners": True}},
        ),
        ({"sampler": {"name": "shuffle"}}, {"sampler": {"name": "shuffle", "partners": True}}),
        ({"optimizer": {"name": "adam"}}, {"optimizer": {"name": "adam", "lr": 0.3, "weight_decay": 0.1}}),
        ({"schedule": {"name": "cosine"}}, {"schedule": {"name": "cosine", "warmup_epochs": 1}}),
        ({"data": {"name": "personx"}}, {"data": {"name": "personx", "height": 64, "options": {}}}),
        # Scores and counts are those of the named data.
        ({"data": {"name": "market1501", "height": 8}}, {"data": {**BASE["data"], "height": 8}}),
        # What is no section is left to the check of the whole.
        ({"method": 3, "weights": "none"}, {"method": 3, "weights": "none"}),
    ],
)
def test_rules(changes: dict[str, Any], expected: dict[str, Any]) -> None:
    assert merge(BASE, changes) == {**BASE, **expected}


def test_scores_and_counts_stay_with_their_data() -> None:
    stated = {**BASE, "expected": [{"rank1": 1}], "trains_on": {"images": 3}}
    assert merge(stated, {"data": {"height": 8}, "method": {"wrt": "reference"}})["expected"] == [{"rank1": 1}]
    other = merge(stated, {"data": {"name": "personx"}})
    assert not {"expected", "trains_on"} & other.keys()
    own = merge(stated, {"data": {"name": "personx"}, "expected": [{"rank1": 2}]})
    assert own["expected"] == [{"rank1": 2}]


def _write(folder: Path, name: str, **content: Any) -> str:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return str(path)


def test_a_chain_by_name_and_by_relative_file(tmp_path: Path) -> None:
    _write(tmp_path, "shared/mine", extends="sysu_mm01/agw", train={"epochs": 7}, optimizer={"lr": 0.2})
    path = _write(tmp_path, "runs/small", extends="../shared/mine.yaml", data={"height": 96}, train={"seed": 3})
    found, shipped = load_recipe(path), load_recipe("sysu_mm01/agw")
    assert found.data.height == 96
    assert (found.train.epochs, found.train.seed, found.optimizer.lr) == (7, 3, 0.2)
    assert found.method == shipped.method
    assert found.schedule == shipped.schedule
    # A published score belongs to the recipe that states it.
    assert shipped.expected
    assert found.expected == ()


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"a": {"extends": "a.yaml"}}, r"circle: .*a\.yaml -> a\.yaml"),
        ({"a": {"extends": "b.yaml"}, "b": {"extends": "c.yaml"}, "c": {"extends": "a.yaml"}}, r"c.yaml -> a.yaml"),
        ({"a": {"extends": "b.yaml"}, "b": {"extends": "none.yaml"}}, r"a.yaml -> b.yaml extends 'none.yaml'.*no file"),
        ({"a": {"extends": "sysu_mm01/awg"}}, r"extends 'sysu_mm01/awg'.*Did you mean 'sysu_mm01/agw'"),
        ({"a": {"extends": ["sysu_mm01/agw"]}}, r"extends names one recipe"),
        ({"a": {"extend": "sysu_mm01/agw"}}, r"unknown key 'extend'.*'extends'"),
        ({"a": {"extends": "b.yaml"}, "b": [1]}, r"b\.yaml does not hold a recipe"),
        ({str(n): {"extends": f"{n + 1}.yaml"} for n in range(40)} | {"a": {"extends": "0.yaml"}}, r"more than 20"),
    ],
)  # fmt: skip
def test_chains_that_lead_nowhere_name_the_way(contents: dict[str, Any], message: str, tmp_path: Path) -> None:
    for name, content in contents.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(GloamError, match=message):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize("name", [n for n in list_recipes() if "extends" in read_yaml(RECIPES / f"{n}.yaml")])
def test_a_shipped_recipe_holds_only_what_differs(name: str) -> None:
    content = read_yaml(RECIPES / f"{name}.yaml")
    parent = read_recipe(content["extends"])

    def repeated(part: dict[str, Any], below: Any, place: str = "") -> list[str]:
        found = []
        for key, value in part.items():
            if not isinstance(below, dict) or key not in below or key == "name":
                continue
            if isinstance(value, dict):
                # Under another name nothing is inherited that could repeat.
                same = value.get("name", below[key].get("name")) == below[key].get("name")
                found += repeated(value, below[key] if same else {}, f"{place}{key}.")
            elif value == below[key]:
                found.append(f"{place}{key}")
        return found

    assert repeated(content, {k: v for k, v in parent.items() if k != "expected"}) == []


def test_dry_run_and_saved_recipe_show_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "regdb/wsl_vireid", "--optimizer.lr", "0.25", "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert "extends" not in shown
    assert shown["optimizer"] == {"name": "adam", "lr": 0.25, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
                                  "layer_decay": 1.0, "betas": [0.9, 0.999], "eps": 1e-8, "options": {}}  # fmt: skip
    assert shown["data"]["options"] == {"trial": 1}
    assert shown["method"]["matcher"] == "count_priority"  # a default
    assert shown["stages"] == {"experts": {"train": {"epochs": 50}}, "collaboration": {"train": {"epochs": 120}}}
    # What a stage with another method or sampler would have by default is written too.
    complete = resolve(load_recipe("sysu_mm01/mmgl_agw")).recipe
    assert complete.stages["finetune"]["method"]["pooling"] == "gem"
    assert complete.stages["finetune"]["sampler"]["draw"] == "with_replacement"
    complete.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == complete
    assert resolve(complete).recipe == complete
