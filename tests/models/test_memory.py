from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from gloam.models.memory import ClusterMemory, InstanceMemory, occurrences
from tests.oracles.metaprd import hard_update, mean_update


def units(seed: int, count: int, width: int = 7) -> torch.Tensor:
    return normalize(
        torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1
    )


@pytest.mark.parametrize("kind", ["mean", "hard"])
def test_updates_are_those_of_the_loop_with_repeated_classes(kind: str) -> None:
    memory = ClusterMemory(7, 0.1, kind).double()
    expected = units(0, 4)
    memory.replace(expected)
    for step in range(1, 5):
        x, labels = units(step, 10), torch.tensor([2, 0, 2, 2, 1, 0, 1, 1, 2, 0])
        expected = (mean_update if kind == "mean" else hard_update)(expected, x, labels, 0.1)
        memory.update(x, labels)
        torch.testing.assert_close(memory.rows, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(memory.rows[3], units(0, 4)[3])


def test_of_equally_hard_samples_the_first_moves_the_row() -> None:
    memory = ClusterMemory(2, 0.5, "hard")
    memory.replace(torch.tensor([[1.0, 0.0]]))
    memory.update(torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.tensor([0, 0]))
    assert memory.rows[0, 1] > 0


def test_prototypes_are_normalised_means_without_outliers() -> None:
    memory = ClusterMemory(2)
    memory.initialise(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.6, 0.8]]), torch.tensor([0, 0, -1, 1]))
    torch.testing.assert_close(memory.rows, torch.tensor([[0.5**0.5, 0.5**0.5], [0.6, 0.8]]))


def test_without_momentum_the_bank_is_overwritten_and_the_last_copy_wins() -> None:
    bank = InstanceMemory(7, 0.0).double()
    bank.replace(units(0, 5))
    x = units(1, 3)
    bank.update(x, torch.tensor([4, 1, 4]))
    torch.testing.assert_close(bank.rows[[1, 4]], x[[1, 2]])


def test_occurrence_numbers() -> None:
    assert occurrences(torch.tensor([3, 1, 3, 3, 1])).tolist() == [0, 0, 1, 2, 1]


def test_a_fresh_memory_takes_the_rows_of_a_checkpoint_whatever_their_number() -> None:
    memory, fresh = ClusterMemory(7), ClusterMemory(7)
    memory.replace(units(0, 9).float())
    fresh.load_state_dict(memory.state_dict())
    assert torch.equal(fresh.rows, memory.rows)
    assert len(fresh) == 9
