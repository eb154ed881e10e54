"""The method contract, for every registered method without listing any."""

from __future__ import annotations

import pytest
import torch

from gloam.errors import GloamError
from gloam.methods import create_method, list_methods
from gloam.methods.contract import Method
from tests.methods.contract import MemoryContext, people, small_method, with_views

METHODS = list_methods()


def _train_batch(method: Method, data, context: MemoryContext):
    """The rows that the method would train on: its labels, without samples it left out."""
    keep = context.labels >= 0
    batch = data.select(keep)
    batch.pids = context.labels[keep]
    return with_views(method, batch)


def _start(name: str):
    method = small_method(name)
    data = people(video=method.is_video, both_modalities=method.is_cross_modal)
    method.train()
    method.start_stage("train")
    context = MemoryContext(method, data)
    method.on_epoch_start(context)
    return method, data, _train_batch(method, data, context)


@pytest.mark.parametrize("name", METHODS)
def test_extract_gives_unit_vectors_of_the_stated_width(name: str) -> None:
    method, data, _ = _start(name)
    method.eval()
    with torch.no_grad():
        features = method.extract(data.images, data.modalities)
    assert features.shape == (len(data), method.feature_dim)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones(len(data)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", METHODS)
def test_every_named_feature_can_be_extracted(name: str) -> None:
    method, data, _ = _start(name)
    method.eval()
    for feature in method.features:
        method.test_feature = feature
        with torch.no_grad():
            assert method.extract(data.images, data.modalities).shape == (len(data), method.feature_dim)


@pytest.mark.parametrize("name", METHODS)
def test_rows_do_not_depend_on_their_neighbours_at_inference(name: str) -> None:
    method, data, _ = _start(name)
    method.eval()
    with torch.no_grad():
        together = method.extract(data.images, data.modalities)
        alone = method.extract(data.images[3:4], data.modalities[3:4])
    torch.testing.assert_close(alone, together[3:4], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_loss_of_a_fixed_batch_falls(name: str) -> None:
    method, _, batch = _start(name)
    groups = method.parameter_groups(0.05)
    optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9)
    losses = []
    for _ in range(12):
        outputs = method.training_step(batch)
        loss = outputs["loss"]
        assert loss.ndim == 0
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.after_step()
        losses.append(loss.item())
    assert min(losses[-4:]) < losses[0]


@pytest.mark.parametrize("name", METHODS)
def test_parameter_groups_cover_every_trainable_parameter_once(name: str) -> None:
    method, _, _ = _start(name)
    grouped = [id(p) for group in method.parameter_groups(0.1) for p in group["params"] if p.requires_grad]
    trainable = [id(p) for p in method.parameters() if p.requires_grad]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= set(trainable)
    assert len(set(trainable) - set(grouped)) == 0 or name in _FREEZES_PARTS


# Methods whose stages optimise only a part of the network on purpose.
_FREEZES_PARTS: frozenset[str] = frozenset({"wsl_vireid"})


@pytest.mark.parametrize("name", METHODS)
def test_a_restored_copy_goes_on_with_the_same_bits(name: str) -> None:
    method, data, _ = _start(name)
    labels = MemoryContext(method, data).labels
    twin = small_method(name)
    twin.load_state_dict(method.state_dict())
    twin.train()
    twin.start_stage("train")
    results = []
    for module in (method, twin):
        context = MemoryContext(module, data, epoch=1)
        context.labels = labels.clone()
        module.on_epoch_start(context)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            results.append(module.training_step(_train_batch(module, data, context))["loss"])
        module.eval()
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    with torch.no_grad():
        first, second = (m.extract(data.images, data.modalities) for m in (method, twin))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_unknown_option_names_the_nearest(name: str) -> None:
    with pytest.raises(GloamError, match="arch"):
        create_method(name, 4, arhc="tiny")


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(GloamError, match="agw"):
        create_method("awg", 4)
