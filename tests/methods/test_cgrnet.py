"""CGRNet: sizes, losses, the released switch, gates, weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet50

from gloam.errors import GloamError
from gloam.methods import create_method
from gloam.models.two_stream import TwoStreamBackbone
from gloam.models.weights import load_weights
from tests.methods.contract import people
from tests.oracles import attention as oracle
from tests.oracles import triplet

RELEASED = {"similarity": False, "graph": False, "similarity_loss_weight": 0}


def _method(classes: int = 4, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("cgrnet", classes, **{"arch": "tiny", **options}).train()


def _open_gates(method) -> None:
    method.similarity.gamma.data = torch.tensor([0.3, -0.2], dtype=method.similarity.gamma.dtype)
    for graph in method._graphs():
        for number, gate in enumerate(graph.gates.values(), start=1):
            gate.data.fill_(0.1 * number)


@pytest.mark.parametrize(
    ("classes", "options", "expected"),
    [(395, RELEASED, 24_546_432), (206, RELEASED, 24_159_360), (395, {}, 25_400_069), (206, {}, 25_012_997)],
)
def test_published_sizes(classes: int, options: dict, expected: int) -> None:
    method = create_method("cgrnet", classes, **options)
    assert sum(p.numel() for p in method.parameters()) == expected
    trained = [p.numel() for group in method.parameter_groups(0.1) for p in group["params"] if p.requires_grad]
    assert sum(trained) == expected - 2048


def test_the_losses_are_the_published_sum() -> None:
    method, data = _method().double(), people(video=False)
    _open_gates(method)
    data.images = data.images.double()
    parts = method.training_step(data)
    out, attention = method._embed(data.images, data.modalities)
    half = len(data) // 2
    gap = (attention[:half] - attention[half:]).abs().mean()
    expected = (
        cross_entropy(out.logits, data.pids) + 2 * triplet.hard(out.pooled.tolist(), data.pids.tolist(), 0.3) + 10 * gap
    )
    torch.testing.assert_close(parts["loss"], expected, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(parts["similarity"], gap)


def test_the_forward_pass_equals_the_released_lines() -> None:
    method, data = _method().double().eval(), people(video=False)
    _open_gates(method)
    images = data.images.double()
    backbone = method.net.backbone
    half = len(data) // 2
    streams = [
        oracle.channel_attention(maps, maps, gate)[0]
        for maps, gate in zip(
            (backbone.stem_visible(images[:half]), backbone.stem_infrared(images[half:])),
            method.similarity.gamma,
            strict=True,
        )
    ]
    x = backbone.trunk.layer2(torch.cat(streams))
    graph = backbone.trunk.NL_2[0]
    parts = {
        name: {
            layer: getattr(getattr(graph, name), layer) for layer in ("query_conv", "key_conv", "value_conv", "gamma")
        }
        for name in ("local2local", "global2local", "local2global")
    }
    for layer in ("query_conv", "key_conv"):
        parts["global2local"][layer] = parts["local2local"][layer]  # any: its result does not depend on them
    x = backbone.trunk.layer4(backbone.trunk.layer3(oracle.graph_reasoning(x, parts)))
    expected = method.net.bottleneck(x.mean(dim=(2, 3)))
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(method.extract(images, data.modalities).double(), expected, atol=1e-6, rtol=1e-6)


def test_closed_residual_gates_equal_the_released_training() -> None:
    data = people(video=False)
    full = _method(graph_fusion="residual", similarity_loss_weight=0)
    bare = _method(**RELEASED)
    missing = bare.load_state_dict(full.state_dict(), strict=False)
    assert not missing.missing_keys
    assert torch.equal(full.training_step(data)["loss"], bare.training_step(data)["loss"])
    assert torch.equal(
        full.eval().extract(data.images, data.modalities), bare.eval().extract(data.images, data.modalities)
    )


def test_disabled_modules_do_not_exist() -> None:
    names = _method(**RELEASED).state_dict()
    assert not any("gamma" in name or "NL_" in name or "similarity" in name for name in names)


def test_one_step_moves_the_gates_and_they_are_logged() -> None:
    method, data = _method(), people(video=False)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    parts = method.training_step(data)
    gates = [name for name in parts if name.startswith("gate_")]
    assert len(gates) == 5
    assert all(parts[name] == 0 for name in gates)
    parts["loss"].backward()
    optimizer.step()
    assert all(method.training_step(data)[name] != 0 for name in gates)


def test_an_image_is_described_alone_and_by_its_own_stream() -> None:
    method, data = _method().eval(), people(video=False)
    _open_gates(method)
    whole = method.extract(data.images, data.modalities)
    torch.testing.assert_close(
        method.extract(data.images[3:4], data.modalities[3:4])[0], whole[3], atol=1e-5, rtol=1e-4
    )
    assert not torch.allclose(method.extract(data.images, 1 - data.modalities), whole, atol=1e-3)


def test_unpaired_batches_are_refused() -> None:
    method, data = _method(), people(video=False)
    data.pids = data.pids.clone()
    data.pids[: len(data) // 2] = data.pids[: len(data) // 2].flip(0)
    with pytest.raises(GloamError, match="cross_modality_identity"):
        method.training_step(data)
    _method(similarity_loss_weight=0).training_step(data)


def test_networks_without_stages_are_refused() -> None:
    for options in ({}, {"independent_stages": 0}, {**RELEASED, "independent_stages": 0}):
        with pytest.raises(GloamError, match=r"Choose a ResNet|Set the number of blocks"):
            create_method("cgrnet", 4, arch="timm:test_convnext", **options)


def test_a_graph_needs_a_shared_stage() -> None:
    with pytest.raises(GloamError, match="no shared stage 2"):
        _method(independent_stages=2)
    method, data = _method(independent_stages=2, graph=False), people(video=False)
    method.training_step(data)["loss"].backward()
    idle = [n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not idle


def _released_file(path: Path) -> dict[str, torch.Tensor]:
    """Names of the release: six whole networks, one gate per similarity module, all layers of all relations."""
    generator = torch.Generator().manual_seed(0)
    whole = {k: v for k, v in resnet50(weights=None).state_dict().items() if not k.startswith("fc.")}
    state: dict[str, torch.Tensor] = {}
    for prefix in (
        "visible_module.visible.", "thermal_module.thermal.", "visible_block.base.", "thermal_block.base.",
        "common_block.base.", "base_resnet.base.",
    ):  # fmt: skip
        for name, value in whole.items():
            new = torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
            state[prefix + name] = new
    for name in ("local2local", "local2global", "global2local"):
        for layer, width in (("query_conv", 32), ("key_conv", 32), ("value_conv", 512)):
            state[f"{name}.{layer}.weight"] = torch.rand(width, 512, 1, 1, generator=generator)
            state[f"{name}.{layer}.bias"] = torch.rand(width, generator=generator)
        state[f"{name}.gamma"] = torch.rand(1, generator=generator)
    state |= {"cam1.gamma": torch.tensor([0.25]), "cam2.gamma": torch.tensor([0.5])}
    own = create_method("cgrnet", 206, **RELEASED).state_dict()
    state |= {k.removeprefix("net."): v for k, v in own.items() if k.startswith(("net.bottleneck.", "net.classifier."))}
    torch.save({"net": state, "epoch": 1}, path)
    return state


def test_released_checkpoints_load_completely(tmp_path: Path) -> None:
    state = _released_file(tmp_path / "sysu_agw_best.t")
    assert len(state) == 1937
    method = create_method("cgrnet", 206)
    report = load_weights(method, tmp_path / "sysu_agw_best.t")
    assert not report.missing
    assert not report.mismatched
    assert not report.unexpected
    # The layers that can never learn, and those of the six networks that are never run.
    inert = {f"global2local.{part}_conv.{kind}" for part in ("query", "key") for kind in ("weight", "bias")}
    assert inert <= set(report.unneeded)
    own = method.state_dict()
    for ours, theirs in (
        ("net.backbone.stem_visible.conv1.weight", "visible_module.visible.conv1.weight"),
        ("net.backbone.stem_visible.layer1.2.conv3.weight", "visible_block.base.layer1.2.conv3.weight"),
        ("net.backbone.stem_infrared.layer1.0.conv1.weight", "thermal_block.base.layer1.0.conv1.weight"),
        ("net.backbone.trunk.layer2.0.conv1.weight", "common_block.base.layer2.0.conv1.weight"),
        ("net.backbone.trunk.layer4.0.conv1.weight", "base_resnet.base.layer4.0.conv1.weight"),
        ("net.backbone.trunk.NL_2.0.local2global.query_conv.weight", "local2global.query_conv.weight"),
    ):
        assert torch.equal(own[ours], state[theirs]), ours
    assert own["similarity.gamma"].tolist() == [0.25, 0.5]
    # Without the modules their tensors are named as left over.
    report = load_weights(create_method("cgrnet", 206, **RELEASED), tmp_path / "sysu_agw_best.t")
    assert not report.missing
    assert {"cam1.gamma", "cam2.gamma"} <= set(report.unexpected)


def test_other_files_fill_both_first_stages(tmp_path: Path) -> None:
    source = create_method("base", 4, arch="tiny")
    torch.save(source.state_dict(), tmp_path / "base.pth")
    target = _method()
    load_weights(target, tmp_path / "base.pth")
    backbone = target.net.backbone
    assert isinstance(backbone, TwoStreamBackbone)
    for stem in (backbone.stem_visible, backbone.stem_infrared):
        assert torch.equal(stem.layer1[0].conv1.weight, source.net.backbone.trunk.layer1[0].conv1.weight)
    network = resnet50(weights=None)
    torch.save(network.state_dict(), tmp_path / "imagenet.pth")
    whole = create_method("cgrnet", 4)
    load_weights(whole, tmp_path / "imagenet.pth")
    assert torch.equal(whole.net.backbone.stem_infrared.layer1[1].conv2.weight, network.layer1[1].conv2.weight)
    assert torch.equal(whole.net.backbone.trunk.layer2[1].conv2.weight, network.layer2[1].conv2.weight)
