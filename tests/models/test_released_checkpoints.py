"""Released checkpoints, built key by key as the authors' code saves them: everything lands, and the report is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet50

from gloam.methods import create_method
from gloam.methods.contract import Method
from gloam.models.resnet import ResNet
from gloam.models.weights import WeightReport, load_weights, read_state

COUNTER = "num_batches_tracked"


def _filled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same names and shapes with values that no fresh network has, each of its own."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: (2 + torch.rand(value.shape, generator=generator) if value.is_floating_point() else value + 7)
        for name, value in state.items()
    }


def _numbered(network: nn.Module) -> dict[str, Tensor]:
    """``Sequential(conv1, bn1, relu, maxpool, layer1, ..., layer4)``: numbers instead of names."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    renamed = {}
    for name, value in network.state_dict().items():
        first, _, rest = name.partition(".")
        if first in numbers:
            renamed[f"{numbers[first]}.{rest}"] = value
    return renamed


def _neck(width: int) -> dict[str, Tensor]:
    return {f"feat_bn.{name}": value for name, value in nn.BatchNorm1d(width).state_dict().items()}


def _released_unit(arch: str, *, gem: bool, width: int) -> dict[str, Tensor]:
    """SpCL, Cluster Contrast, MetaPRD: ``base``, ``gap``, ``feat``, ``feat_bn``, wrapped for several processors."""
    network = resnet50(weights=None) if arch == "resnet50" else ResNet("resnet50", ibn=True)
    state = {f"base.{name}": value for name, value in _numbered(network).items()}
    if gem:
        state["gap.p"] = torch.full((1,), 3.0)
    if width:
        state |= {f"feat.{name}": value for name, value in nn.Linear(2048, width).state_dict().items()}
    state |= _neck(width or 2048)
    return {f"module.{name}": value for name, value in state.items()}


def _check_partition(report: WeightReport, file: dict[str, Tensor], method: Method[Any]) -> None:
    """Every name of the file and of the method is in exactly one list."""
    sides = sorted([*report.used, *report.unexpected, *report.unneeded])
    assert sides == sorted(set(sides)), "a name of the file is in two lists"
    if not report.mismatched:
        assert sides == sorted(file)
    own = sorted([*report.matched, *report.missing, *report.mismatched])
    assert own == sorted(set(own)), "a name of the method is in two lists"
    assert set(own) == {n for n in method.state_dict() if n in own or not n.endswith(COUNTER)}


@pytest.mark.parametrize("name", ["spcl", "cluster_contrast", "metaprd"])
@pytest.mark.parametrize(
    ("arch", "gem", "width", "entries"),
    [("resnet50", False, 0, 323), ("resnet50", True, 512, 326), ("resnet50_ibn_a", True, 0, 350)],
)
def test_unsupervised_releases_load_completely(
    name: str, arch: str, gem: bool, width: int, entries: int, tmp_path: Path
) -> None:
    state = _filled(_released_unit(arch, gem=gem, width=width))
    assert len(state) == entries  # as measured on the authors' network
    torch.save({"state_dict": state, "epoch": 50, "best_mAP": 0.8}, tmp_path / "model_best.pth.tar")
    method = create_method(name, 1, arch=arch, pooling="gem_learnable" if gem else "avg", width=width)
    before = set(method.state_dict())
    report = load_weights(method, tmp_path / "model_best.pth.tar")
    assert sorted(report.used) == sorted(state)
    assert report.unexpected == report.mismatched == report.unneeded == []
    assert all(not missing.startswith("net.") for missing in report.missing)
    _check_partition(report, state, method)
    own = method.state_dict()
    assert set(own) == before
    values = {value.double().sum().item(): theirs for theirs, value in state.items() if value.is_floating_point()}
    landed = {values.get(own[n].double().sum().item()) for n in report.matched if own[n].is_floating_point()}
    assert landed == set(values.values())


