"""The benchmark of training steps: it is registered, every variant names a recipe, and two views double the rows."""

from __future__ import annotations

import pytest

from benchmarks import training_step
from gloam.recipes.recipe import load_recipe

SMALL = {"arch": "tiny", "height": 96, "width": 48, "steps": 1, "device": "cpu"}


def test_every_variant_names_a_recipe_and_its_methods_flags() -> None:
    assert callable(training_step.run)
    for recipe, options in training_step.VARIANTS.values():
        assert options.keys() <= load_recipe(recipe).complete().method_options.keys()


def test_a_variant_is_measured() -> None:
    row = training_step.measure("mmgl_pcc", **SMALL)
    assert row["rows"] == 64
    assert row["seconds_per_step"] > 0
    assert row["parameters"] > 0


def test_two_views_are_two_rows() -> None:
    pytest.importorskip("lightly")
    assert training_step.measure("ntxent", **SMALL)["rows"] == 128
