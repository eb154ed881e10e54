from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from gloam.errors import GloamError
from gloam.methods import create_method
from tests.methods.contract import MemoryContext, people, small_method
from tests.oracles.metaprd import mean_update


def started():
    method = small_method("spcl")
    data = people(video=False, both_modalities=False)
    context = MemoryContext(method, data)
    method.train()
    method.on_epoch_start(context)
    batch = data.select(torch.arange(len(data)))
    batch.pids = context.labels
    return method, context, batch


def test_every_image_trains_and_the_memory_starts_from_extracted_features() -> None:
    method, context, _ = started()
    assert (context.labels >= 0).all()
    assert torch.equal(method.bank_labels, context.labels)
    torch.testing.assert_close(method.bank.rows, context.extract(), atol=1e-5, rtol=1e-5)
    assert torch.isfinite(method.independence_threshold)


def test_loss_sees_the_old_memory_and_the_step_moves_it() -> None:
    method, _, batch = started()
    before = method.bank.rows.clone()
    seen = []
    method.net.register_forward_hook(lambda _module, _inputs, output: seen.append(output.detach()))
    method.training_step(batch)
    assert torch.equal(method.bank.rows, before)
    method.after_step()
    torch.testing.assert_close(method.bank.rows, mean_update(before, seen[0], batch.indices, 0.2), atol=1e-5, rtol=1e-5)


def test_later_epochs_cluster_the_memory_and_keep_the_threshold() -> None:
    method, context, _ = started()
    threshold = method.independence_threshold.clone()
    method.bank.replace(normalize(torch.eye(4).repeat_interleave(4, 0) @ torch.randn(4, 64), dim=1))
    context.epoch = 1
    context.extract = lambda function=None: pytest.fail("the memory is clustered, nothing is extracted")  # type: ignore
    method.on_epoch_start(context)
    assert torch.equal(method.independence_threshold, threshold)


def test_memory_and_threshold_of_another_run_are_replaced_before_the_first_epoch() -> None:
    method, context, _ = started()
    rows, threshold = method.bank.rows.clone(), method.independence_threshold.clone()
    method.bank.replace(rows.flip(0))
    method.independence_threshold.fill_(0.125)
    method.on_epoch_start(context)
    assert torch.equal(method.bank.rows, rows)
    assert torch.equal(method.independence_threshold, threshold)


def test_radii_outside_the_range_are_refused() -> None:
    with pytest.raises(GloamError, match="eps_gap"):
        create_method("spcl", 1, arch="tiny", eps=0.6, eps_gap=0.5)
