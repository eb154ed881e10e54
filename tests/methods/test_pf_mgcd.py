"""PF-MGCD: a working disentanglement, an order-free memory, soft labels, and no leak between the modalities."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn.functional import normalize

from gloam.losses.part_distillation import (
    graph_distillation_loss,
    known_pairs_triplet,
    orthogonality_loss,
    part_identity_loss,
)
from gloam.methods import create_method
from gloam.methods.pf_mgcd import PFMGCDOptions
from gloam.models.isg_dm import ISGDM, MultiPartISGDM, split_stripes
from gloam.models.modality_discriminator import PartDiscriminators, reverse_gradient
from gloam.models.part_memory import PartMemory, propagate
from tests.methods.contract import MemoryContext, people
from tests.oracles import pf_mgcd as oracle

OPTIONS = {"arch": "tiny", "num_parts": 3, "feature_dim": 16, "warmup_epochs": 1}


def _method(**options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return create_method("pf_mgcd", 4, **{**OPTIONS, **options}).train()


def test_the_released_disentanglement_is_constant_and_the_default_is_not() -> None:
    maps = torch.rand(6, 32, 3, 3, dtype=torch.float64)
    spread = {}
    for variant in ("readme-v0", "restitution"):
        module = ISGDM(32, 8, variant=variant).double().eval()
        identity, _ = module(maps)
        spread[variant] = (identity - identity[:1]).abs().max().item()
    assert spread["readme-v0"] < 1e-12
    assert spread["restitution"] > 1e-3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = ISGDM(32, 8, reduction=2).double()
        (module(maps)[0] * torch.randn(6, 8, dtype=torch.float64)).sum().backward()
    assert module.gate[0].weight.grad.abs().max() > 0
    assert module.exponent.grad.abs() > 0


def test_average_pooling_equals_the_gated_mean_and_positions_do_not_matter() -> None:
    maps = torch.rand(4, 32, 3, 3, dtype=torch.float64)
    module = ISGDM(32, 8, id_pool="avg").double().eval()
    mean = maps.mean((2, 3))
    torch.testing.assert_close(module(maps)[0], module.project(module.gate(mean) * mean))
    shuffled = maps.flatten(2)[:, :, torch.randperm(9)].unflatten(2, (3, 3))
    for variant in ("restitution", "attention-v2", "residual-v3"):
        module = ISGDM(32, 8, variant=variant).double().eval()
        for own, other in zip(module(maps), module(shuffled), strict=True):
            torch.testing.assert_close(own, other)


def test_half_precision_maps_leave_no_offset_in_flat_channels() -> None:
    """A mean rounded to bfloat16 is wrong by up to 0.8 %, here most of a standard deviation."""
    module = ISGDM(64, 16).eval()
    maps = (3 + 0.02 * torch.randn(16, 64, 3, 9, generator=torch.Generator().manual_seed(0))).bfloat16()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = module(maps)[0].float()
    exact = module(maps.float())[0].detach()
    assert (rounded - exact).norm() / exact.norm() < 0.01


def test_stripes_cover_the_map() -> None:
    maps = torch.rand(2, 3, 18, 9)
    assert torch.equal(torch.cat(split_stripes(maps, 6), dim=2), maps)
    assert [s.shape[2] for s in split_stripes(torch.rand(1, 3, 20, 9), 6)] == [3] * 6


def test_memory_update_ignores_row_order_and_leaves_others_alone() -> None:
    features = torch.randn(6, 3, 16)
    labels = torch.tensor([0, 0, 2, 2, 2, -1])
    results = []
    for order in (torch.arange(6), torch.tensor([5, 3, 0, 4, 1, 2])):
        memory = PartMemory(3, 4, 16)
        untouched = memory.memory[:, [1, 3]].clone()
        memory.update(features[order], labels[order])
        first = memory.memory.clone()
        torch.testing.assert_close(first[:, 0], normalize(normalize(features[:2], dim=2).mean(0), dim=1))
        memory.update(features[order], labels[order])
        assert torch.equal(memory.memory[:, [1, 3]], untouched)
        assert memory.initialised.tolist() == [True, False, True, False]
        torch.testing.assert_close(memory.memory.norm(dim=2), torch.ones(3, 4))
        results.append(memory.memory)
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("top_k", [1, 2, 50])
def test_soft_labels_live_on_initialised_slots(top_k: int) -> None:
    similarities = (torch.rand(5, 3, 6) * 2 - 1).half()
    initialised = torch.tensor([True, False, True, True, False, False])
    soft, confidence = propagate(similarities, initialised, top_k=top_k)
    torch.testing.assert_close(soft.sum(2), torch.ones(5, 3))
    assert (soft[:, :, ~initialised] == 0).all()
    assert ((soft > 0).sum(2) <= min(top_k, 3)).all()
    assert torch.isfinite(confidence).all()
    if top_k == 1:
        torch.testing.assert_close(confidence, torch.ones(5, 3))


def test_distillation_is_zero_for_the_target_itself_and_has_the_stated_gradient() -> None:
    soft, _ = propagate(torch.rand(4, 2, 5), torch.ones(5, dtype=torch.bool), top_k=5)
    weights = torch.rand(4, 2, dtype=torch.float64)
    assert graph_distillation_loss(soft.double().log(), soft, weights).item() == pytest.approx(0, abs=1e-6)
    logits = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    graph_distillation_loss(logits, soft, weights).backward()
    expected = weights[..., None] * (logits.softmax(2) - soft.double()) / 8
    torch.testing.assert_close(logits.grad, expected.detach())


def test_a_weak_step_equals_the_loops() -> None:
    method, data = _method(top_k=2), people(video=False)
    method.on_epoch_start(MemoryContext(method, data, epoch=1))
    method.matches.copy_(torch.tensor([1, -1, 3, 0]))
    memory = method.memory.memory.clone()
    outputs = method.training_step(data)
    with torch.no_grad():
        again = method.student(data.images)
    pids, modalities = data.pids.tolist(), data.modalities.tolist()
    shared = [y if m == 0 else [1, -1, 3, 0][y] for y, m in zip(pids, modalities, strict=True)]
    expected = oracle.losses(
        again, memory, pids, modalities, shared, top_k=2, temperature=3.0, scale=30.0, smoothing=0.1
    )
    assert {name: outputs[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)
    weights = {"identity": 1, "infrared_identity": 1, "graph": 1, "orthogonality": 0.1, "modality": 0.5}
    total = sum(weight * expected[name] for name, weight in weights.items())
    assert outputs["loss"].item() == pytest.approx(total, rel=1e-4)
    method.after_step()
    moved = oracle.updated(memory, again.identity, shared, 0.9)
    torch.testing.assert_close(method.memory.memory.double(), moved, atol=1e-6, rtol=1e-5)


def test_small_losses() -> None:
    same = torch.randn(3, 2, 4)
    assert orthogonality_loss(same, 2 * same).item() == pytest.approx(1)
    assert part_identity_loss(torch.zeros(3, 2, 7), torch.tensor([0, 1, 6])).item() == pytest.approx(math.log(7))
    assert part_identity_loss(torch.zeros(0, 2, 7), torch.zeros(0, dtype=torch.long)).item() == 0


def _epochs(order: torch.Tensor):
    """Losses of a warm-up and a matched epoch when infrared identity j is called order[j]."""
    method, data = _method(), people(video=False)
    infrared = data.modalities == 1
    with torch.no_grad():
        for head in method.student.infrared_heads:
            head.weight.copy_(head.weight[order.argsort()])
            head.bias.copy_(head.bias[order.argsort()])
    data.pids = torch.where(infrared, order[data.pids], data.pids)
    losses = []
    for epoch in (0, 1):
        method.on_epoch_start(MemoryContext(method, data, epoch=epoch))
        outputs = method.training_step(data)
        losses.append(outputs["loss"].item())
        method.after_step()
    return losses, method.matches[order]


def test_names_of_the_infrared_identities_change_nothing() -> None:
    plain, matches = _epochs(torch.arange(4))
    renamed, renamed_matches = _epochs(torch.tensor([2, 3, 1, 0]))
    assert renamed == pytest.approx(plain, rel=1e-5)
    assert torch.equal(matches, renamed_matches)


def test_prototypes_come_from_visible_and_votes_from_infrared_images() -> None:
    method, data = _method(), people(video=False)
    context = MemoryContext(method, data, epoch=1)
    seen = []

    def spy(function, rows):
        seen.append(data.modalities[rows].unique().tolist())
        return MemoryContext.extract(context, function, rows)

    context.extract = spy
    method.on_epoch_start(context)
    assert seen == [[0], [1]]
    with torch.no_grad():
        parts = method.eval().part_features(data.images, data.modalities)
    for y in range(4):
        own = parts[(data.modalities == 0) & (data.pids == y)].mean(dim=0)
        torch.testing.assert_close(method.memory.memory[:, y], normalize(own, dim=1))


def test_warmup_touches_no_memory_and_then_fills_every_visible_slot() -> None:
    method, data = _method(), people(video=False)
    start = method.memory.memory.clone()
    method.on_epoch_start(MemoryContext(method, data, epoch=0))
    assert "graph" not in method.training_step(data)
    method.after_step()
    assert torch.equal(method.memory.memory, start)
    method.on_epoch_start(MemoryContext(method, data, epoch=1))
    assert method.memory.initialised.all()
    assert "graph" in method.training_step(data)


@pytest.mark.parametrize(
    "options",
    [
        {"relabel": False},
        {"teacher": "ema"},
        {"teacher": "none"},
        {"lambda_triplet": 0.5},
        {"match": False},
        {"lambda_adv": 0.1},
    ],
)
def test_options_train(options: dict) -> None:
    method, data = _method(**options), people(video=False)
    for epoch in (0, 1):
        method.on_epoch_start(MemoryContext(method, data, epoch=epoch))
        loss = method.training_step(data)["loss"]
        loss.backward()
        method.after_step()
        assert torch.isfinite(loss)


@pytest.mark.parametrize(("pool_parts", "width"), [(True, 48), (False, 16)])
def test_descriptors_rank_like_the_mean_cosine_of_the_parts(pool_parts: bool, width: int) -> None:
    method, data = _method(pool_parts=pool_parts).eval(), people(video=False)
    assert method.feature_dim == width
    with torch.no_grad():
        features, parts = (
            method.extract(data.images, data.modalities),
            method.part_features(data.images, data.modalities),
        )
    if pool_parts:
        torch.testing.assert_close(features @ features.T, torch.einsum("ikd,jkd->ij", parts, parts) / 3)
    else:
        torch.testing.assert_close(features, normalize(parts.mean(dim=1), dim=1))


def test_the_triplet_joins_the_parts_before_it_measures_them() -> None:
    method, data = _method(lambda_triplet=0.5), people(video=False)
    outputs = method.training_step(data)
    joined = normalize(method.student(data.images).identity.flatten(1), dim=1)
    visible = data.modalities == 0
    expected = known_pairs_triplet(joined, data.pids, torch.where(visible, data.pids, -1), visible)
    torch.testing.assert_close(outputs["triplet"], expected)


def test_an_averaged_teacher_starts_as_the_student_and_follows_slowly() -> None:
    method, data = _method(teacher="ema"), people(video=False)
    with torch.no_grad():  # weights that only the student got
        for p in method.student.parameters():
            p.mul_(2)
    method.on_epoch_start(MemoryContext(method, data, epoch=0))
    start = {name: p.clone() for name, p in method.student.named_parameters()}
    with torch.no_grad():
        for p in method.student.parameters():
            p.add_(1)
    method.after_step()
    for name, p in method.teacher.named_parameters():
        torch.testing.assert_close(p, start[name] + 0.001)
    assert not method.teacher.training


def test_switches_for_each_modality_alone() -> None:
    """lambda_graph 0: matching only; match off: graph only; both: no memory, no partner, no shared label."""
    seen = {}
    for match, graph in ((True, 1.0), (True, 0.0), (False, 1.0), (False, 0.0)):
        # The warm-up of a method without a memory is not asked for.
        warmup = {} if match or graph else {"warmup_epochs": PFMGCDOptions.model_fields["warmup_epochs"].default}
        method, data = _method(match=match, lambda_graph=graph, **warmup), people(video=False)
        context = MemoryContext(method, data, epoch=1)
        method.on_epoch_start(context)
        outputs = method.training_step(data)
        assert bool((method.matches >= 0).any()) == match == ("match" in context.logged)
        assert bool(method.memory.initialised.any()) == (match or graph > 0)
        seen[match, graph] = outputs
    alone = seen[False, 0.0]
    assert set(alone) == {"loss", "identity", "infrared_identity", "orthogonality", "modality"}
    weights = {"identity": 1, "infrared_identity": 1, "orthogonality": 0.1, "modality": 0.5}
    assert alone["loss"].item() == pytest.approx(sum(w * alone[n].item() for n, w in weights.items()), rel=1e-5)


def test_triplet_uses_only_pairs_whose_relation_is_known() -> None:
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(10, 5, generator=generator, dtype=torch.float64), dim=1).requires_grad_()
    own = torch.tensor([0, 0, 1, 1, 2, 0, 0, 1, 1, 2])
    visible = torch.arange(10) < 5
    # Infrared identity 0 is visible 1; infrared 1 and 2 are unmatched.
    shared = torch.tensor([0, 0, 1, 1, 2, 1, 1, -1, -1, -1])
    hinges = []
    for a in range(10):
        positive, negative = [], []
        for b in range(10):
            if visible[a] == visible[b]:
                same, known = own[a] == own[b], True
            else:
                same, known = shared[a] == shared[b], shared[a] >= 0 and shared[b] >= 0
            if known and b != a:
                (positive if same else negative).append((x[a] - x[b]).norm())
        if positive and negative:
            hinges.append((max(positive) - min(negative) + 0.3).clamp_min(0))
    assert len(hinges) == 8
    loss = known_pairs_triplet(x, own, shared, visible)
    torch.testing.assert_close(loss, torch.stack(hinges).mean())
    loss.backward()
    # Unmatched infrared rows and visible rows never see each other.
    y = x.detach().clone().requires_grad_()
    known_pairs_triplet(y, own, torch.where(visible, shared, -1), visible).backward()
    alone = x.detach()[:5].clone().requires_grad_()
    known_pairs_triplet(alone, own[:5], shared[:5], visible[:5]).backward()
    scale = 4 / 8  # anchors of one modality against both
    torch.testing.assert_close(y.grad[:5], alone.grad * scale)
    assert known_pairs_triplet(x[:1], own[:1], shared[:1], visible[:1]).item() == 0


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("restitution", 59_827_974), ("residual-v3", 59_827_968), ("readme-v0", 59_803_392), ("attention-v2", 33_884_928)],
)
def test_disentanglement_sizes_of_the_release(variant: str, expected: int) -> None:
    """Six stripes at full size, from the totals of every version without backbone, heads and dead weights."""
    with torch.device("meta"):
        module = MultiPartISGDM(6, 2048, 256, variant=variant)
    assert sum(p.numel() for p in module.parameters()) == expected


def test_adversarial_features_climb_what_the_discriminator_descends() -> None:
    x = torch.tensor([[1.0, -2.0]], requires_grad=True)
    (reverse_gradient(x, 0.1) * torch.tensor([3.0, 5.0])).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[-0.3, -0.5]]))
    features = torch.randn(6, 2, 8, requires_grad=True)
    logits = PartDiscriminators(2, 8)(features, 0.0)
    assert logits.shape == (6, 2, 2)
    logits.sum().backward()
    assert not features.grad.any()
    for epoch, strength in ((4, 0.0), (5, 0.1)):
        method, data = _method(lambda_adv=0.5, warmup_epochs=99), people(video=False)
        method.on_epoch_start(MemoryContext(method, data, epoch=epoch, num_epochs=9))
        method.training_step(data)["adversarial"].backward()
        reached = method.student.backbone.stem_visible.conv1.weight.grad.abs().sum() > 0
        assert bool(reached) == (strength > 0)
        assert method.discriminators.parts[0][0].weight.grad.abs().sum() > 0
    assert _method().discriminators is None


def test_names_of_the_visible_identities_change_nothing() -> None:
    order = torch.tensor([1, 3, 0, 2])
    results = []
    for names in (torch.arange(4), order):
        method, data = _method(lambda_triplet=0.5), people(video=False)
        with torch.no_grad():
            for head in method.student.identity_heads:
                head.weight.copy_(head.weight[names.argsort()])
                head.bias.copy_(head.bias[names.argsort()])
        data.pids = torch.where(data.modalities == 0, names[data.pids], data.pids)
        losses = []
        for epoch in (0, 1):
            method.on_epoch_start(MemoryContext(method, data, epoch=epoch))
            losses.append(method.training_step(data)["loss"].item())
            method.after_step()
        original = torch.where(method.matches >= 0, names.argsort()[method.matches.clamp_min(0)], -1)
        results.append((losses, original, method.memory.memory[:, names]))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-5)
    assert torch.equal(results[0][1], results[1][1])
    torch.testing.assert_close(results[0][2], results[1][2])
