"""DDAG: its switches, its dynamic weight, its groups."""

from __future__ import annotations

import pytest
import torch

from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("ddag", 4, **{"arch": "tiny", "hidden": 8, "dropout": 0.0, **options}).train()


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


def test_without_part_attention_only_the_main_feature_is_left() -> None:
    method, data = _method(wpa=False), people(video=False)
    assert "part" not in method.training_step(data)
    assert not any("wpa" in name for name in method.state_dict())
    assert method.test_feature == "fc"


def test_without_graph_nothing_of_it_is_built() -> None:
    method, data = _method(graph=False), people(video=False)
    assert "graph" not in method.training_step(data)
    assert not any(name.startswith("graph.") for name in method.state_dict())


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
