"""Layer-wise learning rates: which parameter is in which layer, and at which rate it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gloam.errors import GloamError
from gloam.inference.checkpoint import Checkpoint
from gloam.methods import create_method
from gloam.models.backbone import backbone_layers, create_backbone
from gloam.recipes.sections import OptimizerConfig
from gloam.training.optimizers import create_optimizer, decayed_groups
from gloam.training.run import train
from tests.training.tiny import tiny_recipe

TIMM = ["test_vit", "test_convnext", "test_resnet", "vit_tiny_patch16_224", "convnext_atto"]


def _rates(groups: list[dict[str, Any]]) -> dict[int, float]:
    return {id(parameter): group["lr"] for group in groups for parameter in group["params"]}


@pytest.mark.parametrize("name", TIMM)
def test_factors_are_those_of_timm(name: str) -> None:
    from timm.optim import param_groups_layer_decay

    backbone = create_backbone(f"timm:{name}", streams=1, last_stride=2)
    expected = {}
    for group in param_groups_layer_decay(backbone.network, layer_decay=0.7):
        expected |= {id(parameter): group["lr_scale"] for parameter in group["params"]}
    groups = decayed_groups([{"params": list(backbone.parameters()), "lr": 1.0}], backbone_layers(backbone), 0.7)
    found = _rates(groups)
    assert len(set(expected.values())) > 4
    assert found == pytest.approx(expected)


@pytest.mark.parametrize("arch", ["tiny", "small", "resnet50", "timm:test_vit", "timm:test_convnext"])
@pytest.mark.parametrize("streams", [1, 2])
def test_every_parameter_of_a_backbone_is_in_one_layer(arch: str, streams: int) -> None:
    backbone = create_backbone(arch, streams=streams)
    (layers,) = backbone_layers(backbone)
    ids = [id(parameter) for layer in layers for parameter in layer]
    assert sorted(ids) == sorted(id(parameter) for parameter in backbone.parameters())


def test_layers_of_a_residual_network_are_stems_and_blocks() -> None:
    method = create_method("agw", 4, arch="resnet18", streams=2, nonlocal_blocks=(0, 2, 1, 0))
    names = {id(parameter): name for name, parameter in method.net.backbone.named_parameters()}
    (layers,) = backbone_layers(method)
    found = [{".".join(names[id(p)].split(".")[:3]) for p in layer} for layer in layers]
    assert len(found) == 1 + 8
    assert found[0] == {f"stem_{side}.{part}" for side in ("visible", "infrared") for part in ("conv1.weight",)} | {
        f"stem_{side}.bn1.{kind}" for side in ("visible", "infrared") for kind in ("weight", "bias")
    }
    assert found[1:5] == [
        {"trunk.layer1.0"}, {"trunk.layer1.1"},
        {"trunk.layer2.0", "trunk.NL_2.0"}, {"trunk.layer2.1", "trunk.NL_2.1"},
    ]  # fmt: skip
    # One block stands behind the last residual block of its stage.
    assert found[5:] == [
        {"trunk.layer3.0"}, {"trunk.layer3.1", "trunk.NL_3.0"}, {"trunk.layer4.0"}, {"trunk.layer4.1"},
    ]  # fmt: skip


def test_own_stages_of_both_streams_are_one_layer() -> None:
    backbone = create_backbone("tiny", streams=2, independent_stages=2)
    (layers,) = backbone_layers(backbone)
    names = {id(parameter): name for name, parameter in backbone.named_parameters()}
    assert [{names[id(p)].split(".")[0] for p in layer} for layer in layers] == [
        *[{"stem_visible", "stem_infrared"}] * 3, {"trunk"}, {"trunk"},
    ]  # fmt: skip


@pytest.mark.parametrize("arch", ["tiny", "timm:test_vit"])
def test_groups_of_a_method_keep_their_own_rates(arch: str) -> None:
    method = create_method("base", 4, arch=arch, streams=1, trunk_factor=0.5)
    groups = method.parameter_groups(0.2)
    (layers,) = backbone_layers(method)
    found = _rates(decayed_groups(groups, [layers], 0.8))
    expected = _rates(groups)
    assert found.keys() == expected.keys()
    for number, layer in enumerate(layers, start=1):
        for parameter in layer:
            expected[id(parameter)] = 0.2 * 0.5 * 0.8 ** (len(layers) - number)
    assert found == pytest.approx(expected)
    assert expected[id(method.net.classifier.weight)] == 0.2
    assert decayed_groups(groups, [layers], 1) is groups


def test_a_network_without_layers_is_refused() -> None:
    method = create_method("base", 4, arch="tiny")
    method.net.backbone = nn.Conv2d(3, 4, 1)
    with pytest.raises(GloamError, match=r"no backbone .*layer_decay"):
        backbone_layers(method)
    plain = create_backbone("timm:test_vit", streams=1)
    plain.network = nn.Conv2d(3, 4, 1)
    with pytest.raises(GloamError, match=r"group_matcher.*layer_decay"):
        backbone_layers(plain)


def test_a_run_with_it_steps_slower_below_and_resumes(sysu_root: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(sysu_root, optimizer={"layer_decay": 0.5, "momentum": 0.0, "nesterov": False})
    whole = train(recipe, output=tmp_path / "whole", progress=False).path
    parts = tmp_path / "parts"
    train(recipe, output=parts, progress=False, stop_after=1)
    train(recipe, resume=parts, progress=False)
    first, second = (Checkpoint.load(run / "checkpoints" / "last.ckpt") for run in (whole, parts))
    assert all(torch.equal(first.method[key], second.method[key]) for key in first.method)
    rates = {group["initial_lr"] for group in first.optimizer["param_groups"]}
    # The tiny network has a stem and four blocks, the backbone a tenth of the rate.
    assert sorted(rates) == pytest.approx([0.005 * 0.5**n for n in (4, 3, 2, 1, 0)] + [0.05])


def test_the_optimiser_is_given_the_layers() -> None:
    weights = [nn.Parameter(torch.ones(1)) for _ in range(3)]
    groups = [{"params": weights, "lr": 1.0}]
    config = OptimizerConfig(lr=1.0, layer_decay=0.1)
    optimizer = create_optimizer(config, groups, [[[weights[0]], [weights[1]]]])
    assert [(len(group["params"]), group["initial_lr"]) for group in optimizer.param_groups] == [(2, 1.0), (1, 0.1)]
