"""Batch-norm statistics over groups of rows, so that one device repeats the statistics of several.

*Source*: the commands of the Cluster Contrast release: batches of 256 were spread over four GPUs by DataParallel, which
normalises each share of 64 by its own mean and variance (docs/methods/cluster_contrast.md).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm
from torch.nn.modules.batchnorm import _BatchNorm

from gloam.errors import GloamError


def group_batch_norm(module: nn.Module, rows: int) -> nn.Module:
    """Make every batch norm inside a module normalise groups of ``rows`` rows in training.

    Parameters, buffers and their names stay, and so does evaluation. Running statistics follow the first group only, as
    DataParallel keeps those of its first device. Calling it again changes the group size.

    Args:
        module: changed in place.
        rows: rows of the layer's input per group, at least 2: samples, or frames where clips are flattened. A
            remainder of one row joins the group before it.

    Returns:
        The module.

    Raises:
        GloamError: groups of one row have no variance.
    """
    if rows < 2:
        raise GloamError(f"train.bn_group is {rows}; a group needs at least 2 rows to have a variance.")
    for child in module.modules():
        if isinstance(child, _BatchNorm) and not isinstance(child, nn.SyncBatchNorm):
            # Subclasses that only change the initial values (BNNeck) count too.
            grouped = next(
                (
                    g
                    for plain, g in _GROUPED.items()
                    if type(child).forward is plain.forward and isinstance(child, plain)
                ),
                None,
            )
            if grouped is not None and not isinstance(child, _Grouped):
                # The layer object stays, so optimisers, hooks and shared references keep working.
                child.__class__ = grouped
            if isinstance(child, _Grouped):
                child.rows = rows
    return module


class _Grouped(_BatchNorm):
    """What the grouped layers share."""

    rows: int

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each group by its own statistics; in evaluation, and for a single group, as the plain layer."""
        groups = _split(input, self.rows)
        if not self.training or len(groups) == 1:
            return super().forward(input)
        first = super().forward(groups[0])
        others = [
            batch_norm(part, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps)
            for part in groups[1:]
        ]
        return torch.cat([first, *others])


class GroupedBatchNorm1d(_Grouped, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over groups of rows."""


class GroupedBatchNorm2d(_Grouped, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over groups of rows."""


class GroupedBatchNorm3d(_Grouped, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` over groups of rows."""


_GROUPED: dict[type[nn.Module], type[_Grouped]] = {
    nn.BatchNorm1d: GroupedBatchNorm1d,
    nn.BatchNorm2d: GroupedBatchNorm2d,
    nn.BatchNorm3d: GroupedBatchNorm3d,
}


def _split(rows: Tensor, size: int) -> list[Tensor]:
    """Groups of ``size`` rows; a last group of one row joins the one before."""
    sizes = [size] * (len(rows) // size)
    rest = len(rows) - sum(sizes)
    if rest > 1 or not sizes:
        sizes.append(rest)
    elif rest == 1:
        sizes[-1] += 1
    return list(rows.split(sizes))
