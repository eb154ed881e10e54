"""Features of many records through a method's one inference path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize as unit_length

from gloam.augmentation.augmenter import normalize
from gloam.batches.clips import FixedFrames, count_clips
from gloam.batches.loaders import test_loader
from gloam.datasets import Record
from gloam.errors import GloamError, fitting, smaller
from gloam.methods.contract import Method
from gloam.pixels.store import PixelStore
from gloam.progress import track

Function = Callable[[Tensor, Tensor], Tensor]
_MOST_AXES = 8  # of what a function may return per record


@torch.no_grad()
def extract_features(
    method: Method[Any],
    records: Sequence[Record],
    store: PixelStore,
    *,
    function: Function | None = None,
    batch_size: int = 64,
    mirror: bool = False,
    frames: int | None = None,
    frame_choice: FixedFrames = "evenly",
    workers: int = 0,
    device: torch.device | str = "cpu",
    precision: torch.dtype | None = None,
    progress: str | None = None,
    rank: int = 0,
    world_size: int = 1,
    gather: Callable[[Tensor], Tensor] | None = None,
    indices: NDArray[np.int64] | None = None,
) -> Tensor:
    """Stack ``function(images, modalities)`` over records, in order.

    Args:
        method: put into evaluation mode for the call and back afterwards.
        records: N samples.
        store: their pixels.
        function: ``(n, 3, H, W) or (n, T, 3, H, W), (n,) -> (n, ...)``; default ``method.extract``.
        batch_size: samples per forward pass.
        mirror: mean of the image's and its mirror image's output, scaled back to unit length.
        frames: clip length for tracklets.
        frame_choice: which frames of a tracklet make a clip. ``all``: the mean over the clips that hold all of them,
            scaled back to unit length.
        workers: loader processes.
        device: where to compute.
        precision: dtype of an autocast region, or None for float32.
        progress: text of a progress bar, or None for no bar.
        rank: this process; it computes the rank-th of ``world_size`` blocks.
        world_size: number of processes.
        gather: stacks every process's equally shaped tensor ``(n, ...)`` to ``(world_size, n, ...)``.
        indices: ``(n,)`` only these records, in this order; default all.

    Returns:
        ``(N, ...)`` float32 on the CPU, the same for every process. Memory: the result and one batch.

    Raises:
        GloamError: a batch size below 1.
    """
    if batch_size < 1:
        raise GloamError(f"The batch size is {batch_size}; a forward pass takes at least one record.")
    was_training = method.training
    method.eval()
    chosen = np.arange(len(records)) if indices is None else indices
    share = -(-len(chosen) // world_size)
    mine = chosen[rank * share : (rank + 1) * share]
    loader = test_loader(
        records,
        store,
        batch_size=batch_size,
        frames=frames,
        frame_choice=frame_choice,
        workers=workers,
        indices=mine,
    )
    compute = fitting(function or method.extract, f"Try a batch size of {smaller(batch_size)} (--batch-size).")
    lengths = np.fromiter((len(records[i].paths) for i in mine), np.int64, len(mine))
    # Whose clip each row of a batch is; a batch may end inside a tracklet.
    owners = torch.from_numpy(np.repeat(np.arange(len(mine)), count_clips(lengths, frames, frame_choice)))
    # One tensor from the first batch on: joining parts at the end would hold the result twice.
    found: Tensor | None = None
    filled = 0
    try:
        for loaded in track(loader, progress, total=len(owners), weigh=len):
            batch = loaded.to(device)
            images = batch.images if method.takes_pixels else normalize(batch.images)
            with torch.autocast(torch.device(device).type, dtype=precision, enabled=precision is not None):
                output = compute(images, batch.modalities)
                if mirror:
                    output = unit_length(output + compute(images.flip(-1), batch.modalities), dim=1, eps=1e-12)
            if found is None:
                found = torch.zeros(len(mine), *output.shape[1:])
            rows = owners[filled : filled + len(output)]
            if len(owners) == len(mine):
                found[rows] = output.to(found)
            else:
                found.index_add_(0, rows, output.to(found))
            filled += len(output)
    finally:
        method.train(was_training)
    if found is not None and len(owners) != len(mine):
        means = found / torch.bincount(owners).reshape(-1, *[1] * (found.ndim - 1))
        found = unit_length(means, dim=-1, eps=1e-12) if means.ndim > 1 else means
    if world_size == 1 or gather is None:
        return torch.zeros(0, 0) if found is None else found
    return _gather_shares(found, share, len(chosen), gather)


def _gather_shares(found: Tensor | None, share: int, total: int, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """Pad to equal shares, exchange, cut the padding off. A process without records still takes part."""
    sizes = torch.full((_MOST_AXES,), -1)
    if found is not None:
        sizes[: found.ndim - 1] = torch.tensor(found.shape[1:], dtype=torch.int64)
    shape = [int(size) for size in gather(sizes).amax(dim=0) if size >= 0]
    padded = torch.zeros(share, *shape)
    if found is not None:
        padded[: len(found)] = found
    return gather(padded).flatten(0, 1)[:total]
