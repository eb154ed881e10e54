"""Flags of stages, and mistakes in recipes with stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from gloam.cli.recipe_flags import parse_overrides
from gloam.errors import GloamError
from gloam.recipes.recipe import differing_keys, load_recipe, validate
from tests.training.tiny import tiny_recipe

STAGES = {"pre-train": {"train": {"epochs": 5}}, "finetune": {"method": {"name": "agw"}}}


def test_stage_flags_take_lists_and_any_stage_name(tmp_path: Path) -> None:
    words = "--stages.pre-train.schedule.milestones 2 4 --stages.finetune.schedule.milestones=3"
    words += " --stages.finetune.method.wrt exact --stages.finetune.train.clip-norm 5.0 --optimizer.lr 0.5"
    base = tiny_recipe(tmp_path, stages=STAGES, schedule={"name": "multistep"})
    recipe, _ = parse_overrides(base, words.split())
    stages = recipe.resolved_stages()
    assert stages["pre-train"].schedule.milestones == (2, 4)
    assert stages["pre-train"].train.epochs == 5
    assert stages["finetune"].schedule.milestones == (3,)
    assert stages["finetune"].method == {"name": "agw", "arch": "tiny", "wrt": "exact"}
    assert stages["finetune"].train.clip_norm == 5.0
    assert stages["finetune"].optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--stages.finetun.train.epochs 3", "finetune"),
        ("--stages.finetune.train.epochs", "needs a section"),
        ("--stages.finetune 3", "needs a section"),
    ],
)
def test_bad_stage_flags_are_named(words: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(GloamError, match=message):
        parse_overrides(tiny_recipe(tmp_path, stages=STAGES), words.split())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimzer": {"lr": 1}}, "stage 'only'.*optimizer"),
        ({"optimizer": {"lrr": 1}}, r"optimizer\.lrr.*'lr'"),
        ({"data": {"height": 64}}, "cannot have its own 'data'"),
        ({"augment": {"visible": {"chanels": "grey"}}}, "'channels'"),
    ],
)
def test_mistakes_in_a_stage_are_found_when_the_file_is_read(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.yaml"
    content = tiny_recipe(tmp_path).model_dump(mode="json") | {"stages": {"only": changes}}
    import yaml

    path.write_text(yaml.safe_dump(content))
    with pytest.raises(GloamError, match=message):
        load_recipe(path)


def test_misspelt_nested_keys_offer_the_nearest(tmp_path: Path) -> None:
    content = tiny_recipe(tmp_path).model_dump(mode="json")
    content["augment"]["visible"] = {"chanels": "exchange"}
    with pytest.raises(GloamError, match=r"augment\.visible\.chanels.*'channels'"):
        validate(content, "mine")


def test_differing_keys_are_dotted(tmp_path: Path) -> None:
    left = tiny_recipe(tmp_path)
    right = tiny_recipe(tmp_path, optimizer={"lr": 0.1}, method={"name": "base", "arch": "tiny", "margin": 0.5})
    assert differing_keys(left, left) == []
    assert differing_keys(left, right) == ["method.margin", "optimizer.lr"]
