"""The nearest gallery entries of every query, and the nearest columns of given distances."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gloam.errors import GloamError
from gloam.search.arrays import as_whole_number, check_same_width
from gloam.search.blocks import map_blocks
from gloam.search.distances import Metric, check_metric
from gloam.search.exact import NOTHING_HIDDEN, Hidden, compiled_loops, exact_search
from gloam.search.kinds import COSINE, ROOT
from gloam.search.points import as_points

# Entries that queries first..stop-1 may not see: (stop - first, G) bool, or None for no entry.
Exclude = Callable[[int, int], Any]

_BLOCK_ROWS = 4096  # queries at a time
_MASK_BYTES = 1 << 26  # of the entries hidden from them
_LARGEST_RESULT = 10**8  # padded entries


def nearest(
    query: Any, gallery: Any, top: int, *, metric: Metric = "cosine", exclude: Exclude | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The ``top`` nearest gallery entries of every query: exact (see ``exact.py``), never Q x G in memory.

    Args:
        query: ``(Q, D)`` features, NumPy or torch, CPU or GPU, of any scale; read as float32.
        gallery: ``(G, D)``; the work is done on its device, or on the queries' if that is a GPU.
        top: entries per query.
        metric: ``cosine`` for distances ``1 - cos`` in [0, 2], at which a row of zeros is at 1 from everything;
            ``euclidean`` for Euclidean distances (not squared).
        exclude: ``exclude(first, stop)`` returns the gallery entries that queries ``first`` .. ``stop - 1`` may not
            see, ``(stop - first, G)`` bool, NumPy or torch, or None if they see all. It is asked block by block.

    Returns:
        ``(Q, top)`` int64 indices, nearest first, ties by index, and ``(Q, top)`` float32 distances. A query that sees
        fewer entries ends in -1 at infinity.

    Raises:
        GloamError: features that do not fit, NaN or infinite entries, an empty gallery, an unknown metric, ``top``
            below 1, or an ``exclude`` of another shape.
    """
    check_metric(metric)
    points, queries = as_points(gallery, metric, "gallery"), as_points(query, metric, "query")
    check_same_width(queries.values, points.values)
    if len(points) == 0:
        raise GloamError("The gallery is empty (0 rows), so there is nothing to find. Check the list of images.")
    top = as_whole_number(top, "top, the number of entries per query,", largest=2**31 - 1)
    if top > len(points) and len(queries) * top > _LARGEST_RESULT:
        raise GloamError(f"top is {top}, but the gallery has {len(points)} entries. Ask for at most as many.")
    if exclude is not None and not callable(exclude):
        raise GloamError("exclude must be a function exclude(first, stop) that returns a (stop - first, G) bool mask.")
    device = points.values.device if not points.on_cpu else queries.values.device
    points, queries = points.to(device), queries.to(device)
    indices = np.full((len(queries), top), -1, dtype=np.int64)
    distances = np.full((len(queries), top), np.inf, dtype=np.float32)
    if len(queries) == 0:
        return indices, distances
    k = min(top, len(points))
    search = exact_search(points, k, COSINE if metric == "cosine" else ROOT, queries)
    rows = _BLOCK_ROWS if exclude is None else max(1, min(_BLOCK_ROWS, _MASK_BYTES // len(points)))
    for first in range(0, len(queries), rows):
        stop = min(first + rows, len(queries))
        hidden = NOTHING_HIDDEN if exclude is None else _mask(exclude(first, stop), stop - first, len(points))
        found = search.find(queries.take(np.arange(first, stop)), hidden)
        indices[first:stop, :k], distances[first:stop, :k] = found
    if not np.isfinite(distances[indices >= 0]).all():
        raise GloamError("Some distances exceed float32. Divide all features by one number: that changes no order.")
    return indices, distances


def nearest_columns(distances: Tensor, count: int, hidden: Tensor | None = None) -> Tensor:
    """The nearest columns of every row of given distances in order, ties by index; only candidates are sorted.

    Args:
        distances: ``(n, G)`` float, smaller is nearer; infinite and NaN entries are never found.
        count: how many.
        hidden: ``(n, G)`` bool: entries that are not to be found.

    Returns:
        ``(n, count)`` int64 on the distances' device; -1 where there are no more.
    """
    if not _compiled(distances):
        return _nearest_on_device(distances, count, hidden)
    found = torch.empty((len(distances), count), dtype=torch.int64)
    mask = NOTHING_HIDDEN if hidden is None else np.ascontiguousarray(hidden.numpy())
    if distances.ndim != 2 or (hidden is not None and hidden.shape != distances.shape):
        raise ValueError(f"distances of shape {tuple(distances.shape)}, hidden entries of shape {mask.shape}")
    values, places = np.ascontiguousarray(distances.detach().numpy()), found.numpy()
    if count:
        for _ in map_blocks(partial(compiled_loops().nearest_of_rows, values, mask, places), len(values), 64):
            pass
    return found


def _nearest_on_device(distances: Tensor, count: int, hidden: Tensor | None) -> Tensor:
    """All that lie before the count-th distance, and of those at it the first ones."""
    rows, columns = distances.shape
    seen = torch.isfinite(distances) if hidden is None else torch.isfinite(distances) & ~hidden
    values = distances.masked_fill(~seen, torch.inf)
    width = min(count, columns)
    result = torch.full((rows, count), -1, dtype=torch.int64, device=distances.device)
    if width == 0 or rows == 0:
        return result
    limits = values.topk(width, dim=1, largest=False).values.amax(dim=1, keepdim=True)
    nearer = values < limits
    level = values == limits
    room = width - nearer.sum(dim=1, keepdim=True)
    chosen = nearer | (level & (level.cumsum(dim=1) <= room))
    places = chosen.nonzero()[:, 1].view(rows, width)
    order = values.gather(1, places).sort(dim=1, stable=True).indices
    places = places.gather(1, order)
    result[:, :width] = torch.where(seen.gather(1, places), places, -1)
    return result


def _compiled(distances: Tensor) -> bool:
    """Whether the compiled loops can read a tensor; tests replace this to run the way of GPUs on CPUs."""
    return distances.device.type == "cpu"


def _mask(given: Any, rows: int, columns: int) -> Hidden:
    if given is None:
        return NOTHING_HIDDEN
    mask = given.detach().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    if mask.dtype != np.bool_ or mask.shape != (rows, columns):
        raise GloamError(
            f"exclude must return a bool mask of shape {(rows, columns)} for {rows} queries and {columns} gallery "
            f"entries, not {mask.dtype} of shape {mask.shape}."
        )
    return np.ascontiguousarray(mask)
