"""Recipes for own data: one for every method, small batches by one rule, nothing of another data set in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from gloam import cli
from gloam.datasets import load_dataset
from gloam.datasets.table import write_table
from gloam.drawing.dataset import draw_dataset
from gloam.methods import list_methods
from gloam.recipes.fitting import find_fitting
from gloam.recipes.recipe import list_recipes, load_recipe, resolve
from gloam.sampling import IdentityBatches, PlainBatches
from tests.small_recipes import SMALL

RECIPES = list_recipes("table/*")


def test_every_method_has_one() -> None:
    named = {stage.method_name for name in RECIPES for stage in load_recipe(name).resolved_stages().values()}
    assert named == set(list_methods())


@pytest.mark.parametrize("name", RECIPES)
def test_the_rule_for_small_data(name: str) -> None:
    """4 people and 32 images a batch, 100 batches an epoch; nothing that was published about other data."""
    plan = resolve(load_recipe(name))
    assert plan.recipe.data.name == "table"
    assert plan.recipe.expected == ()
    assert plan.recipe.trains_on is None
    for stage in plan.stages.values():
        if stage.name in ("gcn_meta", "gcn"):
            continue  # before training proper: five images and their views, then one pass
        sampler, modalities = stage.recipe.sampler, 1
        if sampler.name in ("cross_modality_identity", "modality_shuffle"):
            modalities = 2
        if isinstance(sampler, IdentityBatches):
            assert sampler.identities == 4
            assert sampler.identities * sampler.instances * modalities == 32
        else:
            assert isinstance(sampler, PlainBatches)
            assert sampler.batch_size * modalities == 32
        assert stage.recipe.train.iterations == 100
        assert stage.recipe.train.precision == "32"
        assert (stage.recipe.data.height, stage.recipe.data.width) == (256, 128)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """People of one modality, of two, and tracklets of two, as tables of a user."""
    folder = tmp_path_factory.mktemp("tables")
    found = {}
    for kind, layout, ids in (("one", "market1501", 12), ("two", "sysu_mm01", 12), ("clips", "hitsz_vcm", 16)):
        draw_dataset(layout, folder / layout, ids=ids, images=2, height=48, width=24, progress=False)
        splits = load_dataset(layout, folder / layout)
        found[kind] = folder / f"{kind}.csv"
        write_table(splits, found[kind])
    return found


def _kind(name: str) -> str:
    stages = resolve(load_recipe(name)).stages.values()
    if any(stage.method.is_video for stage in stages):
        return "clips"
    return "two" if any(s.method.needs_both_modalities(s.options) for s in stages) else "one"


@pytest.mark.parametrize("name", RECIPES)
def test_each_trains_on_a_table_by_command_line(name: str, tables: dict[str, Path], tmp_path: Path) -> None:
    if "simsiam" in name or "ntxent" in name:
        pytest.importorskip("lightly")
    if "infomap" in name:
        pytest.importorskip("infomap")
    table, run = tables[_kind(name)], tmp_path / "run"
    recipe = load_recipe(name)
    assert name in find_fitting(load_dataset("table", table)).fitting
    height = 96 if recipe.method_name == "mmgl" else 48
    flags = {"data.root": table, "data.height": height, "data.width": 24, "weights": "none", "output": run,
             "train.iterations": 2, "method.arch": "tiny"}  # fmt: skip
    small = dict(SMALL.get(recipe.method_name, {}))
    if "infomap" in name:
        small.pop("k2")
    if name == "table/metaprd":
        small.pop("gcn_hidden")
    flags |= {f"method.{key}".replace("_", "-"): value for key, value in small.items()}
    if not recipe.stages or recipe.method_name == "metaprd":
        flags["train.epochs"] = 1
    for stage, changes in recipe.stages.items():
        flags[f"stages.{stage}.train.epochs"] = 1
        if changes.get("method", {}).get("name", recipe.method_name) != recipe.method_name:
            flags[f"stages.{stage}.method.arch"] = "tiny"
    words = [str(word) for key, value in flags.items() for word in (f"--{key}", value)]
    if recipe.data.frames:
        words += ["--data.frames", "2"]
    assert cli.main(["train", name, "--quiet", *words]) == 0
    assert json.loads((run / "results.json").read_text())["protocols"]
    saved = yaml.safe_load((run / "recipe.yaml").read_text())
    assert saved["expected"] == []
    assert saved["trains_on"] is None


def test_another_data_set_by_flag_leaves_its_scores_behind(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "sysu_mm01/agw", "--data.name", "table", "--data.root", "x.csv", "--dry-run"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["expected"] == []
    assert shown["trains_on"] is None


def test_the_pattern_is_a_flag(capsys: pytest.CaptureFixture[str]) -> None:
    pattern = "{pid}_c{cam}_{modality}_*.jpg"
    assert cli.main(["train", "table/agw", "--data.root", "x", "--data.options.pattern", pattern, "--dry-run"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["options"]["pattern"] == pattern
