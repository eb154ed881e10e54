"""What docs/recipes.md says holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from gloam.recipes.recipe import Recipe, load_recipe
from gloam.sampling import base as sampling_base
from gloam.sampling import create_sampler, list_samplers, sampler_options
from gloam.sampling.create import OLD_NAMES

PAGE = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()


def test_the_example_extends_a_shipped_recipe(tmp_path: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "mine.yaml").write_text(block)
    recipe, stated = load_recipe(tmp_path / "mine.yaml"), yaml.safe_load(block)
    assert recipe.data.height == stated["data"]["height"]
    assert recipe.optimizer.lr == stated["optimizer"]["lr"]
    assert recipe.method == load_recipe(stated["extends"]).method


def test_every_section_and_sampler_is_listed() -> None:
    first_column = " ".join(re.findall(r"^\| (.*?) \|", PAGE, re.MULTILINE))
    listed = set(re.findall(r"`(\w+)`", first_column))
    assert listed >= set(Recipe.model_fields) - {"description"}
    assert listed >= set(list_samplers())
    for old, new in OLD_NAMES.items():
        published = "cross_modality_identity" if old == "cross_modality_identity_tracklet" else old
        assert re.search(rf"^\| `{new}` .*\(`{published}`\) \|$", PAGE, re.MULTILINE), new


def test_the_example_sampler_works() -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    space: dict[str, Any] = {"__name__": "example"}
    with sampling_base.registry.temporarily():
        # The example has no postponed annotations, this file has.
        exec(compile(block, "recipes.md", "exec", dont_inherit=True), space)
        cams = np.arange(60) % 3
        options = sampler_options({"name": "one_camera", "identities": 2, "instances": 3, "camera": 2})
        batches = list(create_sampler(options, np.zeros(60), np.zeros(60), cams, seed=0))
        assert [len(batch) for batch in batches] == [6, 6, 6]
        assert (cams[np.concatenate(batches)] == 2).all()
