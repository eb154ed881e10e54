"""Weight loading: reference names, wrappers, one-stream files, other methods, and everything that must be refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.methods.mmgl import export_backbone
from gloam.models.weights import load_weights, read_state, to_reference_names


def _reference_file(method: str, classes: int, path: Path, **wrapper) -> dict[str, torch.Tensor]:
    """What the releases of AGW and Base save: three whole networks, of which most is dead weight."""
    source = create_method(method, classes)
    whole = {
        f"{k}": torch.zeros_like(v) for k, v in resnet50(weights=None).state_dict().items() if not k.startswith("fc.")
    }
    state: dict[str, torch.Tensor] = {}
    for prefix in ("visible_module.visible.", "thermal_module.thermal.", "base_resnet.base."):
        state |= {f"{prefix}{name}": value for name, value in whole.items()}
    state |= to_reference_names(source.net.backbone)
    own = source.state_dict()
    state |= {k.removeprefix("net."): v for k, v in own.items() if k.startswith(("net.bottleneck.", "net.classifier."))}
    torch.save(
        {"net": state, "cmc": np.ones(3), "mAP": np.float64(0.5), "epoch": 3} if wrapper.get("wrap") else state, path
    )
    return {"state": state, "source": own}


@pytest.mark.parametrize(("method", "entries"), [("base", 960), ("agw", 1025)])
@pytest.mark.parametrize("wrap", [False, True])
def test_reference_checkpoints_load_completely(method: str, entries: int, wrap: bool, tmp_path: Path) -> None:
    made = _reference_file(method, 206, tmp_path / "ref.t", wrap=wrap)
    assert len(made["state"]) == entries
    target = create_method(method, 206)
    report = load_weights(target, tmp_path / "ref.t")
    assert not report.missing
    assert not report.mismatched
    for name, value in made["source"].items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_ddag_checkpoints_bring_part_and_graph_attention(tmp_path: Path) -> None:
    made = _reference_file("ddag", 206, tmp_path / "plain.t")
    state, own = made["state"], made["source"]
    state |= {k: v for k, v in own.items() if k.startswith("wpa.")}
    state |= {
        k.replace("graph.heads.", "attention_").removeprefix("graph."): v
        for k, v in own.items()
        if k.startswith("graph.")
    }
    # Dead layers of the release.
    dead = {
        "wpa.W.0.weight": torch.zeros(4),
        "classifier1.weight": torch.zeros(4),
        "classifier2.weight": torch.zeros(4),
    }
    assert {"attention_3.W", "out_att.a", "wpa.fc1.0.weight", "wpa.gate"} <= set(state)
    torch.save({"net": state | dead, "cmc": np.ones(3)}, tmp_path / "ddag.t")
    target = create_method("ddag", 206)
    report = load_weights(target, tmp_path / "ddag.t")
    # Running state of gloam's own that no release has.
    assert report.missing == ["epoch_loss", "epoch_steps", "graph_weight"]
    assert report.unexpected == sorted(dead)
    assert not report.mismatched
    for name, value in made["source"].items():
        assert torch.equal(value, target.state_dict()[name]), name


def test_a_classifier_of_another_size_keeps_its_fresh_weights(tmp_path: Path) -> None:
    _reference_file("base", 206, tmp_path / "ref.t")
    report = load_weights(create_method("base", 395), tmp_path / "ref.t")
    assert report.mismatched == ["net.classifier.weight"]
    assert "1 mismatched" in str(report)


@pytest.mark.parametrize("streams", [1, 2])
@pytest.mark.parametrize("method", ["base", "agw", "ddag"])
def test_mmgl_files_fill_both_stems(streams: int, method: str, tmp_path: Path) -> None:
    pretrained = create_method("mmgl", 1, streams=streams)
    state = export_backbone(pretrained)
    assert len(state) == 324
    state |= {"fc1.weight": torch.zeros(36, 2048), "local_conv_list.0.0.weight": torch.zeros(1)}
    torch.save(state, tmp_path / "mmgl.t")
    target = create_method(method, 5)
    load_weights(target, tmp_path / "mmgl.t")
    images = torch.randn(2, 3, 96, 48)
    for modality in (0, 1):
        modalities = torch.full((2,), modality)
        with torch.no_grad():
            left = pretrained.eval().backbone(images, modalities)
            right = target.eval().net.backbone(images, modalities)
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("change", ["drop", "reshape"])
def test_a_file_that_lacks_one_tensor_of_the_backbone_is_refused(change: str, tmp_path: Path) -> None:
    state = export_backbone(create_method("mmgl", 1, arch="tiny"))
    name = "base_resnet.base.layer4.0.bn2.running_var"
    state[name] = state[name][:-1]
    if change == "drop":
        del state[name]
    torch.save(state, tmp_path / "cut.t")
    target = create_method("base", 5, arch="tiny")
    before = {key: value.clone() for key, value in target.state_dict().items()}
    count = "lacks 1 .* 0 in another" if change == "drop" else "lacks 0 .* 1 in another"
    with pytest.raises(GloamError, match=rf"{count}.*trunk\.layer4\.0\.bn2\.running_var"):
        load_weights(target, tmp_path / "cut.t")
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_a_plain_imagenet_file_fills_both_stems(tmp_path: Path) -> None:
    network = resnet50(weights=None)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "resnet.pth")
    target = create_method("agw", 5)
    load_weights(target, tmp_path / "resnet.pth")
    backbone = target.net.backbone
    for stem in (backbone.stem_visible, backbone.stem_infrared):
        assert torch.equal(stem.conv1.weight, network.conv1.weight)
    assert torch.equal(backbone.trunk.layer4[2].conv3.weight, network.layer4[2].conv3.weight)


def _published(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """State as torchvision publishes it: its files are older than batch-norm's step counter."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def test_imagenet_weights_come_from_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights, resnet18

    network = resnet18(weights=None)
    name = Path(ResNet18_Weights.IMAGENET1K_V1.url).name
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub._get_torch_home", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(_published(network), tmp_path / "checkpoints" / name)
    target = create_method("base", 3, arch="resnet18")
    report = load_weights(target, "imagenet")
    # 100 tensors without the classifier, of which conv1 and bn1 fill two stems.
    assert len(report.matched) == 105
    assert all(not name.startswith("net.backbone.") for name in report.missing)
    assert torch.equal(target.net.backbone.stem_infrared.conv1.weight, network.conv1.weight)


