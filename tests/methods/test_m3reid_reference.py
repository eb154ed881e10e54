"""Checkpoints under the names of M3-ReID's release."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torchvision.models import resnet50

from gloam.methods import create_method
from gloam.models.weights import load_weights

DIM = 6 * 2048


def _released_state(classes: int) -> dict[str, Tensor]:
    """Every entry of a checkpoint of the release, with random values, built without any of our modules."""
    shapes = {f"backbone.{k}": v.shape for k, v in resnet50(weights=None).state_dict().items() if k[:3] != "fc."}
    for stage, channels, count in ((2, 512, 2), (3, 1024, 3)):
        for block in range(count):
            name, inner = f"NL_{stage}.{block}", channels // 4
            for layer in ("theta", "phi", "g"):
                shapes[f"{name}.{layer}.weight"] = torch.Size((inner, channels, 1, 1, 1))
                shapes[f"{name}.{layer}.bias"] = torch.Size((inner,))
            shapes[f"{name}.W.0.weight"] = torch.Size((channels, inner, 1, 1, 1))
            shapes[f"{name}.W.0.bias"] = torch.Size((channels,))
            shapes |= {f"{name}.W.1.{k}": torch.Size((channels,)) for k in ("weight", "bias", "running_mean")}
            shapes |= {f"{name}.W.1.running_var": torch.Size((channels,))}
            shapes |= {f"{name}.W.1.num_batches_tracked": torch.Size(())}
    for view in ("hw", "tw", "th"):
        shapes[f"mvl_attention.view_attention_{view}.weight"] = torch.Size((2, 2048, 1, 1))
        shapes[f"mvl_attention.view_attention_{view}.bias"] = torch.Size((2,))
    shapes |= {f"bn_neck.{k}": torch.Size((DIM,)) for k in ("weight", "bias", "running_mean", "running_var")}
    shapes |= {"bn_neck.num_batches_tracked": torch.Size(())}
    shapes |= {f"{k}.weight": torch.Size((classes, DIM)) for k in ("classifier_frame", "classifier")}
    generator = torch.Generator().manual_seed(0)
    return {
        name: torch.tensor(7) if name.endswith("num_batches_tracked") else torch.rand(shape, generator=generator)
        for name, shape in shapes.items()
    }


@pytest.fixture(scope="module")
def released() -> dict[str, Tensor]:
    return _released_state(classes=5)


def _ours(name: str) -> str:
    for theirs, ours in (
        ("backbone.conv1.", "backbone.stem_visible.conv1."),
        ("backbone.bn1.", "backbone.stem_visible.bn1."),
        ("backbone.layer", "backbone.trunk.layer"),
        ("NL_", "backbone.trunk.NL_"),
    ):
        if name.startswith(theirs):
            return ours + name[len(theirs) :]
    return name


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_released_checkpoint_loads_completely(released: dict[str, Tensor], prefix: str, tmp_path: Path) -> None:
    assert len(released) == 396
    torch.save({prefix + k: v for k, v in released.items()}, tmp_path / "model_epoch-200.pth")
    method = create_method("m3reid", 5)
    report = load_weights(method, tmp_path / "model_epoch-200.pth")
    assert not report.missing
    assert not report.unexpected
    assert not report.mismatched
    state = method.state_dict()
    assert len(report.matched) == len(state) == 396
    for name, value in released.items():
        assert torch.equal(state[_ours(name)], value), name


def test_another_number_of_identities_keeps_both_fresh_classifiers(released: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(released, tmp_path / "model.pth")
    report = load_weights(create_method("m3reid", 9), tmp_path / "model.pth")
    assert report.mismatched == ["classifier.weight", "classifier_frame.weight"]
    assert not report.missing


def test_a_plain_imagenet_file_still_loads(tmp_path: Path) -> None:
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "resnet50.pth")
    method = create_method("m3reid", 5)
    load_weights(method, tmp_path / "resnet50.pth")
    assert torch.equal(method.backbone.stem_visible.conv1.weight, network.conv1.weight)
    assert torch.equal(method.backbone.trunk.layer3[5].conv2.weight, network.layer3[5].conv2.weight)
