from __future__ import annotations

import pytest
import torch

from gloam.errors import GloamError
from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people


def started(**options: object):
    torch.manual_seed(0)
    method = create_method("metaprd", 1, arch="tiny", gcn=True, gcn_hidden=8, gcn_neighbours=4, **options)
    data = people(video=False, both_modalities=False)
    context = MemoryContext(method, data, stage="gcn_meta")
    method.start_stage("gcn_meta")
    method.train()
    method.on_epoch_start(context)
    return method, context, data


def test_five_images_in_many_views_teach_the_graph_network_alone() -> None:
    method, context, data = started(gcn_meta_eps=1.0)
    chosen = torch.nonzero(context.labels >= 0).flatten()
    assert sorted(context.labels[chosen].tolist()) == list(range(5))
    batch = data.select(chosen.repeat_interleave(8))
    batch.pids = context.labels[batch.indices]
    batch.images = batch.images + 0.1 * torch.randn(batch.images.shape, generator=torch.Generator().manual_seed(1))
    before = {name: value.clone() for name, value in method.net.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameter_groups(0.02), lr=0.02)
    losses = []
    for _ in range(20):
        loss = method.training_step(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) < sum(losses[:5])
    assert all(torch.equal(value, before[name]) for name, value in method.net.state_dict().items())


def test_labelled_people_are_the_users_own() -> None:
    _, context, _ = started(gcn_labelled="3,1;7, 9")
    assert context.labels.tolist() == [-1, 0, -1, 0, -1, -1, -1, 1, -1, 1, -1, -1, -1, -1, -1, -1]


@pytest.mark.parametrize("text", ["1,2;400", "one,two", "1,;2"])
def test_bad_labelled_people_are_explained(text: str) -> None:
    with pytest.raises(GloamError, match=r"method\.gcn_labelled"):
        started(gcn_labelled=text)


def test_a_batch_without_views_is_explained() -> None:
    method, context, data = started()
    batch = data.select(context.labels >= 0)
    batch.pids = context.labels[batch.indices]
    with pytest.raises(GloamError, match="instances: 8"):
        method.training_step(batch)


def test_the_meta_stage_needs_the_graph_network() -> None:
    with pytest.raises(GloamError, match=r"method\.gcn"):
        create_method("metaprd", 1, arch="tiny").start_stage("gcn_meta")
