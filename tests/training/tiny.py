"""A recipe that trains in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gloam.recipes.merge import merge
from gloam.recipes.recipe import Recipe


def tiny_recipe(root: Path, **sections: Any) -> Recipe:
    """Base on 48 x 16 images with the tiny backbone; sections are merged as a stage's would be."""
    content: dict[str, Any] = {
        "data": {"name": "sysu_mm01", "root": str(root), "height": 48, "width": 16},
        "method": {"name": "base", "arch": "tiny"},
        "weights": "none",
        "augment": {"pad": 2, "flip": 0.5, "erase": 0.5},
        "sampler": {"identities": 3, "instances": 2},
        "optimizer": {"lr": 0.05},
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "train": {"epochs": 2, "iterations": 3, "accelerator": "cpu"},
        "evaluation": {"protocols": ["all_single"]},
    }
    return Recipe(**merge(content, sections))
