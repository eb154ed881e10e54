"""DDAG: its switches, its losses, its dynamic weight, its groups, its weight files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from torchvision.models import resnet50

from gloam.errors import GloamError
from gloam.inference.checkpoint import choose_feature
from gloam.losses.triplet import hard_triplet
from gloam.methods import create_method
from gloam.models.weights import load_weights
from tests.methods.contract import MemoryContext, people
from tests.oracles import attention as oracle
from tests.oracles import triplet


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        small = {"hidden": 8, "dropout": 0.0} if options.get("graph", True) else {}
        return create_method("ddag", 4, **{"arch": "tiny", **small, **options}).train()


def test_the_graph_weight_follows_the_mean_loss_of_the_epoch_before() -> None:
    method, data = _method(), people(video=False)
    method.on_epoch_start(MemoryContext(method, data, epoch=0))
    assert method.graph_weight.item() == 0
    losses = []
    for _ in range(3):
        outputs = method.training_step(data)
        own = outputs["identity"] + outputs["triplet"] + outputs["part"]
        torch.testing.assert_close(outputs["loss"], own)
        losses.append(own.item())
    context = MemoryContext(method, data, epoch=1)
    method.on_epoch_start(context)
    expected = 1 / (1 + sum(losses) / 3)
    assert method.graph_weight.item() == pytest.approx(expected, rel=1e-6)
    assert context.logged["graph_weight"] == pytest.approx(expected, rel=1e-6)
    outputs = method.training_step(data)
    own = outputs["identity"] + outputs["triplet"] + outputs["part"]
    torch.testing.assert_close(outputs["loss"], own + expected * outputs["graph"], rtol=1e-5, atol=1e-5)


def test_the_graph_weight_over_a_published_loss_history() -> None:
    """Losses at epochs 0, 2, 6, 10, 20 and 80 of the ImageNet run in the log of the MMGL authors, in steps around."""
    method, weights = _method(), []
    for epoch, mean in enumerate((5.92, 1.36, 0.42, 0.53, 0.103, 0.046, 0.046)):
        method.on_epoch_start(MemoryContext(method, people(video=False), epoch=epoch))
        weights.append(method.graph_weight.item())
        for change in (-0.02, 0.0, 0.02):
            method.epoch_loss += mean + change
            method.epoch_steps += 1
    assert weights == pytest.approx([0, 0.1445, 0.4237, 0.7042, 0.6536, 0.9066, 0.9560], abs=1e-4)


def test_a_run_that_starts_from_another_begins_without_the_graph() -> None:
    method, data = _method(), people(video=False)
    for epoch in (0, 1):
        method.on_epoch_start(MemoryContext(method, data, epoch=epoch))
        method.training_step(data)
    other = _method()
    other.load_state_dict(method.state_dict())
    other.on_epoch_start(MemoryContext(other, data, epoch=0))
    assert other.graph_weight == 0
    # A resumed one goes on where it was.
    other.load_state_dict(method.state_dict())
    other.on_epoch_start(MemoryContext(other, data, epoch=2))
    assert other.graph_weight.item() == pytest.approx(1 / (1 + method.epoch_loss.item()))


def test_losses_and_gradients_equal_the_published_formulas() -> None:
    method, data = _method(dropout=0.0).double(), people(video=False)
    data.images = data.images.double()
    method.graph_weight.fill_(0.7)
    parts = method.training_step(data)
    out = method.net(data.images, data.modalities)
    attended = oracle.weighted_part_attention(method.wpa, out.maps, out.bn) @ method.net.classifier.weight.T
    expected = {
        "identity": cross_entropy(out.logits, data.pids),
        "triplet": torch.tensor(triplet.hard(out.pooled.tolist(), data.pids.tolist(), 0.3), dtype=torch.float64),
        "part": cross_entropy(attended, data.pids),
        "graph": -oracle.graph_branch(method.graph, out.pooled, data.pids)[range(len(data)), data.pids].mean(),
    }
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value, atol=1e-9, rtol=1e-9)
    # The triplet's own gradient is tested by finite differences.
    expected["triplet"] = hard_triplet(out.pooled, data.pids, 0.3)
    total = expected["identity"] + expected["triplet"] + expected["part"] + 0.7 * expected["graph"]
    torch.testing.assert_close(parts["loss"], total, atol=1e-9, rtol=1e-9)
    trained = [p for p in method.parameters() if p.requires_grad]
    for own, other in zip(*(torch.autograd.grad(loss, trained) for loss in (parts["loss"], total)), strict=True):
        torch.testing.assert_close(own, other, atol=1e-9, rtol=1e-7)


def test_without_part_attention_only_the_main_feature_is_left() -> None:
    method, data = _method(wpa=False), people(video=False)
    assert "part" not in method.training_step(data)
    assert not any("wpa" in name for name in method.state_dict())
    assert method.test_feature == "fc"
    with pytest.raises(GloamError, match="no feature 'fc_att'"):
        choose_feature(method, "fc_att")


def test_without_graph_nothing_of_it_is_built() -> None:
    method, data = _method(graph=False), people(video=False)
    assert "graph" not in method.training_step(data)
    assert not any(name.startswith("graph.") for name in method.state_dict())
    context = MemoryContext(method, data, epoch=1)
    method.on_epoch_start(context)
    assert method.graph_weight == 0
    assert "graph_weight" not in context.logged


def test_features_differ_and_the_classifier_is_shared() -> None:
    method, data = _method(), people(video=False)
    method.eval()
    with torch.no_grad():
        first = method.extract(data.images, data.modalities)
        method.test_feature = "fc"
        assert not torch.allclose(first, method.extract(data.images, data.modalities))


def test_published_parameter_groups() -> None:
    groups = create_method("ddag", 395).parameter_groups(0.1)
    sizes = [sum(p.numel() for p in group["params"]) for group in groups]
    # One trunk and two stems instead of the release's three networks; IWPA without its dead branch.
    assert sizes == [23_517_568, 4_096, 808_960, 12_593_155, *[1_049_600] * 4, 809_750]
    assert [group["lr"] for group in groups] == pytest.approx([0.01] + [0.1] * 8)
    assert sum(p.numel() for group in groups for p in group["params"] if p.requires_grad) == 41_927_833


def _released_file(path: Path, classes: int = 206) -> dict[str, torch.Tensor]:
    """Names and shapes of the release (``model.py``, ``attention.py``): three whole networks, dead layers included."""
    generator = torch.Generator().manual_seed(0)
    sizes: dict[str, tuple[int, ...]] = {}
    for prefix in ("visible_module.visible.", "thermal_module.thermal.", "base_resnet.base."):
        sizes |= {prefix + k: tuple(v.shape) for k, v in resnet50().state_dict().items() if not k.startswith("fc.")}
    norm: dict[str, tuple[int, ...]] = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (2048,))
    norm["num_batches_tracked"] = ()
    for prefix in ("bottleneck.", "wpa.bottleneck.", "wpa.W.1."):
        sizes |= {prefix + k: v for k, v in norm.items()}
    for layer in ("fc1.0", "fc2", "fc3", "W.0"):
        sizes |= {f"wpa.{layer}.weight": (2048, 2048, 1, 1), f"wpa.{layer}.bias": (2048,)}
    sizes |= {f"{name}.weight": (classes, 2048) for name in ("classifier", "classifier1", "classifier2")}
    for head, width in (*((f"attention_{i}", 512) for i in range(4)), ("out_att", classes)):
        sizes |= {f"{head}.W": (2048, width), f"{head}.a": (2 * width, 1)}
    sizes["wpa.gate"] = (3,)
    state = {k: torch.rand(v, generator=generator) if v else torch.tensor(7) for k, v in sizes.items()}
    torch.save({"net": state, "epoch": 38}, path)
    return state


def test_released_checkpoints_load_completely(tmp_path: Path) -> None:
    state = _released_file(tmp_path / "sysu_G_P_3_best.t")
    assert len(state) == 991
    method = create_method("ddag", 206)
    report = load_weights(method, tmp_path / "sysu_G_P_3_best.t")
    # Running state of gloam's own that no release has; the dead layers are left over.
    assert report.missing == ["epoch_loss", "epoch_steps", "graph_weight"]
    assert not report.mismatched
    assert {name.rsplit(".", 1)[0] for name in report.unexpected} == {
        "wpa.W.0",
        "wpa.W.1",
        "classifier1",
        "classifier2",
    }
    own = method.state_dict()
    for ours, theirs in (
        ("net.backbone.stem_visible.conv1.weight", "visible_module.visible.conv1.weight"),
        ("net.backbone.stem_infrared.bn1.running_var", "thermal_module.thermal.bn1.running_var"),
        ("net.backbone.trunk.layer4.2.conv3.weight", "base_resnet.base.layer4.2.conv3.weight"),
        ("net.bottleneck.running_mean", "bottleneck.running_mean"),
        ("net.classifier.weight", "classifier.weight"),
        ("wpa.fc1.0.weight", "wpa.fc1.0.weight"),
        ("wpa.gate", "wpa.gate"),
        ("wpa.bottleneck.weight", "wpa.bottleneck.weight"),
        ("graph.heads.2.W", "attention_2.W"),
        ("graph.out_att.a", "out_att.a"),
    ):
        assert torch.equal(own[ours], state[theirs]), ours
