"""Backbones: published sizes, routing of mixed batches, non-local identity, pooling and neck."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.models.backbone import create_backbone
from gloam.models.neck import BNNeck, Classifier, unit
from gloam.models.nonlocal_block import NonLocalBlock
from gloam.models.pooling import GeM, create_pooling
from gloam.models.resnet import IBN, ResNet


def _count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_published_parameter_counts() -> None:
    assert _count(ResNet("resnet50")) == 23_508_032
    assert _count(ResNet("resnet50", ibn=True)) == 23_508_032
    with torch.device("meta"):
        assert _count(ResNet("resnet152")) == 58_143_808
    two, one = (create_backbone("resnet50", streams=s) for s in (2, 1))
    assert _count(two) - _count(one) == 9_536
    assert _count(NonLocalBlock(512)) == 7 * 512 + 3


@pytest.mark.parametrize(
    ("method", "classes", "expected"),
    [("base", 395, 24_330_624), ("base", 206, 23_943_552), ("agw", 395, 24_359_311), ("agw", 206, 23_972_239),
     ("ddag", 395, 41_931_929), ("ddag", 206, 41_157_407), ("m3reid", 500, 39_518_278), ("m3reid", 1074, 53_624_902),
     ("wsl_vireid", 395, 25_948_545), ("wsl_vireid", 206, 24_787_329), ("pf_mgcd", 395, 84_557_270)],
)  # fmt: skip
def test_lean_networks_have_the_published_number_of_parameters(method: str, classes: int, expected: int) -> None:
    assert _count(create_method(method, classes)) == expected


def test_state_names_are_torchvisions() -> None:
    theirs = {name for name in resnet50(weights=None).state_dict() if not name.startswith("fc.")}
    assert set(ResNet("resnet50").state_dict()) == theirs


@pytest.mark.parametrize(("stride", "size"), [(1, (18, 9)), (2, (9, 5))])
def test_last_stride_sets_the_map_size(stride: int, size: tuple[int, int]) -> None:
    for arch in ("tiny", "resnet18"):
        maps = ResNet(arch, last_stride=stride).eval()(torch.zeros(1, 3, 288, 144))
        assert tuple(maps.shape[2:]) == size


def test_ibn_normalises_the_first_half_per_image() -> None:
    layer = IBN(6).train()
    out = layer(torch.randn(2, 6, 5, 4) * torch.tensor([1.0, 9.0])[:, None, None, None])
    torch.testing.assert_close(out[:, :3].mean(dim=(2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert out[1, 3:].std() > 3 * out[0, 3:].std()
    assert {"bn1.IN.weight", "bn1.BN.running_mean"} <= {
        name.removeprefix("layer1.0.") for name in ResNet("tiny", ibn=True).state_dict()
    }


@pytest.mark.parametrize(
    "arch", ["tiny", "tiny_ibn_a", "timm:test_vit", "timm:test_convnext", "timm:test_efficientnet"]
)
@pytest.mark.parametrize("streams", [1, 2])
def test_rows_of_a_mixed_batch_equal_rows_alone(arch: str, streams: int) -> None:
    backbone = create_backbone(arch, streams=streams).eval()
    images = torch.randn(5, 3, 96, 48)
    modalities = torch.tensor([1, 0, 0, 1, 0])
    with torch.no_grad():
        mixed = backbone(images, modalities)
        for row in range(5):
            alone = backbone(images[row : row + 1], modalities[row : row + 1])
            torch.testing.assert_close(alone[0], mixed[row], atol=1e-4, rtol=1e-3)
    assert mixed.shape[1] == backbone.out_channels


def test_a_batch_of_one_modality_never_touches_the_other_stem() -> None:
    backbone = create_backbone("tiny", streams=2)
    for modality, used, idle in ((0, "stem_visible", "stem_infrared"), (1, "stem_infrared", "stem_visible")):
        backbone.zero_grad()
        before = backbone.get_submodule(idle).bn1.running_mean.clone()
        backbone(torch.randn(2, 3, 48, 32), torch.full((2,), modality)).sum().backward()
        assert backbone.get_submodule(used).conv1.weight.grad is not None
        assert backbone.get_submodule(idle).conv1.weight.grad is None
        assert torch.equal(before, backbone.get_submodule(idle).bn1.running_mean)


@pytest.mark.parametrize("arch", ["timm:test_vit", "timm:swin_tiny_patch4_window7_224", "timm:convnext_atto"])
def test_timm_networks_train_and_extract(arch: str) -> None:
    method = create_method("base", 2, arch=arch)
    from tests.methods.contract import people

    batch = people(video=False)
    batch = batch.select(batch.pids < 2)
    method.training_step(batch)["loss"].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.net.backbone.parameters())
    method.eval()
    with torch.no_grad():
        assert method.extract(batch.images[:2], batch.modalities[:2]).shape == (2, method.feature_dim)


def test_a_fresh_agw_computes_what_it_does_without_nonlocal_blocks() -> None:
    network = create_method("agw", 4, arch="resnet18").eval()
    plain = create_method("agw", 4, arch="resnet18", nonlocal_blocks=(0, 0, 0, 0)).eval()
    plain.load_state_dict({k: v for k, v in network.state_dict().items() if "NL_" not in k})
    images, modalities = torch.randn(2, 3, 96, 48), torch.tensor([0, 1])
    with torch.no_grad():
        assert torch.equal(network.extract(images, modalities), plain.extract(images, modalities))


def test_nonlocal_block_equals_the_pairwise_form() -> None:
    block = NonLocalBlock(6, width=3).double().eval()
    torch.nn.init.normal_(block.W[1].weight)
    x = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    theta, phi, g = (layer(x).flatten(2) for layer in (block.theta, block.phi, block.g))
    pairs = theta.transpose(1, 2) @ phi / 12
    expected = block.W((pairs @ g.transpose(1, 2)).transpose(1, 2).unflatten(2, (4, 3))) + x
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("learnable", [False, True])
def test_gem_of_negative_maps_is_finite(learnable: bool) -> None:
    """Transformers and ConvNeXt have no last ReLU."""
    maps = (torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) - 1).requires_grad_()
    pooled = GeM(learnable=learnable)(maps)
    pooled.sum().backward()
    assert torch.isfinite(pooled).all()
    assert maps.grad is not None
    assert torch.isfinite(maps.grad).all()
    torch.testing.assert_close(pooled, GeM(learnable=learnable)(maps.detach().clamp_min(0)))


def test_gem_forms() -> None:
    maps = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(GeM()(maps), (maps.pow(3).mean((2, 3)) + 1e-12).pow(1 / 3))
    torch.testing.assert_close(GeM(learnable=True).double()(maps), maps.pow(3).mean((2, 3)).pow(1 / 3))
    zero = torch.zeros(1, 2, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    GeM()(zero).sum().backward()
    assert torch.isfinite(zero.grad).all()
    with pytest.raises(GloamError, match="gem"):
        create_pooling("gemm")


def test_neck_classifier_and_unit_vectors() -> None:
    neck = BNNeck(256)
    assert not neck.bias.requires_grad
    assert neck.weight.std().item() == pytest.approx(0.01, rel=0.3)
    classifier = Classifier(256, 40)
    assert classifier.bias is None
    assert classifier.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert torch.isfinite(unit(torch.zeros(1, 3))).all()


def test_unknown_backbones_are_named() -> None:
    with pytest.raises(GloamError, match="resnet50"):
        create_backbone("resnet5")
    with pytest.raises(GloamError, match="vit"):
        create_backbone("timm:vit_smal_patch16_224")


RANDOM = [("tiny", {}), ("tiny_ibn_a", {"independent_stages": 2}), ("timm:test_vit", {}), ("timm:test_byobnet", {})]


def _drawn(arch: str, streams: int, options: dict[str, int]) -> tuple[nn.Module, torch.Tensor]:
    """A backbone from a fixed seed, and what the global generator draws after it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return create_backbone(arch, streams=streams, **options), torch.randn(3)


