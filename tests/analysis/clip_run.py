"""A video run without training: fresh weights in a checkpoint, on a drawn HITSZ-VCM tree."""

from __future__ import annotations

from pathlib import Path

import torch

from gloam.datasets import load_dataset
from gloam.drawing.dataset import draw_dataset
from gloam.inference.checkpoint import Checkpoint
from gloam.methods import create_method
from tests.training.tiny import tiny_recipe

FRAMES = 3


def draw_clips(root: Path, ids: int = 6) -> Path:
    """A tiny HITSZ-VCM folder; tracklets are long enough for the dataset's filter."""
    draw_dataset("hitsz_vcm", root, ids=ids, images=1, frames=14, height=48, width=16, progress=False)
    return root


def write_clip_run(folder: Path, root: Path, seed: int = 0, test_clip: str = "evenly") -> Path:
    """A run folder with one checkpoint of M3-ReID with the tiny backbone."""
    recipe = tiny_recipe(
        root,
        data={"name": "hitsz_vcm", "frames": FRAMES, "test_clip": test_clip},
        method={"name": "m3reid", "arch": "tiny", "nonlocal_blocks": [0, 1, 1, 0]},
        evaluation={"protocols": None, "batch_size": 8},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = create_method("m3reid", load_dataset("hitsz_vcm", root).num_classes, **recipe.method_options)
        for name, tensor in method.state_dict().items():
            if ".W.1." in name and name.endswith("weight"):  # otherwise a fresh non-local block does nothing
                tensor.fill_(1)
    Checkpoint(
        recipe=recipe,
        stage=next(iter(recipe.resolved_stages())),
        epoch=1,
        num_classes=method.num_classes,
        label_map={},
        method=method.state_dict(),
        optimizer={},
        precision={},
        labels=torch.zeros(1, dtype=torch.int64),
        best=None,
        history=[],
        weak=None,
        fingerprint="",
    ).save(folder / "checkpoints" / "last.ckpt")
    return folder
