"""Weights under the names of the authors: the names of their files, and the model when they are read back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gloam
from gloam import cli
from gloam.augmentation.augmenter import normalize
from gloam.errors import GloamError
from gloam.inference.released import write_released
from gloam.methods import create_method, list_methods
from gloam.methods.contract import Method
from gloam.models.weights import load_weights, read_state
from tests.inference.models_to_export import MIXTURES, drawn_model, some_images, write_run
from tests.methods.test_cgrnet import _released_file as released_cgrnet
from tests.models.test_released_checkpoints import _released_agw, _released_unit, _released_wsl

WITHOUT_LAYOUT = {"pf_mgcd", "simsiam", "ntxent"}
WITH_LAYOUT = [name for name in list_methods() if name not in WITHOUT_LAYOUT]
# State of gloam's own that no release has and no feature depends on.
OWN = {
    "ddag": {"epoch_loss", "epoch_steps", "graph_weight"},
    "metaprd": {"collected"},
    "spcl": {"independence_threshold"},
    "wsl_vireid": {"consistent", "contradictory", "prototypes", "trusted", "weak_on"},
}


@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_what_is_written_reads_back_as_the_model(name: str, tmp_path: Path) -> None:
    model = drawn_model(name)
    proof = write_released(model, tmp_path / "released.pth")
    assert proof["unexpected"] == []
    assert proof["largest_difference"] == 0
    fresh = create_method(name, model.method.num_classes, **model.method.options.model_dump(mode="json")).eval()
    report = load_weights(fresh, tmp_path / "released.pth")
    assert report.unexpected == report.mismatched == []
    left = {n for n in report.missing if not n.startswith(("memory.", "bank", "graphs.", "previous", "current"))}
    assert left <= OWN.get(name, set()), left
    images, modalities = normalize(some_images(model, 6)), MIXTURES["both"](6)
    with torch.no_grad():
        for feature in model.method.features:
            model.method.test_feature = fresh.test_feature = feature
            assert torch.equal(fresh.extract(images, modalities), model.extract(images, modalities)), feature


def _names(content: dict[str, Any]) -> dict[str, Tensor]:
    inner = content.get("net", content.get("state_dict", content))
    found: dict[str, Tensor] = {}
    for name, value in inner.items():
        found |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def _written(method: Method[Any]) -> dict[str, Tensor]:
    content = method.to_published()
    assert content is not None
    return _names(content)


@pytest.mark.parametrize("name", ["base", "agw"])
def test_supervised_names_are_those_of_the_release(name: str) -> None:
    expected = _shapes(_released_agw(206, nonlocal_blocks=name == "agw"))
    assert _shapes(_written(create_method(name, 206))) == expected


@pytest.mark.parametrize("name", ["spcl", "cluster_contrast", "metaprd"])
@pytest.mark.parametrize(("gem", "width"), [(False, 0), (True, 512)])
def test_unsupervised_names_are_those_of_the_release(name: str, gem: bool, width: int) -> None:
    method = create_method(name, 1, pooling="gem_learnable" if gem else "avg", width=width)
    assert _shapes(_written(method)) == _shapes(_released_unit("resnet50", gem=gem, width=width))


def test_weakly_supervised_names_are_those_of_the_release() -> None:
    expected = {f"{part}.{n}": v for part, state in _released_wsl(206).items() for n, v in state.items()}
    assert _shapes(_written(create_method("wsl_vireid", 206))) == _shapes(expected)


def test_names_of_cgrnet_have_their_six_networks_and_prefixes(tmp_path: Path) -> None:
    expected = _shapes(released_cgrnet(tmp_path / "theirs.t"))
    assert len(expected) == 1937
    method = create_method("cgrnet", 206)
    assert _shapes(_written(method)) == expected
    # What lives where: the first stage in each modality's block, the second and later ones in the shared modules.
    state, own = _written(method), method.state_dict()
    for theirs, ours in {
        "visible_module.visible.conv1.weight": "net.backbone.stem_visible.conv1.weight",
        "thermal_module.thermal.bn1.running_var": "net.backbone.stem_infrared.bn1.running_var",
        "visible_block.base.layer1.0.conv1.weight": "net.backbone.stem_visible.layer1.0.conv1.weight",
        "thermal_block.base.layer1.2.conv3.weight": "net.backbone.stem_infrared.layer1.2.conv3.weight",
        "common_block.base.layer2.3.conv2.weight": "net.backbone.trunk.layer2.3.conv2.weight",
        "base_resnet.base.layer4.0.downsample.0.weight": "net.backbone.trunk.layer4.0.downsample.0.weight",
        "local2global.value_conv.bias": "net.backbone.trunk.NL_2.0.local2global.value_conv.bias",
    }.items():
        assert torch.equal(state[theirs], own[ours]), theirs


def test_names_of_m3reid_and_mmgl_are_those_of_their_code() -> None:
    from torchvision.models import resnet50

    network = {name for name in resnet50(weights=None).state_dict() if not name.startswith("fc.")}
    written = set(_written(create_method("m3reid", 500)))
    assert {name for name in written if name.startswith("backbone.")} == {f"backbone.{name}" for name in network}
    blocks = {name.split(".")[0] + "." + name.split(".")[1] for name in written if name.startswith("NL_")}
    assert blocks == {"NL_2.0", "NL_2.1", "NL_3.0", "NL_3.1", "NL_3.2"}
    assert {name.partition(".")[0] for name in written if not name.startswith(("backbone", "NL_"))} == {
        "mvl_attention",
        "bn_neck",
        "classifier_frame",
        "classifier",
    }
    flat = set(_written(create_method("mmgl", 1)))
    backbone = {name for name in flat if name.startswith(("visible_module", "thermal_module", "base_resnet"))}
    assert len(backbone) == 324
    assert {name.partition(".")[0] for name in flat - backbone} == {"fc1", "local_conv_list"}


def test_the_command_writes_file_and_proof(tmp_path: Path, sysu_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", drawn_model("cgrnet"), sysu_root)
    out = tmp_path / "out"
    assert cli.main(["export", str(run), "--output", str(out), "--format", "released"]) == 0
    assert "features equal" in capsys.readouterr().out
    proof = json.loads((out / "proof.json").read_text())["model_released.pth"]
    assert proof["largest_difference"] == 0
    assert set(proof["loaded"]) <= set(gloam.load_model(run).method.state_dict())
    assert "visible_block.base.layer1.0.conv1.weight" in read_state(out / "model_released.pth")


def test_methods_without_layout_are_told_which_have_one(tmp_path: Path, sysu_root: Path) -> None:
    for name in sorted(WITHOUT_LAYOUT - {"simsiam", "ntxent"}):
        with pytest.raises(GloamError, match=r"no released layout.*agw.*wsl_vireid"):
            write_released(drawn_model(name), tmp_path / "released.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_layout_that_reads_back_wrong_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = drawn_model("agw")
    right = model.method.to_published()
    assert right is not None
    state = right["net"]
    swapped = {
        **state,
        "visible_module.visible.conv1.weight": state["thermal_module.thermal.conv1.weight"],
    }
    monkeypatch.setattr(model.method, "to_published", lambda: {"net": swapped})
    with pytest.raises(GloamError, match="does not read back"):
        write_released(model, tmp_path / "released.pth")
    monkeypatch.setattr(model.method, "to_published", lambda: {"net": {**state, "extra.weight": torch.zeros(1)}})
    with pytest.raises(GloamError, match=r"1 unexpected: extra\.weight"):
        write_released(model, tmp_path / "released.pth")
    assert list(tmp_path.iterdir()) == []
