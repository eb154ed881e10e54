"""A run that is stopped inside its last stage and resumed ends with the same bits as one that was never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gloam import cli
from gloam.inference.checkpoint import Checkpoint
from gloam.recipes.recipe import load_recipe
from tests.small_recipes import small_words

# One for every kind of state: plain, running weights, gates, pretext task then fine-tuning, part memory and teacher,
# relations and prototypes, clips, cluster memory, instance memory, graph network with its optimiser.
RECIPES = [
    "sysu_mm01/agw", "sysu_mm01/ddag", "sysu_mm01/cgrnet", "sysu_mm01/mmgl_base", "sysu_mm01/pf_mgcd",
    "sysu_mm01/wsl_vireid", "hitsz_vcm/m3reid", "market1501/cluster_contrast", "market1501/spcl",
    "market1501/metaprd", "market1501/metaprd_gcn",
]  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_and_resumed_equals_uninterrupted(name: str, drawn: Path, tmp_path: Path) -> None:
    words = ["train", name, *small_words(name, drawn, epochs=2), "--train.iterations", "2"]
    done_before = max(len(load_recipe(name).stages) - 1, 0)
    assert cli.main([*words, "--output", str(tmp_path / "whole")]) == 0
    assert cli.main([*words, "--output", str(tmp_path / "parts"), "--stop-after", str(done_before + 1)]) == 0
    assert cli.main(["train", "--resume", str(tmp_path / "parts"), "--quiet"]) == 0
    whole, parts = (Checkpoint.load(tmp_path / run / "checkpoints" / "last.ckpt") for run in ("whole", "parts"))
    assert whole.epoch == parts.epoch == 2
    assert whole.method.keys() == parts.method.keys()
    for key, value in whole.method.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, parts.method[key]), key
        else:
            assert value == parts.method[key], key
