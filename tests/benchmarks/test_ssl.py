"""The pre-training benchmark: it is registered, every variant names a recipe, and two views double the rows."""

from __future__ import annotations

import pytest

from benchmarks import ssl
from gloam.training.recipe import load_recipe

SMALL = {"arch": "tiny", "height": 96, "width": 48, "batch": 8, "steps": 1, "device": "cpu"}


def test_every_variant_names_a_recipe_and_its_methods_flags() -> None:
    assert callable(ssl.run)
    assert {"mmgl", "mmgl_permutation", "mmgl_pcc", "simsiam", "ntxent", "base"} == set(ssl.VARIANTS)
    for recipe, options in ssl.VARIANTS.values():
        assert options.keys() <= load_recipe(recipe).complete().method_options.keys()


def test_a_variant_is_measured() -> None:
    row = ssl.measure("mmgl_pcc", **SMALL)
    assert row["rows"] == 8
    assert row["seconds_per_step"] > 0
    assert row["parameters"] > 0


def test_two_views_are_two_rows() -> None:
    pytest.importorskip("lightly")
    assert ssl.measure("ntxent", **SMALL)["rows"] == 16
