from __future__ import annotations

import pytest
import torch

from gloam.batches.batch import Batch
from gloam.errors import GloamError
from gloam.losses.cluster_nce import cluster_nce_loss
from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people


def created(**options: object):
    torch.manual_seed(0)
    graphs = {"gcn_hidden": 8, "gcn_neighbours": 4} if options.get("gcn") else {}
    values = {"arch": "tiny", "k1": 5, "k2": 2, "min_samples": 2, **graphs, **options}
    return create_method("metaprd", 1, **values)


def started(**options: object):
    method = created(**options)
    data = people(video=False, both_modalities=False)
    context = MemoryContext(method, data)
    method.train()
    method.start_stage("train")
    method.on_epoch_start(context)
    return method, context, data


def rows(data: Batch, labels: torch.Tensor, partners: bool) -> Batch:
    keep = torch.nonzero(labels >= 0).flatten()
    if partners:
        mates = [int(torch.nonzero(labels == labels[i]).flatten()[-1]) for i in keep]
        keep = torch.cat([keep, torch.tensor(mates)])
    batch = data.select(keep)
    batch.pids = labels[keep]
    return batch


def test_with_everything_off_it_is_cluster_contrast() -> None:
    method, context, data = started(hsd=False, ppa=False)
    before, seen = method.memory.rows.clone(), []
    batch = rows(data, context.labels, partners=False)
    method.net.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    loss = method.training_step(batch)["loss"].detach()
    torch.testing.assert_close(loss, cluster_nce_loss(seen[0], before, batch.pids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gcn", [False, True])
def test_both_losses_are_finite_and_fall_with_partners(gcn: bool) -> None:
    method, context, data = started(gcn=gcn)
    batch = rows(data, context.labels, partners=True)
    optimizer = torch.optim.Adam(method.parameter_groups(3.5e-4), lr=3.5e-4)
    losses = []
    for _ in range(10):
        out = method.training_step(batch)
        assert torch.isfinite(out["contrast"])
        assert out["alignment"] >= 0
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        method.after_step()
        losses.append(float(out["loss"].detach()))
    assert min(losses[-3:]) < losses[0]
    for memory in (method.memory, method.bank):
        torch.testing.assert_close(memory.rows.norm(dim=1), torch.ones(len(memory)))


def test_labels_of_two_epochs_make_hard_pairs() -> None:
    method, context, data = started(ppa=False)
    assert torch.equal(method.previous, torch.arange(len(data)))
    first = method.current.clone()
    method.on_epoch_start(context)
    assert torch.equal(method.previous, first)
    # Nothing has changed since: no hard pairs.
    out = method.training_step(rows(data, context.labels, partners=False))
    assert out["hard_positives"] == 0
    assert out["hard_negatives"] == 0


def test_bank_is_overwritten_at_once_and_the_memory_after_the_step() -> None:
    method, context, data = started(ppa=False)
    batch = rows(data, context.labels, partners=False)
    bank, memory, seen = method.bank.rows.clone(), method.memory.rows.clone(), []
    method.net.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    method.training_step(batch)
    torch.testing.assert_close(method.bank.rows[batch.indices], seen[0])
    assert not torch.equal(method.bank.rows, bank)
    assert torch.equal(method.memory.rows, memory)
    method.after_step()
    assert not torch.equal(method.memory.rows, memory)


def test_missing_partners_are_explained() -> None:
    method, context, data = started()
    with pytest.raises(GloamError, match=r"sampler\.partners"):
        method.training_step(rows(data, context.labels, partners=False))


def test_collected_pairs_teach_the_graph_network_once_and_survive_a_checkpoint() -> None:
    method, context, data = started(gcn=True, ppa=False)
    batch = rows(data, context.labels, partners=False)
    method.training_step(batch)
    pairs = method.collected
    assert len(pairs) == 2 * len(batch)
    same, different = pairs[pairs[:, 2] == 1], pairs[pairs[:, 2] == 0]
    assert (same[:, 0] != same[:, 1]).all()
    assert len(different) > 0
    twin = created(gcn=True, ppa=False)
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin.collected, pairs)
    before = [p.clone() for p in method.graphs.parameters()]
    method.on_epoch_start(context)
    assert "gcn_loss" in context.logged
    assert len(method.collected) == 0
    assert any(not torch.equal(a, b) for a, b in zip(before, method.graphs.parameters(), strict=True))


def test_graph_stage_trains_the_graph_network_alone() -> None:
    method = created(gcn=True)
    data = people(video=False, both_modalities=False)
    method.start_stage("gcn")
    method.train()
    method.on_epoch_start(MemoryContext(method, data, stage="gcn"))
    groups = method.parameter_groups(0.02)
    assert {id(p) for p in groups[0]["params"]} == {id(p) for p in method.graphs.parameters()}
    features = method.net.state_dict()
    features = {name: value.clone() for name, value in features.items()}
    optimizer = torch.optim.SGD(groups, lr=0.02)
    losses = []
    for _ in range(15):
        loss = method.training_step(data)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(float(loss.detach()))
    assert min(losses[-3:]) < losses[0]
    assert all(torch.equal(value, features[name]) for name, value in method.net.state_dict().items())
    method.start_stage("train")
    assert not any(p.requires_grad for p in method.graphs.parameters())
    assert not method.net.bottleneck.bias.requires_grad


def test_the_graph_stage_needs_the_graph_network() -> None:
    with pytest.raises(GloamError, match=r"method\.gcn"):
        created().start_stage("gcn")
