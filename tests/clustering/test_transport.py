"""Matching by optimal transport: the plan by loops, row sums first, and what counts as a match."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gloam.clustering.correspondence import sinkhorn_assignment


def _plan(visible: Tensor, infrared: Tensor, temperature: float, iterations: int) -> list[list[float]]:
    """``exp(-(1 - cosine) / temperature)``, then rows and columns in turn, each divided by its sum + 1e-8."""
    units = [[row / row.norm() for row in rows] for rows in (visible, infrared)]
    plan = [[math.exp((float(a @ b) - 1) / temperature) for b in units[1]] for a in units[0]]
    for _ in range(iterations):
        plan = [[x / (sum(row) + 1e-8) for x in row] for row in plan]
        totals = [sum(column) + 1e-8 for column in zip(*plan, strict=True)]
        plan = [[x / total for x, total in zip(row, totals, strict=True)] for row in plan]
    return plan


def _best(rows: list[list[float]], minimum: float) -> list[int]:
    return [max(range(len(row)), key=lambda j: row[j]) if max(row) > minimum else -1 for row in rows]


def _directions(plan: list[list[float]], minimum: float) -> tuple[list[int], list[int]]:
    return _best(plan, minimum), _best([list(column) for column in zip(*plan, strict=True)], minimum)


def _prototypes(seed: int, visible: int, infrared: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    # A common direction: all are alike, so that many compete for the same partner.
    shared = torch.randn(1, 6, generator=generator, dtype=torch.float64)
    return tuple(
        2 * shared + torch.randn(count, 6, generator=generator, dtype=torch.float64) for count in (visible, infrared)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("iterations", [1, 2, 10])
@pytest.mark.parametrize("temperature", [0.05, 0.3])
def test_maps_are_those_of_the_loops(iterations: int, temperature: float) -> None:
    for seed in range(12):
        sets = _prototypes(seed, 9, 5 + seed % 7)
        for minimum in (1e-4, 0.3):
            expected = _directions(_plan(*sets, temperature, iterations), minimum)
            found = sinkhorn_assignment(*sets, temperature=temperature, iterations=iterations, minimum=minimum)
            assert tuple(partner.tolist() for partner in found) == expected


def test_columns_have_the_last_word() -> None:
    """Two visible identities want one infrared: after one round each column sums to 1, so rows do not."""
    visible, infrared = torch.eye(3)[[0, 0, 1]].double(), torch.eye(3)[[0, 1]].double()
    forward, backward = sinkhorn_assignment(visible, infrared, iterations=1, minimum=0.6)
    assert (forward.tolist(), backward.tolist()) == ([-1, -1, 1], [-1, 2])
    forward, _ = sinkhorn_assignment(visible, infrared, iterations=1, minimum=0.4)
    assert forward.tolist() == [0, 0, 1]


def test_defaults_are_ten_rounds_at_a_twentieth() -> None:
    """They decide: other rounds or temperatures give other maps on some of these sets."""
    differing = {"rounds": 0, "temperature": 0}
    for seed in range(40):
        sets = _prototypes(seed, 8, 12)
        found = tuple(partner.tolist() for partner in sinkhorn_assignment(*sets, minimum=0.3))
        assert found == _directions(_plan(*sets, 0.05, 10), 0.3)
        differing["rounds"] += found != _directions(_plan(*sets, 0.05, 3), 0.3)
        differing["temperature"] += found != _directions(_plan(*sets, 0.1, 10), 0.3)
    assert min(differing.values()) > 0


def test_a_mass_that_is_too_small_is_no_match() -> None:
    """The smallest mass is 1e-4: with 200 alike partners everybody gets 1/200, with 20,000 nobody does."""
    for count, partner in ((200, 0), (20_000, -1)):
        forward, backward = sinkhorn_assignment(torch.ones(count, 2).double(), torch.ones(1, 2).double())
        assert backward.tolist() == [partner]
        assert forward.unique().tolist() == [partner]
