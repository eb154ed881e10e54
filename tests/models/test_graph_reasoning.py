"""CGRNet's modules and what DDAG shares with them, against the released forms; values and gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gloam.models.channel_similarity import ChannelSimilarity, similarity_gap
from gloam.models.graph_reasoning import GraphReasoning, Relation
from gloam.models.row_attention import attention_weights, gated_residual
from tests.oracles import attention as oracle

Parts = dict[str, dict[str, nn.Module | torch.Tensor]]


def _maps(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, requires_grad=True)


def _randomised(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    module.double()
    for parameter in module.parameters():
        parameter.data.copy_(0.4 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module


def _released_parts(graph: GraphReasoning, channels: int) -> Parts:
    """The relations with all layers of the release; queries and keys that gloam does not build are random."""
    parts: Parts = {}
    generator = torch.Generator().manual_seed(4)
    for name in ("local2local", "global2local", "local2global"):
        relation = getattr(graph, name)
        parts[name] = {"gamma": relation.gamma, "value_conv": relation.value_conv}
        for layer in ("query_conv", "key_conv"):
            convolution = getattr(relation, layer)
            if convolution is None:
                convolution = nn.Conv2d(channels, channels // 16, 1).double()
                convolution.weight.data.copy_(torch.randn(convolution.weight.shape, generator=generator))
            parts[name][layer] = convolution
    return parts


@pytest.mark.parametrize("size", [(3, 16, 4, 3), (2, 32, 5, 2), (2, 48, 1, 1)])
def test_closed_forms_equal_the_released_maps(size: tuple[int, ...]) -> None:
    graph = _randomised(GraphReasoning(size[1]))
    maps = _maps(*size)
    inputs = [maps, *graph.parameters()]
    direction = _maps(*size, seed=5).detach()
    ours, theirs = graph(maps), oracle.graph_reasoning(maps, _released_parts(graph, size[1]))
    torch.testing.assert_close(ours, theirs, atol=1e-11, rtol=1e-11)
    for own, other in zip(
        torch.autograd.grad(ours, inputs, direction), torch.autograd.grad(theirs, inputs, direction), strict=True
    ):
        torch.testing.assert_close(own, other, atol=1e-10, rtol=1e-9)


def test_why_the_closed_forms_hold() -> None:
    graph = _randomised(GraphReasoning(16))
    maps, parts = _maps(2, 16, 3, 2), _released_parts(graph, 16)
    whole = maps.mean(dim=(2, 3), keepdim=True).expand_as(maps)
    result, uniform = oracle.position_attention(parts["global2local"], maps, whole)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 1 / 6), atol=1e-15, rtol=0)
    inert = [parts["global2local"][layer].weight for layer in ("query_conv", "key_conv")]
    for gradient in torch.autograd.grad(result.square().sum(), inert):
        assert gradient.abs().max() < 1e-12
    rows = oracle.position_attention(parts["local2global"], whole, maps)[1]
    torch.testing.assert_close(rows, rows[:, :1].expand_as(rows), atol=1e-15, rtol=0)


def test_closed_gates_give_three_x_plus_mean_or_the_identity() -> None:
    maps = _maps(2, 16, 3, 2)
    torch.testing.assert_close(GraphReasoning(16).double()(maps), 3 * maps + maps.mean(dim=(2, 3), keepdim=True))
    torch.testing.assert_close(GraphReasoning(16, "residual").double()(maps), maps)


def test_a_batch_of_the_published_size_fits_well_into_eight_gibibytes() -> None:
    """648 positions of 512 channels (288 x 144 images): what two images keep for the backward pass, for 64."""
    graph, kept = GraphReasoning(512), {}
    maps = torch.randn(2, 512, 36, 18, requires_grad=True)
    weights = {p.untyped_storage().data_ptr() for p in graph.parameters()}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mixed = graph(maps)
    assert mixed.shape == maps.shape
    pair = sum(size for pointer, size in kept.items() if pointer not in weights)
    # One 648 x 648 float32 matrix per image, its values, and the map itself.
    assert pair >= 2 * 648 * 648 * 4
    assert 32 * pair < 2**29


def test_only_the_gates_learn_at_first() -> None:
    graph = GraphReasoning(16).double()
    graph(_maps(2, 16, 3, 2)).square().sum().backward()
    for name, parameter in graph.named_parameters():
        assert bool(parameter.grad.abs().max() > 0) == name.endswith("gamma"), name


def test_published_relation_sizes() -> None:
    assert sum(p.numel() for p in Relation(512).parameters()) == 295_489
    # Without the queries and keys that can never learn.
    assert sum(p.numel() for p in GraphReasoning(512).parameters()) == 3 * 295_489 - 32_832
    weight = Relation(512).query_conv.weight
    assert weight.std().item() == pytest.approx((2 / 512) ** 0.5, rel=0.05)


@pytest.mark.parametrize("case", ["plain", "negative_gate", "other_keys", "one_pixel", "large", "dead_channels"])
def test_channel_similarity_equals_the_release(case: str) -> None:
    size = (3, 6, 1, 1) if case == "one_pixel" else (3, 6, 4, 2)
    maps = _maps(*size)
    if case == "large":
        maps = (30 * maps.detach().abs()).requires_grad_()
    if case == "dead_channels":
        maps = (maps.detach() * (torch.arange(6) % 3 > 0)[:, None, None]).requires_grad_()
    keys = _maps(*size, seed=9) if case == "other_keys" else maps
    module = ChannelSimilarity().double()
    module.gamma.data = torch.tensor([-0.7 if case == "negative_gate" else 0.5, 0.25], dtype=torch.float64)
    modalities = torch.tensor([0, 1, 0])
    attention = module.attention(maps, keys)
    mixed = module(maps, modalities, attention)
    expected, weights = oracle.channel_attention(maps, keys, module.gamma[modalities][:, None, None, None])
    torch.testing.assert_close(attention, weights, atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(mixed, expected, atol=1e-12, rtol=1e-10)
    inputs = [maps, module.gamma]
    direction = _maps(*size, seed=5).detach()
    for own, other in zip(
        torch.autograd.grad(mixed, inputs, direction), torch.autograd.grad(expected, inputs, direction), strict=True
    ):
        torch.testing.assert_close(own, other, atol=1e-10, rtol=1e-8)


def test_one_stream_has_one_gate_and_closed_gates_are_the_identity() -> None:
    maps = _maps(2, 5, 3, 2)
    module = ChannelSimilarity(streams=1).double()
    assert torch.equal(module(maps, torch.tensor([0, 1])), maps)
    assert module.gamma.shape == (1,)


@pytest.mark.parametrize(("scale", "divisor"), [("root", 6**0.5), ("mean", 6.0)])
def test_energy_scales(scale: str, divisor: float) -> None:
    maps = _maps(2, 5, 3, 2)
    rows = maps.flatten(2)
    expected = (-(rows @ rows.transpose(1, 2)) / divisor).softmax(dim=2)
    torch.testing.assert_close(ChannelSimilarity(energy_scale=scale).attention(maps), expected)


def test_similarities_survive_half_precision() -> None:
    maps = 20 * torch.rand(2, 8, 72, 36).half()
    attention = ChannelSimilarity().attention(maps)
    assert attention.dtype == torch.float32
    assert torch.isfinite(attention).all()
    assert ChannelSimilarity()(maps, torch.tensor([0, 1])).dtype == torch.float16


def test_similarity_gap_is_a_mean_over_pairs_with_a_known_bound() -> None:
    attention = torch.eye(4, dtype=torch.float64).repeat(4, 1, 1)
    attention[2:] = attention[2:].roll(1, dims=2)
    visible, infrared = torch.tensor([0, 1]), torch.tensor([2, 3])
    # Two one-hot rows that disagree: 2 of 4 entries differ by 1.
    assert similarity_gap(attention, visible, infrared).item() == pytest.approx(2 / 4)
    assert similarity_gap(attention, visible, torch.tensor([1, 0])).item() == 0


def test_rows_without_sources_are_empty_and_hidden_sources_have_no_gradient() -> None:
    scores = _maps(2, 3, 3)
    mask = torch.tensor([[True, False, True], [False, False, False], [True, True, True]])
    weights = attention_weights(scores, mask)
    torch.testing.assert_close(weights.sum(dim=2), torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).expand(2, 3))
    (gradient,) = torch.autograd.grad((weights * _maps(2, 3, 3, seed=1)).sum(), scores)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, ~mask] == 0).all()
    # Very negative fill values, as in the releases, give the same wherever a row keeps a source.
    filled = scores.masked_fill(~mask, -9e15).softmax(dim=2)
    torch.testing.assert_close(weights[:, [0, 2]], filled[:, [0, 2]])


def test_gated_residual_keeps_the_number_format() -> None:
    base = torch.ones(3, dtype=torch.bfloat16)
    assert gated_residual(torch.tensor([0.5]), torch.ones(3), base).dtype == torch.bfloat16
    assert gated_residual(torch.tensor([0.5]), torch.ones(3), base).float().tolist() == [1.5] * 3
