"""Attention modules of DDAG and M3-ReID against the forms with the big tensors, values and gradients in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gloam.models.graph_attention import CrossModalityGraph, GraphAttention, dynamic_weight
from gloam.models.multi_view_attention import MultiViewAttention
from gloam.models.part_attention import WeightedPartAttention
from gloam.models.video_nonlocal import SpatioTemporalNonLocal, over_clips
from tests.oracles import attention as oracle


def _random(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return module.double()


def _same_gradients(first: torch.Tensor, second: torch.Tensor, inputs: list[torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(first.shape, generator=generator, dtype=torch.float64)
    left = torch.autograd.grad(first, inputs, direction, allow_unused=True)
    right = torch.autograd.grad(second, inputs, direction, allow_unused=True)
    torch.testing.assert_close(first, second, atol=1e-9, rtol=1e-9)
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(
            torch.zeros(1) if a is None else a, torch.zeros(1) if b is None else b, atol=1e-8, rtol=1e-7
        )


def test_part_attention_equals_the_loops() -> None:
    module = _random(WeightedPartAttention(6, 3))
    maps = torch.randn(4, 6, 6, 2, dtype=torch.float64, requires_grad=True)
    feature = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    inputs = [maps, feature, *(p for p in module.parameters() if p.requires_grad)]
    _same_gradients(module(maps, feature), oracle.weighted_part_attention(module, maps, feature), inputs)


def test_parts_overlap_where_the_rows_do_not_divide() -> None:
    """Rows floor(i h / q) .. ceil((i + 1) h / q) - 1: of five rows in three parts 0-1, 1-3, 3-4."""
    module = _random(WeightedPartAttention(6, 3)).eval()
    maps, feature = torch.randn(2, 6, 5, 2, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    stripes = [maps[:, :, rows].mean(dim=(2, 3), keepdim=True) for rows in (slice(0, 2), slice(1, 4), slice(3, 5))]
    torch.testing.assert_close(module(maps, feature), module(torch.cat(stripes, dim=2), feature))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_attention_of_ddag_is_normalised_in_float32_under_autocast(dtype: torch.dtype) -> None:
    parts = WeightedPartAttention(6, 3).eval()
    for layer in (parts.fc1[0], parts.fc2):
        torch.nn.init.dirac_(layer.weight)
    maps = torch.full((2, 6, 6, 2), 200.0)
    graph = CrossModalityGraph(6, 4, 5).eval()
    rows, labels = 10 * torch.rand(8, 6), torch.arange(8) % 3
    with torch.autocast("cpu", dtype=dtype):
        # 6 * 200 * 200 is more than float16 holds.
        assert torch.isfinite(parts(maps, torch.zeros(2, 6))).all()
        found = graph(rows, labels)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(8))
    torch.testing.assert_close(found, graph(rows, labels), atol=0.1, rtol=0.05)


def test_one_part_is_a_projection_of_the_mean() -> None:
    module = _random(WeightedPartAttention(6, 1)).eval()
    maps, feature = torch.randn(2, 6, 4, 2, dtype=torch.float64), torch.randn(2, 6, dtype=torch.float64)
    projected = module.fc3(maps.mean((2, 3), keepdim=True)).flatten(1)
    torch.testing.assert_close(module(maps, feature), module.bottleneck(projected + feature))


def test_published_part_attention_size() -> None:
    assert sum(p.numel() for p in WeightedPartAttention(2048).parameters()) == 12_593_155


def test_graph_head_equals_the_pairwise_form() -> None:
    module = _random(GraphAttention(5, 4)).eval()
    rows = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 0, 2, 1, 0, 3])
    connected = labels[:, None] == labels[None, :]
    _same_gradients(
        module(rows, connected), oracle.graph_attention(rows, module.W, module.a, connected), [rows, module.W, module.a]
    )
    torch.testing.assert_close(module(rows, connected)[3], rows[3] @ module.W)


def test_graph_branch_equals_the_normalised_adjacency() -> None:
    module = _random(CrossModalityGraph(5, 3, 4, heads=2)).eval()
    rows = torch.randn(8, 5, dtype=torch.float64, requires_grad=True)
    labels = torch.arange(8) % 3
    _same_gradients(module(rows, labels), oracle.graph_branch(module, rows, labels), [rows, *module.parameters()])
    assert (
        sum(p.numel() for p in CrossModalityGraph(2048, 512, 395).parameters()) == 4 * 1_049_600 + 2048 * 395 + 2 * 395
    )


def test_graph_initialisation_stays_in_its_bounds() -> None:
    head = GraphAttention(2048, 512)
    assert head.W.abs().max() <= 1.414 * (6 / 2560) ** 0.5
    assert head.a.abs().max() <= 1.414 * (6 / 1025) ** 0.5


def test_dynamic_weight() -> None:
    assert dynamic_weight(None) == 0
    assert dynamic_weight(1.0) == 0.5
    assert dynamic_weight(5.9) == pytest.approx(0.145, abs=1e-3)
    with pytest.raises(ValueError, match="inf"):
        dynamic_weight(float("inf"))


@pytest.mark.parametrize(("heads", "pooling"), [(1, "gem"), (2, "gem"), (3, "gem"), (2, "avg")])
def test_multi_view_attention_equals_the_three_permutations(heads: int, pooling: str) -> None:
    module = _random(MultiViewAttention(5, heads, pooling))
    frames = torch.rand(6, 5, 4, 3, dtype=torch.float64).requires_grad_()
    pooled, masks = module(frames, 3)
    expected, grouped = oracle.multi_view_attention(module, frames, 3)
    _same_gradients(pooled, expected, [frames, *module.parameters()])
    for own, theirs in zip(masks, grouped, strict=True):
        torch.testing.assert_close(own, theirs)


def test_maps_with_negative_values_are_cut_for_gem_only() -> None:
    frames = torch.randn(4, 5, 4, 3, dtype=torch.float64)
    mean, gem = (_random(MultiViewAttention(5, 2, pooling)) for pooling in ("avg", "gem"))
    torch.testing.assert_close(mean(frames, 2)[0], oracle.multi_view_attention(mean, frames, 2)[0])
    assert (gem(frames, 2)[0] > 0).all()  # a negative mean of cubes has no root


def test_space_time_block_equals_the_full_affinity_and_starts_as_identity() -> None:
    block = SpatioTemporalNonLocal(8)
    clip = torch.randn(2, 8, 3, 2, 2)
    assert torch.equal(block(clip), clip)
    block = _random(block)
    clip = clip.double().requires_grad_()
    block.eval()
    _same_gradients(block(clip), oracle.space_time_nonlocal(block, clip), [clip])
    frames = clip.detach().transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(over_clips(block, frames, 3).unflatten(0, (2, 3)).transpose(1, 2), block(clip).detach())


@pytest.mark.parametrize(("channels", "expected"), [(512, 264_064), (1024, 1_052_416)])
def test_published_space_time_block_sizes(channels: int, expected: int) -> None:
    assert sum(p.numel() for p in SpatioTemporalNonLocal(channels).parameters()) == expected


def test_space_time_block_never_stores_the_affinity() -> None:
    """Of N = 3 x 16 x 8 positions: no tensor kept for the backward pass has N x N entries."""
    module = SpatioTemporalNonLocal(16)
    clip = torch.randn(1, 16, 3, 16, 8, requires_grad=True)
    positions, kept = 3 * 16 * 8, []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        mixed = module(clip)
    mixed.sum().backward()
    assert 0 < max(kept) < positions**2 // 4
