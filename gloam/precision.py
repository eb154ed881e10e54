"""Keeping sums and exponentials out of half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """``x`` in float32, or unchanged if it is already float32 or float64."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def dot_products(x: Tensor, y: Tensor) -> Tensor:
    """``x @ y.mT`` in float32 or better; autocast would multiply unit rows in half precision.

    Args:
        x: ``(..., n, D)``.
        y: ``(..., m, D)``.

    Returns:
        ``(..., n, m)``.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        return at_least_float32(x) @ at_least_float32(y).mT
