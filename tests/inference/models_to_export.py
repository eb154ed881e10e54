"""Models of every method with weights that no fresh network has, ready for export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from gloam.datasets.records import Modality
from gloam.inference.checkpoint import Checkpoint
from gloam.inference.model import Model
from gloam.recipes.recipe import Recipe
from tests.methods.contract import small_method
from tests.training.tiny import tiny_recipe

HEIGHT, WIDTH, FRAMES = 48, 24, 3
# Blocks that no tiny default has, and that an export must carry.
MORE: dict[str, dict[str, Any]] = {
    "agw": {"nonlocal_blocks": (0, 1, 1, 0)},
    "m3reid": {"nonlocal_blocks": (0, 1, 1, 0)},
    "pf_mgcd": {"num_parts": 3},
}


def drawn_model(
    name: str, *, mirror: bool = False, seed: int = 0, size: tuple[int, int] = (HEIGHT, WIDTH), **options: Any
) -> Model:
    """A small model whose every number is drawn: no norm is the identity, no gate is closed, no two stems agree."""
    method = small_method(name, **{**MORE.get(name, {}), **options})
    generator = torch.Generator().manual_seed(seed)
    for module in method.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low in ((module.weight, 0.5), (module.running_var, 0.5), (module.running_mean, -0.2)):
                if tensor is not None:
                    tensor.data.copy_(low + torch.rand(tensor.shape, generator=generator))
    for parameter_name, parameter in method.named_parameters():
        if "gamma" in parameter_name or "gate" in parameter_name:
            parameter.data.copy_(0.3 + torch.rand(parameter.shape, generator=generator))
    recipe = recipe_of(name, method).with_changes({"data.height": size[0], "data.width": size[1]})
    return Model(method.eval(), recipe, name=f"runs/{name}", mirror=mirror)


def recipe_of(name: str, method: Any, root: Path | None = None) -> Recipe:
    """A recipe that fits a method."""
    data: dict[str, Any] = {"height": HEIGHT, "width": WIDTH}
    if method.is_video:
        data |= {"name": "hitsz_vcm", "frames": FRAMES}
    if not method.is_cross_modal:
        data |= {"name": "market1501"}
    if root is not None:
        data |= {"root": str(root)}
    options = method.options.model_dump(mode="json")
    return tiny_recipe(
        root or Path("/somebody/data"),
        data=data,
        method={"name": name, **options},
        evaluation={"protocols": None, "batch_size": 8},
    )


def write_run(folder: Path, model: Model, root: Path) -> Path:
    """A run folder whose checkpoint holds the model, on the dataset at ``root``."""
    recipe = recipe_of(model.recipe.method_name, model.method, root)
    Checkpoint(
        recipe=recipe,
        stage=next(iter(recipe.resolved_stages())),
        epoch=1,
        num_classes=model.method.num_classes,
        label_map={number: number for number in range(model.method.num_classes)},
        method=model.method.state_dict(),
        optimizer={},
        precision={},
        labels=torch.zeros(24, dtype=torch.int64),
        best=None,
        history=[],
        weak=None,
        fingerprint="",
    ).save(folder / "checkpoints" / "last.ckpt")
    return folder


def some_images(model: Model, rows: int, *, length: int | None = None, seed: int = 5) -> torch.Tensor:
    """uint8 images (clips of ``length`` frames, for video methods) that no proof has seen."""
    frames = (length or FRAMES,) if model.is_video else ()
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, *frames, 3, *model.size), generator=generator, dtype=torch.uint8)


MIXTURES = {
    "visible": lambda rows: torch.full((rows,), int(Modality.VISIBLE)),
    "infrared": lambda rows: torch.full((rows,), int(Modality.INFRARED)),
    "both": lambda rows: torch.arange(rows) % 2,
}
