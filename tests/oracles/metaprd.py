"""HSD, PPA and memory updates as loops over samples (docs/methods/metaprd.md)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def mean_update(rows: Tensor, units: Tensor, labels: Tensor, momentum: float) -> Tensor:
    rows = rows.clone()
    for x, y in zip(units, labels.tolist(), strict=True):
        rows[y] = normalize(momentum * rows[y] + (1 - momentum) * x, dim=0)
    return rows


def hard_update(rows: Tensor, units: Tensor, labels: Tensor, momentum: float) -> Tensor:
    old, rows = rows, rows.clone()
    for y in set(labels.tolist()):
        members = [b for b, label in enumerate(labels.tolist()) if label == y]
        hardest = min(members, key=lambda b: float(units[b] @ old[y]))
        rows[y] = normalize(momentum * old[y] + (1 - momentum) * units[hardest], dim=0)
    return rows


def pairs_of(current: Tensor, previous: Tensor, index: int) -> tuple[list[int], list[int]]:
    now, before = current == current[index], previous == previous[index]
    return torch.nonzero(now & ~before).flatten().tolist(), torch.nonzero(before & ~now).flatten().tolist()


def hsd(x: Tensor, memory: Tensor, labels: list[int], drawn: Tensor, negatives: list[Tensor]) -> Tensor:
    alpha, weight, tau = 0.2, 0.05, 0.05
    mixed = memory.clone()
    for b, c in enumerate(labels):
        mixed[c] = alpha * drawn[b] + (1 - alpha) * mixed[c]
    total = x.new_zeros(())
    for b, c in enumerate(labels):
        own = (x[b] @ mixed[c] / tau).exp()
        others = sum((x[b] @ memory[k] / tau).exp() for k in range(len(memory)) if k != c)
        hard = sum((weight * (x[b] @ h / tau).exp() for h in negatives[b]), x.new_zeros(()))
        total = total - (own / (own + others + hard)).log()
    return total / len(labels)


def mixed_memory(
    memory: Tensor, labels: list[int], positives: Tensor, negatives: list[list[tuple[int, Tensor]]], rate: float = 0.1
) -> Tensor:
    mixed = memory.clone()
    for b, c in enumerate(labels):
        mixed[c] = normalize(rate * positives[b] + (1 - rate) * mixed[c], dim=0)
        for label, h in negatives[b]:
            if label < len(memory) and label != c:
                mixed[label] = normalize(rate * h + (1 - rate) * mixed[label], dim=0)
    return mixed
