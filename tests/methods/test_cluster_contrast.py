from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from gloam.errors import GloamError
from gloam.losses.cluster_nce import cluster_nce_loss
from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people, small_method
from tests.oracles.metaprd import hard_update, mean_update


def started(**options: object):
    torch.manual_seed(0)
    method = create_method("cluster_contrast", 1, arch="tiny", **{"k1": 5, "k2": 2, "min_samples": 2, **options})
    data = people(video=False, both_modalities=False)
    context = MemoryContext(method, data)
    method.train()
    method.on_epoch_start(context)
    batch = data.select(context.labels >= 0)
    batch.pids = context.labels[context.labels >= 0]
    return method, context, batch


def test_memory_holds_the_normalised_means_of_the_clusters() -> None:
    method, context, _ = started()
    features = context.extract()
    assert context.labels.max() >= 1
    for c in range(int(context.labels.max()) + 1):
        mean = normalize(features[context.labels == c].mean(0), dim=0)
        torch.testing.assert_close(method.memory.rows[c], mean, atol=1e-5, rtol=1e-5)
    assert "pseudo_labels" in context.logged


@pytest.mark.parametrize("kind", ["mean", "hard"])
def test_memory_moves_after_the_step_only(kind: str) -> None:
    method, _, batch = started(memory_update=kind)
    before = method.memory.rows.clone()
    seen = []
    method.net.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    loss = method.training_step(batch)["loss"]
    torch.testing.assert_close(loss.detach(), cluster_nce_loss(seen[0], before, batch.pids))
    assert torch.equal(method.memory.rows, before)
    method.after_step()
    expected = (mean_update if kind == "mean" else hard_update)(before, seen[0], batch.pids, 0.1)
    torch.testing.assert_close(method.memory.rows, expected, atol=1e-5, rtol=1e-5)
    moved = method.memory.rows.clone()
    method.after_step()
    assert torch.equal(method.memory.rows, moved)


def test_another_number_of_clusters_can_be_restored() -> None:
    method, _, _ = started()
    fresh = small_method("cluster_contrast")
    fresh.load_state_dict(method.state_dict())
    assert torch.equal(fresh.memory.rows, method.memory.rows)


def test_no_cluster_is_explained() -> None:
    with pytest.raises(GloamError, match="weights: imagenet"):
        started(min_samples=20)


def test_infomap_finds_the_people() -> None:
    pytest.importorskip("infomap")
    from gloam.clustering.infomap_clusters import cluster_by_infomap

    g = torch.Generator().manual_seed(0)
    ids = torch.arange(6).repeat_interleave(10)
    features = normalize(torch.randn(6, 16, generator=g), dim=1)[ids] + 0.1 * torch.randn(60, 16, generator=g)
    features = torch.cat([features, torch.randn(2, 16, generator=g)[:1]])
    labels = torch.from_numpy(cluster_by_infomap(features))
    assert labels[:60].tolist() == ids.tolist()
    assert labels[60] == -1