def test_offline_imagenet_says_where_to_put_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(GloamError, match="weights: none"):
        load_weights(create_method("base", 3, arch="resnet18"), "imagenet")
    with pytest.raises(GloamError, match="tiny"):
        load_weights(create_method("base", 3, arch="tiny"), "imagenet")


def test_files_without_the_backbone_are_refused(tmp_path: Path) -> None:
    torch.save({"some": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(GloamError, match="nothing was loaded"):
        load_weights(create_method("base", 3, arch="tiny"), tmp_path / "other.pth")
    with pytest.raises(GloamError, match="no weight file"):
        load_weights(create_method("base", 3, arch="tiny"), tmp_path / "missing.pth")
    (tmp_path / "cut.pth").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(GloamError, match="could not be read"):
        read_state(tmp_path / "cut.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(GloamError, match="no tensors"):
        read_state(tmp_path / "empty.pth")


def test_code_in_a_file_is_not_executed(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"net": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(GloamError, match="could not be read"):
        read_state(tmp_path / "trap.pth")


def test_safetensors_and_other_methods_of_ours(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    source = create_method("mmgl", 1, arch="tiny")
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, tmp_path / "m.safetensors")
    target = create_method("ddag", 4, arch="tiny", hidden=8)
    report = load_weights(target, tmp_path / "m.safetensors")
    # Names that were translated are not left over, and the pretext tasks' heads are known.
    assert report.unexpected == []
    assert not any(name.startswith("wpa") for name in report.matched)
    assert torch.equal(target.net.backbone.trunk.layer1[0].conv1.weight, source.backbone.trunk.layer1[0].conv1.weight)
    assert not torch.equal(target.wpa.fc2.weight, torch.zeros_like(target.wpa.fc2.weight))
