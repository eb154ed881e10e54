"""Image towers of timm as backbones: any size that they take, one or two first layers, and refusals of the others."""

from __future__ import annotations

import pytest
import torch

from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.models.backbone import check_size, create_backbone
from gloam.recipes.recipe import load_recipe, resolve
from gloam.training.training_data import prepare_data
from tests.tiny_people import tiny_people

# Family -> a small member of it; sizes of ReID, not the square that it was trained on.
TOWERS = {
    "vit_tiny_patch16_224": (16, 8),
    "vit_small_patch16_224.dino": (16, 8),
    "vit_tiny_patch16_dinov3_qkvb": (16, 8),
    "vit_base_patch32_clip_224.openai": (8, 4),
    "resnet50_clip.openai": (16, 8),
    "vit_base_patch16_siglip_224": (16, 8),
    "convnext_atto": (8, 4),
    "swin_tiny_patch4_window7_224": (8, 4),
}


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("streams", [1, 2])
def test_maps_of_images_of_people(name: str, streams: int) -> None:
    check_size(f"timm:{name}", (256, 128))
    backbone = create_backbone(f"timm:{name}", streams=streams, last_stride=1).eval()
    images, modalities = torch.randn(2, 3, 256, 128), torch.tensor([0, 1])
    with torch.no_grad():
        maps = backbone(images, modalities)
        alone = backbone(images[1:], modalities[1:])
    assert maps.shape == (2, backbone.out_channels, *TOWERS[name])
    assert torch.isfinite(maps).all()
    torch.testing.assert_close(alone, maps[1:], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "size"),
    [("vit_small_patch14_dinov2", (252, 126)), ("mixer_s16_224", (224, 224)), ("levit_128", (224, 224))],
)
def test_sizes_that_do_not_fit_are_refused_before_anything_is_computed(name: str, size: tuple[int, int]) -> None:
    with pytest.raises(GloamError, match=rf"timm:{name} does not take images of 256 x 128 .*data\.height"):
        check_size(f"timm:{name}", (256, 128))
    check_size(f"timm:{name}", size)
    backbone = create_backbone(f"timm:{name}", streams=1)
    with pytest.raises(GloamError, match=r"data\.height"):
        backbone(torch.zeros(1, 3, 256, 128), torch.tensor([0]))


def test_a_run_is_refused_at_its_door(sysu_root) -> None:
    recipe = load_recipe("sysu_mm01/base").with_changes(
        {"data.root": sysu_root, "data.height": 48, "data.width": 24, "method.arch": "timm:vit_tiny_patch16_224"}
    )
    with pytest.raises(GloamError, match=r"48 x 24 .*divisible"):
        prepare_data(resolve(recipe), progress=False)


@pytest.mark.parametrize("name", ["base", "agw"])
@pytest.mark.parametrize("arch", ["timm:test_vit", "timm:test_convnext"])
def test_a_tower_learns_within_one_modality(name: str, arch: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        options = {"nonlocal_blocks": (0, 0, 0, 0), "wrt": "exact"} if name == "agw" else {}
        method = create_method(name, 4, arch=arch, streams=1, trunk_factor=1, weight_center=1e-3, **options).train()
    data = tiny_people(both_modalities=False)
    data.images = torch.nn.functional.interpolate(data.images, size=(64, 32))
    optimizer = torch.optim.AdamW(method.parameter_groups(1e-3), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = method.training_step(data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
