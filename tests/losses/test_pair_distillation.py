from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from gloam.losses.pair_distillation import (
    draw_one,
    hard_sample_deduction,
    mix_memory,
    pair_sets,
    positive_pair_alignment,
    positives_or_cluster,
)
from tests.oracles import metaprd as oracle


def case(seed: int):
    g = torch.Generator().manual_seed(seed)
    count, classes, size, width = 40, 5, 12, 6
    current = torch.randint(0, classes + 4, (count,), generator=g)  # 5.. play outliers
    previous = torch.randint(0, 6, (count,), generator=g)
    bank = normalize(torch.randn(count, width, generator=g, dtype=torch.float64), dim=1)
    memory = normalize(torch.randn(classes, width, generator=g, dtype=torch.float64), dim=1)
    clustered = torch.nonzero(current < classes).flatten()
    indices = clustered[torch.randint(0, len(clustered), (size,), generator=g)]
    features = normalize(torch.randn(size, width, generator=g, dtype=torch.float64), dim=1)
    return current, previous, bank, memory, indices, features


@pytest.mark.parametrize("seed", range(4))
def test_losses_and_mixed_memories_are_those_of_the_loops(seed: int) -> None:
    current, previous, bank, memory, indices, features = case(seed)
    became, negative = pair_sets(current, previous, indices)
    lists = [oracle.pairs_of(current, previous, int(i)) for i in indices]
    assert [row.nonzero().flatten().tolist() for row in became] == [hp for hp, _ in lists]
    assert [row.nonzero().flatten().tolist() for row in negative] == [hn for _, hn in lists]
    labels = current[indices]
    drawn = bank[draw_one(positives_or_cluster(became, current, indices), torch.Generator().manual_seed(seed))]
    columns = negative.any(dim=0).nonzero().flatten()
    features.requires_grad_(True)
    loss = hard_sample_deduction(features, memory, labels, drawn, bank[columns], negative[:, columns])
    expected = oracle.hsd(normalize(features, dim=1), memory, labels.tolist(), drawn, [bank[hn] for _, hn in lists])
    torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(x, features)[0] for x in (loss, expected)]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-9)

    mixed = mix_memory(memory, labels, drawn, bank[columns], negative[:, columns], current[columns])
    slow = oracle.mixed_memory(
        memory, labels.tolist(), drawn, [[(int(current[j]), bank[j]) for j in hn] for _, hn in lists]
    )
    torch.testing.assert_close(mixed, slow, rtol=1e-9, atol=1e-9)


def test_alignment_is_the_divergence_and_reaches_both_images() -> None:
    _, _, _, memory, _, features = case(9)
    first, second = features.clone().requires_grad_(True), features.flip(0).clone().requires_grad_(True)
    other = memory.roll(1, dims=1)
    loss = positive_pair_alignment(first, second, memory, other)
    p, q = (first @ memory.T / 0.05).softmax(1), (second @ other.T / 0.05).softmax(1)
    torch.testing.assert_close(loss, (p * (p / q).log()).sum(1).mean())
    loss.backward()
    assert first.grad.abs().sum() > 0
    assert second.grad.abs().sum() > 0
    assert positive_pair_alignment(features, features, memory, memory) == 0


def test_before_the_first_epoch_all_cluster_mates_are_hard_positives() -> None:
    current = torch.tensor([0, 0, 1, 0, 2])
    became, negative = pair_sets(current, torch.arange(5), torch.tensor([0, 2]))
    assert became.tolist() == [[False, True, False, True, False], [False] * 5]
    assert not negative.any()


@pytest.mark.parametrize(("slip", "expected"), [(False, [0, 1, 3]), (True, [4])])
def test_fallback_is_the_own_cluster_unless_the_slip_is_asked_for(slip: bool, expected: list[int]) -> None:
    current = torch.tensor([0, 0, 1, 0, 2])
    none = torch.zeros(1, 5, dtype=torch.bool)
    chosen = positives_or_cluster(none, current, torch.tensor([0]), from_previous_image=slip)
    assert chosen.nonzero()[:, 1].tolist() == expected


def test_draws_are_uniform_over_the_choices() -> None:
    choices = torch.tensor([[False, True, False, True, True]]).expand(9000, 5)
    counts = torch.bincount(draw_one(choices, torch.Generator().manual_seed(0)), minlength=5)
    assert counts[0] == counts[2] == 0
    assert (counts[[1, 3, 4]] - 3000).abs().max() < 250


def test_autocast_leaves_the_cosines_in_full_precision() -> None:
    current, previous, bank, memory, indices, features = (t.float() if t.is_floating_point() else t for t in case(2))
    _, negative = pair_sets(current, previous, indices)
    columns = negative.any(dim=0).nonzero().flatten()
    hsd = (features, memory, current[indices], bank[indices], bank[columns], negative[:, columns])
    ppa = (features, features.flip(0), memory, memory.roll(1, dims=1))
    plain = hard_sample_deduction(*hsd), positive_pair_alignment(*ppa)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = hard_sample_deduction(*hsd), positive_pair_alignment(*ppa)
    assert plain == mixed
