"""Distances between features, one block of queries at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from gloam.errors import GloamError, did_you_mean

Metric = Literal["cosine", "euclidean"]

BLOCK_BYTES = 64 * 2**20  # distances held at a time


def as_features(values: Any, name: str = "features") -> Tensor:
    """A matrix of features as a tensor, without a copy where possible.

    Args:
        values: ``(N, D)`` NumPy (also a memory map) or torch, any float type, any device.
        name: for messages.

    Raises:
        GloamError: not a matrix.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    else:
        with warnings.catch_warnings():
            # A read-only memory map is fine: nothing here writes into its input.
            warnings.filterwarnings("ignore", message=".*not writable.*")
            tensor = torch.as_tensor(np.asarray(values))
    if tensor.ndim != 2:
        raise GloamError(f"{name} must have shape (N, D), not {tuple(tensor.shape)}.")
    return tensor


def block_rows(columns: int) -> int:
    """Queries per block, so that one block of float32 distances takes at most ``BLOCK_BYTES``."""
    return max(BLOCK_BYTES // (4 * max(columns, 1)), 1)


def distance_blocks(
    query_features: Any, gallery_features: Any, metric: Metric = "cosine"
) -> Iterator[tuple[int, Tensor]]:
    """Yield the distances of some queries at a time. The tensor is reused: copy it to keep it.

    Cosine distances are negative inner products of unit vectors, with norms not below 1e-12. The gallery is not copied:
    its norms divide the product. Products are float32, also under autocast.

    Args:
        query_features: ``(Q, D)`` NumPy or torch, CPU or GPU.
        gallery_features: ``(G, D)``; the work is done on its device, or on the queries' if that is a GPU.
        metric: ``cosine``, or ``euclidean`` for squared Euclidean distances (which rank alike).

    Yields:
        Number of the first query, and ``(n, G)`` float32 distances of at most 64 MiB.

    Raises:
        GloamError: features of different widths, or an unknown metric.
    """
    query, gallery = as_features(query_features, "query_features"), as_features(gallery_features, "gallery_features")
    if query.shape[1] != gallery.shape[1]:
        raise GloamError(
            f"Query features have {query.shape[1]} numbers, gallery features {gallery.shape[1]}. Both must come from "
            "one model and one of its features."
        )
    if metric not in get_args(Metric):
        raise GloamError(f"There is no metric {metric!r}. {did_you_mean(str(metric), get_args(Metric))}")
    device = gallery.device if gallery.device.type != "cpu" else query.device
    gallery = gallery.to(device=device, dtype=torch.float32)
    rows = block_rows(len(gallery))
    norms = _norms(gallery)
    scale = norms.clamp_(min=1e-12).reciprocal_().neg_() if metric == "cosine" else norms.square_()
    # One reused block: a fresh 64 MiB per step would be returned to the system each time.
    out = torch.empty(min(rows, len(query)), len(gallery), device=device)
    for first in range(0, len(query), rows):
        part = query[first : first + rows].to(device=device, dtype=torch.float32)
        block = out[: len(part)]
        _fill(block, part, gallery, scale, metric)
        yield first, block


@torch.no_grad()
def _fill(block: Tensor, query: Tensor, gallery: Tensor, scale: Tensor, metric: Metric) -> None:
    with torch.autocast(block.device.type, enabled=False):
        if metric == "cosine":
            torch.mm(torch.nn.functional.normalize(query, dim=1, eps=1e-12), gallery.T, out=block)
            block.mul_(scale)
        else:
            torch.mm(query, gallery.T, out=block)
            block.mul_(-2).add_(scale).add_(query.square().sum(dim=1)[:, None])


@torch.no_grad()
def _norms(features: Tensor) -> Tensor:
    """``(N,)`` without a squared copy of all features."""
    rows = block_rows(features.shape[1])
    parts = [torch.linalg.vector_norm(part, dim=1) for part in features.split(rows)]
    return torch.cat(parts) if parts else torch.empty(0, device=features.device)
