"""The steps of MetaPRD's graph network: which pairs are positive, what confirms a pair, what a step adds up to."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gloam.models.pair_graph import PairGraphNetwork
from gloam.models.subgraphs import Subgraphs


def _bank(count: int = 20) -> Tensor:
    return normalize(torch.randn(count, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=1)


def _network(**options: float) -> PairGraphNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return PairGraphNetwork(6, neighbours=4, hidden=4, **options).double()  # type: ignore[arg-type]


class _Guess(nn.Module):
    """Stands in for the DGCNN: the probability that a pair is one person is a function of its two ids."""

    def __init__(self, same: Callable[[int, int], float]) -> None:
        super().__init__()
        self.same = same

    def forward(self, graphs: Subgraphs, features: Tensor) -> Tensor:
        """``(G, 2)`` log-probabilities."""
        p = torch.tensor([self.same(a, b) for a, b in graphs.nodes[:, :2].tolist()], dtype=torch.float64)
        return torch.stack([1 - p, p], dim=1).log()


def test_more_than_one_half_confirms() -> None:
    network = _network()
    chances = {3: 0.2, 5: 0.5, 7: 0.51, 9: 0.9}
    network.network = _Guess(lambda a, b: chances[max(a, b)])  # type: ignore[assignment]
    changed = torch.zeros(1, 20, dtype=torch.bool)
    changed[0, list(chances)] = True
    positive, negative = network.confirm(changed, changed, torch.tensor([1]), _bank())
    assert positive[0].nonzero().flatten().tolist() == [7, 9]
    assert negative[0].nonzero().flatten().tolist() == [3, 5]


def test_an_image_and_its_view_are_one_person_and_the_most_similar_other_image_is_not() -> None:
    bank, indices = _bank(), torch.tensor([2, 5, 11, 5])
    views = normalize(bank[indices] + 0.3 * torch.randn(4, 6, dtype=torch.float64), dim=1)
    pairs: list[tuple[int, int]] = []

    def same(a: int, b: int) -> float:
        pairs.append((a, b))
        return 0.9 if b >= len(bank) else 0.2  # views are nodes behind the bank

    network = _network()
    network.network = _Guess(same)  # type: ignore[assignment]
    loss = network.view_loss(indices, views, bank)
    assert loss.item() == pytest.approx(-(4 * math.log(0.9) + 4 * math.log(0.8)) / 8)
    assert pairs[:4] == [(2, 20), (5, 21), (11, 22), (5, 23)]
    similar = views @ views.T
    for (a, b), row in zip(pairs[4:], range(4), strict=True):
        others = [k for k in range(4) if indices[k] != indices[row]]
        nearest = max(others, key=lambda k, r=row: float(similar[r, k]))  # type: ignore[misc]
        assert (a, b) == (int(indices[row]), int(indices[nearest]))


def _learnt(pairs: Tensor, **options: float) -> tuple[list[Tensor], list[Tensor], float]:
    """Weights before and after the pairs of one epoch, and the loss."""
    network = _network(**options)
    before = [p.detach().clone() for p in network.parameters()]
    loss = network.learn(pairs, _bank(), 8, torch.Generator().manual_seed(3))
    assert loss is not None
    return before, [p.detach() for p in network.parameters()], loss


PAIRS = torch.tensor([[i, (3 * i + 1) % 20, i % 2] for i in range(8)])


def test_a_step_decays_the_weights_by_the_rate_times_the_decay() -> None:
    options = {"inner_steps": 1, "inner_lr": 0.1}
    before, plain, _ = _learnt(PAIRS, weight_decay=0.0, **options)
    _, decayed, _ = _learnt(PAIRS, weight_decay=0.3, **options)
    for start, without, with_decay in zip(before, plain, decayed, strict=True):
        torch.testing.assert_close(with_decay, without - 0.1 * 0.3 * start, rtol=1e-9, atol=1e-12)


def test_steps_are_proportional_to_the_rate_and_the_outer_step_to_the_way() -> None:
    before, short, _ = _learnt(PAIRS, inner_steps=1, inner_lr=0.05)
    _, long, _ = _learnt(PAIRS, inner_steps=1, inner_lr=0.1)
    _, outer, _ = _learnt(PAIRS, inner_steps=1, inner_lr=0.1, outer_step=0.5)
    moved = 0.0
    for start, half, whole, part in zip(before, short, long, outer, strict=True):
        torch.testing.assert_close(whole - start, 2 * (half - start), rtol=1e-7, atol=1e-12)
        torch.testing.assert_close(part, half, rtol=1e-9, atol=1e-12)
        moved += float((whole - start).abs().max())
    assert moved > 1e-3


def test_the_number_of_inner_steps_counts() -> None:
    _, three, _ = _learnt(PAIRS, inner_steps=3, inner_lr=0.1)
    _, two, _ = _learnt(PAIRS, inner_steps=2, inner_lr=0.1)
    assert any(not torch.allclose(a, b) for a, b in zip(three, two, strict=True))


def test_void_pairs_pairs_of_one_image_and_incomplete_batches_teach_nothing() -> None:
    more = torch.cat([PAIRS, torch.tensor([[1, 2, -1], [4, 4, 1], [7, 7, 0]])])
    assert _learnt(more)[2] == _learnt(PAIRS)[2]
    network = _network()
    seen: list[int] = []
    network.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0].nodes)))
    pairs = torch.cat([PAIRS, (PAIRS + torch.tensor([5, 5, 0])) % 20])[:13]
    network.learn(pairs, _bank(), 6, torch.Generator().manual_seed(0))
    assert seen == [6] * 6  # two batches of six, three inner steps each; the thirteenth pair is left out
