"""Distances between features, one block of queries at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gloam.errors import GloamError
from gloam.precision import at_least_float32
from gloam.search.arrays import as_choice, as_features, check_finite, check_same_width

Metric = Literal["cosine", "euclidean"]

BLOCK_BYTES = 64 * 2**20  # distances held at a time
# Largest entries between which squares and products of float32 rows neither overflow nor vanish.
_SMALL, _LARGE = 2.0**-30, 2.0**50


def block_rows(columns: int) -> int:
    """Queries per block, so that one block of float32 distances takes at most ``BLOCK_BYTES``."""
    return max(BLOCK_BYTES // (4 * max(columns, 1)), 1)


def check_metric(metric: Any) -> Metric:
    """The metric, if there is one of this name.

    Raises:
        GloamError: an unknown metric.
    """
    return as_choice(metric, get_args(Metric), "metric")  # type: ignore[return-value]


def distance_blocks(
    query_features: Any, gallery_features: Any, metric: Metric = "cosine"
) -> Iterator[tuple[int, Tensor]]:
    """Yield the distances of some queries at a time. The tensor is reused: copy it to keep it.

    Cosine distances are negative inner products of unit vectors; they do not depend on the features' scale, and a zero
    row is at 0 from everything. The gallery is not copied: its norms divide the product. Products are float32, also
    under autocast.

    Args:
        query_features: ``(Q, D)`` NumPy or torch, CPU or GPU.
        gallery_features: ``(G, D)``; the work is done on its device, or on the queries' if that is a GPU.
        metric: ``cosine``, or ``euclidean`` for squared Euclidean distances (which rank alike). Where these would leave
            the range of float32 (features beyond 1e15 or all below 1e-9), all are divided by one power of two.

    Yields:
        Number of the first query, and ``(n, G)`` float32 distances of at most 64 MiB.

    Raises:
        GloamError: features of different widths, with NaN or infinite entries, or an unknown metric.
    """
    query, gallery = as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features")
    check_same_width(query, gallery)
    check_metric(metric)
    device = gallery.device if gallery.device.type != "cpu" else query.device
    largest = largest_entries(query, "query_features"), largest_entries(gallery, "gallery_features")
    unit = 1.0
    if metric == "cosine":
        if len(gallery) and bool((_out_of_range(largest[1]) & (largest[1] > 0)).any()):
            gallery = gallery / powers_of_two(largest[1])[:, None]
    elif (most := max((float(part.max()) for part in largest if len(part)), default=0.0)) > 0:
        unit = _common_unit(most)
    gallery = _in_units(gallery, unit).to(device=device, dtype=torch.float32)
    rows = block_rows(len(gallery))
    norms = _norms(gallery)
    scale = norms.clamp_(min=1e-12).reciprocal_().neg_() if metric == "cosine" else norms.square_()
    # One reused block: a fresh 64 MiB per step would be returned to the system each time.
    out = torch.empty(min(rows, len(query)), len(gallery), device=device)
    for first in range(0, len(query), rows):
        part = query[first : first + rows].to(device=device)
        part = unit_rows(part) if metric == "cosine" else _in_units(part, unit).to(torch.float32)
        block = out[: len(part)]
        _fill(block, part, gallery, scale, metric)
        yield first, block


@torch.no_grad()
def unit_rows(features: Tensor, name: str = "features", first: int = 0) -> Tensor:
    """Float32 rows of length 1, whatever their scale; rows of zeros stay.

    Every row is divided by a power of two near its largest entry first, so that no square overflows or vanishes.

    Args:
        features: ``(n, D)`` of a float type.
        name: for messages.
        first: number of the first row, for messages.

    Raises:
        GloamError: NaN or infinite entries.
    """
    part = at_least_float32(features)
    largest = torch.linalg.vector_norm(part, ord=torch.inf, dim=1)
    check_finite(largest, name, first)
    part = (part / powers_of_two(largest)[:, None]).to(torch.float32)
    return torch.nn.functional.normalize(part, dim=1, eps=1e-12)


@torch.no_grad()
def largest_entries(features: Tensor, name: str) -> Tensor:
    """``(N,)`` largest magnitude of every row, by blocks.

    Raises:
        GloamError: NaN or infinite entries.
    """
    rows = block_rows(features.shape[1])
    parts = [torch.linalg.vector_norm(at_least_float32(part), ord=torch.inf, dim=1) for part in features.split(rows)]
    largest = torch.cat(parts)
    check_finite(largest, name)
    return largest


def as_float32(features: Tensor, name: str) -> Tensor:
    """Features as float32.

    Raises:
        GloamError: finite numbers that float32 cannot hold.
    """
    found = features.to(torch.float32)
    if features.dtype == torch.float64 and len(features):
        largest = float(largest_entries(features, name).max())
        if largest > torch.finfo(torch.float32).max:
            raise GloamError(
                f"{name} reach {largest:.3g}, more than float32 holds. Divide all features by one number: that changes "
                "no order."
            )
    return found


def powers_of_two(values: Tensor) -> Tensor:
    """The power of two at or below each non-negative value (1 for 0, and never subnormal): dividing by it is exact."""
    mantissas, _ = torch.frexp(values)
    powers = (values / (2 * mantissas)).clamp(min=torch.finfo(values.dtype).tiny)
    return torch.where(values > 0, powers, torch.ones_like(values))


def _out_of_range(values: Tensor) -> Tensor:
    return (values < _SMALL) | (values > _LARGE)


def _common_unit(largest: float) -> float:
    if _SMALL <= largest <= _LARGE:
        return 1.0
    return float(powers_of_two(torch.tensor(largest, dtype=torch.float64)))


def _in_units(features: Tensor, unit: float) -> Tensor:
    return features if unit == 1 else features.double() / unit


@torch.no_grad()
def _fill(block: Tensor, query: Tensor, gallery: Tensor, scale: Tensor, metric: Metric) -> None:
    with torch.autocast(block.device.type, enabled=False):
        torch.mm(query, gallery.T, out=block)
        if metric == "cosine":
            block.mul_(scale)
        else:
            block.mul_(-2).add_(scale).add_(query.square().sum(dim=1)[:, None])


@torch.no_grad()
def _norms(features: Tensor) -> Tensor:
    """``(N,)`` without a squared copy of all features."""
    rows = block_rows(features.shape[1])
    return torch.cat([torch.linalg.vector_norm(part, dim=1) for part in features.split(rows)])
