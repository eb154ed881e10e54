"""Memories of unsupervised methods: one unit row per cluster, or one per training image.

Updates are explicit calls after the optimiser step; the loss before them has seen the old rows. With several processes
every one applies the rows of all, so memories stay equal.

*Source*: ``models/cm.py`` of Cluster Contrast and MetaPRD, ``models/hm.py`` of SpCL.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from gloam.precision import at_least_float32

MemoryUpdate = Literal["mean", "hard"]


class Memory(nn.Module):
    """Rows that travel with checkpoints although their number changes from epoch to epoch.

    Args:
        width: D.
        momentum: weight of the old row.
    """

    rows: Tensor

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("rows", torch.empty(0, width))

    def __len__(self) -> int:
        return len(self.rows)

    @torch.no_grad()
    def replace(self, rows: Tensor) -> None:
        """Hold these rows ``(M, D)``, normalised, from now on."""
        self.rows = normalize(at_least_float32(rows.detach()), dim=1, eps=1e-12).to(self.rows.device)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *more: Any) -> None:
        resize_buffers(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *more)


class ClusterMemory(Memory):
    """One unit prototype per cluster, C of this epoch: 4 C D bytes (700 x 2048: 6 MB).

    Args:
        width: D.
        momentum: weight of the old row; 0.1 in all published commands.
        update: ``mean``: every sample in batch order; ``hard``: one step per cluster towards its least similar sample.
    """

    def __init__(self, width: int, momentum: float = 0.1, update: MemoryUpdate = "mean") -> None:
        super().__init__(width, momentum)
        self.kind = update

    @torch.no_grad()
    def initialise(self, features: Tensor, labels: Tensor) -> None:
        """Normalised means of the unit features of every cluster.

        Args:
            features: ``(N, D)``.
            labels: ``(N,)`` 0..C-1; -1 rows are ignored.
        """
        self.replace(cluster_means(features, labels))

    @torch.no_grad()
    def update(self, features: Tensor, labels: Tensor) -> None:
        """Move the rows of a batch's clusters; called after the optimiser step, once per batch.

        Args:
            features: ``(B, D)`` detached.
            labels: ``(B,)``.
        """
        features, labels = gather_rows(features, labels)
        units = normalize(features.to(self.rows.dtype), dim=1, eps=1e-12)
        step = update_hardest if self.kind == "hard" else update_in_order
        step(self.rows, units, labels, self.momentum)


class InstanceMemory(Memory):
    """One unit row per training image: 4 N D bytes (MSMT17 x 2048: 0.27 GB).

    Args:
        width: D.
        momentum: weight of the old row; 0 overwrites it (MetaPRD's bank), 0.2 in SpCL.
    """

    @torch.no_grad()
    def update(self, features: Tensor, indices: Tensor) -> None:
        """Move the rows of a batch's images, in batch order.

        Args:
            features: ``(B, D)`` detached.
            indices: ``(B,)`` positions in the training records; they may repeat.
        """
        features, indices = gather_rows(features, indices)
        units = normalize(features.to(self.rows.dtype), dim=1, eps=1e-12)
        update_in_order(self.rows, units, indices, self.momentum)


def cluster_means(features: Tensor, labels: Tensor) -> Tensor:
    """Normalised mean of the unit rows of every label 0..C-1: ``(N, D), (N,)`` -> ``(C, D)``; -1 is left out."""
    known = labels >= 0
    units, groups = normalize(at_least_float32(features[known]), dim=1, eps=1e-12), labels[known]
    count = int(groups.max()) + 1 if len(groups) else 0
    sums = units.new_zeros(count, units.shape[1]).index_add_(0, groups, units)
    sizes = torch.bincount(groups, minlength=count)
    return normalize(sums / sizes[:, None].clamp_min(1), dim=1, eps=1e-12)


def occurrences(slots: Tensor) -> Tensor:
    """How many earlier entries have the same value: ``(B,)`` -> ``(B,)``."""
    order = torch.argsort(slots, stable=True)
    ordered = slots[order]
    starts = torch.searchsorted(ordered, ordered)
    numbers = torch.empty_like(slots)
    numbers[order] = torch.arange(len(slots), device=slots.device) - starts
    return numbers


def update_in_order(rows: Tensor, units: Tensor, slots: Tensor, momentum: float) -> None:
    """``rows[s] <- normalise(momentum rows[s] + (1 - momentum) unit)``, sample after sample, in place.

    Different slots do not touch each other, so the r-th samples of all slots move together: as many steps as the
    largest number of samples of one slot.
    """
    numbers = occurrences(slots)
    for number in range(int(numbers.max()) + 1 if len(numbers) else 0):
        chosen = numbers == number
        moved = momentum * rows[slots[chosen]] + (1 - momentum) * units[chosen]
        rows[slots[chosen]] = normalize(moved, dim=1, eps=1e-12)


def update_hardest(rows: Tensor, units: Tensor, slots: Tensor, momentum: float) -> None:
    """One step per slot towards its sample with the smallest dot product (the first on ties), in place."""
    similarities = (units * rows[slots]).sum(dim=1)
    order = torch.argsort(similarities, stable=True)
    order = order[torch.argsort(slots[order], stable=True)]
    chosen = order[occurrences(slots[order]) == 0]
    moved = momentum * rows[slots[chosen]] + (1 - momentum) * units[chosen]
    rows[slots[chosen]] = normalize(moved, dim=1, eps=1e-12)


def gather_rows(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The rows of all processes, in order of their rank; unchanged with one process. Batches are equally long."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return tensors
    gathered = []
    for tensor in tensors:
        parts = [torch.empty_like(tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, tensor.contiguous())
        gathered.append(torch.cat(parts))
    return tuple(gathered)


def resize_buffers(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Give a module's own buffers the shapes they have in a checkpoint; to be called from _load_from_state_dict."""
    for name, buffer in list(module.named_buffers(recurse=False)):
        stored = state_dict.get(prefix + name)
        if stored is not None and stored.shape != buffer.shape:
            setattr(module, name, buffer.new_empty(stored.shape))