@pytest.mark.parametrize(("gem", "width"), [(False, 0), (True, 512)])
def test_unsupervised_releases_give_the_authors_features(gem: bool, width: int, tmp_path: Path) -> None:
    """Landed where it belongs: the authors' order of layers gives the same vector."""
    state = _released_unit("resnet50", gem=gem, width=width)
    for name, value in _filled(state).items():
        if value.ndim == 1:  # norms and shifts; convolutions are random already
            state[name] = value / 2.5
    torch.save({"state_dict": state}, tmp_path / "model.pth")
    method = create_method("spcl", 1, pooling="gem_learnable" if gem else "avg", width=width)
    load_weights(method, tmp_path / "model.pth")
    oracle = _UnitOracle(state, gem, width).eval()
    images = torch.randn(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = method.eval().extract(images, torch.zeros(2, dtype=torch.int64))
        torch.testing.assert_close(found, oracle(images), rtol=1e-3, atol=1e-4)


class _UnitOracle(nn.Module):
    """The authors' network, as far as a forward pass goes."""

    def __init__(self, state: dict[str, Tensor], gem: bool, width: int) -> None:
        super().__init__()
        network = resnet50(weights=None)
        network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (1, 1)
        parts = [network.conv1, network.bn1, network.relu, network.maxpool]
        self.base = nn.Sequential(*parts, network.layer1, network.layer2, network.layer3, network.layer4)
        self.feat = nn.Linear(2048, width) if width else nn.Identity()
        self.feat_bn = nn.BatchNorm1d(width or 2048)
        self.p = state["module.gap.p"] if gem else None
        plain = {name.removeprefix("module."): value for name, value in state.items() if "gap" not in name}
        self.load_state_dict(plain)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.base(images)
        pooled = maps.mean((2, 3)) if self.p is None else maps.clamp_min(1e-6).pow(self.p).mean((2, 3)).pow(1 / self.p)
        return nn.functional.normalize(self.feat_bn(self.feat(pooled)))


def _released_wsl(classes: int) -> dict[str, dict[str, Tensor]]:
    """WSL-VIReID: a backbone of numbered layers and three classifiers, a dictionary each."""
    network = resnet50(weights=None)
    backbone: dict[str, Tensor] = {}
    for name, value in _numbered(network).items():
        number, _, rest = name.partition(".")
        if int(number) < 2:
            backbone |= {f"{stem}.{number}.{rest}": value for stem in ("rgb_layers", "ir_layers")}
        else:
            backbone[f"common_layers.{int(number) - 4}.{rest}"] = value
    backbone["GAP.p"] = torch.full((1,), 3.0)
    backbone |= {f"BN.{name}": value for name, value in nn.BatchNorm1d(2048).state_dict().items()}
    parts = {"backbone": backbone}
    for number in (1, 2, 3):
        parts[f"classifier{number}"] = {"classifier.weight": torch.zeros(classes, 2048)}
    generator = torch.Generator().manual_seed(2)
    return {
        part: {
            name: torch.rand(value.shape, generator=generator) + 1 if value.is_floating_point() else value + 3
            for name, value in state.items()
        }
        for part, state in parts.items()
    }


def test_weakly_supervised_release_loads_completely(tmp_path: Path) -> None:
    parts = _released_wsl(206)
    torch.save({**parts, "epoch": 61}, tmp_path / "model_61.pth")
    file = read_state(tmp_path / "model_61.pth")
    assert len(file) == 330 + 3
    parameters = sum(v.numel() for n, v in parts["backbone"].items() if "running" not in n and COUNTER not in n)
    assert parameters == 23_521_665  # as published
    method = create_method("wsl_vireid", 206)
    report = load_weights(method, tmp_path / "model_61.pth")
    assert sorted(report.used) == sorted(file)
    assert report.unexpected == report.mismatched == report.unneeded == []
    # State of gloam's own that no release has.
    assert report.missing == ["consistent", "contradictory", "prototypes", "trusted", "weak_on"]
    _check_partition(report, file, method)
    own, theirs = method.state_dict(), parts["backbone"]
    pairs = {
        "backbone.stem_visible.conv1.weight": theirs["rgb_layers.0.weight"],
        "backbone.stem_infrared.conv1.weight": theirs["ir_layers.0.weight"],
        "backbone.stem_infrared.bn1.running_var": theirs["ir_layers.1.running_var"],
        "backbone.trunk.layer1.2.conv3.weight": theirs["common_layers.0.2.conv3.weight"],
        "backbone.trunk.layer4.0.downsample.1.bias": theirs["common_layers.3.0.downsample.1.bias"],
        "pool.p": theirs["GAP.p"],
        "bottleneck.running_mean": theirs["BN.running_mean"],
        "visible_expert.weight": parts["classifier1"]["classifier.weight"],
        "infrared_expert.weight": parts["classifier2"]["classifier.weight"],
        "shared_classifier.weight": parts["classifier3"]["classifier.weight"],
    }
    for name, value in pairs.items():
        assert torch.equal(own[name], value), name


def _released_agw(classes: int, *, nonlocal_blocks: bool) -> dict[str, Tensor]:
    """AGW and Base: three whole networks without their heads, the non-local blocks, neck and classifier."""
    network = {n: v for n, v in resnet50(weights=None).state_dict().items() if not n.startswith("fc.")}
    state: dict[str, Tensor] = {}
    for prefix in ("visible_module.visible.", "thermal_module.thermal.", "base_resnet.base."):
        state |= {f"{prefix}{name}": value for name, value in network.items()}
    if nonlocal_blocks:
        for stage, channels, count in ((2, 512, 2), (3, 1024, 3)):
            for block in range(count):
                start = f"NL_{stage}.{block}."
                for layer in ("g.0", "theta", "phi"):
                    state |= {f"{start}{layer}.weight": torch.zeros(1, channels, 1, 1)}
                    state |= {f"{start}{layer}.bias": torch.zeros(1)}
                state |= {
                    f"{start}W.0.weight": torch.zeros(channels, 1, 1, 1),
                    f"{start}W.0.bias": torch.zeros(channels),
                }
                state |= {f"{start}W.1.{n}": v for n, v in nn.BatchNorm2d(channels).state_dict().items()}
    state |= {f"bottleneck.{n}": v for n, v in nn.BatchNorm1d(2048).state_dict().items()}
    state["classifier.weight"] = torch.zeros(classes, 2048)
    return _filled(state)


@pytest.mark.parametrize(("name", "entries"), [("base", 960), ("agw", 1025)])
def test_supervised_releases_report_what_they_did(name: str, entries: int, tmp_path: Path) -> None:
    state = _released_agw(206, nonlocal_blocks=name == "agw")
    assert len(state) == entries
    torch.save({"net": state}, tmp_path / "released.t")
    method = create_method(name, 206)
    report = load_weights(method, tmp_path / "released.t")
    assert report.missing == report.mismatched == report.unexpected == []
    assert "unexpected" not in str(report)
    _check_partition(report, state, method)
    # Of the visible and thermal networks only conv1 and bn1 live; of the shared one everything else.
    stem = {"conv1.weight", *(f"bn1.{n}" for n in nn.BatchNorm2d(64).state_dict())}
    dead = [n for n in state if n.startswith(("visible_module", "thermal_module")) and n.split(".", 2)[2] not in stem]
    dead += [f"base_resnet.base.{n}" for n in stem]
    assert report.unneeded == sorted(dead)


def test_blocks_that_a_network_lacks_are_unexpected_under_their_names_in_the_file(tmp_path: Path) -> None:
    state = _released_agw(206, nonlocal_blocks=True)
    torch.save(state, tmp_path / "agw.t")
    method = create_method("base", 206)
    report = load_weights(method, tmp_path / "agw.t")
    assert report.unexpected == sorted(name for name in state if name.startswith("NL_"))
    assert len(report.unexpected) == 65
    _check_partition(report, state, method)


def test_wrong_sizes_and_kinds_stay_out_and_are_named(tmp_path: Path) -> None:
    state = _released_agw(206, nonlocal_blocks=False)
    state["bottleneck.weight"] = state["bottleneck.weight"].long()
    torch.save(state, tmp_path / "base.t")
    method = create_method("base", 395)
    report = load_weights(method, tmp_path / "base.t")
    assert report.mismatched == ["net.bottleneck.weight", "net.classifier.weight"]
    assert report.unexpected == report.missing == []
    assert "classifier.weight" not in report.used
    _check_partition(report, state, method)


def test_pretext_heads_load_into_their_own_method(tmp_path: Path) -> None:
    source = create_method("mmgl", 1, arch="tiny")
    torch.save(source.state_dict(), tmp_path / "mmgl.pth")
    for name in ("mmgl", "base"):
        method = create_method(name, 1, arch="tiny")
        report = load_weights(method, tmp_path / "mmgl.pth")
        _check_partition(report, source.state_dict(), method)
        if name == "mmgl":
            assert report.missing == report.unexpected == report.unneeded == []


def test_a_plain_network_fills_both_stems_and_names_its_head(tmp_path: Path) -> None:
    state = _filled(resnet50(weights=None).state_dict())
    torch.save(state, tmp_path / "resnet.pth")
    method = create_method("base", 3)
    report = load_weights(method, tmp_path / "resnet.pth")
    assert report.unexpected == ["fc.bias", "fc.weight"]
    assert set(report.missing) == {n for n in method.state_dict() if "backbone" not in n and COUNTER not in n}
    _check_partition(report, state, method)


def test_clip_towers_name_what_has_no_place(tmp_path: Path) -> None:
    """timm makes new tensors of some of the file's: the report still speaks of the file's names."""
    from tests.oracles.clip_towers import ClipViT

    tower = ClipViT()
    state = {f"visual.{name}": value for name, value in tower.state_dict().items()}
    state |= {"token_embedding.weight": torch.zeros(4, 2), "logit_scale": torch.zeros(())}
    torch.save(state, tmp_path / "clip.pt")
    method = create_method("wsl_vireid", 3, arch="timm:vit_base_patch32_clip_quickgelu_224")
    report = load_weights(method, tmp_path / "clip.pt")
    assert {"token_embedding.weight", "logit_scale"} <= set(report.unexpected)
    assert not [name for name in report.unexpected if name.startswith("visual.transformer")]
    _check_partition(report, state, method)
