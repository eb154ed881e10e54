"""WSL-VIReID: where gradients go, what renaming one modality changes (nothing), and the losses of both phases."""

from __future__ import annotations

import math

import pytest
import torch

from gloam.clustering.correspondence import count_priority_selection
from gloam.losses.collaborative_consistency import expert_agreement, prediction_entropy, weak_identity_loss
from gloam.methods import create_method
from gloam.models.consensus_propagation import propagate_consensus
from tests.methods.contract import MemoryContext, people
from tests.oracles import wsl_vireid as oracle


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = {"weak_from_epoch": 0} if options.get("supervision", "weak") == "weak" else {}
        method = create_method("wsl_vireid", 4, **{"arch": "tiny", **start, **options}).train()
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


def test_a_step_of_the_second_phase_equals_the_loops() -> None:
    method, data = _method(), people(video=False)
    with torch.no_grad():  # probabilities that are neither 0 nor 1
        for expert in (method.visible_expert, method.infrared_expert, method.shared_classifier):
            expert.weight.mul_(0.1)
    method.on_epoch_start(MemoryContext(method, data))
    relations = [(0, 2), (1, 3)], [(0, 2), (1, 3), (2, 0)], [(3, 0), (3, 1)]
    for matrix, pairs in zip((method.consistent, method.trusted, method.contradictory), relations, strict=True):
        matrix.zero_()
        matrix[tuple(zip(*pairs, strict=True))] = True
    before = method.prototypes.clone()
    outputs = {name: value.item() for name, value in method.training_step(data).items()}
    with torch.no_grad():
        pooled = method.pool(method.backbone(data.images, data.modalities))
        features = method.bottleneck(pooled)
    pids, modalities = data.pids.tolist(), data.modalities.tolist()
    moved = oracle.updated(before, features, pids, modalities, 0.8)
    torch.testing.assert_close(method.prototypes.double(), moved, atol=1e-5, rtol=1e-4)
    weights = [e.weight.detach() for e in (method.visible_expert, method.infrared_expert, method.shared_classifier)]
    expected = oracle.losses(pooled, features, pids, modalities, weights, moved, relations)
    assert expected["weak"] > 0
    assert {name: outputs[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    factors = {"experts": 1, "triplet": 0.25, "agreement": 1, "strong": 1, "weak": 0.25}
    total = sum(factor * expected[name] for name, factor in factors.items())
    assert outputs["loss"] == pytest.approx(total, rel=1e-4)


def test_without_relations_the_terms_between_the_modalities_vanish() -> None:
    method, data = _method(), people(video=False)
    method.weak_on.fill_(True)
    outputs = method.training_step(data)
    assert outputs["agreement"].item() == outputs["weak"].item() == 0
    method.start_stage("experts")
    assert method.training_step(data)["triplet"].item() == pytest.approx(outputs["triplet"].item(), rel=1e-5)


def _epoch(order: torch.Tensor, rule: str, epoch: int = 0, **options):
    """Losses and relations when infrared identity j is called order[j]."""
    method, data = _method(relation_rule=rule, **options), people(video=False)
    inverse = order.argsort()
    with torch.no_grad():
        for expert in (method.infrared_expert, method.shared_classifier):
            expert.weight.copy_(expert.weight[inverse])
    data.pids = torch.where(data.modalities == 1, order[data.pids], data.pids)
    method.start_stage("collaboration")
    method.on_epoch_start(MemoryContext(method, data, epoch=epoch))
    outputs = {name: value.item() for name, value in method.training_step(data).items()}
    return outputs, [m[:, order] for m in (method.consistent, method.trusted, method.contradictory)]


def test_names_of_the_infrared_identities_change_nothing() -> None:
    plain, relations = _epoch(torch.arange(4), "paper")
    renamed, renamed_relations = _epoch(torch.tensor([1, 3, 0, 2]), "paper")
    assert renamed == pytest.approx(plain, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(relations, renamed_relations, strict=True))


def test_phase_one_trains_each_modality_alone() -> None:
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
        {"smoothing": 0.3, "smoothing_from_epoch": 0, "strong_weight": 0.25},
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


def test_smoothing_is_off_by_default_and_mixes_the_guesses_of_look_alikes(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []

    def spy(guesses, labels, count):
        seen.append(guesses)
        return count_priority_selection(guesses, labels, count)

    monkeypatch.setattr("gloam.methods.wsl_vireid.count_priority_selection", spy)
    data = people(video=False)
    visible = data.modalities == 0
    for options, epoch in (({}, 30), ({"smoothing": 0.3}, 10), ({"smoothing": 0.3}, 15), ({"smoothing": 0.3}, 30)):
        method = _method(**options)
        context = MemoryContext(method, data, epoch=epoch)
        features, guesses = context.extract(method._features_and_guesses).split([method.feature_dim, 4], dim=1)
        method.on_epoch_start(context)
        share = {10: 0.0, 15: 0.15, 30: 0.3}[epoch] if options else 0.0
        for rows, used in zip((visible, ~visible), seen[-2:], strict=True):
            torch.testing.assert_close(used, propagate_consensus(guesses[rows], features[rows], share))
    assert not torch.allclose(seen[0], seen[-2])


def test_smoothing_never_reaches_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_, **__):
        raise AssertionError("smoothed at test time")

    data = people(video=False)
    plain = _method().eval().extract(data.images, data.modalities)
    monkeypatch.setattr("gloam.methods.wsl_vireid.propagate_consensus", never)
    smoothed = _method(smoothing=1.0, smoothing_from_epoch=0).eval().extract(data.images, data.modalities)
    assert torch.equal(plain, smoothed)


def test_smoothed_relations_do_not_depend_on_names() -> None:
    plain, relations = _epoch(torch.arange(4), "paper", smoothing=0.5, smoothing_from_epoch=0, epoch=20)
    renamed, other = _epoch(torch.tensor([1, 3, 0, 2]), "paper", smoothing=0.5, smoothing_from_epoch=0, epoch=20)
    assert renamed == pytest.approx(plain, rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(relations, other, strict=True))


def test_the_strong_loss_has_a_weight() -> None:
    for weight in (0.25, 1.0):
        method, data = _method(strong_weight=weight, weak_from_epoch=99), people(video=False)
        method.on_epoch_start(MemoryContext(method, data))
        parts = {name: value.item() for name, value in method.training_step(data).items()}
        total = parts["experts"] + 0.25 * parts["triplet"] + parts["agreement"] + weight * parts["strong"]
        assert parts["loss"] == pytest.approx(total, rel=1e-5)


def test_numbers_that_a_modality_does_not_use_are_nobodys_partner() -> None:
    method, data = _method(), people(video=False)
    kept = torch.nonzero((data.modalities == 0) | (data.pids < 2)).flatten()
    data = type(data)(**{name: getattr(data, name)[kept] for name in vars(data)})
    with torch.no_grad():  # the infrared expert is sure that everybody is its identity 3, who has no images
        method.infrared_expert.weight[3] = method.eval()._bn_features(data.images, data.modalities).mean(dim=0) * 100
    method.on_epoch_start(MemoryContext(method, data))
    for matrix in (method.consistent, method.trusted, method.contradictory):
        assert not matrix[:, 2:].any()
    assert (method.trusted | method.contradictory).any()


def test_each_modality_alone_never_joins_the_labels() -> None:
    """Baseline in phase 2: infrared labels reach no visible loss, and nothing is matched."""
    method, data = _method(supervision="baseline"), people(video=False)
    context = MemoryContext(method, data)
    method.start_stage("collaboration")
    method.on_epoch_start(context)
    assert not context.logged
    outputs = method.training_step(data)
    assert set(outputs) == {"loss", "experts", "triplet"}
    outputs["loss"].backward()
    assert method.shared_classifier.weight.grad is None
    assert not bool(method.trusted.any())
    grouped = {id(p) for group in method.parameter_groups(1.0) for p in group["params"]}
    assert id(method.shared_classifier.weight) not in grouped


def test_established_relations_are_reported_under_one_name() -> None:
    method, data = _method(), people(video=False)
    context = MemoryContext(method, data)
    method.on_epoch_start(context)
    assert context.logged["match"] == float(method.trusted.sum())
    assert context.logged["match"] == context.logged["consistent"] + context.logged["single"]


def test_the_clip_resnet_trains_in_both_phases() -> None:
    method, data = _method(arch="timm:test_byobnet"), people(video=False)
    for stage in ("experts", "collaboration"):
        method.start_stage(stage)
        method.on_epoch_start(MemoryContext(method, data))
        method.zero_grad()
        method.training_step(data)["loss"].backward()
        stem = method.backbone.network.stem
        for modality in (stem.visible, stem.infrared):
            assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in modality.parameters())


def test_names_of_the_visible_identities_change_nothing() -> None:
    order = torch.tensor([2, 0, 3, 1])
    results = []
    for names in (torch.arange(4), order):
        method, data = _method(smoothing=0.3, smoothing_from_epoch=0), people(video=False)
        with torch.no_grad():
            method.visible_expert.weight.copy_(method.visible_expert.weight[names.argsort()])
        data.pids = torch.where(data.modalities == 0, names[data.pids], data.pids)
        method.on_epoch_start(MemoryContext(method, data, epoch=20))
        losses = {name: value.item() for name, value in method.training_step(data).items()}
        results.append((losses, [m[names] for m in (method.consistent, method.trusted, method.contradictory)]))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
