"""WSL-VIReID: where gradients go, what renaming one spectrum changes (nothing), and the losses of both phases."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.losses.collaborative_consistency import expert_agreement, prediction_entropy, weak_identity_loss
from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        method = create_method("wsl_vireid", 4, **{"arch": "tiny", "weak_from_epoch": 0, **options}).train()
        for expert in (method.visible_expert, method.infrared_expert, method.shared_classifier):
            torch.nn.init.normal_(expert.weight)
        return method


def test_entropy_and_weak_loss() -> None:
    assert prediction_entropy(torch.zeros(3, 4)).item() == pytest.approx(0.5)
    assert prediction_entropy(torch.tensor([[1000.0, 0, 0, 0]])).item() == 0
    logits = torch.tensor([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    doubtful = torch.tensor([[False, False, True, True], [False] * 4])
    p = logits[0].softmax(0)
    expected = -math.log(1 - p[0] + 1e-10) - math.log(1 - p[1] + 1e-10)
    assert weak_identity_loss(logits, doubtful).item() == pytest.approx(expected, rel=1e-5)
    assert weak_identity_loss(logits, torch.zeros(2, 4, dtype=torch.bool)).item() == 0
    assert expert_agreement(torch.zeros(0, 4), torch.zeros(0, 4)).item() == 0


def _gradients(part: str) -> set[str]:
    method, data = _method(), people(video=False)
    method.start_stage("collaboration")
    method.on_epoch_start(MemoryContext(method, data))
    identity = torch.eye(4, dtype=torch.bool)
    method.consistent.copy_(identity)
    method.trusted.copy_(identity)
    method.contradictory.copy_(identity.roll(1, 0))
    method.training_step(data)[part].backward()
    return {
        name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0
    }


def test_gradients_reach_only_what_the_paper_says() -> None:
    backbone = {"backbone", "pool"}
    assert _gradients("experts") == {"visible_expert", "infrared_expert"}
    assert _gradients("agreement") == {"visible_expert", "infrared_expert"}
    assert _gradients("triplet") == backbone
    assert _gradients("strong") == backbone | {"bottleneck", "shared_classifier"}
    assert _gradients("weak") == backbone | {"bottleneck", "shared_classifier"}


def _epoch(order: torch.Tensor, rule: str):
    """Losses and relations when infrared identity j is called order[j]."""
    method, data = _method(relation_rule=rule), people(video=False)
    inverse = order.argsort()
    with torch.no_grad():
        for expert in (method.infrared_expert, method.shared_classifier):
            expert.weight.copy_(expert.weight[inverse])
    data.pids = torch.where(data.modalities == 1, order[data.pids], data.pids)
    method.start_stage("collaboration")
    method.on_epoch_start(MemoryContext(method, data))
    outputs = {name: value.item() for name, value in method.training_step(data).items()}
    return outputs, [m[:, order] for m in (method.consistent, method.trusted, method.contradictory)]


def test_names_of_the_infrared_identities_change_nothing() -> None:
    plain, relations = _epoch(torch.arange(4), "paper")
    renamed, renamed_relations = _epoch(torch.tensor([1, 3, 0, 2]), "paper")
    assert renamed == pytest.approx(plain, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(relations, renamed_relations, strict=True))


def test_phase_one_trains_each_spectrum_alone() -> None:
    method, data = _method(), people(video=False)
    method.start_stage("experts")
    outputs = method.training_step(data)
    assert set(outputs) == {"loss", "experts", "triplet"}
    assert outputs["loss"].item() == pytest.approx((outputs["experts"] + 0.25 * outputs["triplet"]).item(), rel=1e-5)
    grouped = {id(p) for group in method.parameter_groups(1.0) for p in group["params"]}
    assert not any(id(p) in grouped for p in method.shared_classifier.parameters())


def test_classifiers_learn_at_twice_the_rate() -> None:
    groups = _method().parameter_groups(3e-4)
    assert [group["lr"] for group in groups] == pytest.approx([3e-4, 6e-4])


@pytest.mark.parametrize(
    "options",
    [
        {"supervision": "supervised"},
        {"supervision": "baseline"},
        {"matcher": "sinkhorn"},
        {"extract_stem": "released"},
        {"relation_rule": "released"},
        {"triplet": "exact"},
    ],
)
def test_options_train(options: dict) -> None:
    method, data = _method(**options), people(video=False)
    method.start_stage("collaboration")
    method.on_epoch_start(MemoryContext(method, data))
    loss = method.training_step(data)["loss"]
    loss.backward()
    assert torch.isfinite(loss)


def test_prototypes_move_by_sigma() -> None:
    method, data = _method(sigma=0.25), people(video=False)
    method.on_epoch_start(MemoryContext(method, data))
    before = method.prototypes.clone()
    features = torch.ones(4, method.feature_dim)
    method._update_prototypes(features, torch.tensor([0, 0, 1, 2]), torch.tensor([0, 0, 1, 1]))
    torch.testing.assert_close(method.prototypes[0, 0], 0.75 * before[0, 0] + 0.25)
    assert torch.equal(method.prototypes[0, 1:], before[0, 1:])