def _streams(backbone: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Tensors that each stream has for itself: name -> (visible, infrared)."""
    state, found = backbone.state_dict(), {}
    for name, value in state.items():
        for visible, infrared in (("stem_visible.", "stem_infrared."), (".visible.", ".infrared.")):
            if visible in name:
                found[name] = (value, state[name.replace(visible, infrared)])
    return found


@pytest.mark.parametrize(("arch", "options"), RANDOM)
def test_random_stems_are_drawn_independently(arch: str, options: dict[str, int]) -> None:
    network, after = _drawn(arch, 2, options)
    own = _streams(network)
    convolutions = [pair for name, pair in own.items() if name.endswith("weight") and pair[0].ndim == 4]
    assert convolutions
    for visible, infrared in convolutions:
        one, other = visible.flatten() - visible.mean(), infrared.flatten() - infrared.mean()
        assert abs(float(one @ other / (one.norm() * other.norm()))) < 5 / len(one) ** 0.5
        assert float(visible.std() / infrared.std()) == pytest.approx(1, abs=4 / len(one) ** 0.5)
    # The same seed gives the same network, and what is drawn after the backbone does not know of the second stem.
    again, after_again = _drawn(arch, 2, options)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in network.state_dict().items())
    single, after_single = _drawn(arch, 1, options)
    assert torch.equal(after, after_again)
    assert torch.equal(after, after_single)
    shared = {name.replace("stem.visible.", "stem.").replace("patch_embed.visible.", "patch_embed."): value
              for name, value in network.state_dict().items() if "infrared" not in name}  # fmt: skip
    assert shared.keys() == single.state_dict().keys()
    assert all(torch.equal(value, shared[name]) for name, value in single.state_dict().items())
