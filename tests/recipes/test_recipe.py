"""Recipes: every shipped one is valid, mistakes are named, saving and loading are inverse, flags reach their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gloam import cli
from gloam.cli.recipe_flags import parse_overrides
from gloam.datasets import list_datasets
from gloam.errors import GloamError
from gloam.recipes.recipe import RECIPES, list_recipes, load_recipe, resolve, validate
from tests.training.tiny import tiny_recipe


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_is_valid_short_and_survives_saving(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    resolve(recipe)
    assert recipe.data.name in list_datasets()
    assert recipe.description
    assert len((RECIPES / f"{name}.yaml").read_text().splitlines()) < 60
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    for expected in recipe.expected:
        assert expected.protocol.startswith(f"{recipe.data.name}/")


def test_misspelt_keys_are_named_with_the_nearest(tmp_path: Path) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    content["optimizer"]["lrr"] = 0.1
    with pytest.raises(GloamError, match=r"optimizer\.lrr.*'lr'"):
        validate(content, "mine")
    with pytest.raises(GloamError, match="sampler"):
        validate({**tiny_recipe(tmp_path).model_dump(mode="json"), "smapler": {}}, "mine")


def test_misspelt_method_flag_is_named(tmp_path: Path) -> None:
    with pytest.raises(GloamError, match="margin"):
        resolve(tiny_recipe(tmp_path, method={"name": "base", "margn": 0.3}))


def test_unknown_recipe_offers_the_nearest() -> None:
    with pytest.raises(GloamError, match="sysu_mm01/agw"):
        load_recipe("sysu_mm01/awg")


@pytest.mark.parametrize("text", ["a: [1", "just words", "- 1"])
def test_files_that_are_no_recipe_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    with pytest.raises(GloamError, match=r"broken\.yaml"):
        load_recipe(tmp_path / "broken.yaml")


def test_stages_merge_over_the_top_level(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        tmp_path,
        stages={
            "first": {"train": {"epochs": 1}},
            "second": {"method": {"name": "agw", "wrt": "exact"}, "optimizer": {"lr": 0.2}},
        },
    )
    stages = recipe.resolved_stages()
    assert list(stages) == ["first", "second"]
    assert stages["first"].train.epochs == 1
    assert stages["first"].train.iterations == 3
    assert stages["first"].method == recipe.method
    # Weights go from stage to stage, so the network does too.
    assert stages["second"].method == {"name": "agw", "wrt": "exact", "arch": "tiny"}
    assert stages["second"].optimizer.lr == 0.2
    assert stages["second"].optimizer.momentum == recipe.optimizer.momentum


def test_dotted_flags_reach_data_method_and_stages() -> None:
    recipe = load_recipe("sysu_mm01/agw").model_copy(update={"stages": {"only": {"train": {"epochs": 5}}}})
    words = [
        "--data.root",
        "somewhere",
        "--optimizer.lr",
        "0.05",
        "--method.wrt",
        "exact",
        "--stages.only.train.epochs",
        "7",
    ]
    changed, flags = parse_overrides(recipe, [*words, "--stop-after", "3"])
    assert changed.data.root == Path("somewhere")
    assert changed.optimizer.lr == 0.05
    assert changed.method["wrt"] == "exact"
    assert changed.resolved_stages()["only"].train.epochs == 7
    assert changed.expected == recipe.expected
    assert flags.stop_after == 3


def test_misspelt_flag_is_one_message_and_code_two(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "sysu_mm01/agw", "--optimizer.lrr", "0.1"])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert "--optimizer.lr" in shown.err + shown.out


def test_train_without_recipe_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help"]) == 0
    assert "sysu_mm01/agw" in capsys.readouterr().out


def test_train_help_shows_the_methods_own_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "sysu_mm01/agw", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--method.wrt" in shown
    assert "Example:" in shown


def test_dry_run_prints_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "sysu_mm01/agw", "--data.root", "x", "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["root"] == "x"


def test_missing_root_says_which_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "sysu_mm01/agw", "--weights", "none", "--method.arch", "tiny"]) == 2
    assert "--data.root" in capsys.readouterr().err


def test_flags_are_changed_by_dotted_names() -> None:
    recipe = load_recipe("sysu_mm01/agw").with_changes({"data.root": "/x", "optimizer.lr": 0.05, "method.wrt": "exact"})
    assert (str(recipe.data.root), recipe.optimizer.lr, recipe.method["wrt"]) == ("/x", 0.05, "exact")
    assert recipe.schedule == load_recipe("sysu_mm01/agw").schedule
    with pytest.raises(GloamError, match=r"the changed recipe.*'optimizer\.rate'"):
        recipe.with_changes({"optimizer.rate": 1})
