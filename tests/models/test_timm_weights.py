"""Weight files for timm backbones: timm's names, OpenAI's and open_clip's CLIP towers, runs of this project."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.models.backbone import create_backbone
from gloam.models.weights import load_weights
from tests.oracles.clip_towers import ClipResNet, ClipViT

RESNET, VIT = "timm:resnet50_clip", "timm:vit_base_patch32_clip_quickgelu_224"


def _randomise(module: torch.nn.Module) -> None:
    """Values that a fresh network does not have, so that a tensor that was not loaded shows."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator) - 0.5
            positive = name.endswith("running_var") or value.ndim == 1
            value.copy_(1 + noise if positive else noise * 2 / max(value[0].numel(), 1) ** 0.5)


@pytest.mark.parametrize(("arch", "tower"), [(RESNET, ClipResNet), (VIT, ClipViT)])
@pytest.mark.parametrize("naming", ["openai", "tower"])
def test_clip_towers_compute_what_the_release_computes(arch: str, tower: type, naming: str, tmp_path: Path) -> None:
    oracle = tower().eval()
    _randomise(oracle)
    if naming == "openai":
        oracle.half()
    prefix = "visual." if naming == "openai" else ""
    file = {f"{prefix}{name}": value for name, value in oracle.state_dict().items()}
    if naming == "openai":
        file |= {"token_embedding.weight": torch.zeros(4, 2), "logit_scale": torch.zeros(())}
        # open_clip wraps and prefixes its checkpoints like this.
        file = {"epoch": 3, "state_dict": {f"module.{name}": value for name, value in file.items()}}
    torch.save(file, tmp_path / "clip.pt")
    oracle.float()
    method = create_method("wsl_vireid", 3, arch=arch).eval()
    report = load_weights(method, tmp_path / "clip.pt")
    backbone = method.backbone
    own = {f"backbone.{name}" for name in backbone.state_dict()}
    assert own - set(report.matched) <= {n for n in own if n.endswith("num_batches_tracked")}
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        expected = oracle(images)
        for modality in (0, 1):
            torch.testing.assert_close(
                backbone(images, torch.full((2,), modality)),
                expected,
                atol=2e-3 * expected.abs().max().item(),
                rtol=1e-3,
            )


def test_the_clip_resnet_of_wsl_vireid_has_the_published_size() -> None:
    method = create_method("wsl_vireid", 3, arch=RESNET)
    used = [*method.backbone.parameters(), *method.pool.parameters(), *method.bottleneck.parameters()]
    assert sum(p.numel() for p in used) == 23_560_129
    with torch.no_grad():
        maps = method.eval().backbone(torch.zeros(1, 3, 288, 144), torch.zeros(1, dtype=torch.int64))
    assert tuple(maps.shape[1:]) == (2048, 18, 9)


@pytest.mark.parametrize("arch", ["test_vit", "test_convnext", "test_byobnet", "test_resnet"])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("method", ["base", "wsl_vireid", "pf_mgcd"])
def test_timm_names_fill_every_stream(arch: str, wrapped: bool, method: str, tmp_path: Path) -> None:
    network = timm.create_model(arch, pretrained=False, num_classes=7)
    _randomise(network)
    state = network.state_dict()
    if wrapped:
        state = {"state_dict": {f"model.{name}": value for name, value in state.items()}}
    torch.save(state, tmp_path / "timm.pth")
    options = {"num_parts": 2, "feature_dim": 8} if method == "pf_mgcd" else {}
    target = create_method(method, 3, arch=f"timm:{arch}", **options)
    load_weights(target, tmp_path / "timm.pth", minimum=1.0)
    backbone = next(m for n, m in target.named_modules() if n.endswith("backbone")).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        streams = [backbone(images, torch.full((2,), modality)) for modality in (0, 1)]
    assert torch.equal(*streams)
    stem = getattr(backbone.network, "patch_embed" if "vit" in arch else "conv1" if arch == "test_resnet" else "stem")
    plain = getattr(network, "patch_embed" if "vit" in arch else "conv1" if arch == "test_resnet" else "stem")
    for own in ("visible", "infrared") if backbone.streams == 2 else ("",):
        mine = stem.get_submodule(own).state_dict()
        assert all(torch.equal(mine[name], value) for name, value in plain.state_dict().items())


@pytest.mark.parametrize(("source_streams", "target_streams"), [(1, 2), (2, 1), (2, 2)])
def test_runs_of_other_methods_and_stream_counts(source_streams: int, target_streams: int, tmp_path: Path) -> None:
    source = create_method("base", 3, arch="timm:test_vit", streams=source_streams).eval()
    _randomise(source)
    torch.save(source.state_dict(), tmp_path / "run.pth")
    for name, options in (("base", {"streams": target_streams}), ("wsl_vireid", {})):
        target = create_method(name, 3, arch="timm:test_vit", **options).eval()
        load_weights(target, tmp_path / "run.pth", minimum=1.0)
        backbone = target.net.backbone if name == "base" else target.backbone
        images = torch.randn(2, 3, 64, 32)
        for modality in (0, 1):
            # One stem of the file stands for both modalities; two stems in one give the visible one.
            seen = modality if source_streams == backbone.streams == 2 else 0
            with torch.no_grad():
                torch.testing.assert_close(
                    backbone(images, torch.full((2,), modality)), source.net.backbone(images, torch.full((2,), seen))
                )


def test_files_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save({f"visual.{n}": v for n, v in ClipViT(width=32, depth=1, heads=2).state_dict().items()}, tmp_path / "a")
    for arch in (RESNET, "timm:test_vit"):
        with pytest.raises(GloamError, match="nothing was loaded"):
            load_weights(create_method("base", 3, arch=arch), tmp_path / "a")


def test_last_stride_of_timm_residual_networks() -> None:
    images, modality = torch.zeros(1, 3, 64, 32), torch.zeros(1, dtype=torch.int64)
    for arch in ("timm:test_resnet", "timm:test_byobnet"):
        rows = [create_backbone(arch, last_stride=s).eval()(images, modality).shape[2] for s in (1, 2)]
        assert rows == [4, 2]
        layers = create_backbone(arch, last_stride=1).modules()
        assert all(max(m.dilation) == 1 for m in layers if isinstance(m, torch.nn.Conv2d))
